"""The folder of a sweep: found again, compared, and used by one process at a time."""

import errno
import fcntl
import os
import resource
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.storage import RemoteFolder
from vlm_rm_sweeps.sweeping.config.plan import Plan, plan_of
from vlm_rm_sweeps.sweeping.tracking.folder import IN_USE_S, SweepFolder, default_tracking_uri, new_path
from vlm_rm_sweeps.sweeping.tracking.journal import Journal, TrialStarted, read_entries
from vlm_rm_sweeps.sweeping.tracking.status import standing_of

NAMES_A_FILE = """
from vlm_rm_sweeps.rewards.clip import ClipRewardModel

class NamesAFile(ClipRewardModel):
    def __init__(self, model_id):
        super().__init__("embedded/tiny")
        self.model_id = model_id
"""


def plan(**changed: object) -> Plan:
    settings = {"name": "folder", "task": "cartpole-upright", "models": ["embedded/tiny"], "alphas": [0.5], "steps": 100}
    return plan_of(settings | changed)


def test_the_newest_sweep_of_a_name_is_found(tmp_path: Path) -> None:
    assert SweepFolder.newest(plan().sweep, tmp_path) is None
    for name in ("folder-20260101-120000", "folder-20260102-120000", "folder-more-20260103-120000"):
        SweepFolder(tmp_path / name).create(plan().sweep)
    (tmp_path / "folder-20260104-120000").mkdir()  # no sweep file in it
    found = SweepFolder.newest(plan().sweep, tmp_path)
    assert found is not None
    assert found.path.name == "folder-20260102-120000"


def test_an_existing_folder_is_never_taken_over(tmp_path: Path) -> None:
    SweepFolder(tmp_path / "a").create(plan().sweep)
    with pytest.raises(UserError, match="exists already"):
        SweepFolder(tmp_path / "a").create(plan().sweep)


def test_differences_are_shown_key_by_key(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path / "a")
    folder.create(plan().sweep)
    assert folder.differences(plan()) == ""
    difference = folder.differences(plan(steps=200))
    assert "-steps: 100\n+steps: 200" in difference
    # These are about one execution: a resumed one may have more time.
    assert folder.differences(plan(time_budget_s=60, max_concurrent=3)) == ""


def test_a_sweep_of_an_earlier_version_goes_on_with_its_models(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path / "a")
    folder.create(plan().sweep)
    stored = yaml.safe_load(folder.sweep_file.read_text())
    assert stored.pop("embedded_version") == "v2"
    folder.sweep_file.write_text(yaml.safe_dump(stored))
    resumed = plan().going_on_with(folder.stored_sweep())
    assert folder.differences(resumed) == ""
    assert {model_id: model.model_id for model_id, model in resumed.models.items()} == {"embedded/tiny": "embedded/v1/tiny"}
    assert [trial.trial_id for trial in resumed.trials] == [trial.trial_id for trial in plan().trials]
    # Unless the file says otherwise.
    assert "-embedded_version: v1\n+embedded_version: v2" in folder.differences(
        plan(embedded_version="v2").going_on_with(folder.stored_sweep())
    )


def test_a_resumed_sweep_of_an_earlier_version_keeps_the_models_that_only_judge() -> None:
    audited = {"audit": {"models": ["own_rewards:Unavailable"], "every": 50, "frames": 10}}
    judged = plan(**audited)
    resumed = judged.going_on_with(judged.sweep.model_copy(update={"embedded_version": "v1"}))
    assert list(resumed.models) == ["embedded/tiny", "own_rewards:Unavailable"]
    assert resumed.models["own_rewards:Unavailable"] is judged.models["own_rewards:Unavailable"]


def test_keys_that_an_earlier_version_did_not_know_are_no_difference(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path / "a")
    folder.create(plan().sweep)
    stored = yaml.safe_load(folder.sweep_file.read_text())
    del stored["trial"]["env_runners"]
    del stored["settings"]["double_q"]
    folder.sweep_file.write_text(yaml.safe_dump(stored))
    assert folder.differences(plan()) == ""
    assert "+  env_runners: 2" in folder.differences(plan(trial={"env_runners": 2}))


def test_a_sweep_of_version_0_1_that_named_files_relatively_is_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "weights").mkdir()
    for file in ("weights/own.pt", "weights/other.pt", "robot.xml"):
        (tmp_path / file).touch()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(NAMES_A_FILE)
    monkeypatch.syspath_prepend(tmp_path)
    relative = "mine:NamesAFile/weights/own.pt"
    folder = SweepFolder(tmp_path / "a")
    before = plan(models=[relative], seeds=[0, 1], only=[{"model": relative, "alpha": 0.5, "prompt": "task"}])
    folder.create(before.sweep)
    absolute = f"mine:NamesAFile/{tmp_path}/weights/own.pt"
    now = plan(models=[absolute], seeds=[0, 1], only=[{"model": absolute, "alpha": 0.5, "prompt": "task"}])
    assert folder.differences(now) == ""
    resumed = now.with_ids_of(folder.stored_sweep())
    assert [trial.trial_id for trial in resumed.trials] == [trial.trial_id for trial in before.trials]
    assert resumed.trials[-1].model_id == absolute  # the same file in every process
    other = plan(models=[absolute.replace("own", "other")], seeds=[0, 1])
    assert "weights/other.pt" in folder.differences(other)


def test_a_results_folder_that_mlflows_address_would_take_apart_is_refused(tmp_path: Path) -> None:
    for name in ("why?", "res %41"):
        with pytest.raises(UserError, match=r"MLflow cannot open a database in a path with .* --results"):
            default_tracking_uri(tmp_path / name)
    assert default_tracking_uri(tmp_path / "100% #1 ü").endswith("/100% #1 ü/mlflow.db")


def test_settings_that_the_algorithm_no_longer_has_are_a_difference(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path / "a")
    folder.create(plan().sweep)
    stored = yaml.safe_load(folder.sweep_file.read_text())
    stored["settings"]["momentum"] = 0.5
    folder.sweep_file.write_text(yaml.safe_dump(stored))
    assert "-  momentum: 0.5" in folder.differences(plan())


def test_only_one_process_at_a_time_has_it(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path / "a")
    folder.create(plan().sweep)
    assert not folder.in_use()
    with folder.locked():
        assert folder.in_use()
        with pytest.raises(UserError, match=r"in use by another process \(id \d+\)"), folder.locked():
            pass
    with folder.locked():
        pass


def test_a_trial_that_lies_elsewhere_is_not_gone_on_with(tmp_path: Path) -> None:
    """Its checkpoints would be unpickled."""
    folder = SweepFolder(tmp_path / "a")
    folder.create(plan().sweep)
    (trial, *_) = plan().trials
    assert folder.trial(trial.trial_id) == tmp_path / "a" / "trials" / trial.trial_id
    (tmp_path / "elsewhere").mkdir()
    folder.trial(trial.trial_id).parent.mkdir()
    folder.trial(trial.trial_id).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="is refused"):
        folder.trial(trial.trial_id)
    with pytest.raises(UserError, match="is refused"):
        folder.trial("../../elsewhere")


def test_a_folder_is_made_with_its_sweep_file_or_is_no_sweeps(tmp_path: Path) -> None:
    """A full disk, or the end of the process, must not leave half a file: it would read as one that was changed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, hard))
    try:
        with pytest.raises(UserError, match="cannot be created: File too large"):
            SweepFolder(tmp_path / "folder-20260101-120000").create(plan().sweep)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert SweepFolder.newest(plan().sweep, tmp_path) is None


def test_a_full_disk_does_not_keep_it_from_being_locked(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path / "a")
    folder.create(plan().sweep)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        with folder.locked():
            assert folder.in_use()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("address", ["s3://bucket/results", "gs://bucket", "file:///results"])
def test_an_address_is_no_path(address: str) -> None:
    """Of `s3://bucket` a folder of that name would be made here."""
    with pytest.raises(UserError, match=rf"^{address.replace('///', '//')} is an address, .* name a file or folder of this"):
        new_path(Path(address), "sweep")


def test_the_newest_sweep_at_an_address_is_fetched(remote: RemoteFolder, machine: Callable[[str], None]) -> None:
    assert SweepFolder.newest(plan().sweep, remote) is None
    for name in ("folder-20260101-120000", "folder-20260102-120000", "folder-more-20260103-120000"):
        folder = SweepFolder.at(remote / name)
        folder.create(plan().sweep)
        Journal(folder.journal).append(TrialStarted(trial=name))
        for file in ("trials/t/video/episode.mp4", "trials/t/step-000000100/state.pkl", "tune/attempt-1/x"):
            (folder.path / file).parent.mkdir(parents=True)
            (folder.path / file).write_text("x")
        folder.remote.put_folder("")  # type: ignore[union-attr]
    machine("other")
    found = SweepFolder.newest(plan().sweep, remote)
    assert found is not None
    assert found.place == remote / "folder-20260102-120000"
    assert found.differences(plan()) == ""
    assert [entry.trial for entry in read_entries(found.journal) if isinstance(entry, TrialStarted)] == [found.path.name]
    assert [trial.name for trial in found.trials()] == ["t"]
    # Checkpoints are fetched when they are read, and Tune's files by nobody.
    assert [each.name for each in found.trial("t").iterdir()] == ["video"]
    assert not found.tune.exists()
    with pytest.raises(UserError, match=r"folder-20260102-120000 exists already"):
        found.create(plan().sweep)


def test_a_sweep_that_was_removed_from_its_address_is_none(remote: RemoteFolder) -> None:
    """A copy of it may be left."""
    folder = SweepFolder.at(remote / "folder-20260101-120000")
    folder.create(plan().sweep)
    assert not folder.fetch()
    assert SweepFolder.newest(plan().sweep, remote) is None
    with pytest.raises(UserError, match=rf"^{folder.remote} is not the folder of a sweep"):
        standing_of(remote / "folder-20260101-120000")


def test_videos_at_an_address_are_copied_into_a_folder_in_which_nothing_is_overwritten(
    remote: RemoteFolder, machine: Callable[[str], None], tmp_path: Path
) -> None:
    folder = SweepFolder.at(remote / "folder-20260101-120000")
    into = tmp_path / "videos"
    with pytest.raises(UserError, match=r"folder-20260101-120000 holds no sweep"):
        folder.copy_videos(into)
    assert not into.exists()
    folder.create(plan().sweep)
    for name in ("trials/a/video/plain.mp4", "trials/a/video/episode.json", "trials/a/step-000000100/state.pkl"):
        (folder.path / name).parent.mkdir(parents=True, exist_ok=True)
        (folder.path / name).write_text(name)
    assert folder.remote is not None
    folder.remote.put_folder("")
    machine("other")
    elsewhere = SweepFolder.at(remote / "folder-20260101-120000")
    elsewhere.copy_videos(into)
    copied = ["trials/a/video/episode.json", "trials/a/video/plain.mp4"]
    assert sorted(str(each.relative_to(into)) for each in into.rglob("*.*")) == copied
    (into / "labels.sqlite").write_text("a label")
    elsewhere.copy_videos(into)
    assert (into / "labels.sqlite").read_text() == "a label"
    (into / copied[1]).write_text("another video")
    with pytest.raises(UserError, match=r"plain\.mp4 is not the video of .*: name another folder"):
        elsewhere.copy_videos(into)
    assert (into / copied[1]).read_text() == "another video"


def test_a_sweep_at_an_address_runs_on_one_machine_at_a_time(
    remote: RemoteFolder, machine: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = SweepFolder.at(remote / "folder-20260101-120000")
    folder.create(plan().sweep)
    with folder.locked():
        folder.note_use()
    here = socket.gethostname()
    assert not folder.in_use()  # this process has noted it
    monkeypatch.setattr(os, "getpid", os.getppid)
    assert folder.in_use()  # another one that is alive
    monkeypatch.undo()
    machine("other")
    monkeypatch.setattr(socket, "gethostname", lambda: "far-away")
    other = SweepFolder.at(remote / "folder-20260101-120000")
    other.path.mkdir(parents=True)
    with (
        pytest.raises(UserError, match=rf"is in use by process {os.getpid()} on {here}, .* try again in 1[0-9]+ s"),
        other.locked(),
    ):
        pass
    written = time.time()
    monkeypatch.setattr(time, "time", lambda: written + IN_USE_S)
    assert not other.in_use()


def test_results_are_not_written_where_ray_deletes_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "session" / "runtime_resources" / "working_dir_files" / "_ray_pkg_1"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    with pytest.raises(UserError, match=r"is in Ray's copy of this job's working folder, .* name a folder that stays"):
        new_path(Path("results"), "sweep")
    assert new_path(tmp_path / "results", "sweep").parent == tmp_path / "results"


def test_a_file_system_without_locks_is_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = SweepFolder(tmp_path / "a")
    folder.create(plan().sweep)

    def without_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", without_locks)
    for attempt in (folder.in_use, lambda: folder.locked().__enter__()):
        with pytest.raises(UserError, match=r"cannot be locked \(No locks available\).* with --results"):
            attempt()
