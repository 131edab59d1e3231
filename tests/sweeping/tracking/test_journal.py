"""The journal: whole lines only, whatever cut it short."""

import json
import resource
from pathlib import Path

from vlm_rm_sweeps.metrics import RunStatus
from vlm_rm_sweeps.sweeping.config.searching import Drawn
from vlm_rm_sweeps.sweeping.tracking.journal import (
    Journal,
    ResultLogged,
    SweepEnded,
    SweepStarted,
    TakenOver,
    TrialEnded,
    TrialStarted,
    ended_in_order,
    ended_trials,
    open_trials,
    read_entries,
    taken_over,
)


def steps(file: Path) -> list[int]:
    return [entry.step for entry in read_entries(file) if isinstance(entry, ResultLogged)]


def test_entries_are_on_disk_at_once_and_in_order(tmp_path: Path) -> None:
    file = tmp_path / "journal.jsonl"
    assert read_entries(file) == []
    journal = Journal(file)
    for step in range(3):
        journal.append(ResultLogged(time=1000 + step, trial="a", step=step, metrics={"x": 0.1}))
        assert steps(file) == list(range(step + 1))
    assert len({entry.uid for entry in journal.entries}) == 3
    last = json.loads(file.read_text().splitlines()[2])
    assert last.pop("uid")
    expected = {"kind": "result", "time": 1002, "trial": "a", "step": 2, "metrics": {"x": 0.1}, "host": None, "remarks": []}
    assert last == expected
    assert Journal(file).entries == journal.entries


def test_a_result_of_an_earlier_version_has_no_remarks(tmp_path: Path) -> None:
    file = tmp_path / "journal.jsonl"
    Journal(file).append(ResultLogged(time=0, trial="a", step=1, metrics={}, remarks=("the endpoint is down",)))
    (now,) = read_entries(file)
    earlier = json.loads(file.read_text())
    assert earlier.pop("remarks") == ["the endpoint is down"]
    file.write_text(json.dumps(earlier) + "\n")
    assert read_entries(file) == [now.model_copy(update={"remarks": ()})]


def test_takeovers_of_one_decision_are_written_together_and_found_by_trial(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    values: dict[str, Drawn] = {"settings.learning_rate": 1e-3, "settings.double_q": True, "settings.epochs": 3}
    decided = [TakenOver(trial=trial, step=200, source="best", source_step=200, values=values) for trial in ("worst", "worse")]
    journal.append(*decided)
    later = decided[0].model_copy(update={"uid": "later", "step": 400})
    journal.append(later)
    assert read_entries(tmp_path / "journal.jsonl") == [*decided, later]
    assert taken_over(journal.entries) == {"worst": [decided[0], later], "worse": [decided[1]]}


def test_a_line_that_was_cut_short_is_left_out_and_written_over(tmp_path: Path) -> None:
    file = tmp_path / "journal.jsonl"
    for step in range(3):
        Journal(file).append(ResultLogged(time=0, trial="a", step=step, metrics={}))
    file.write_bytes(file.read_bytes()[:-5])
    assert steps(file) == [0, 1]
    Journal(file).append(ResultLogged(time=0, trial="a", step=7, metrics={}))
    assert steps(file) == [0, 1, 7]


def test_a_damaged_line_costs_only_itself(tmp_path: Path) -> None:
    file = tmp_path / "journal.jsonl"
    for step in range(3):
        Journal(file).append(ResultLogged(time=0, trial="a", step=step, metrics={}))
    lines = file.read_bytes().splitlines()
    lines[1] = b"\x00" * 20
    file.write_bytes(b"\n".join(lines) + b"\n")
    assert steps(file) == [0, 2]
    assert Journal(file).damaged == 1


def test_a_full_disk_loses_nothing_that_can_be_written_later(tmp_path: Path) -> None:
    file = tmp_path / "journal.jsonl"
    journal = Journal(file)
    journal.append(ResultLogged(time=0, trial="a", step=0, metrics={}))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Room for half a line more.
    resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size + 15, hard))
    try:
        journal.append(ResultLogged(time=0, trial="a", step=1, metrics={}))
        journal.append(ResultLogged(time=0, trial="a", step=2, metrics={}))
        assert steps(file) == [0]
        assert journal.unwritten() == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    journal.append(ResultLogged(time=0, trial="a", step=3, metrics={}))
    assert steps(file) == [0, 1, 2, 3]
    assert journal.unwritten() == 0


def test_how_trials_ended_is_read_from_the_journal(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    assert ended_trials(journal.entries) == {}
    for trial in "abcd":
        journal.append(TrialStarted(time=0, trial=trial))
    for trial, status in (
        ("a", RunStatus.FINISHED),
        ("b", RunStatus.FAILED),
        ("c", RunStatus.KILLED),
        ("b", RunStatus.FINISHED),
    ):
        journal.append(TrialEnded(time=0, trial=trial, status=status, tags={}))
    assert ended_trials(journal.entries) == {"a": "FINISHED", "b": "FINISHED"}
    assert open_trials(journal.entries) == {"d"}
    journal.append(TrialStarted(time=0, trial="c"))
    assert open_trials(journal.entries) == {"c", "d"}


def test_an_execution_that_was_killed_or_stopped_did_not_end_in_order(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    assert not ended_in_order(journal.entries)
    for entry, ended in (
        (SweepStarted(id="x"), False),
        (SweepEnded(status=RunStatus.KILLED, step=0, metrics={}), False),
        (SweepStarted(id="x"), False),
        (SweepEnded(status=RunStatus.FAILED, step=0, metrics={}), True),
        (SweepStarted(id="x"), False),
        (SweepEnded(status=RunStatus.FINISHED, step=0, metrics={}), True),
    ):
        journal.append(entry)
        assert ended_in_order(journal.entries) is ended


def test_a_line_that_is_no_entry_of_this_kind_is_damaged(tmp_path: Path) -> None:
    """Wrong types, missing keys and unknown kinds are found when the journal is read, not when somebody uses them."""
    file = tmp_path / "journal.jsonl"
    lines = [
        {"kind": "result", "time": 1, "trial": "a", "step": "many", "metrics": {}},
        {"kind": "result", "time": 1, "trial": "a", "step": 1},
        {"kind": "end", "time": 1, "trial": "a", "status": "HAPPY", "tags": {}},
        {"kind": "party", "time": 1},
        {"kind": "start", "time": 1, "trial": "a"},
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines) + "[]\n")
    assert [entry.kind for entry in read_entries(file)] == ["start"]
    assert Journal(file).damaged == 5
