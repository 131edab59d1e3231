"""Population-based training, decided by Tune's own scheduler, for trials that resume from checkpoints of their own.

Tune's `PopulationBasedTraining`, in its synchronous form, decides: it waits for the last sample, finds the quantiles, chooses whose
training is taken over, and explores. Ours is what it cannot know:

- A sample waits as a paused trial of Tune's. Pausing needs no snapshot of Tune's, as a trial has a checkpoint of its own there.
- Takeovers are entries of the journal, from which a resumed sweep goes on. Each of them is drawn by the search's seed, the trial and
  the step alone, so it does not matter which trials run at once, nor where a sweep was cut off.
- Values stay in their ranges. They are explored again if nothing has changed, because the two trainings would be the same to the bit.
- Who is as good as the one that it would take over keeps its own training.
"""

import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import FIFOScheduler, PopulationBasedTraining, TrialScheduler
from ray.tune.schedulers.pbt import _PBTTrialState

from vlm_rm_sweeps.metrics import COMPARED, ENV_STEPS, EVALUATION
from vlm_rm_sweeps.sweeping.config.plan import Plan
from vlm_rm_sweeps.sweeping.config.population import populations
from vlm_rm_sweeps.sweeping.config.searching import Drawn, Range
from vlm_rm_sweeps.sweeping.config.trial import Trial
from vlm_rm_sweeps.sweeping.execution.searching import domain_of
from vlm_rm_sweeps.sweeping.tracking.journal import Entry, TakenOver, taken_over
from vlm_rm_sweeps.sweeping.tracking.tune_callback import trial_of

_RANK = "rank"
_TRIES = 20
"""How often values are explored until one of them changes."""


@dataclass(frozen=True)
class Compared:
    """A sample at a step at which its population is compared.

    Attributes:
        trial_id: The trial's id.
        step: Its environment steps.
        value: Its success or true return there; None if it has none, and takes no part.
        values: What it trains with, by the keys of `search.space`.
    """

    trial_id: str
    step: int
    value: float | None
    values: Mapping[str, Drawn]


@dataclass(eq=False)
class _Member:
    """What Tune's scheduler needs of a paused trial."""

    trial_id: str
    config: dict[str, Drawn]
    checkpoint: int
    """Where it can be taken over. Tune asks only whether there is one."""
    experiment_tag: str = ""
    status: str = TuneTrial.PAUSED
    temporary_state: Any = field(default_factory=lambda: SimpleNamespace(saving_to=None))

    def is_finished(self) -> bool:
        return False


@dataclass(frozen=True)
class _Members:
    """What Tune's scheduler needs of Tune's controller."""

    members: list[_Member]

    def get_trials(self) -> list[_Member]:
        return self.members

    def get_live_trials(self) -> list[_Member]:
        return self.members


class _Decision(PopulationBasedTraining):
    """Tune's scheduler for one comparison, which notes takeovers in the place of making them.

    Args:
        plan: A sweep with population-based training.
        members: The samples to compare.
    """

    def __init__(self, plan: Plan, members: Iterable[_Member]) -> None:
        sweep = plan.sweep
        assert sweep.scheduler is not None
        assert sweep.search is not None
        assert sweep.compared_every is not None
        self._seed, self._space = sweep.search.seed, sweep.search.space
        quantile, resample = sweep.scheduler.of_pbt
        super().__init__(
            time_attr=ENV_STEPS,
            metric=_RANK,
            mode="max",
            perturbation_interval=sweep.compared_every,
            hyperparam_mutations={key: _mutation(plan, key) for key in self._space},
            quantile_fraction=quantile,
            resample_probability=resample,
            custom_explore_fn=self._within_ranges,
            log_config=False,
            synch=True,
        )
        # `on_trial_add` would look for Tune's checkpoints.
        self._trial_state = {member: _PBTTrialState(member) for member in members}  # type: ignore[arg-type, misc]
        self.takeovers: list[tuple[str, str, dict[str, Drawn]]] = []
        """Who takes over whose training, and what it goes on with."""

    def _within_ranges(self, values: dict[str, Drawn]) -> dict[str, Drawn]:
        """Keep numbers in their ranges, which multiplication leaves."""
        within = dict(values)
        for key, axis in self._space.items():
            value = values[key]
            if isinstance(axis, Range) and isinstance(value, int | float):
                within[key] = type(value)(min(max(value, axis.low), axis.high))
        return within

    def _checkpoint_or_exploit(self, trial: Any, *args: Any, **kwargs: Any) -> None:
        with _drawn_from(f"{self._seed} {trial.trial_id} {self._trial_state[trial].last_train_time}"):
            super()._checkpoint_or_exploit(trial, *args, **kwargs)

    def _exploit(self, tune_controller: Any, trial: Any, trial_to_clone: Any) -> None:
        if self._trial_state[trial].last_score == self._trial_state[trial_to_clone].last_score:
            return
        values = trial_to_clone.config
        for _ in range(_TRIES):
            values, _ = self._get_new_config(trial, trial_to_clone)
            if values != trial_to_clone.config:
                break
        self.takeovers.append((trial.trial_id, trial_to_clone.trial_id, values))


def _mutation(plan: Plan, key: str) -> Any:
    """Return what Tune explores a value by: a list of values, or a function that draws from a range."""
    assert plan.sweep.search is not None
    axis = plan.sweep.search.space[key]
    if not isinstance(axis, Range):
        return list(axis)
    domain = domain_of(plan, key)
    return lambda: domain.sample(random_state=random.getrandbits(32))


@contextmanager
def _drawn_from(seed: str) -> Iterator[None]:
    """Seed Python's random numbers, of which Tune's scheduler takes its own, and leave them as they were."""
    before = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before)


def decide(plan: Plan, compared: Sequence[Compared]) -> list[TakenOver]:
    """Let Tune's scheduler decide which samples take over the training of which others.

    Args:
        plan: A sweep with population-based training.
        compared: The samples of one population at a comparison, in the plan's order.

    Returns:
        The takeovers. They depend on the arguments alone.
    """
    known = {each.trial_id: each for each in compared}
    members = {
        each.trial_id: _Member(each.trial_id, dict(each.values), each.step)
        for each in compared
        if each.value is not None and math.isfinite(each.value)
    }
    decision = _Decision(plan, members.values())
    for trial_id, member in members.items():
        result = {ENV_STEPS: known[trial_id].step, _RANK: known[trial_id].value}
        decision.on_trial_result(_Members(list(members.values())), member, result)  # type: ignore[arg-type]
    return [
        TakenOver(trial=trial, step=known[trial].step, source=source, source_step=known[source].step, values=values)
        for trial, source, values in decision.takeovers
    ]


class PopulationScheduler(FIFOScheduler):
    """Pauses the samples of each population where they are compared, and starts them when that is decided.

    Args:
        plan: A sweep with population-based training.
        running: The trials that this execution runs.
        entries: What earlier executions recorded.
        take_over: Records takeovers that were decided together, each with its trial. Called before any of these trials goes on.
        configured: Returns the configuration of a trial for Tune, by its id, after its takeovers so far.
    """

    def __init__(
        self,
        plan: Plan,
        running: Iterable[Trial],
        entries: Iterable[Entry],
        take_over: Callable[[Sequence[tuple[Trial, TakenOver]]], None],
        configured: Callable[[Trial], dict[str, Any]],
    ) -> None:
        super().__init__()
        assert plan.sweep.scheduler is not None
        assert plan.sweep.compared_every is not None
        self._plan, self._take_over, self._configured = plan, take_over, configured
        self._by, self._interval = EVALUATION + plan.sweep.scheduler.by, plan.sweep.compared_every
        self._at_most = plan.sweep.max_concurrent or math.inf
        self._populations = [[trial.trial_id for trial in members] for members in populations(running)]
        self._of = {trial: number for number, members in enumerate(self._populations) for trial in members}
        self._values: dict[str, Mapping[str, Drawn]] = {}
        """What trials go on with that have taken over a training."""
        self._decided = [0] * len(self._populations)
        """The last comparison of each population that is decided, counted from 1."""
        for trial, takeovers in taken_over(entries).items():
            self._values[trial] = takeovers[-1].values
            if trial in self._of:
                number = self._of[trial]
                self._decided[number] = max(self._decided[number], takeovers[-1].step // self._interval)
        self._waiting: dict[str, Compared] = {}
        self._left: set[str] = set()
        """Trials that have ended."""
        self._added: dict[str, TuneTrial] = {}

    def __reduce__(self) -> tuple[type[FIFOScheduler], tuple[()]]:
        # Tune pickles its scheduler into its snapshots, which are never read.
        return FIFOScheduler, ()

    def has_room(self) -> bool:
        """Return whether one more trial may run. Those that wait do not count."""
        busy = (TuneTrial.PENDING, TuneTrial.RUNNING)
        return sum(trial.status in busy for trial in self._added.values()) < self._at_most

    def is_over(self) -> bool:
        """Return whether all samples have ended."""
        return all(trial_id in self._left for trial_id in self._of)

    def on_trial_add(self, tune_controller: Any, trial: TuneTrial) -> None:
        """Note a trial that is about to start, or to start again after an error."""
        trial_id = trial_of(trial).trial_id
        self._added[trial_id] = trial
        self._left.discard(trial_id)

    def on_trial_result(self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]) -> str:
        """Pause a trial whose comparison is not decided."""
        ours = trial_of(trial)
        population = self._of.get(ours.trial_id)
        if population is None or COMPARED not in result:
            return str(TrialScheduler.CONTINUE)
        step = int(result[ENV_STEPS])
        if step // self._interval <= self._decided[population]:
            return str(TrialScheduler.CONTINUE)
        drawn = ours.sample.values if ours.sample else None
        values = self._values.get(ours.trial_id, drawn or {})
        self._waiting[ours.trial_id] = Compared(ours.trial_id, step, result.get(self._by), values)
        tune_controller.pause_trial(trial, should_checkpoint=False)
        return str(TrialScheduler.NOOP)

    def on_trial_complete(self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]) -> None:
        """Wait no longer for a trial that has ended."""
        self._left.add(trial_of(trial).trial_id)

    def on_trial_error(self, tune_controller: Any, trial: TuneTrial) -> None:
        """Wait no longer for a trial that has failed; Tune adds it again if it is retried."""
        self._left.add(trial_of(trial).trial_id)

    def on_trial_remove(self, tune_controller: Any, trial: TuneTrial) -> None:
        """Wait no longer for a trial that was ended while it waited."""
        self._left.add(trial_of(trial).trial_id)

    def choose_trial_to_run(self, tune_controller: Any) -> TuneTrial | None:
        """Decide what can be decided: by now the results are in the journal. Then choose a trial that waits for nothing."""
        for population in range(len(self._populations)):
            self._decide(population)
        if not self.has_room():
            return None
        free = (
            trial
            for trial_id, trial in self._added.items()
            if trial.status == TuneTrial.PAUSED and trial_id not in self._waiting
        )
        return next(free, None)

    def _decide(self, population: int) -> None:
        members = [trial_id for trial_id in self._populations[population] if trial_id not in self._left]
        if not members or not all(trial_id in self._waiting for trial_id in members):
            return
        # One that failed and was started again by --resume is behind the others.
        number = min(self._waiting[trial_id].step // self._interval for trial_id in members)
        compared = [self._waiting[trial_id] for trial_id in members if self._waiting[trial_id].step // self._interval == number]
        takeovers = decide(self._plan, compared)
        trials = {takeover.trial: trial_of(self._added[takeover.trial]) for takeover in takeovers}
        if takeovers:
            self._take_over([(trials[takeover.trial], takeover) for takeover in takeovers])
        for takeover in takeovers:
            self._values[takeover.trial] = takeover.values
            self._added[takeover.trial].set_config(self._configured(trials[takeover.trial]))
        self._decided[population] = number
        for each in compared:
            del self._waiting[each.trial_id]
