"""Repeat recorded sweeps under a scheduler: the share of steps that it saves, and how often it stops the later winner.

    python analysis/early_stopping.py results/model_scaling-... --scheduler asha --by success

Each sweep is repeated from its journal alone, in random orders: trials start one after the other, `--concurrent` at once, all as
fast as each other. The winner is the trial with the best greedy policy at its end, by success, then by true return. Trials are
compared by greedy evaluations (`trial.evaluation_interval`); where a sweep has none before the end, by the training episodes of
each result, which explore, and the table says so. Expect a line for each sweep; figures of few trials are anecdotes.
"""

import argparse
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from runs import refusals_in_words, whole_number

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.metrics import EPIC_DISTANCE, EVALUATION, SUCCESS, TRUE_RETURN, RunStatus
from vlm_rm_sweeps.sweeping.config.stopping import RankBy, SchedulerSettings
from vlm_rm_sweeps.sweeping.config.trial import REFERENCE_PROMPT
from vlm_rm_sweeps.sweeping.config.validation import check_keys
from vlm_rm_sweeps.sweeping.execution.scheduling import Ranking, RankingScheduler
from vlm_rm_sweeps.sweeping.tracking.folder import SweepFolder
from vlm_rm_sweeps.sweeping.tracking.journal import ResultLogged, RewardMeasured, ended_trials, read_entries
from vlm_rm_sweeps.sweeping.tracking.results import read_results


@dataclass(frozen=True)
class Recorded:
    """What a sweep's journal has of its finished trials with a reward model.

    Attributes:
        results: Step and metrics of each result, in order, by trial id.
        measured: What was measured before training, by trial id.
    """

    results: Mapping[str, Sequence[tuple[int, Mapping[str, float]]]]
    measured: Mapping[str, Mapping[str, float]]

    @property
    def is_greedy(self) -> bool:
        """Whether greedy policies were evaluated before the end of the trials."""
        return any(EVALUATION + TRUE_RETURN in metrics for results in self.results.values() for _, metrics in results[:-1])

    @property
    def winner(self) -> str:
        """The trial with the best greedy policy at its end."""

        def merit(trial: str) -> tuple[float, float]:
            last = self.results[trial][-1][1]
            return last.get(EVALUATION + SUCCESS, -1.0), last.get(EVALUATION + TRUE_RETURN, -float("inf"))

        return max(self.results, key=merit)


@dataclass(frozen=True)
class Repeated:
    """What a scheduler would have done, over all orders.

    Attributes:
        saved: Share of the environment steps that it saves, mean.
        stopped: Share of the trials that it stops, mean.
        winner_stopped: Share of the orders in which it stops the later winner.
    """

    saved: float
    stopped: float
    winner_stopped: float


def recorded(folder: Path) -> Recorded:
    """Read the finished trials of a sweep that learned from a reward model.

    Args:
        folder: The sweep's folder.

    Returns:
        Their results.

    Raises:
        UserError: It is no sweep's folder, or fewer than two such trials have finished.
    """
    sweep = SweepFolder(folder)
    entries = read_entries(sweep.journal)
    if not entries:
        raise UserError(f"{folder} has no journal: expected the folder of a sweep, such as results/quickstart-...")
    table = read_results(sweep.table)
    compared = set(table.loc[table["prompt"] != REFERENCE_PROMPT, "trial_id"])
    compared &= {trial for trial, status in ended_trials(entries).items() if status == RunStatus.FINISHED}
    results: dict[str, list[tuple[int, Mapping[str, float]]]] = {}
    for entry in entries:
        if isinstance(entry, ResultLogged) and entry.trial in compared:
            results.setdefault(entry.trial, []).append((entry.step, entry.metrics))
    if len(results) < 2:
        raise UserError(f"{folder}: {len(results)} trials with a reward model have finished: expected two or more to compare")
    measured: dict[str, dict[str, float]] = {}
    for entry in entries:
        if isinstance(entry, RewardMeasured):
            measured.setdefault(entry.trial, {}).update(entry.metrics)
    return Recorded({trial: sorted(of_trial, key=lambda each: each[0]) for trial, of_trial in results.items()}, measured)


def repeat(sweep: Recorded, settings: SchedulerSettings, orders: int, concurrent: int, seed: int = 0) -> Repeated:
    """Repeat a recorded sweep under a scheduler, in random orders of its trials.

    Args:
        sweep: The recorded sweep.
        settings: The scheduler.
        orders: Number of random orders.
        concurrent: Trials that run at once.
        seed: Seed of the orders.

    Returns:
        What it saves and stops.
    """
    chance, winner = random.Random(seed), sweep.winner
    steps = max(results[-1][0] for results in sweep.results.values())
    whole = sum(results[-1][0] for results in sweep.results.values())
    saved, stopped, lost = [], [], []
    for _ in range(orders):
        order = chance.sample(sorted(sweep.results), len(sweep.results))
        scheduler = RankingScheduler(settings, _ranking(sweep, settings.by), steps)
        ran = dict.fromkeys(order, 0)
        for trial, step, metrics in _interleaved(sweep, order, concurrent, scheduler):
            ran[trial] = step
            scheduler.decide(trial, step, metrics)
        saved.append(1 - sum(ran.values()) / whole)
        stopped.append(len(scheduler.stopped) / len(order))
        lost.append(winner in scheduler.stopped)
    return Repeated(sum(saved) / orders, sum(stopped) / orders, sum(lost) / orders)


def _ranking(sweep: Recorded, by: RankBy) -> Ranking:
    distances = {trial: metrics[by] for trial, metrics in sweep.measured.items() if by in metrics}
    if by == EPIC_DISTANCE and not distances:
        raise UserError("by = 'epic_distance': this sweep measured none before training (`epic_states`)")
    return Ranking(by, frozenset(sweep.results), distances, EVALUATION if sweep.is_greedy else "")


def _interleaved(
    sweep: Recorded, order: Sequence[str], concurrent: int, scheduler: RankingScheduler
) -> Iterator[tuple[str, int, Mapping[str, float]]]:
    """Yield the results of trials that run at the same speed, some at once, without what is stopped."""
    waiting, running = list(order), dict[str, Iterator[tuple[int, Mapping[str, float]]]]()
    while waiting or running:
        while waiting and len(running) < concurrent:
            trial = waiting.pop(0)
            running[trial] = iter(sweep.results[trial])
        for trial, results in list(running.items()):
            found = None if trial in scheduler.stopped else next(results, None)
            if found is None:
                del running[trial]
            else:
                yield trial, *found


def _row(folder: Path, arguments: argparse.Namespace, settings: SchedulerSettings) -> dict[str, object]:
    sweep = recorded(folder)
    found = repeat(sweep, settings, arguments.orders, arguments.concurrent)
    return {
        "sweep": folder.name,
        "trials": len(sweep.results),
        "compared by": f"{'greedy' if sweep.is_greedy else 'exploring'} {settings.by}" if settings.is_greedy else settings.by,
        "steps saved": f"{found.saved:.0%}",
        "trials stopped": f"{found.stopped:.0%}",
        "winner stopped": f"{found.winner_stopped:.0%}",
    }


def main() -> None:
    """Print a line for each sweep."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folders", nargs="+", type=Path, help="folders of sweeps, such as results/model_scaling-...")
    # What pbt would do is not in the records of other trainings.
    parser.add_argument("--scheduler", default="asha", choices=("asha", "median"), help="asha or median")
    parser.add_argument("--by", default="success", help="success, true_return or epic_distance")
    parser.add_argument("--grace-steps", type=int, help="by default a tenth of a trial's steps")
    parser.add_argument("--reduction", type=float, help="of asha; by default 3")
    parser.add_argument("--concurrent", type=whole_number(1, 10_000), default=2, help="trials that run at once")
    parser.add_argument("--orders", type=whole_number(1, 100_000), default=200, help="random orders of the trials")
    arguments = parser.parse_args()
    with refusals_in_words():
        named = {"kind": arguments.scheduler, "by": arguments.by, "reduction": arguments.reduction}
        settings = check_keys(SchedulerSettings, named | {"grace_steps": arguments.grace_steps})
        rows = [_row(folder, arguments, settings) for folder in arguments.folders]
    print(pd.DataFrame(rows).to_string(index=False))


if __name__ == "__main__":
    main()
