"""The tables, as they stand in a terminal."""

import io
import os
import pty
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

import pytest
from rich.console import Console
from rich.table import Table

from vlm_rm_sweeps.cli.terminal import cells_table, progress_table, trials_table, watching
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


@contextmanager
def standard_output(stream: TextIO) -> Iterator[None]:
    """Not as a fixture: pytest puts its own capture there between fixtures and test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        yield


def shown_on_a_terminal(work: Callable[[], None]) -> str:
    """What a pseudo-terminal receives that is standard output meanwhile."""
    ours, theirs = pty.openpty()
    with open(theirs, "w") as stream, standard_output(stream):
        work()
    parts = []
    with suppress(OSError):  # the end of a pseudo-terminal to which nobody writes any more
        while part := os.read(ours, 65_536):
            parts.append(part)
    os.close(ours)
    return b"".join(parts).decode()


@pytest.fixture
def xterm(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TERM": "xterm", "COLUMNS": "120", "LINES": "40"}.items():
        monkeypatch.setenv(name, value)
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)


def test_on_a_terminal_the_table_is_shown_in_place_and_gone_at_the_end(xterm: None) -> None:
    settings = {"name": "a", "task": "cartpole-upright", "models": ["embedded/tiny"], "alphas": [0], "steps": 1_000}
    (trial,) = plan_of(settings | {"true_reward": False}).trials

    def work() -> None:
        with watching() as watch:
            assert watch is not None
            Progress({trial.trial_id: 1_000}, print, watch).result(trial, 500, {"clip_return": 12.34})

    text = shown_on_a_terminal(work)
    for part in (trial.label, "500 of 1,000", "12.3"):
        assert part in text
    assert text.rindex("12.3") < text.rindex("\x1b[2K"), "its lines are erased"


def test_there_is_no_such_table_where_lines_are_calmer(xterm: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def unwanted() -> None:
        with watching(wanted=False) as watch:
            assert watch is None

    def on_a_dumb_terminal() -> None:
        monkeypatch.setenv("TERM", "dumb")
        with watching() as watch:
            assert watch is None

    with standard_output(io.StringIO()), watching() as watch:
        assert watch is None
    assert shown_on_a_terminal(unwanted) == shown_on_a_terminal(on_a_dumb_terminal) == ""
