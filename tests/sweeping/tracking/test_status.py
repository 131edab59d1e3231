"""How a sweep stands is read from its folder alone, without writing anything there."""

import json
from pathlib import Path
from typing import Any

import pytest
from command_line import vlm_rm

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.metrics import RunStatus
from vlm_rm_sweeps.sweeping.config.plan import plan_of
from vlm_rm_sweeps.sweeping.config.searching import Drawn
from vlm_rm_sweeps.sweeping.config.sweep import Sweep
from vlm_rm_sweeps.sweeping.tracking.folder import SweepFolder
from vlm_rm_sweeps.sweeping.tracking.journal import (
    Journal,
    ResultLogged,
    SweepEnded,
    SweepStarted,
    TakenOver,
    TrialEnded,
    TrialStarted,
    TrialStopped,
)
from vlm_rm_sweeps.sweeping.tracking.runs_file import RunsFile
from vlm_rm_sweeps.sweeping.tracking.status import lines_of, newest_sweep, standing_of

SWEEP: dict[str, Any] = {
    "name": "watched",
    "task": "cartpole-upright",
    "models": ["embedded/tiny"],
    "alphas": [0, 0.5],
    "seeds": [0, 1],
    "steps": 1_000,
}


def at(time_s: float) -> int:
    return int(1000 * time_s)


@pytest.fixture
def watched(tmp_path: Path) -> tuple[SweepFolder, Journal]:
    """A sweep of six trials: one has finished, one failed, one was stopped, one runs, and two wait. Its first execution was killed."""
    folder = SweepFolder(tmp_path / "watched-20260101-000000")
    folder.create(Sweep.model_validate(SWEEP))
    journal = Journal(folder.journal)
    journal.append(SweepStarted(time=at(0), id="x"))
    journal.append(TrialStarted(time=at(1), trial="a"))
    journal.append(ResultLogged(time=at(90), trial="a", step=500, metrics={"true_return": 1.0}))
    journal.append(SweepStarted(time=at(100), id="x"))
    for trial in "abcd":
        journal.append(TrialStarted(time=at(101), trial=trial))
    journal.append(ResultLogged(time=at(110), trial="a", step=1_010, metrics={"evaluation_success": 0.5}))
    journal.append(TrialEnded(time=at(110), trial="a", status=RunStatus.FINISHED, tags={}))
    journal.append(TrialEnded(time=at(111), trial="b", status=RunStatus.FAILED, tags={"reason": "ValueError: nan"}))
    journal.append(ResultLogged(time=at(112), trial="c", step=300, metrics={"evaluation_success": 0.0}))
    journal.append(TrialStopped(time=at(112), trial="c", step=300, reason="asha: worse", reached=False))
    journal.append(
        ResultLogged(
            time=at(120),
            trial="d",
            step=190,
            metrics={"env_steps_per_second": 12.0, "success": 0.25, "loss": 1.0},
            host="node-7",
        )
    )
    return folder, journal


def test_a_sweep_that_runs(watched: tuple[SweepFolder, Journal]) -> None:
    folder, journal = watched
    RunsFile(tracking_uri="http://user:secret@mlflow.example", delivered=journal.entries[-3].uid).write(folder.mlflow)
    before = sorted(folder.path.iterdir())
    found = standing_of(folder.path, now_s=125)
    assert (found.state, found.trials, found.last_entry_s) == ("running", 6, 5)
    assert found.counts == {"finished": 1, "failed": 1, "stopped": 1, "running": 1, "waiting": 2}
    assert found.steps_done == 1_000 + 300 + 190
    assert found.steps == 6_000 - 700, "what a stopped trial leaves out is not to be done"
    # 510 of the first trial, 300 and 190, in 20 s of this execution.
    assert found.steps_per_second == 50
    assert found.seconds_left == (5_300 - 1_490) / 50
    assert (found.mlflow, found.undelivered) == ("http://***@mlflow.example", 2)
    said = "\n".join(lines_of(found))
    assert "running, last entry 5 s ago" in said
    assert "1,490 of 5,300 steps, 50 steps/s, about 1 min 16 s left" in said
    assert "d  running on node-7, step 190, 12 steps/s, success 0.25" in said
    assert "b  failed at step 0: ValueError: nan" in said
    assert "c  stopped at step 300: asha: worse" in said
    assert "2 entries have not arrived yet" in said
    assert json.loads(json.dumps(found.as_data()))["started"][3]["metrics"] == {"success": 0.25}
    assert sorted(folder.path.iterdir()) == before


def test_a_sweep_that_is_silent_may_have_been_killed_and_one_that_ended_has_no_time_left(
    watched: tuple[SweepFolder, Journal],
) -> None:
    folder, journal = watched
    found = standing_of(folder.path, now_s=120 + 3_600)
    assert (found.state, found.seconds_left) == ("silent", None)
    assert "nothing was written for 1 h 0 min" in lines_of(found)[0]
    journal.append(TrialEnded(time=at(200), trial="d", status=RunStatus.KILLED, tags={}))
    journal.append(SweepEnded(time=at(200), status=RunStatus.KILLED, step=1, metrics={}))
    found = standing_of(folder.path, now_s=260)
    assert (found.state, found.counts["interrupted"]) == ("interrupted", 1)
    assert found.mlflow is None


def test_takeovers_and_what_they_left_are_told(watched: tuple[SweepFolder, Journal]) -> None:
    folder, journal = watched
    for step, rate in ((100, 2e-3), (190, 3e-3)):
        values: dict[str, Drawn] = {"settings.learning_rate": rate}
        journal.append(TakenOver(time=at(121), trial="d", step=step, source="a", source_step=step, values=values))
    found = standing_of(folder.path, now_s=125)
    assert "  d  2 takeovers, the last one of trial a at step 190, with learning_rate 0.003" in lines_of(found)
    assert json.loads(json.dumps(found.as_data()))["started"][3]["values"] == {"settings.learning_rate": 3e-3}


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"untrained": True, "true_reward": False},
        {"textures": ["modified", "original"], "task": "mountaincar-summit"},
        {
            "only": [{"model": "embedded/tiny", "alpha": 0.5, "prompt": "up"}],
            "prompts": [{"id": "up", "goal": "a", "baseline": "b"}],
        },
        {"models": [], "alphas": []},
        {"alphas": [], "seeds": [0, 1], "search": {"space": {"alpha": [0, 1]}, "samples": 3}},
    ],
)
def test_trials_are_counted_as_they_are_planned(changed: dict[str, Any]) -> None:
    plan = plan_of(SWEEP | changed)
    assert plan.sweep.count_trials() == len(plan.trials)


def test_the_command_takes_the_newest_sweep(watched: tuple[SweepFolder, Journal]) -> None:
    folder, _ = watched
    results = folder.path.parent
    assert newest_sweep(results) == folder.path
    assert "6 trials: " in vlm_rm("status", "--results", str(results))
    assert json.loads(vlm_rm("status", str(folder.path), "--json"))["trials"] == 6


def test_damaged_lines_of_the_journal_are_told(watched: tuple[SweepFolder, Journal]) -> None:
    folder, _ = watched
    assert standing_of(folder.path).damaged == 0
    whole = folder.journal.read_bytes()
    folder.journal.write_bytes(whole + b'{"kind": "result", "step": ' + b"9" * 5_000 + b"}\n[]\n")
    assert standing_of(folder.path).damaged == 2
    assert "damaged lines" in "\n".join(lines_of(standing_of(folder.path)))
    folder.journal.write_bytes(b"null\n[]\n3\n")
    with pytest.raises(UserError, match="none of its 3 lines can be read"):
        standing_of(folder.path)
    folder.journal.unlink()
    folder.journal.mkdir()
    with pytest.raises(UserError, match="it is not a file"):
        standing_of(folder.path)


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is not the folder of a sweep \(it has no sweep\.yaml\)"):
        standing_of(tmp_path)
    with pytest.raises(UserError, match=r"there is no sweep in .*: name its folder, or another results folder"):
        newest_sweep(tmp_path)
