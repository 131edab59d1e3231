"""The tables, as they stand in a terminal."""

import io
from pathlib import Path

from rich.console import Console
from rich.table import Table

from vlm_rm_sweeps.cli.terminal import cells_table, progress_table, trials_table
from vlm_rm_sweeps.metrics import EVALUATION, SUCCESS, TRUE_RETURN, TrialStatus
from vlm_rm_sweeps.sweeping.config.plan import plan_of
from vlm_rm_sweeps.sweeping.tracking.progress import Progress
from vlm_rm_sweeps.sweeping.tracking.results import SweepOutcome, TrialOutcome


def printed(table: Table) -> list[str]:
    file = io.StringIO()
    Console(file=file, width=120).print(table)
    return file.getvalue().splitlines()


def test_the_best_trial_is_marked_and_what_is_unknown_is_a_dash() -> None:
    settings = {"name": "a", "task": "cartpole-upright", "models": ["embedded/tiny"], "alphas": [0, 0.5, 1], "steps": 100}
    trials = plan_of(settings | {"true_reward": False}).trials
    metrics = [{EVALUATION + SUCCESS: share, EVALUATION + TRUE_RETURN: 100 * share} for share in (0.25, 0.75)]
    outcomes = [TrialOutcome(trial, TrialStatus.FINISHED, "", each) for trial, each in zip(trials, metrics, strict=False)]
    outcomes.append(TrialOutcome(trials[2], TrialStatus.FAILED, "no memory", {}))
    lines = printed(trials_table(SweepOutcome(Path("a"), "sqlite:///a.db", outcomes, interrupted=False)))
    rows = [line.split("│")[1:-1] for line in lines if "embedded/tiny" in line]
    assert [row[-1].strip() for row in rows] == ["finished", "best", "failed"]
    assert [row[-3].strip() for row in rows] == ["0.25", "0.75", "-"]


def test_combinations_have_a_row_over_their_seeds_and_an_interval_where_the_seeds_differ() -> None:
    settings = {"name": "a", "task": "cartpole-upright", "models": ["embedded/tiny"], "alphas": [0, 1], "steps": 100}
    trials = plan_of(settings | {"seeds": [0, 1], "true_reward": False}).trials
    shares = {(0.0, 0): 0.25, (0.0, 1): 0.75, (1.0, 0): 1.0, (1.0, 1): 1.0}
    outcomes = [
        TrialOutcome(each, TrialStatus.FINISHED, "", {EVALUATION + SUCCESS: shares[each.alpha, each.seed]}) for each in trials
    ]
    lines = printed(cells_table(SweepOutcome(Path("a"), "sqlite:///a.db", outcomes, interrupted=False)))
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if "embedded/tiny" in line]
    assert [row[1:2] + row[-3:] for row in rows] == [
        ["0.00", "2", "0.50 (0.25 to 0.75)", "-"],
        ["1.00", "2", "1.00", "-"],
    ]


def test_the_live_table_has_the_trials_that_run_and_the_totals() -> None:
    settings = {"name": "a", "task": "cartpole-upright", "models": ["embedded/tiny"], "alphas": [0, 1], "steps": 1_000}
    first, second = plan_of(settings | {"true_reward": False}).trials
    watched: list[Progress] = []
    said: list[str] = []
    progress = Progress({each.trial_id: 1_000 for each in (first, second)}, said.append, watched.append)
    progress.result(first, 500, {"clip_return": 12.34, "true_return": 99.0})
    progress.result(second, 250)
    assert said == [], "what the table shows is not said, too"
    rows = printed(progress_table(watched[-1]))
    assert [line.split()[-7:] for line in rows if first.label in line] == [["0", "500", "of", "1,000", "12.3", "99.0", "-"]]
    assert any("0 of 2 trials done, 750 of 2,000 steps, about" in line for line in rows)
    progress.ended(first, "success 1.00")
    assert said[0].endswith(f"{first.label}: success 1.00")
    rows = printed(progress_table(progress))
    assert not any(first.label in line for line in rows)
    assert any(second.label in line for line in rows)
