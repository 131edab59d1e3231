"""A model that travels with its files gives the same rewards where they are missing."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import open_clip.factory
import pytest
import ray
from exported import SMALL_VIT, export
from safetensors.torch import save_file

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.frames import FrameFormat
from vlm_rm_sweeps.pretraining.distill import distill
from vlm_rm_sweeps.rewards import local_files
from vlm_rm_sweeps.rewards.distilled import STUDENT_FILE
from vlm_rm_sweeps.rewards.local_files import local_path
from vlm_rm_sweeps.rewards.registry import find_reward_model
from vlm_rm_sweeps.rewards.reward_model import RewardModel, RewardSpec
from vlm_rm_sweeps.serving import packed_model
from vlm_rm_sweeps.serving.packed_model import PackedModel
from vlm_rm_sweeps.serving.server import RewardServer
from vlm_rm_sweeps.tasks.registry import find_task

SPEC = RewardSpec(("an upright pole",), ("a pole",), 0.5)
FRAMES = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)
TOY = "toy-that-travels"


class FromFile(RewardModel):
    """A user's own model: its reward is the number in a file."""

    frame_format = FrameFormat(32)

    @property
    def files(self) -> Sequence[Path]:
        return [Path(self.model_id.partition("/")[2])]

    def score(self, frames: np.ndarray, specs: Sequence[RewardSpec]) -> np.ndarray:
        number = float(local_path(self.files[0]).read_text())
        return np.full((len(frames), len(specs)), number, np.float32)


@pytest.fixture(autouse=True)
def another_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has no copies yet, with an empty cache; Ray's processes inherit neither."""
    monkeypatch.setattr(local_files, "_copies", {})
    monkeypatch.setenv("VLM_RM_CACHE", str(tmp_path / "cache"))


def from_folder(place: Path, monkeypatch: pytest.MonkeyPatch) -> RewardModel:
    return find_reward_model(str(export(place, SMALL_VIT, {})))


def from_checkpoint(place: Path, monkeypatch: pytest.MonkeyPatch) -> RewardModel:
    """A checkpoint file with a description beside it, of an architecture that open_clip knows by name."""
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIG_PATHS", list(open_clip.factory._MODEL_CONFIG_PATHS))
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", dict(open_clip.factory._MODEL_CONFIGS))
    config = place.parent / f"{TOY}.json"
    config.write_text(json.dumps(SMALL_VIT))
    open_clip.add_model_config(config)
    state = open_clip.create_model(TOY).state_dict()
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, place / "toy.safetensors")
    preprocess = {"preprocess_cfg": {"mean": [0.1] * 3, "std": [0.3] * 3}}
    (place / "open_clip_config.json").write_text(json.dumps({"model_cfg": SMALL_VIT} | preprocess))
    return find_reward_model(f"{TOY}/{place / 'toy.safetensors'}")


def from_student(place: Path, monkeypatch: pytest.MonkeyPatch) -> RewardModel:
    """A student of a teacher whose files are on this machine, too."""
    (place / "teacher").mkdir()
    teacher = str(export(place / "teacher", SMALL_VIT, {}))
    task, student = find_task("cartpole-upright"), place / "student"
    distill(teacher, task, "embedded/tiny", [], images=100, epochs=1, seed=0, folder=student, say=lambda line: None)
    return find_reward_model(f"distilled/{student / STUDENT_FILE}")


def from_own_class(place: Path, monkeypatch: pytest.MonkeyPatch) -> RewardModel:
    (place / "number.txt").write_text("0.25")
    return FromFile(f"own/{place / 'number.txt'}")


def packed_and_moved_away(make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[PackedModel, np.ndarray]:
    """A packed model whose files are no longer where they were, and the rewards that it gave before."""
    place = tmp_path / "place"
    place.mkdir()
    model = make(place, monkeypatch)
    packed = PackedModel.of(model)
    model.load(micro_batch=8)
    expected = model.score(FRAMES, [SPEC])
    place.rename(tmp_path / "away")
    return packed, expected


@pytest.mark.parametrize("make", [from_folder, from_checkpoint, from_student, from_own_class])
def test_it_gives_the_same_rewards_where_its_files_are_missing(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed, expected = packed_and_moved_away(make, tmp_path, monkeypatch)
    unpacked = packed.unpack()
    unpacked.load(micro_batch=8)
    np.testing.assert_array_equal(unpacked.score(FRAMES, [SPEC]), expected)
    # From there it travels on, as from the keeper of shared servers.
    assert PackedModel.of(unpacked).files == packed.files


def test_a_server_takes_the_files_that_came_with_its_model(
    ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed, expected = packed_and_moved_away(from_folder, tmp_path, monkeypatch)
    environment = {"env_vars": {"VLM_RM_CACHE": str(tmp_path / "cache")}}
    actor: Any = ray.remote(num_cpus=0, runtime_env=environment)(RewardServer)
    server = actor.remote(packed, "cpu", "fp32", 8, 1)
    try:
        np.testing.assert_array_equal(ray.get(server.score.remote(FRAMES, [SPEC])).rewards, expected)
    finally:
        ray.kill(server)


def test_what_ships_in_the_package_does_not_travel() -> None:
    assert PackedModel.of(find_reward_model("embedded/tiny")).files == {}


def test_files_that_are_too_large_have_to_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_model, "LARGEST_FILES_MB", 1e-5)
    place = tmp_path / "place"
    place.mkdir()
    model = from_folder(place, monkeypatch)
    packed = PackedModel.of(model)
    assert packed.files == {}
    assert packed.unpack().model_id == model.model_id
    place.rename(tmp_path / "away")
    with pytest.raises(UserError, match=r"no .*open_clip_model.safetensors: a model's files of more than .* do not travel"):
        packed.unpack()


def test_a_file_that_is_gone_before_it_is_packed_is_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = from_own_class(tmp_path, monkeypatch)
    (tmp_path / "number.txt").unlink()
    with pytest.raises(UserError, match=r"a file of model 'own/.*number.txt' cannot be read"):
        PackedModel.of(model)
