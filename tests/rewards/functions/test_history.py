"""Rewards of the last frames, against the formula in plain loops."""

import numpy as np
import pytest

from vlm_rm_sweeps.rewards.clip import ClipRewardModel
from vlm_rm_sweeps.rewards.columns import score_episode
from vlm_rm_sweeps.rewards.functions.history import History
from vlm_rm_sweeps.rewards.reward_model import RewardSpec

GOAL, BASELINE = ("pole upright", "a pole that stands straight up"), ("pole and cart",)


def formula(images: np.ndarray, goal: np.ndarray, baseline: np.ndarray, function: History, step: int) -> float:
    """The definition, for one step in float64: embeddings of the last frames, their mean, and the change."""
    window = [images[each] for each in range(step + 1) if each > step - function.frames]
    mean = sum(window[1:], window[0]) / len(window)
    direction = (goal - baseline) / np.linalg.norm(goal - baseline)
    return float(mean @ goal + function.weight * ((window[-1] - window[0]) @ direction))


@pytest.mark.parametrize("function", [History(), History(frames=2, weight=-0.5), History(frames=100)])
def test_it_is_the_formula(model: ClipRewardModel, frames: np.ndarray, images: np.ndarray, function: History) -> None:
    rewards = score_episode(model, RewardSpec(GOAL, BASELINE, function=function), frames, np.zeros(len(frames)))
    goal = np.mean([model.encode_prompt(text).numpy().astype(np.float64) for text in GOAL], axis=0)
    baseline = model.encode_prompt(BASELINE[0]).numpy().astype(np.float64)
    expected = [formula(images, goal, baseline, function, step) for step in range(len(frames))]
    np.testing.assert_allclose(rewards, expected, atol=2e-6)


@pytest.mark.parametrize("chunks", [(1,) * 30, (7, 1, 22), (3, 3, 24)])
def test_chunks_with_their_memory_give_the_same_bits(chunks: tuple[int, ...]) -> None:
    function = History(frames=4, weight=0.3)
    columns = np.random.default_rng(0).normal(size=(30, 2)).astype(np.float32)
    nothing = np.zeros(30, np.float32)
    whole, found, start = function.combine(columns, nothing), [], 0
    for steps in chunks:
        first = max(0, start - function.memory)
        found.append(function.combine(columns[first : start + steps], nothing[first : start + steps])[start - first :])
        start += steps
    np.testing.assert_array_equal(np.concatenate(found), whole)


def test_a_frame_alone_has_its_cosine() -> None:
    columns = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
    np.testing.assert_array_equal(History().alone(columns), columns[:, 0])
    assert History().alone(columns[:0]).shape == (0,)
