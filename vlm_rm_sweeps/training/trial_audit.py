"""The audit of a trial over all its env runners."""

import functools
from collections.abc import Mapping
from typing import Any

from vlm_rm_sweeps.rewards.reward_model import RewardSpec
from vlm_rm_sweeps.training.audit import Audit, AuditPlan, AuditTally, Interval
from vlm_rm_sweeps.training.connectors.reward import reward_connectors
from vlm_rm_sweeps.training.env_runners import on_each_runner, with_each_runner

_LAST_POINT, _TALLIES = "_last_point", "tallies"


class TrialAudit:
    """Attaches a tally to each env runner that samples for a trainer, and collects them at the audit points.

    Args:
        trainer: RLlib's Algorithm object, whose env runners have a RewardConnector.
        plan: Configuration of the audit.
        spec: The trial's own spec, from which it learns.
        seed: The trial's seed.
    """

    def __init__(self, trainer: Any, plan: AuditPlan, spec: RewardSpec, seed: int) -> None:
        self._trainer = trainer
        self._audit = Audit(plan, spec, seed)
        on_each_runner(trainer, functools.partial(_attach_tally, plan=plan, seed=seed))

    def due(self, env_steps: int) -> bool:
        """Return whether the trial has reached an audit point."""
        return self._audit.due(env_steps)

    def point(self, env_steps: int) -> dict[str, float]:
        """Compute the metrics of all steps since the previous audit point, and wait for the gold models.

        Args:
            env_steps: Environment steps of the trial so far.

        Returns:
            Values by metric name; empty if there were no steps.
        """
        return self._audit.point(env_steps, on_each_runner(self._trainer, _take_interval))

    def take_remarks(self) -> list[str]:
        """Return, once, the remarks of the last audit point, see `Audit.take_remarks`."""
        return self._audit.take_remarks()

    def get_state(self) -> dict[str, Any]:
        """Return the last audit point and the state of each tally, for a checkpoint."""
        return {_LAST_POINT: self._audit.last_point, _TALLIES: on_each_runner(self._trainer, _get_tally_state)}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `get_state` returned."""
        self._audit.last_point = state[_LAST_POINT]
        # Version 0.1 saved the state of its only tally beside the last audit point.
        with_each_runner(self._trainer, _set_tally_state, state.get(_TALLIES, [state]))


def _attach_tally(env_runner: Any, plan: AuditPlan, seed: int) -> None:
    for connector in reward_connectors(env_runner):
        connector.tally = AuditTally(plan, seed + env_runner.worker_index)


def _tally(env_runner: Any) -> AuditTally:
    (tally,) = (connector.tally for connector in reward_connectors(env_runner))
    assert tally is not None
    return tally


def _take_interval(env_runner: Any) -> Interval:
    return _tally(env_runner).take()


def _get_tally_state(env_runner: Any) -> dict[str, Any]:
    return _tally(env_runner).get_state()


def _set_tally_state(env_runner: Any, state: Mapping[str, Any]) -> None:
    _tally(env_runner).set_state(state)
