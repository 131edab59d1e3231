"""What a RewardSpec refuses, and what it says."""

import re

import pytest

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.rewards.reward_model import RewardSpec


def test_good_specs_are_plain_hashable_data() -> None:
    spec = RewardSpec(("a goal", "the goal"), ("a scene",), 0.5)
    assert spec == RewardSpec(("a goal", "the goal"), ("a scene",), 0.5)
    assert len({spec, RewardSpec(("a goal", "the goal"), ("a scene",), 0.5), RewardSpec(("a goal",), ("a scene",), 0.5)}) == 2


def test_a_list_of_prompts_becomes_a_tuple() -> None:
    assert hash(RewardSpec(["a goal"], ["a scene"])) == hash(RewardSpec(("a goal",), ("a scene",)))  # type: ignore[arg-type]


def test_a_string_is_refused_instead_of_its_letters() -> None:
    with pytest.raises(
        UserError, match=re.escape("goal prompts 'kneeling': expected a tuple of prompts, such as ('kneeling',)")
    ):
        RewardSpec("kneeling", ("standing",))  # type: ignore[arg-type]


@pytest.mark.parametrize("alpha", [0, 0.0, 0.37, 1, 1.0])
def test_alpha_may_be_0_to_1(alpha: float) -> None:
    assert RewardSpec(("a goal",), ("a scene",), alpha).alpha == alpha


@pytest.mark.parametrize("alpha", [-0.001, 1.001, 25.0, float("nan"), float("inf"), float("-inf")])
def test_alpha_out_of_range_is_refused(alpha: float) -> None:
    with pytest.raises(UserError, match=re.escape(f"alpha {alpha!r}: expected a number from 0 (cosine to the goal) to 1")):
        RewardSpec(("a goal",), ("a scene",), alpha)


@pytest.mark.parametrize("prompts", [(), ("",), (" \n",), ("a goal", "")])
def test_empty_prompts_are_refused(prompts: tuple[str, ...]) -> None:
    expected = re.escape(f"{list(prompts)!r}: expected at least one, and none of them empty")
    with pytest.raises(UserError, match=f"goal prompts {expected}"):
        RewardSpec(prompts, ("a scene",), 0.5)
    with pytest.raises(UserError, match=f"baseline prompts {expected}"):
        RewardSpec(("a goal",), prompts, 0.5)


@pytest.mark.parametrize(
    ("goal", "baseline"), [(("a scene",), ("a scene",)), (("a", "b"), ("b", "a"))], ids=["one wording", "other order"]
)
def test_goal_that_is_the_baseline_is_refused(goal: tuple[str, ...], baseline: tuple[str, ...]) -> None:
    message = f"goal and baseline are the same, {list(goal)!r}: the baseline describes the scene without the goal"
    with pytest.raises(UserError, match=re.escape(message)):
        RewardSpec(goal, baseline, 0.5)


def test_goal_may_share_a_wording_with_the_baseline() -> None:
    assert RewardSpec(("a", "b"), ("b",), 0.0).goal_prompts == ("a", "b")
