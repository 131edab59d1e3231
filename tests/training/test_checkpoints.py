"""Checkpoints on disk: complete or not there, whatever happens while they are written."""

import json
import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from disk import full_disk

from vlm_rm_sweeps import storage
from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.storage import RemoteFolder
from vlm_rm_sweeps.training.checkpoints import Checkpoint, PolicyContent, TrialFolder, read_checkpoint


def network(width: int = 4) -> Any:
    """All that is asked of an RLModule here is its weights."""
    return torch.nn.Linear(width, 2)


def state(step: int) -> dict[str, Any]:
    return {"step": step, "buffer": np.full(10_000, step)}


def content(step: int) -> PolicyContent:
    return {
        "task": "cartpole-upright",
        "env": None,
        "rendering": {"textures": "original", "camera": "default", "profile": "fast"},
        "algorithm": "dqn",
        "settings": {},
        "seed": 0,
        "reward": None,
        "env_steps": step,
        "model_config": {},
    }


def save(folder: TrialFolder, step: int, also_kept: Collection[int] = ()) -> Checkpoint:
    return folder.save(network(), state(step), {**content(step), "results": [], "done": False}, also_kept)


def save_best(folder: TrialFolder, step: int, success: float = 0.0) -> Checkpoint:
    return folder.save_best(network(), {**content(step), "metrics": {"success": success}, "greedy": False})


def last(folder: TrialFolder) -> Checkpoint:
    found, _ = folder.last()
    assert found is not None
    return found


def test_resumes_from_the_newest_and_keeps_two(tmp_path: Path) -> None:
    folder = TrialFolder(tmp_path / "trial")
    assert folder.last() == (None, [])
    for step in (500, 1000, 12_000):
        save(folder, step)
    assert last(folder).env_steps == 12_000
    assert last(folder).training_state()["step"] == 12_000
    assert sorted(each.name for each in folder.folder.iterdir()) == ["step-000001000", "step-000012000"]


def test_one_that_somebody_else_may_need_stays_and_is_found_by_its_step(tmp_path: Path) -> None:
    folder = TrialFolder(tmp_path)
    for step in (500, 1000, 1500, 2000):
        save(folder, step, also_kept=(500, 7))
    assert sorted(each.name for each in folder.folder.iterdir()) == ["step-000000500", "step-000001500", "step-000002000"]
    assert folder.of_step(500).training_state()["step"] == 500
    with pytest.raises(UserError, match="step-000001000 is not a checkpoint"):
        folder.of_step(1000)


@pytest.mark.parametrize("name", ["state.pkl", "policy.safetensors", "checkpoint.json"])
def test_one_that_was_cut_short_is_passed_over(tmp_path: Path, name: str) -> None:
    folder = TrialFolder(tmp_path)
    save(folder, 500)
    file = save(folder, 1000).folder / name
    file.write_bytes(file.read_bytes()[:-20])
    found, problems = folder.last()
    assert found is not None
    assert found.env_steps == 500
    assert len(problems) == 1
    assert name in problems[0]


def test_one_flipped_bit_is_found(tmp_path: Path) -> None:
    folder = TrialFolder(tmp_path)
    file = save(folder, 500).folder / "state.pkl"
    content = bytearray(file.read_bytes())
    content[5000] ^= 1
    file.write_bytes(content)
    found, problems = folder.last()
    assert found is None
    assert "SHA-256" in problems[0]


def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    folder = TrialFolder(tmp_path)
    save(folder, 500)
    with full_disk(room=4_000), pytest.raises(OSError, match="File too large"):
        save(folder, 1000)
    assert [each.name for each in folder.folder.iterdir()] == ["step-000000500"]
    assert last(folder).training_state()["step"] == 500
    save(folder, 1000)
    assert last(folder).env_steps == 1000


def test_what_a_killed_process_left_half_written_does_not_disturb(tmp_path: Path) -> None:
    folder = TrialFolder(tmp_path)
    save(folder, 500)
    half = tmp_path / ".unfinished-step-000001000"
    half.mkdir()
    (half / "state.pkl").write_bytes(b"half")
    assert last(folder).env_steps == 500
    assert last(TrialFolder(tmp_path)).env_steps == 500
    assert save(folder, 1000).training_state()["step"] == 1000
    assert not half.exists()


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd"])
def test_files_elsewhere_are_not_part_of_a_checkpoint(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret").write_text("secret")
    description = save(TrialFolder(tmp_path), 500).folder / "checkpoint.json"
    described = json.loads(description.read_text())
    description.write_text(json.dumps(described | {"files": described["files"] | {name: {"bytes": 6, "sha256": "0"}}}))
    with pytest.raises(UserError, match="is refused"):
        read_checkpoint(description.parent)


def test_a_state_that_lies_elsewhere_is_not_unpickled(tmp_path: Path) -> None:
    checkpoint = save(TrialFolder(tmp_path / "trial"), 500)
    (checkpoint.folder / "state.pkl").rename(tmp_path / "state.pkl")
    (checkpoint.folder / "state.pkl").symlink_to(tmp_path / "state.pkl")
    with pytest.raises(UserError, match="is refused"):
        checkpoint.training_state()
    with pytest.raises(UserError, match="is refused"):
        read_checkpoint(checkpoint.folder)


def test_the_same_error_at_the_same_step_fails_again(tmp_path: Path) -> None:
    folder = TrialFolder(tmp_path / "trial")
    assert not folder.fails_again(500, "RuntimeError: fire")
    assert folder.fails_again(500, "RuntimeError: fire")
    assert not folder.fails_again(500, "RuntimeError: water")
    assert not folder.fails_again(1000, "RuntimeError: water")
    assert TrialFolder(tmp_path / "trial").fails_again(1000, "RuntimeError: water")


def test_the_best_policy_is_replaced_as_a_whole(tmp_path: Path) -> None:
    folder = TrialFolder(tmp_path)
    assert folder.best() is None
    save_best(folder, 500, success=0.1)
    with full_disk(room=100), pytest.raises(OSError, match=r"too large|could not be written"):
        save_best(folder, 1000, success=0.2)
    best = folder.best()
    assert best is not None
    assert best.content["metrics"] == {"success": 0.1}
    save_best(folder, 1000, success=0.2)
    assert [each.name for each in tmp_path.iterdir()] == ["best-000001000"]


def test_weights_come_back_and_those_of_another_network_are_refused(tmp_path: Path) -> None:
    saved = network()
    checkpoint = TrialFolder(tmp_path).save_best(saved, {**content(500), "metrics": {"success": 0.0}, "greedy": False})
    loaded = network()
    checkpoint.load_policy(loaded)
    torch.testing.assert_close(loaded.weight, saved.weight, rtol=0, atol=0)
    with pytest.raises(UserError, match=r"another task or network: its weight has the shape \(2, 4\), expected \(2, 7\)"):
        checkpoint.load_policy(network(7))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "is not a checkpoint"),
        ("{", "is damaged"),
        ("[]", "is damaged"),
        (json.dumps({"format": 99}), "format = 99: written by another version of vlm-rm, expected format 1"),
    ],
)
def test_what_is_no_checkpoint_is_reported(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "checkpoint.json").write_text(text)
    with pytest.raises(UserError, match=message):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"task": None}, "task = None: input should be a valid string"),
        ({"rendering": {"textures": "original", "camera": "default"}}, "rendering.profile: field required"),
        ({"reward": {"model": "embedded/tiny"}}, "reward.goal: field required"),
        ({"results": [{"success": "much"}]}, "results.0.success = 'much': input should be a valid number"),
    ],
    ids=["task", "rendering", "reward", "results"],
)
def test_a_description_that_lacks_something_is_refused(tmp_path: Path, changed: dict[str, Any], problem: str) -> None:
    description = save(TrialFolder(tmp_path), 500).folder / "checkpoint.json"
    description.write_text(json.dumps(json.loads(description.read_text()) | changed))
    with pytest.raises(UserError, match=problem):
        read_checkpoint(description.parent)


def test_the_content_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Also what this version does not know."""
    description = save(TrialFolder(tmp_path), 500).folder / "checkpoint.json"
    written = json.loads(description.read_text()) | {"of_another_version": 1}
    description.write_text(json.dumps(written))
    assert read_checkpoint(description.parent).content == written


@pytest.mark.parametrize("name", ["step-000000900", "best-000000900"])
def test_a_checkpoint_that_lies_elsewhere_is_not_resumed_from(tmp_path: Path, name: str) -> None:
    """It would be unpickled, and it is not of the folder that the user named."""
    elsewhere = save(TrialFolder(tmp_path / "elsewhere"), 900)
    folder = TrialFolder(tmp_path / "trial")
    save(folder, 500)
    (folder.folder / name).symlink_to(elsewhere.folder)
    found, problems = folder.last()
    assert found is not None
    assert found.env_steps == 500
    assert folder.best() is None
    assert all("is refused" in problem for problem in problems)
    assert bool(problems) is name.startswith("step")


def names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


def test_another_machine_resumes_from_what_is_at_the_address(remote: RemoteFolder, machine: Callable[[str], None]) -> None:
    trial = remote / "trial"
    for step in (500, 1000, 12_000):
        save(TrialFolder(trial), step)
        save_best(TrialFolder(trial), step)
    machine("other")
    folder = TrialFolder(trial)
    assert folder.folder == trial.copy
    assert last(folder).training_state()["step"] == 12_000
    assert names(folder.folder) == ["step-000012000"]  # only what was read
    best = folder.best()
    assert best is not None
    assert best.env_steps == 12_000
    save(folder, 20_000)
    assert trial.names() == ["best-000012000", "step-000012000", "step-000020000"]
    machine("first")  # which had gone on until 12 000
    assert last(TrialFolder(trial)).env_steps == 20_000
    assert [each.env_steps for each in TrialFolder(trial).kept()] == [12_000, 12_000, 20_000]


def test_half_a_checkpoint_at_the_address_is_none(remote: RemoteFolder, machine: Callable[[str], None]) -> None:
    trial = remote / "trial"
    for step in (500, 1000):
        save(TrialFolder(trial), step)
    trial.remove_file("step-000001000/checkpoint.json")  # the process was killed before it was put there
    machine("other")
    found, problems = TrialFolder(trial).last()
    assert found is not None
    assert found.env_steps == 500
    assert problems == []


def test_what_cannot_be_put_there_stays_here(remote: RemoteFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "_WAIT_S", 0.0)
    trial = remote / "trial"
    save(TrialFolder(trial), 500)
    store = tmp_path / "store" / "results"
    store.rename(tmp_path / "away")
    store.write_text("no folder")  # as a store that refuses
    folder = TrialFolder(trial)
    for step in (1000, 1500, 2000):
        with pytest.raises(OSError, match=r"written, and stays in .*step-00000"):
            save(folder, step)
    assert names(folder.folder) == ["step-000001500", "step-000002000"]
    store.unlink()
    (tmp_path / "away").rename(store)
    assert last(TrialFolder(trial)).env_steps == 2000
    save(TrialFolder(trial), 2500)
    assert trial.names() == ["step-000000500", "step-000002500"]


def test_a_best_policy_that_could_not_be_put_there_is_put_there_later(
    remote: RemoteFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may stay the best one, and is not written again."""
    monkeypatch.setattr(storage, "_WAIT_S", 0.0)
    trial = remote / "trial"
    save_best(TrialFolder(trial), 500)
    store = tmp_path / "store" / "results"
    store.rename(tmp_path / "away")
    store.write_text("no folder")
    with pytest.raises(OSError, match="written, and stays in"):
        save_best(TrialFolder(trial), 1000)
    store.unlink()
    (tmp_path / "away").rename(store)
    save(TrialFolder(trial), 1500)
    assert "best-000001000" in trial.names()
    assert (trial / "best-000001000").files().keys() >= {"checkpoint.json", "policy.safetensors"}


def test_a_damaged_copy_is_passed_over(remote: RemoteFolder) -> None:
    trial = remote / "trial"
    for step in (500, 1000):
        save(TrialFolder(trial), step)
    shutil.rmtree(trial.copy / "step-000000500")
    (trial.copy / "step-000001000" / "state.pkl").write_bytes(b"x")
    found, problems = TrialFolder(trial).last()
    assert found is not None
    assert found.env_steps == 500
    assert "state.pkl was cut short" in problems[0]
