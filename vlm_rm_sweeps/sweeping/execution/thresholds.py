"""Thresholds of a sweep that are quantiles: measured through the pools before the first trial, and kept in the journal."""

from collections.abc import Mapping

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.evaluation.thresholds import threshold_values
from vlm_rm_sweeps.serving.pool import PoolConfig, PoolError, RewardPool
from vlm_rm_sweeps.sweeping.config.plan import Plan
from vlm_rm_sweeps.sweeping.config.trial import Trial
from vlm_rm_sweeps.sweeping.tracking.folder import SweepFolder
from vlm_rm_sweeps.sweeping.tracking.journal import ThresholdsMeasured, read_entries


def stored_thresholds(folder: SweepFolder) -> dict[str, float]:
    """Return the thresholds that an earlier execution of the sweep measured, by trial id; none if there was none."""
    entries = [entry for entry in read_entries(folder.journal) if isinstance(entry, ThresholdsMeasured)]
    return entries[0].values if entries else {}


def measure_thresholds(plan: Plan, folder: SweepFolder, pools: Mapping[str, PoolConfig]) -> dict[str, float]:
    """Measure the thresholds of a sweep's trials, or take those that an earlier execution measured.

    Args:
        plan: The sweep.
        folder: Its folder, which need not exist yet.
        pools: The pool of each model, by model id. They must be running.

    Returns:
        The value of each trial whose reward needs one, by trial id.

    Raises:
        UserError: A data set cannot be used, or a reward is not finite.
    """
    stored = stored_thresholds(folder)
    waiting = _waiting(plan)
    values = {trial.trial_id: stored[trial.trial_id] for trial in waiting if trial.trial_id in stored}
    missing = [trial for trial in waiting if trial.trial_id not in values]
    for model_id in dict.fromkeys(trial.model_id for trial in missing):
        specs = {trial.trial_id: spec for trial in missing if trial.model_id == model_id and (spec := trial.spec())}
        unique = list(dict.fromkeys(specs.values()))
        try:
            measured = dict(zip(unique, threshold_values(RewardPool.connect(pools[model_id]), unique), strict=True))
        except PoolError as error:
            raise UserError(f"rewards: {error}") from error
        values |= {trial_id: measured[spec] for trial_id, spec in specs.items()}
    return values


def _waiting(plan: Plan) -> list[Trial]:
    return [trial for trial in plan.trials if trial.reward is not None and trial.reward.function.needs_states]
