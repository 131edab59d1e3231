"""What a RewardSpec refuses, and what it says."""

import re
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.rewards.registry import find_reward_model
from vlm_rm_sweeps.rewards.reward_model import RewardSpec, check_request


def test_good_specs_are_plain_hashable_data() -> None:
    spec = RewardSpec(("a goal", "the goal"), ("a scene",), 0.5)
    assert spec == RewardSpec(("a goal", "the goal"), ("a scene",), 0.5)
    assert len({spec, RewardSpec(("a goal", "the goal"), ("a scene",), 0.5), RewardSpec(("a goal",), ("a scene",), 0.5)}) == 2


def test_a_list_of_prompts_becomes_a_tuple() -> None:
    assert hash(RewardSpec(["a goal"], ["a scene"])) == hash(RewardSpec(("a goal",), ("a scene",)))  # type: ignore[arg-type]


def test_a_string_is_refused_instead_of_its_letters() -> None:
    with pytest.raises(UserError, match=re.escape("goal prompts 'kneeling': expected a tuple of prompts, such as ('a pole',)")):
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


@pytest.mark.parametrize("prompts", [tuple(map(str, range(1_001))), ("a" * 10_001,)])
def test_prompts_without_end_are_refused(prompts: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match=r"expected 1,000 of 10,000 letters at most"):
        RewardSpec(("a pole",), prompts)


@pytest.mark.parametrize(
    ("goal", "baseline"), [(("a scene",), ("a scene",)), (("a", "b"), ("b", "a"))], ids=["one wording", "other order"]
)
def test_goal_that_is_the_baseline_is_refused(goal: tuple[str, ...], baseline: tuple[str, ...]) -> None:
    message = f"goal and baseline are the same, {list(goal)!r}: the baseline describes the scene without the goal"
    with pytest.raises(UserError, match=re.escape(message)):
        RewardSpec(goal, baseline, 0.5)


def test_goal_may_share_a_wording_with_the_baseline() -> None:
    assert RewardSpec(("a", "b"), ("b",), 0.0).goal_prompts == ("a", "b")


@pytest.mark.parametrize("alpha", ["0.5", None, [0.5]])
def test_alpha_is_a_number(alpha: Any) -> None:
    with pytest.raises(UserError, match="expected a number from 0"):
        RewardSpec(("a goal",), ("a scene",), alpha)


@pytest.mark.parametrize("prompts", [(3,), (None, "a goal"), 3, None])
def test_prompts_are_strings(prompts: Any) -> None:
    with pytest.raises(UserError, match=r"goal prompts .*: expected (strings|a tuple of prompts)"):
        RewardSpec(prompts, ("a scene",))


FRAMES = np.zeros((2, 8, 8, 3), np.uint8)
SPEC = RewardSpec(("a goal",), ("a scene",))


@pytest.mark.parametrize(
    ("frames", "specs", "message"),
    [
        (
            FRAMES[0],
            [SPEC],
            "frames of shape (8, 8, 3) and type uint8: expected RGB images from 0 to 255, uint8 (N, height",
        ),
        (FRAMES.astype(np.float32), [SPEC], "frames of shape (2, 8, 8, 3) and type float32"),
        (FRAMES[..., :1], [SPEC], "frames of shape (2, 8, 8, 1)"),
        (FRAMES[:, :0], [SPEC], "frames of shape (2, 0, 8, 3)"),
        (FRAMES.tolist(), [SPEC], "frames are list, not a NumPy array: expected RGB images"),
        (None, [SPEC], "frames are NoneType"),
        (FRAMES, [], "specs []: expected a sequence of at least one RewardSpec"),
        (FRAMES, SPEC, "expected a sequence of at least one RewardSpec"),
        (FRAMES, None, "specs None"),
        (FRAMES, ["a goal"], "specs ['a goal']"),
    ],
)
def test_a_request_that_no_model_can_answer_is_refused_in_words(frames: Any, specs: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        check_request(frames, specs)


@pytest.mark.parametrize("odd", ["a goal", None, (("a goal",), ("a scene",), 0.5)])
def test_a_model_checks_nothing_but_specs(odd: Any) -> None:
    with pytest.raises(UserError, match=r"spec .*: expected a RewardSpec, such as RewardSpec\("):
        find_reward_model("own_rewards:Brightness").check(odd)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"micro_batch": 0}, "micro_batch 0: expected at least one frame"),
        ({"micro_batch": 2.5}, "micro_batch 2.5: expected at least one frame .* a whole number"),
        ({"micro_batch": "64"}, "micro_batch '64'"),
        ({"precision": "int8"}, "precision 'int8': expected one of fp32, bf16, fp16"),
    ],
)
def test_a_model_is_loaded_as_it_can_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        find_reward_model("own_rewards:Brightness").load(**settings)


@pytest.mark.parametrize("alpha", [True, np.float32(1), Fraction(1, 1)])
def test_an_alpha_of_any_kind_is_a_number_like_any_other(alpha: Any) -> None:
    spec = RewardSpec(("a pole",), ("pole and cart",), alpha)
    assert type(spec.alpha) is float
    assert spec == RewardSpec(("a pole",), ("pole and cart",), 1.0)


def test_a_message_shows_the_beginning_of_a_long_prompt() -> None:
    with pytest.raises(UserError) as caught:
        RewardSpec(("a " * 5_000,), ("a " * 5_000,))
    assert len(str(caught.value)) < 500


def test_prompts_may_be_anything_that_can_be_iterated_once() -> None:
    assert RewardSpec((text for text in ["a goal"]), ("a scene",)).goal_prompts == ("a goal",)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="expected a tuple of prompts"):
        RewardSpec(torch.tensor(0.5), ("a scene",))  # type: ignore[arg-type]
