"""The learned reward: what its head says, to the bit in any batch, with its own model alone, and without its file."""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_heads import TINY, a_head

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.rewards.clip import ClipRewardModel
from vlm_rm_sweeps.rewards.functions.learned import Learned
from vlm_rm_sweeps.rewards.functions.registry import describe_reward, make_reward, readable_reward
from vlm_rm_sweeps.rewards.heads import write_head
from vlm_rm_sweeps.rewards.reward_model import RewardSpec

GOAL, BASELINE = ("pole upright",), ("pole and cart",)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_head(tmp_path / "upright.safetensors", a_head(4))
    return tmp_path / "upright.safetensors"


@pytest.fixture
def learned(file: Path) -> Learned:
    function = make_reward({"kind": "learned", "head": str(file)})
    assert isinstance(function, Learned)
    return function


def test_it_is_what_the_head_says(learned: Learned, model: ClipRewardModel, frames: np.ndarray) -> None:
    spec = RewardSpec(GOAL, BASELINE, function=learned)
    model.check(spec)
    rewards = model.score(frames, [RewardSpec(GOAL, BASELINE), spec])[:, 1]
    np.testing.assert_array_equal(rewards, a_head(4).weights.logits(model.encode_frames(frames).numpy()))
    for size in (1, 3, 64):
        parts = [model.score(frames[start : start + size], [spec]) for start in range(0, len(frames), size)]
        np.testing.assert_array_equal(np.concatenate(parts)[:, 0], rewards)


def test_prompts_have_no_influence(learned: Learned, model: ClipRewardModel, frames: np.ndarray) -> None:
    specs = [RewardSpec(goal, BASELINE, function=learned) for goal in (GOAL, ("a cat",))]
    first, second = model.score(frames[:5], specs).T
    np.testing.assert_array_equal(first, second)


def test_no_other_process_needs_the_file(learned: Learned, file: Path) -> None:
    described = describe_reward(learned)
    file.unlink()
    assert make_reward(described, from_data=True) == learned == pickle.loads(pickle.dumps(learned))
    assert hash(make_reward(described)) == hash(learned)
    with pytest.raises(UserError, match=r"upright\.safetensors cannot be read|is not a file"):
        make_reward({"kind": "learned", "head": str(file)})


def test_data_name_no_file(file: Path) -> None:
    with pytest.raises(UserError, match="its content is missing"):
        make_reward({"kind": "learned", "head": str(file)}, from_data=True)


def test_its_label_is_that_of_the_head_and_not_of_the_file(learned: Learned, file: Path, tmp_path: Path) -> None:
    assert learned.label.startswith("learned-")
    (tmp_path / "copy").write_bytes(file.read_bytes())
    assert make_reward({"kind": "learned", "head": str(tmp_path / "copy")}).label == learned.label
    write_head(file, a_head(5))
    assert make_reward({"kind": "learned", "head": str(file)}).label != learned.label


def test_another_model_is_refused_before_anything_starts(learned: Learned) -> None:
    other = ClipRewardModel("embedded/small")
    with pytest.raises(UserError, match=r"upright\.safetensors was trained on embeddings of embedded/tiny with 32 numbers"):
        other.check(RewardSpec(GOAL, BASELINE, function=learned))


def test_the_same_model_with_other_weights_is_refused(file: Path) -> None:
    head = a_head(4)
    write_head(file, replace(head, about=head.about.model_copy(update={"identity": "embedded-tiny/sha256:0"})))
    with pytest.raises(UserError, match=r"trained on embedded/tiny \(embedded-tiny/sha256:0\), and this model is"):
        TINY.check(RewardSpec(GOAL, BASELINE, function=make_reward({"kind": "learned", "head": str(file)})))


def test_its_range_is_the_heads(learned: Learned) -> None:
    low, high = learned.range()
    assert (low, high) == a_head(4).weights.range()
    with pytest.raises(UserError, match="so the reward would be the same everywhere"):
        make_reward({"kind": "threshold", "of": describe_reward(learned), "above": high})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "parameter 'head' is missing"),
        ({"head": 5}, "head = 5: expected the path of a file"),
        ({"head": "none.safetensors"}, r"none\.safetensors cannot be read"),
        ({"head": "a", "content": "?"}, "not in base64"),
        ({"head": "a", "content": "aaaa"}, "the head is no safetensors file"),
        ({"head": "a", "heads": "b"}, "a cannot be read"),
    ],
)
def test_bad_parameters_are_one_message(given: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_reward({"kind": "learned", **given})


def test_people_read_the_file_and_not_its_content(learned: Learned, file: Path) -> None:
    expected = {"kind": "learned", "head": str(file)}
    assert readable_reward(learned) == expected
    assert learned.content not in repr(learned)
    steep = make_reward({"kind": "threshold", "above": 0, "of": describe_reward(learned)})
    assert readable_reward(steep)["of"] == expected
