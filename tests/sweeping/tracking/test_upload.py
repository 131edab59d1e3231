"""What lies in the folder of a sweep is put at its address while it runs."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from vlm_rm_sweeps import storage
from vlm_rm_sweeps.metrics import RunStatus
from vlm_rm_sweeps.storage import RemoteFolder
from vlm_rm_sweeps.sweeping.config.sweep import Sweep
from vlm_rm_sweeps.sweeping.tracking import upload
from vlm_rm_sweeps.sweeping.tracking.folder import IN_USE, IN_USE_S, InUse, SweepFolder
from vlm_rm_sweeps.sweeping.tracking.journal import Journal, SweepEnded, SweepStarted, read_entries
from vlm_rm_sweeps.sweeping.tracking.status import newest_sweep, standing_of
from vlm_rm_sweeps.sweeping.tracking.upload import FolderUpload

SETTINGS = {"name": "a", "task": "cartpole-upright", "models": ["embedded/tiny"], "alphas": [0.5], "steps": 100}
SERVER, FILE = "http://127.0.0.1:5000", "sqlite:///results/mlflow.db"


@pytest.fixture
def folder(remote: RemoteFolder, monkeypatch: pytest.MonkeyPatch) -> SweepFolder:
    monkeypatch.setattr(upload, "_EVERY_S", 0.02)
    monkeypatch.setattr(storage, "_WAIT_S", 0.0)
    folder = SweepFolder.at(remote / "a-20260101-120000")
    folder.create(Sweep.model_validate(SETTINGS))
    return folder


def ended() -> SweepEnded:
    return SweepEnded(status=RunStatus.KILLED, step=0, metrics={})


def test_it_is_there_while_the_sweep_runs_and_at_its_end(folder: SweepFolder, machine: Callable[[str], None]) -> None:
    assert folder.remote is not None
    journal = Journal(folder.journal)
    journal.append(SweepStarted(id="x"))
    folder.mlflow.write_text("{}")
    said: list[str] = []
    with folder.locked(), FolderUpload(folder, FILE, said.append):
        assert set(folder.remote.names()) == {"sweep.yaml", "journal.jsonl", IN_USE}
        journal.append(ended())
        folder.table.write_text("trial\n")
    # A database in a file is found on this machine alone, and so are the runs in it.
    assert set(folder.remote.names()) == {"sweep.yaml", "journal.jsonl", "trials.csv"}
    with FolderUpload(folder, SERVER, said.append):
        pass
    assert "mlflow.json" in folder.remote.names()
    assert said == []
    machine("other")
    standing = standing_of(newest_sweep(folder.remote.above))
    assert (standing.state, standing.folder) == ("interrupted", str(folder.remote))
    assert Path(standing.sweep_file).is_file()
    other = SweepFolder.at(folder.remote)
    assert read_entries(other.journal) == journal.entries


def test_a_store_that_is_away_is_told_once_and_gets_everything_later(folder: SweepFolder, tmp_path: Path) -> None:
    assert folder.remote is not None
    said: list[str] = []
    store = tmp_path / "store" / "results"

    def say(line: str) -> None:
        said.append(line)
        if len(said) == 1:  # it comes back
            store.unlink()
            (tmp_path / "away").rename(store)

    uploading = FolderUpload(folder, FILE, say)
    with uploading:
        store.rename(tmp_path / "away")
        store.write_text("no folder")
        folder.table.write_text("trial\n")
        while len(said) < 2:
            uploading.join(0.01)
    assert "trials.csv" in folder.remote.names()
    assert f"cannot be written, and stays in {folder.table} (" in said[0]
    assert said[0].endswith(f"results wait in {folder.path}")
    assert said[1:] == [f"{folder.remote} can be written again"]


def test_what_is_missing_at_the_end_is_told_with_its_place(folder: SweepFolder, tmp_path: Path) -> None:
    said: list[str] = []
    with FolderUpload(folder, FILE, said.append):
        (tmp_path / "store" / "results").rename(tmp_path / "away")
        (tmp_path / "store" / "results").write_text("no folder")
        folder.table.write_text("trial\n")
    assert said[-1].endswith(f"The newest results are in {folder.path}: --resume on this machine puts them there")


def test_a_machine_that_was_suspended_leaves_the_sweep_to_who_has_gone_on(
    folder: SweepFolder, machine: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert folder.remote is not None
    said: list[str] = []
    uploading = FolderUpload(folder, FILE, said.append)
    with folder.locked(), uploading:
        journal = folder.remote.read("journal.jsonl")
        noted = InUse(host="far-away", pid=1, time=time.time() + IN_USE_S)  # which found that this one was silent
        folder.remote.write(IN_USE, noted.model_dump_json().encode())
        monkeypatch.setattr(upload, "IN_USE_S", 0.0)  # it notes again that it runs
        uploading.join()
        folder.journal.write_text("other\n")
    assert folder.remote.read("journal.jsonl") == journal
    assert "far-away" in (folder.remote.read(IN_USE) or b"").decode()
    (line,) = said
    assert "is in use by process 1 on far-away" in line
    assert line.endswith(f". What this process writes stays in {folder.path}")


def test_without_an_address_nothing_is_done(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path / "a")
    folder.create(Sweep.model_validate(SETTINGS))
    with FolderUpload(folder, FILE, print):
        pass
    assert [each.name for each in tmp_path.rglob("*")] == ["a", "sweep.yaml"]
