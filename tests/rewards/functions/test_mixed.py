"""Weighted sums of rewards, against the formula in plain loops."""

from typing import Any

import numpy as np
import pytest

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.rewards.clip import ClipRewardModel
from vlm_rm_sweeps.rewards.columns import score_episode
from vlm_rm_sweeps.rewards.functions.registry import make_reward
from vlm_rm_sweeps.rewards.reward_model import RewardSpec

GOAL, BASELINE = ("pole upright",), ("pole and cart",)
SOFTMAX = {"kind": "softmax", "negatives": ["pole hanging down"]}
PARTS: list[tuple[float, Any]] = [(0.5, SOFTMAX), (-2.0, {"kind": "goal_baseline", "alpha": 0.3}), (1.5, "history")]


def mixed(**others: Any) -> Any:
    return {"kind": "mixed", "of": [{"weight": weight, "reward": reward} for weight, reward in PARTS]} | others


def test_it_is_the_formula(model: ClipRewardModel, frames: np.ndarray) -> None:
    truth = np.linspace(-1, 3, len(frames))
    function = make_reward(mixed(true_reward=0.25))
    assert function.uses_true_reward
    assert function.memory == 3
    rewards = score_episode(model, RewardSpec(GOAL, BASELINE, function=function), frames, truth)
    parts = [
        score_episode(model, RewardSpec(GOAL, BASELINE, function=make_reward(reward)), frames, truth) for _, reward in PARTS
    ]
    for step, reward in enumerate(rewards):
        expected = 0.25 * truth[step] + sum(weight * part[step] for (weight, _), part in zip(PARTS, parts, strict=True))
        assert reward == pytest.approx(expected, abs=1e-5)


def test_without_the_true_reward_its_range_is_known() -> None:
    # 0.5 of 0 to 1, -2 of -1 to 1, 1.5 of -3 to 3
    assert make_reward(mixed()).range() == (-6.5, 7.0)
    assert make_reward(mixed(true_reward=1)).range() == (-np.inf, np.inf)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"of": []}, "expected at least 1 of them"),
        ({}, "parameter 'of' is missing"),
        ({"of": [{"weight": 0, "reward": "goal_baseline"}]}, "all weights are 0"),
        ({"of": [{"weight": 1}]}, "parameter 'of.0.reward' is missing"),
        ({"of": [{"weight": 1, "reward": "goal_basline"}]}, "did you mean 'goal_baseline'"),
        ({"of": [{"weight": True, "reward": "goal_baseline"}]}, "weight"),
    ],
)
def test_bad_parameters_are_one_message(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_reward({"kind": "mixed"} | given)
