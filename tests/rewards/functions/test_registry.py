"""Reward functions by name, and as plain data."""

import inspect
import re
from typing import Any

import pytest

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.rewards.functions.base import FrameReward
from vlm_rm_sweeps.rewards.functions.goal_baseline import GoalBaseline
from vlm_rm_sweeps.rewards.functions.registry import describe_reward, find_reward, make_reward, reward_kinds
from vlm_rm_sweeps.rewards.openai_model import OpenAiRewardModel


@pytest.mark.parametrize("kind", reward_kinds())
def test_every_kind_is_found_and_says_what_it_is(kind: str) -> None:
    function = find_reward(kind)
    assert function.formula
    assert re.search(r"arXiv \d{4}\.\d{5}|labels|own", function.source)
    check_documented(function, function.source, given=r"\((n|t), \w\)|\(d,\)")
    assert all(field.description for field in function.model_fields.values())


def test_a_judge_behind_an_endpoint_says_what_it_is_too() -> None:
    """It is a model and no function of embeddings, so that it is in no list of kinds."""
    check_documented(OpenAiRewardModel, "arXiv 2404.01291", given=r"\(n, h, w, 3\)")


def check_documented(reward: type, source: str, given: str) -> None:
    """Check that a docstring has formula, source and shapes, of which `given` is what goes in."""
    documented = inspect.getdoc(reward) or ""
    assert re.search(r"^    [RT]\S* += ", documented, re.MULTILINE), "its formula in a line of its own"
    assert f"\nSource: {source}" in documented
    shapes = documented.partition("\nShapes: ")[2]
    assert re.search(given, shapes), "of what goes in"
    assert re.search(r"\((n|t),\)", shapes), "of the rewards"


def test_a_kind_alone_is_its_default() -> None:
    assert make_reward("goal_baseline") == GoalBaseline(alpha=0)


def test_a_reward_of_ones_own_is_named_by_module_and_class() -> None:
    described = {"kind": "own_functions:Closeness", "power": 2}
    function = make_reward(described)
    assert isinstance(function, FrameReward)
    assert function.label == "closeness-power-2"
    assert describe_reward(function) == {"kind": "own_functions:Closeness", "power": 2.0}
    assert make_reward(describe_reward(function), from_data=True) == function


def test_data_imports_nothing() -> None:
    with pytest.raises(UserError, match="is named by data, which imports no modules"):
        make_reward({"kind": "antigravity:Closeness"}, from_data=True)


@pytest.mark.parametrize(
    ("described", "message"),
    [
        ("sofmax", "unknown reward 'sofmax': did you mean 'softmax'"),
        ({"kind": "softmax"}, "softmax: parameter 'negatives' is missing"),
        (
            {"kind": "softmax", "negatives": ["a"], "temprature": 1},
            "unknown parameter 'temprature'.*did you mean 'temperature'",
        ),
        ({"kind": "goal_baseline", "alpha": 2}, "goal_baseline: alpha = 2: input should be less than or equal to 1"),
        ({"kind": "history", "frames": 10**9}, "history: frames = 1000000000: input should be less than or equal to 1000$"),
        (
            {"kind": "mixed", "of": [{"weight": 1e308, "reward": "goal_baseline"}]},
            r"^mixed: of\.0\.weight = 1e\+308: input should be less than or equal to 1000000$",
        ),
        ({"kind": "mixed", "of": [3]}, r"^mixed: of\.0 = 3: expected keys with their values"),
        ({"alpha": 0.5}, "expected a kind of reward"),
        (3, "expected a kind of reward"),
        ("own_rewards:Brightness", "expected a subclass of FrameReward"),
        ("own_functions:Unfinished", "is not complete: its class must define combine"),
    ],
)
def test_bad_descriptions_are_one_message(described: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_reward(described)
