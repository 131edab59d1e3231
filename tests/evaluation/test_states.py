"""Data sets of states: they are read back as written, never overwritten, and damage is reported."""

import hashlib
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from disk import full_disk
from PIL import Image

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.evaluation.collect_states import sampled_states, states_of_images
from vlm_rm_sweeps.evaluation.states import TABLE, Provenance, State, StateDataset, load_states, write_states
from vlm_rm_sweeps.tasks.registry import find_task

CARTPOLE = find_task("cartpole-upright")


def small_frame(shade: int) -> np.ndarray:
    return np.full((4, 6, 3), shade, np.uint8)


@pytest.fixture
def dataset(tmp_path: Path) -> StateDataset:
    return write_states(tmp_path / "data", CARTPOLE, sampled_states(CARTPOLE, 12, seed=3))


def test_uniform_states_cover_circle_and_track_with_their_success() -> None:
    states = list(sampled_states(CARTPOLE, 60, seed=0))
    angles = np.array([state.variables["theta"] for state in states])
    positions = np.array([state.variables["x"] for state in states])
    assert angles.min() < -2.5 < 2.5 < angles.max()
    assert positions.min() < -2 < 2 < positions.max()
    assert [state.success for state in states] == [abs(angle) <= math.radians(12) for angle in angles]
    assert 0 < sum(bool(state.success) for state in states) < 60
    assert states[0].frame.shape == (400, 600, 3)


def test_mountain_car_states_reach_the_flag() -> None:
    states = list(sampled_states(find_task("mountaincar-summit"), 40, seed=0))
    for state in states:
        assert state.success == (state.variables["position"] >= np.float32(0.45))
    assert any(state.success for state in states)


@pytest.mark.parametrize("name", ["humanoid-kneeling", "humanoid-standing", "humanoid-splits"])
def test_humanoid_states_are_in_and_out_of_the_pose(name: str) -> None:
    task = find_task(name)
    space = task.require_states()
    env = task.make_native_env(task.rendering(), None)
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    successes = []
    for _ in range(60):
        space.sample(env, rng)
        successes.append(space.in_goal(env))
    assert 0.15 < np.mean(successes) < 0.85
    assert len(space.read(env)["qpos"]) == 24  # type: ignore[arg-type]
    reached = []
    for share in (0.0, 1.0):
        space.place(env, {"share": share})
        reached.append(space.in_goal(env))
    assert reached == [False, True]
    env.close()


@pytest.mark.parametrize("image_format", ["png", "webp"])
def test_frames_and_states_survive_the_disk(tmp_path: Path, image_format: str) -> None:
    states = list(sampled_states(CARTPOLE, 3, seed=1))
    written = write_states(tmp_path / "new" / "data", CARTPOLE, states, image_format)  # type: ignore[arg-type]
    read = load_states(tmp_path / "new" / "data")
    assert read.ids == written.ids
    assert read.task is CARTPOLE
    for index, state in enumerate(states):
        np.testing.assert_array_equal(read.frame(index), state.frame)
        row = read.table.iloc[index]
        assert (row["theta"], row["x"]) == (state.variables["theta"], state.variables["x"])
        assert (row["source"], row["seed"], row["step"], row["success"]) == ("uniform", 1, index, state.success)


def test_the_rendering_of_states_is_in_the_table(tmp_path: Path) -> None:
    task = find_task("mountaincar-summit")
    drawn = [task.rendering("original", "default", "fast"), task.rendering("modified", "default", "fast")]
    states = [state for rendering in drawn for state in sampled_states(task, 2, seed=0, rendering=rendering)]
    mixed = write_states(tmp_path / "mixed", task, [*states, State(small_frame(1), Provenance("images"))])
    assert mixed.renderings() == {("original", "default", "fast"): 2, ("modified", "default", "fast"): 2}
    assert "modified textures, default camera, fast profile (2)" in mixed.summary()
    assert mixed.table["textures"].isna().tolist() == [False] * 4 + [True]


def test_ids_are_stable_and_tell_states_apart(tmp_path: Path) -> None:
    first, again, other = (
        write_states(tmp_path / str(index), CARTPOLE, sampled_states(CARTPOLE, 5, seed=seed)).ids
        for index, seed in enumerate((0, 0, 1))
    )
    assert first == again
    assert not set(first) & set(other)
    same_pictures = write_states(tmp_path / "same", CARTPOLE, [State(small_frame(1), Provenance("rollout"))] * 3)
    assert len(set(same_pictures.ids)) == 3


def test_vectors_and_unknown_success_are_kept(tmp_path: Path) -> None:
    states = [State(small_frame(shade), Provenance("rollout", trial="t"), {"qpos": [shade, 2.5]}) for shade in (1, 2)]
    table = write_states(tmp_path / "data", CARTPOLE, states).table
    assert [list(vector) for vector in table["qpos"]] == [[1, 2.5], [2, 2.5]]
    assert table["success"].isna().all()


def test_images_of_a_folder_become_states(tmp_path: Path) -> None:
    images = tmp_path / "images"
    (images / "deeper").mkdir(parents=True)
    Image.new("RGB", (8, 6), "red").save(images / "b.png")
    Image.new("L", (5, 5), 9).save(images / "deeper" / "a.jpg")
    (images / "notes.txt").write_text("no image")
    dataset = write_states(tmp_path / "data", CARTPOLE, states_of_images(images))
    assert dataset.table["origin"].tolist() == ["b.png", "deeper/a.jpg"]
    assert [dataset.frame(index).shape for index in range(2)] == [(6, 8, 3), (5, 5, 3)]


def test_a_file_that_is_not_an_image_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no images"):
        list(states_of_images(tmp_path))
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nand then nothing")
    with pytest.raises(UserError, match=r"broken\.png cannot be read as an image"):
        list(states_of_images(tmp_path))
    with pytest.raises(UserError, match="is no folder"):
        list(states_of_images(tmp_path / "nowhere"))


def test_an_existing_folder_is_never_overwritten(dataset: StateDataset) -> None:
    before = (dataset.folder / TABLE).read_bytes()
    with pytest.raises(UserError, match="exists already and is not overwritten"):
        write_states(dataset.folder, CARTPOLE, sampled_states(CARTPOLE, 2, seed=9))
    assert (dataset.folder / TABLE).read_bytes() == before


def test_an_interrupted_collection_leaves_nothing(tmp_path: Path) -> None:
    def interrupted() -> Iterator[State]:
        yield State(small_frame(0), Provenance("rollout"))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_states(tmp_path / "data", CARTPOLE, interrupted())
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match="no states to write"):
        write_states(tmp_path / "data", CARTPOLE, [])


def test_missing_images_are_counted_and_named(dataset: StateDataset) -> None:
    for index in (2, 5):
        dataset.image_file(index).unlink()
    with pytest.raises(UserError, match=r"2 of 12 images are missing \(images/000002\.png, images/000005\.png\)"):
        load_states(dataset.folder)


@pytest.mark.parametrize("damage", [lambda content: content[:-20], lambda content: content + b"x", lambda content: b""])
def test_a_damaged_image_is_named(dataset: StateDataset, damage: Callable[[bytes], bytes]) -> None:
    file = dataset.image_file(4)
    file.write_bytes(damage(file.read_bytes()))
    again = load_states(dataset.folder)
    again.frame(3)
    with pytest.raises(UserError, match=r"000004\.png is damaged"):
        again.frame(4)


def rewrite(dataset: StateDataset, **columns: Any) -> None:
    dataset.table.assign(**columns).to_parquet(dataset.folder / TABLE, index=False)


@pytest.mark.parametrize(
    "name", ["../secret.png", "/etc/passwd", "images/../../secret.png", "images/.hidden.png", "images/a.txt"]
)
def test_names_that_leave_the_folder_are_refused(dataset: StateDataset, name: str) -> None:
    (dataset.folder.parent / "secret.png").write_bytes(b"")
    rewrite(dataset, image=[name, *dataset.table["image"][1:]])
    with pytest.raises(UserError, match="is refused"):
        load_states(dataset.folder)


def test_a_link_out_of_the_folder_is_refused(dataset: StateDataset) -> None:
    secret = dataset.folder.parent / "secret.png"
    secret.write_bytes(b"")
    dataset.image_file(0).unlink()
    dataset.image_file(0).symlink_to(secret)
    with pytest.raises(UserError, match="is refused"):
        load_states(dataset.folder)


def test_a_folder_that_is_not_a_data_set_is_refused(dataset: StateDataset, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no states\.parquet"):
        load_states(tmp_path)
    rewrite(dataset, id="same")
    with pytest.raises(UserError, match="distinct ids"):
        load_states(dataset.folder)
    rewrite(dataset, task="cartpole-sideways")
    with pytest.raises(UserError, match="unknown task 'cartpole-sideways'"):
        load_states(dataset.folder)
    pd.DataFrame({"id": ["a"]}).to_parquet(dataset.folder / TABLE)
    with pytest.raises(UserError, match="missing: image"):
        load_states(dataset.folder)
    (dataset.folder / TABLE).write_bytes(b"PAR1 and then nothing")
    with pytest.raises(UserError, match="is damaged"):
        load_states(dataset.folder)


def test_on_a_full_disk_no_half_data_set_is_left(tmp_path: Path) -> None:
    states = [State(np.zeros((8, 8, 3), np.uint8), Provenance("uniform"))]
    with full_disk(room=50), pytest.raises(UserError, match=r"data cannot be written \(File too large\)"):
        write_states(tmp_path / "below" / "data", find_task("cartpole-upright"), states)
    assert list(tmp_path.iterdir()) == []


def test_a_data_set_of_no_images_is_refused(dataset: StateDataset) -> None:
    """Its checksum is right: it came like that."""
    content = b"no image"
    dataset.image_file(0).write_bytes(content)
    rewrite(dataset, sha256=[hashlib.sha256(content).hexdigest(), *dataset.table["sha256"][1:]])
    with pytest.raises(UserError, match="is no image"):
        load_states(dataset.folder).frame(0)


@pytest.mark.parametrize("column", ["success", "step", "theta"])
def test_a_column_of_another_type_is_refused(dataset: StateDataset, column: str) -> None:
    rewrite(dataset, **{column: "text"})
    with pytest.raises(UserError, match=f"is damaged: {column}"):
        load_states(dataset.folder)
