"""A reward of 1 above a value."""

from typing import Any

import numpy as np
import pytest

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.rewards.clip import ClipRewardModel
from vlm_rm_sweeps.rewards.columns import score_episode
from vlm_rm_sweeps.rewards.functions.registry import describe_reward, make_reward
from vlm_rm_sweeps.rewards.functions.threshold import Threshold
from vlm_rm_sweeps.rewards.reward_model import RewardSpec

GOAL, BASELINE = ("pole upright",), ("pole and cart",)
SOFTMAX = {"kind": "softmax", "negatives": ["pole hanging down"]}
MIXED_FRAMES = {"kind": "mixed", "of": [{"weight": 1, "reward": SOFTMAX}, {"weight": 1, "reward": "goal_baseline"}]}


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
        ({"above": 1}, "goal_baseline is between -1 and 1"),
        ({"of": {"kind": "threshold", "above": 0.3}, "above": 1}, "expected a number from 0 to less than 1"),
        ({"of": {"kind": "threshold", "above": 0.3}, "above": -0.1}, "expected a number from 0 to less than 1"),
        ({"quantile": 0.9, "states": "x", "truth": "anna"}, "truth = 'anna': expected `success`, `raters` or `rater:NAME`"),
        ({"above": 0.5, "truth": "raters"}, "`truth` goes with `quantile`"),
        ({"quantile": 2, "states": "x"}, "quantile = 2: input should be less than 1"),
        ({"of": {"kind": "history"}, "above": 3}, "history is between -3 and 3"),
        ({"of": "history", "quantile": 0.9, "states": "x"}, "quantile = 0.9: history needs an episode, and labelled states"),
        ({"of": {"kind": "threshold", "quantile": 0.5, "states": "x"}, "above": 0}, "has to be measured on states"),
        ({"of": "sofmax", "above": 0}, "did you mean 'softmax'"),
    ],
)
def test_bad_parameters_are_one_message(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_reward({"kind": "threshold"} | given)


def test_above_the_least_of_a_yes_or_no_is_no_edge(model: ClipRewardModel, frames: np.ndarray) -> None:
    """At least one of two yes."""
    other = model.score(frames, [RewardSpec(GOAL, BASELINE)])[:, 0]
    low, high = (float(np.quantile(other, share)) for share in (0.3, 0.7))
    yes = [{"kind": "threshold", "above": low}, {"kind": "threshold", "of": {"kind": "goal_baseline"}, "above": high}]
    either = {"kind": "mixed", "of": [{"weight": 1, "reward": each} for each in yes]}
    function = make_reward({"kind": "threshold", "of": either, "above": 0})
    rewards = score_episode(model, RewardSpec(GOAL, BASELINE, function=function), frames, np.zeros(len(frames)))
    assert rewards.tolist() == (other > low).tolist()
    assert 0 < rewards.sum() < len(rewards)


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


MIXED = {"kind": "mixed", "of": [{"weight": 2, "reward": SOFTMAX}, {"weight": -1, "reward": "history"}], "true_reward": 0.5}


@pytest.mark.parametrize("of", ["history", MIXED])
def test_of_a_reward_of_episodes_it_is_the_formula_in_whole_episodes_in_chunks_and_alone(
    model: ClipRewardModel, frames: np.ndarray, of: Any
) -> None:
    other = make_reward(of)
    true_rewards = np.linspace(-1, 1, len(frames), dtype=np.float32)
    expected = score_episode(model, RewardSpec(GOAL, BASELINE, function=other), frames, true_rewards)
    above = float(np.sort(expected)[len(expected) // 2])
    function = make_reward({"kind": "threshold", "of": of, "above": above})
    spec = RewardSpec(GOAL, BASELINE, function=function)
    model.check(spec)
    rewards = score_episode(model, spec, frames, true_rewards)
    assert rewards.tolist() == [1.0 if float(value) > above else 0.0 for value in expected]
    assert 0 < rewards.sum() < len(rewards)
    assert (function.memory, function.uses_true_reward, function.needs_episode) == (3, other.uses_true_reward, True)
    columns = model.score(frames, spec.parts())
    later = function.combine(columns[len(frames) - 5 :], true_rewards[len(frames) - 5 :])
    np.testing.assert_array_equal(later[3:], rewards[-2:])  # each step with the three before it
    np.testing.assert_array_equal(function.alone(columns), (other.alone(columns) > above).astype(np.float32))
    assert make_reward(describe_reward(function), from_data=True) == function
    with pytest.raises(UserError, match="has no value of one frame"):
        model.score(frames, [spec])


def test_a_mixture_of_single_frames_may_have_a_quantile_and_a_threshold_may_be_in_a_mixture(
    model: ClipRewardModel, frames: np.ndarray
) -> None:
    waiting = make_reward({"kind": "threshold", "of": MIXED_FRAMES, "quantile": 0.5, "states": "/some/where/states"})
    assert waiting.needs_states
    model.check(RewardSpec(GOAL, BASELINE, function=waiting))
    steps = {"kind": "threshold", "of": "history", "above": 0.2}
    both = make_reward({"kind": "mixed", "of": [{"weight": 3, "reward": steps}, {"weight": 1, "reward": "goal_baseline"}]})
    specs = [RewardSpec(GOAL, BASELINE, function=each) for each in (both, make_reward(steps), make_reward("goal_baseline"))]
    none = np.zeros(len(frames))
    mixed, first, second = (score_episode(model, each, frames, none) for each in specs)
    np.testing.assert_allclose(mixed, 3 * first + second, rtol=1e-6)
