"""Tune's schedulers, given only what may be compared, and asked for their reasons.

A scheduler sees greedy success, true return or EPIC distance, never the reward that a trial learns from. References take no part:
they neither are stopped nor raise what others are compared with. What earlier executions of the sweep recorded is repeated to the
scheduler first, in its order, so that a resumed sweep decides as an undisturbed one.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler
from ray.tune.stopper import Stopper, TimeoutStopper

from vlm_rm_sweeps.metrics import ENV_STEPS, EPIC_DISTANCE, EVALUATION, SMALLER_IS_BETTER, RunStatus
from vlm_rm_sweeps.serving.refused_nodes import refused_nodes
from vlm_rm_sweeps.sweeping.config.plan import Plan
from vlm_rm_sweeps.sweeping.config.stopping import RankBy, SchedulerSettings
from vlm_rm_sweeps.sweeping.tracking.journal import Entry, ResultLogged, ended_trials, stopped_trials
from vlm_rm_sweeps.sweeping.tracking.tune_callback import trial_of

_RANK = "rank"
_LOOK_S = 1.0
_SUCCESSOR_S = 60.0
"""Seconds in which a node that was lost may get a successor."""


@dataclass(frozen=True)
class _Ranked:
    """What Tune's schedulers need of a trial. Ours keep their id when the sweep is resumed, Tune's do not."""

    trial_id: str


@dataclass(frozen=True)
class Ranking:
    """What trials are compared by.

    Attributes:
        by: The metric.
        trials: Ids of the trials that are compared.
        measured: EPIC distance of each trial's reward, by trial id, if they are compared by it.
        prefix: What the metric's name starts with in results: `evaluation_` for the greedy policy.
    """

    by: RankBy
    trials: frozenset[str]
    measured: Mapping[str, float]
    prefix: str = EVALUATION

    def value(self, trial_id: str, metrics: Mapping[str, Any]) -> float | None:
        """Return a trial's value at a result, larger being better; None if it is not compared, or not at this result."""
        if trial_id not in self.trials:
            return None
        value = self.measured.get(trial_id) if self.by == EPIC_DISTANCE else metrics.get(self.prefix + self.by)
        return None if value is None else -value if self.by in SMALLER_IS_BETTER else value


class RankingScheduler(FIFOScheduler):
    """Stops trials by one of Tune's own schedulers.

    Args:
        settings: The scheduler of the sweep file.
        ranking: What trials are compared by.
        steps: Environment steps of a whole trial.

    Attributes:
        stopped: Why each trial that was stopped was, by trial id.
    """

    def __init__(self, settings: SchedulerSettings, ranking: Ranking, steps: int) -> None:
        super().__init__()
        self._settings, self._ranking, self._steps = settings, ranking, steps
        self._rule = _rule(settings, steps)
        self._seen: dict[str, int] = {}
        self.stopped: dict[str, str] = {}

    def decide(self, trial_id: str, step: int, metrics: Mapping[str, Any], last: bool = False) -> bool:
        """Show the scheduler a result.

        Args:
            trial_id: The trial's id in the sweep.
            step: Its environment steps.
            metrics: Metrics of the result. Without the one that trials are compared by, the trial goes on.
            last: Whether the trial has ended by itself.

        Returns:
            Whether the trial is to be stopped.
        """
        if trial_id in self.stopped:
            return True
        value = self._ranking.value(trial_id, metrics)
        # A trial that is retried from its last checkpoint repeats results.
        if value is None or step <= self._seen.get(trial_id, 0):
            return False
        ranked, result = _Ranked(trial_id), {ENV_STEPS: step, _RANK: value}
        if trial_id not in self._seen:
            self._rule.on_trial_add(None, ranked)
        self._seen[trial_id] = step
        stops = not last and step < self._steps and self._rule.on_trial_result(None, ranked, result) == TrialScheduler.STOP
        if stops or last or step >= self._steps:
            self._rule.on_trial_complete(None, ranked, result)
        if stops:
            self.stopped[trial_id] = self._reason(value, step)
        return stops

    def repeat(self, entries: Iterable[Entry]) -> None:
        """Show the scheduler what a journal has, in its order.

        Args:
            entries: Entries of the sweep's journal.
        """
        entries = list(entries)
        results = [entry for entry in entries if isinstance(entry, ResultLogged)]
        whole = {trial for trial, status in ended_trials(entries).items() if status == RunStatus.FINISHED}
        whole |= {trial for trial, stop in stopped_trials(entries).items() if stop.reached}
        last = {entry.trial: entry.uid for entry in results if entry.trial in whole}
        for entry in results:
            self.decide(entry.trial, entry.step, entry.metrics, last=last.get(entry.trial) == entry.uid)

    def _reason(self, value: float, step: int) -> str:
        by, kind = self._ranking.by, self._settings.kind
        shown = -value if by in SMALLER_IS_BETTER else value
        compared = f"{kind}: {by} {shown:.4g} at step {step:,}"
        if kind == "asha":
            return f"{compared} was not among the best, one in {self._settings.of_asha:g}, of the trials that had come so far"
        return f"{compared}; it never reached the median of the other trials' means"

    def on_trial_result(self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]) -> str:
        """Let Tune's scheduler decide, if there is something to compare."""
        stops = ENV_STEPS in result and self.decide(trial_of(trial).trial_id, int(result[ENV_STEPS]), result)
        return str(TrialScheduler.STOP if stops else TrialScheduler.CONTINUE)

    def on_trial_complete(self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]) -> None:
        """Show Tune's scheduler the last result, with which others are compared."""
        if ENV_STEPS in result:
            self.decide(trial_of(trial).trial_id, int(result[ENV_STEPS]), result, last=True)


def _rule(settings: SchedulerSettings, steps: int) -> Any:
    """Make one of Tune's schedulers that stop trials."""
    grace = settings.grace(steps)
    told: dict[str, Any] = {"time_attr": ENV_STEPS, "metric": _RANK, "mode": "max"}
    if settings.kind == "asha":
        # Whole trials end by themselves. With `stop_last_trials` a trial that has passed a rung would be judged at those below, too.
        return ASHAScheduler(**told, max_t=steps, grace_period=grace, reduction_factor=settings.of_asha, stop_last_trials=False)
    # It would pause trials while there are too few to compare; ours cannot be paused, and go on.
    never: Any = float("inf")
    return MedianStoppingRule(**told, grace_period=grace, min_samples_required=settings.of_median, min_time_slice=never)


def scheduler_of(plan: Plan, measured: Mapping[str, Mapping[str, float]], entries: Iterable[Entry]) -> RankingScheduler | None:
    """Make the scheduler of a sweep that stops trials.

    Args:
        plan: The sweep.
        measured: What was measured before training, by trial id.
        entries: What earlier executions recorded.

    Returns:
        The scheduler, which knows of earlier executions; None if the sweep has none, or a population (see `population.py`).
    """
    settings = plan.sweep.scheduler
    if settings is None or settings.kind == "pbt":
        return None
    compared = frozenset(trial.trial_id for trial in plan.trials if trial.prompt is not None)
    distances = {trial: metrics[EPIC_DISTANCE] for trial, metrics in measured.items() if EPIC_DISTANCE in metrics}
    scheduler = RankingScheduler(settings, Ranking(settings.by, compared, distances), plan.sweep.steps)
    scheduler.repeat(entries)
    return scheduler


class NodesLeft(Stopper):
    """Ends an execution when nodes have refused trials, and for a while no other has room for one.

    Args:
        has_room: Whether a trial fits on nodes that have refused none.
        wait_s: Seconds to wait for other nodes; a minute at least, because a node that was lost may get a successor.

    Attributes:
        is_over: Whether that has happened.
    """

    def __init__(self, has_room: Callable[[], bool], wait_s: float) -> None:
        self._has_room, self._wait_s = has_room, max(wait_s, _SUCCESSOR_S)
        self._had_room_at = self._looked_at = time.monotonic()
        self.is_over = False

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Stop no single trial."""
        return False

    def stop_all(self) -> bool:
        """Whether all trials are to end now."""
        now = time.monotonic()
        if now > self._looked_at + _LOOK_S:
            self._looked_at = now
            if not refused_nodes() or self._has_room():
                self._had_room_at = now
            self.is_over = self.is_over or now > self._had_room_at + self._wait_s
        return self.is_over


class TimeBudget(TimeoutStopper):
    """Ends an execution when its time is used up.

    Args:
        seconds: The time that it has, from its first trial on.

    Attributes:
        used_up: Whether that has happened.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.used_up = False

    def stop_all(self) -> bool:
        """Whether all trials are to end now."""
        self.used_up = bool(super().stop_all())
        return self.used_up
