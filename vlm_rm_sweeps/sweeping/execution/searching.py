"""Draws the samples of a search, by Optuna under Tune's own searcher, and gives Tune the trials one by one."""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from ray import tune
from ray.tune.search import Searcher

from vlm_rm_sweeps.metrics import EVALUATION, TrialStatus
from vlm_rm_sweeps.sweeping.config.plan import Plan, with_settings
from vlm_rm_sweeps.sweeping.config.searching import ALPHA, Drawn, Range, SearchSettings, setting_values
from vlm_rm_sweeps.sweeping.config.trial import Trial
from vlm_rm_sweeps.sweeping.tracking.journal import Entry, SampleDrawn
from vlm_rm_sweeps.sweeping.tracking.results import TrialOutcome

_MERIT = "merit"


def drawn_samples(entries: Iterable[Entry]) -> dict[int, dict[str, Drawn]]:
    """Return what earlier executions of a sweep drew, by the sample's number."""
    return {entry.sample: entry.values for entry in entries if isinstance(entry, SampleDrawn)}


def draw(plan: Plan, number: int, judged: Sequence[tuple[Mapping[str, Drawn], float]]) -> dict[str, Drawn]:
    """Draw one sample.

    A drawing depends on the search's seed, the sample's number and what is known by then, and on nothing else. So a search that is
    resumed needs no state but its journal.

    Args:
        plan: A sweep with a search.
        number: The sample's number.
        judged: The samples that have been trained with all seeds, and how good they were.

    Returns:
        A value for each key of the search's space.
    """
    import optuna
    from ray.tune.search.optuna import OptunaSearch

    search = _search(plan)
    seed = int(np.random.SeedSequence([search.seed, number]).generate_state(1)[0])
    samplers = {"tpe": optuna.samplers.TPESampler, "random": optuna.samplers.RandomSampler}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # Keys have dots, which Tune takes for nested mappings.
    keys = {str(position): key for position, key in enumerate(search.space)}
    space = OptunaSearch.convert_search_space({position: domain_of(plan, key) for position, key in keys.items()})
    searcher = OptunaSearch(space, metric=_MERIT, mode="max", sampler=samplers[search.sampler](seed=seed))
    for values, merit in judged:
        searcher.add_evaluated_point({position: values[key] for position, key in keys.items()}, merit)
    found = searcher.suggest(str(number)) or {}
    return {key: found[position] for position, key in keys.items()}


def judged_samples(plan: Plan, outcomes: Iterable[TrialOutcome]) -> list[tuple[Mapping[str, Drawn], float]]:
    """Return the samples that are known to be good or bad: those whose trials have all ended.

    Args:
        plan: A sweep with a search.
        outcomes: One for each trial.

    Returns:
        What was drawn, and the mean over the trials that have a greedy policy. A sample whose trials have all failed is left out.
    """
    metric = EVALUATION + _search(plan).by
    of_samples: dict[int, list[TrialOutcome]] = {}
    for each in outcomes:
        if each.trial.sample is not None and each.trial.sample.values is not None:
            of_samples.setdefault(each.trial.sample.number, []).append(each)
    judged = []
    for trials in of_samples.values():
        known = [each.metrics[metric] for each in trials if each.has_ended and metric in each.metrics]
        values = trials[0].trial.sample.values if trials[0].trial.sample else None
        if known and values and all(each.has_ended or each.status == TrialStatus.FAILED for each in trials):
            judged.append((values, float(np.mean(known))))
    return judged


def _search(plan: Plan) -> SearchSettings:
    assert plan.sweep.search is not None
    return plan.sweep.search


def domain_of(plan: Plan, key: str) -> Any:
    """Return an axis of the search's space as Tune describes it."""
    values = _search(plan).space[key]
    if not isinstance(values, Range):
        return tune.choice(list(values))
    low, high = values.low, values.high
    if key != ALPHA and isinstance(_setting(plan, key, low), int):
        # Tune leaves out the upper end of whole numbers.
        return (tune.lograndint if values.log else tune.randint)(int(low), int(high) + 1)
    return (tune.loguniform if values.log else tune.uniform)(float(low), float(high))


def _setting(plan: Plan, key: str, value: Drawn) -> Any:
    """Return a setting as the algorithm takes it."""
    (name,) = setting_values({key: value})
    return getattr(with_settings(plan.algorithm, {name: value}), name)


class TrialsInTurn(Searcher):
    """Gives Tune the trials of a sweep in their order; a sample is drawn when its first trial is about to start.

    Args:
        trials: The trials to run.
        configured: Draws what a trial of a search still needs, and returns the configuration for Tune.
        has_room: Tells whether another trial may start now.
        is_over: Tells whether none will start again. Until then Tune keeps a process that no trial uses, for the next one.
    """

    def __init__(
        self,
        trials: Sequence[Trial],
        configured: Callable[[Trial], dict[str, Any]],
        has_room: Callable[[], bool] = lambda: True,
        is_over: Callable[[], bool] = lambda: True,
    ) -> None:
        super().__init__()
        self._waiting, self._configured = deque(trials), configured
        self._has_room, self._is_over = has_room, is_over

    def __reduce__(self) -> tuple[type[Searcher], tuple[()]]:
        # Tune pickles its searcher into its snapshots, which are never read.
        return Searcher, ()

    def suggest(self, trial_id: str) -> Any:
        """Return the configuration of the next trial, None if there is none for now, or that there will be none."""
        if not self._waiting:
            return Searcher.FINISHED if self._is_over() else None
        return self._configured(self._waiting.popleft()) if self._has_room() else None

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Ignore Tune's result: how trials end is read from the sweep's own records."""

    def save(self, checkpoint_path: str) -> None:
        """Write nothing: Tune's snapshots are never read."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing: see `save`."""
