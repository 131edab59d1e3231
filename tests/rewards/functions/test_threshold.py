"""A reward of 1 above a value."""

from typing import Any

import numpy as np
import pytest

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.rewards.clip import ClipRewardModel
from vlm_rm_sweeps.rewards.functions.registry import make_reward
from vlm_rm_sweeps.rewards.functions.threshold import Threshold
from vlm_rm_sweeps.rewards.reward_model import RewardSpec

GOAL, BASELINE = ("pole upright",), ("pole and cart",)
SOFTMAX = {"kind": "softmax", "negatives": ["pole hanging down"]}


@pytest.mark.parametrize("of", ["goal_baseline", {"kind": "goal_baseline", "alpha": 0.7}, SOFTMAX])
def test_it_is_the_formula(model: ClipRewardModel, frames: np.ndarray, of: Any) -> None:
    other = model.score(frames, [RewardSpec(GOAL, BASELINE, function=make_reward(of))])[:, 0]
    above = float(np.sort(other)[len(other) // 3])  # a value that occurs, and is not above itself
    function = make_reward({"kind": "threshold", "of": of, "above": above})
    rewards = model.score(frames, [RewardSpec(GOAL, BASELINE, function=function)])[:, 0]
    assert rewards.tolist() == [1.0 if float(value) > above else 0.0 for value in other]
    assert 0 < rewards.sum() < len(rewards)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "expected either `above`, a number, or `quantile` and `states`"),
        ({"above": 0.5, "quantile": 0.9, "states": "x"}, "expected either `above`"),
        ({"quantile": 0.9}, "expected either `above`"),
        ({"of": SOFTMAX, "above": 1}, r"softmax-\w+ is between 0 and 1, so the reward would be the same everywhere"),
        ({"above": -1.5}, "goal_baseline is between -1 and 1"),
        ({"quantile": 0.9, "states": "x", "truth": "anna"}, "truth = 'anna': expected `success`, `raters` or `rater:NAME`"),
        ({"above": 0.5, "truth": "raters"}, "`truth` goes with `quantile`"),
        ({"quantile": 2, "states": "x"}, "quantile = 2: input should be less than 1"),
        ({"of": {"kind": "history"}, "above": 0}, "history needs more than one frame"),
        ({"of": {"kind": "threshold", "quantile": 0.5, "states": "x"}, "above": 0}, "has to be measured on states"),
        ({"of": "sofmax", "above": 0}, "did you mean 'softmax'"),
    ],
)
def test_bad_parameters_are_one_message(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_reward({"kind": "threshold"} | given)


def test_what_it_is_applied_to_brings_its_texts_and_its_checks() -> None:
    function = make_reward({"kind": "threshold", "of": SOFTMAX, "above": 0.5})
    assert function.prompts() == ("pole hanging down",)
    with pytest.raises(UserError, match="is the goal, too"):
        RewardSpec(("pole hanging down",), BASELINE, function=function)


def test_a_quantile_waits_for_its_value(model: ClipRewardModel, frames: np.ndarray) -> None:
    function = make_reward({"kind": "threshold", "quantile": 0.9, "states": "/some/where/states"})
    assert isinstance(function, Threshold)
    assert function.needs_states
    assert function.label == make_reward({"kind": "threshold", "quantile": 0.9, "states": "/else/where/states"}).label
    with pytest.raises(UserError, match="its value is not measured yet"):
        model.score(frames, [RewardSpec(GOAL, BASELINE, function=function)])
    assert function.at(0.25) == Threshold(above=0.25)
