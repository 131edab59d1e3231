"""Population-based training: what is compared with what, and what may be changed, checked before anything starts."""

import math
from collections.abc import Hashable, Iterable

from vlm_rm_sweeps.errors import UserError, shown
from vlm_rm_sweeps.sweeping.config.searching import ALPHA, SearchSettings
from vlm_rm_sweeps.sweeping.config.stopping import SchedulerSettings
from vlm_rm_sweeps.sweeping.config.trial import Trial
from vlm_rm_sweeps.training.algorithms.base import Algorithm


def check_population(
    scheduler: SchedulerSettings, search: SearchSettings | None, steps: int, evaluation_interval: int
) -> SearchSettings:
    """Check that there is a population whose settings can be changed while it is trained.

    Args:
        scheduler: The sweep's scheduler, which is `pbt`.
        search: The sweep's search, whose samples are the population.
        steps: Environment steps of each trial.
        evaluation_interval: Environment steps between two evaluations of the greedy policy.

    Returns:
        The search.

    Raises:
        UserError: There is none; the message says what is missing.
    """
    if search is None:
        raise UserError(
            "scheduler: pbt changes what a `search` draws, and its samples are the population: found no `search`, expected one such as "
            "{space: {settings.learning_rate: {low: 1.0e-4, high: 1.0e-2, log: true}}, samples: 8}"
        )
    if search.draws_alpha:
        raise UserError(
            f"scheduler: pbt goes on training with other values, and another {ALPHA} is another reward: expected only settings of the "
            "algorithm in `search.space`; to search alpha, leave out the scheduler"
        )
    quantile, _ = scheduler.of_pbt
    if search.samples * quantile < 1:
        raise UserError(
            f"scheduler: pbt replaces {quantile:g} of the samples, of {search.samples} less than one: expected at least "
            f"{math.ceil(1 / quantile)} `search.samples`, or a larger `scheduler.quantile`"
        )
    interval = scheduler.interval(steps, evaluation_interval)
    if interval % evaluation_interval:
        raise UserError(
            f"scheduler.interval_steps = {interval:,}: samples are compared by the evaluation at that step, which is made every "
            f"{evaluation_interval:,} steps: expected a multiple of `trial.evaluation_interval`"
        )
    return search


def check_changes(
    algorithm: Algorithm, name: str, search: SearchSettings, interval: int, trained_steps: tuple[int, int]
) -> None:
    """Check that an algorithm can change what a search draws, and that there is a comparison before the end.

    Args:
        algorithm: The algorithm.
        name: Its name in the sweep file.
        search: The sweep's search.
        interval: Environment steps between two comparisons.
        trained_steps: Environment steps of a trial, and those of one result.

    Raises:
        UserError: It cannot, or there is none.
    """
    changeable: object = type(algorithm).changeable
    fields = type(algorithm).model_fields
    if not isinstance(changeable, tuple) or not all(each in fields for each in changeable):  # of a user's class
        raise UserError(f"algorithm {name!r}: changeable is {shown(changeable)}: expected a tuple of names of its settings")
    fixed = [each for each in search.of_settings if each not in changeable]
    if fixed:
        able = f"one of {', '.join(changeable)}" if changeable else "another algorithm: this one names none as `changeable`"
        raise UserError(
            f"search.space: {', '.join(fixed)} cannot change while {name} trains, as pbt would have it: expected {able}, or no "
            "scheduler"
        )
    steps, result = trained_steps
    first = math.ceil(interval / result) * result
    if first >= steps:
        raise UserError(
            f"scheduler: pbt would compare the samples every {interval:,} steps, in results of {result:,}, so not before the end of "
            f"{steps:,}: lower `scheduler.interval_steps` or `steps_per_result`"
        )


def populations(trials: Iterable[Trial]) -> list[tuple[Trial, ...]]:
    """Group the trials that may take over each other's training.

    Args:
        trials: Trials of a sweep.

    Returns:
        The samples of each population: same model, reward, prompt, rendering and seed. References are in none.
    """
    found: dict[Hashable, list[Trial]] = {}
    for trial in trials:
        if trial.sample is not None:
            found.setdefault((trial.model_id, trial.reward_key, trial.prompt_id, trial.rendering, trial.seed), []).append(trial)
    return [tuple(members) for members in found.values()]


def in_words(scheduler: SchedulerSettings, search: SearchSettings, interval: int) -> str:
    """Describe population-based training in words."""
    quantile, resample = scheduler.of_pbt
    # As Tune counts them.
    replaced = min(math.ceil(search.samples * quantile), search.samples // 2)
    merit = scheduler.by.replace("_", " ")
    return (
        f"pbt: about every {interval:,} steps the {search.samples} samples of each seed wait for each other, and the {replaced} with "
        f"the least {merit} go on from the training of the {replaced} with the most. Their values are those times 0.8 or 1.2, within "
        f"the ranges (of a list: the one beside it), or drawn anew with probability {resample:g}. References run to their end"
    )
