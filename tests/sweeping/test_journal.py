"""The journal: whole lines only, whatever cut it short."""

import resource
from pathlib import Path

from vlm_rm_sweeps.sweeping.journal import Journal, read_entries


def steps(file: Path) -> list[int]:
    return [entry["step"] for entry in read_entries(file)]


def test_entries_are_on_disk_at_once_and_in_order(tmp_path: Path) -> None:
    file = tmp_path / "journal.jsonl"
    assert read_entries(file) == []
    journal = Journal(file)
    for step in range(3):
        journal.append("result", 1000 + step, trial="a", step=step, metrics={"x": 0.1})
        assert steps(file) == list(range(step + 1))
    assert read_entries(file)[2] == {"kind": "result", "time": 1002, "trial": "a", "step": 2, "metrics": {"x": 0.1}}
    assert Journal(file).entries == journal.entries


def test_a_line_that_was_cut_short_is_left_out_and_written_over(tmp_path: Path) -> None:
    file = tmp_path / "journal.jsonl"
    for step in range(3):
        Journal(file).append("result", 0, step=step)
    file.write_bytes(file.read_bytes()[:-5])
    assert steps(file) == [0, 1]
    Journal(file).append("result", 0, step=7)
    assert steps(file) == [0, 1, 7]


def test_a_damaged_line_costs_only_itself(tmp_path: Path) -> None:
    file = tmp_path / "journal.jsonl"
    for step in range(3):
        Journal(file).append("result", 0, step=step)
    lines = file.read_bytes().splitlines()
    lines[1] = b"\x00" * 20
    file.write_bytes(b"\n".join(lines) + b"\n")
    assert steps(file) == [0, 2]


def test_a_full_disk_loses_nothing_that_can_be_written_later(tmp_path: Path) -> None:
    file = tmp_path / "journal.jsonl"
    journal = Journal(file)
    journal.append("result", 0, step=0)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Room for half a line more.
    resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size + 15, hard))
    try:
        journal.append("result", 0, step=1)
        journal.append("result", 0, step=2)
        assert steps(file) == [0]
        assert journal.unwritten() == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    journal.append("result", 0, step=3)
    assert steps(file) == [0, 1, 2, 3]
    assert journal.unwritten() == 0
