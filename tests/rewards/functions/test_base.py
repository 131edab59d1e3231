"""What all reward functions have in common: plain data, labels, and rewards that do not depend on the batch."""

import pickle

import numpy as np
import pytest

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.rewards.clip import ClipRewardModel
from vlm_rm_sweeps.rewards.functions.base import RewardFunction
from vlm_rm_sweeps.rewards.functions.goal_baseline import GoalBaseline
from vlm_rm_sweeps.rewards.functions.registry import describe_reward, make_reward
from vlm_rm_sweeps.rewards.reward_model import RewardSpec

GOAL, BASELINE = ("pole upright",), ("pole and cart",)
FUNCTIONS = [
    make_reward(described)
    for described in (
        {"kind": "goal_baseline", "alpha": 0.5},
        {"kind": "softmax", "negatives": ["pole hanging down"]},
        {"kind": "own_functions:Closeness"},
        {"kind": "threshold", "above": 0.3},
        {"kind": "threshold", "of": {"kind": "softmax", "negatives": ["pole hanging down"]}, "above": 0.5},
        {"kind": "history", "frames": 3},
        {
            "kind": "mixed",
            "of": [
                {"weight": 0.5, "reward": {"kind": "history", "frames": 2}},
                {"weight": -2, "reward": {"kind": "softmax", "negatives": ["pole hanging down"]}},
            ],
        },
    )
]


def spec_of(function: RewardFunction) -> RewardSpec:
    return RewardSpec(GOAL, BASELINE, function=function)


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.label)
def test_it_is_plain_data(function: RewardFunction) -> None:
    assert pickle.loads(pickle.dumps(function)) == function
    assert make_reward(describe_reward(function)) == function
    assert len({function, make_reward(describe_reward(function))}) == 1


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.label)
def test_rewards_do_not_depend_on_the_batch_to_the_bit(
    model: ClipRewardModel, frames: np.ndarray, function: RewardFunction
) -> None:
    parts = list(spec_of(function).parts())
    rewards = model.score(frames, parts)
    for size in (1, 3, 64, 65):
        np.testing.assert_array_equal(model.score(frames[:size], parts), rewards[:size])
    np.testing.assert_array_equal(model.score(frames[66:67], parts), rewards[66:67])
    np.testing.assert_array_equal(model.score(frames[::-1], parts[::-1]), rewards[::-1, ::-1])


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.label)
def test_rewards_are_within_the_range(model: ClipRewardModel, frames: np.ndarray, function: RewardFunction) -> None:
    low, high = function.range()
    rewards = function.alone(model.score(frames, list(spec_of(function).parts())))
    assert low <= rewards.min()
    assert rewards.max() <= high


def test_goal_baseline_is_the_same_by_alpha_and_by_function(model: ClipRewardModel, frames: np.ndarray) -> None:
    assert spec_of(GoalBaseline(alpha=0.5)) == RewardSpec(GOAL, BASELINE, 0.5)
    spec = RewardSpec(GOAL, BASELINE, 0.3)
    function = GoalBaseline(alpha=0.3)
    images = model.encode_frames(frames).numpy()
    np.testing.assert_array_equal(function.reward(images, model._texts(spec)), model.score(frames, [spec])[:, 0])


def test_functions_and_alphas_share_a_request(model: ClipRewardModel, frames: np.ndarray) -> None:
    specs = [part for function in FUNCTIONS for part in spec_of(function).parts()]
    together = model.score(frames, specs)
    for column, spec in enumerate(specs):
        np.testing.assert_array_equal(model.score(frames, [spec])[:, 0], together[:, column])


def test_labels_name_the_numbers_that_are_not_defaults() -> None:
    labels = [function.label for function in FUNCTIONS]
    assert labels[:1] + labels[2:4] == ["goal_baseline-alpha-0.5", "closeness", "threshold-above-0.3"]
    assert labels[5] == "history-frames-3"
    assert len(set(labels)) == len(labels)
    assert labels[1].startswith("softmax-")
    other = make_reward({"kind": "softmax", "negatives": ["pole leaning"], "baseline": False, "temperature": 0.5})
    assert other.label.startswith("softmax-no-baseline-temperature-0.5-")


def test_alpha_and_a_function_are_refused() -> None:
    with pytest.raises(UserError, match="expected one of both"):
        RewardSpec(GOAL, BASELINE, 0.5, function=FUNCTIONS[1])
    with pytest.raises(UserError, match="expected a RewardFunction"):
        RewardSpec(GOAL, BASELINE, function="softmax")  # type: ignore[arg-type]


def test_a_function_that_returns_something_else_is_one_message(model: ClipRewardModel, frames: np.ndarray) -> None:
    with pytest.raises(UserError, match=r"reward one_for_all: reward returned float32 of shape \(1,\) for 70 images"):
        model.score(frames, [spec_of(make_reward("own_functions:OneForAll"))])


def test_a_model_without_embeddings_refuses_other_functions() -> None:
    from own_rewards import Brightness

    model = Brightness("own_rewards:Brightness")
    model.check(RewardSpec(GOAL, BASELINE, 0.5))
    with pytest.raises(UserError, match="own_rewards:Brightness has no embeddings"):
        model.check(spec_of(FUNCTIONS[1]))
