"""The probability of the goal, against the formula in plain loops."""

import math

import numpy as np
import pytest

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.rewards.clip import ClipRewardModel
from vlm_rm_sweeps.rewards.functions.softmax import Softmax
from vlm_rm_sweeps.rewards.reward_model import RewardSpec

GOAL, BASELINE, LYING, LEANING = "pole upright", "pole and cart", "pole hanging down", "pole leaning to the left"


def probability(model: ClipRewardModel, image: np.ndarray, others: list[str], temperature: float) -> float:
    """The definition, for one image in float64."""
    terms = []
    for text in (GOAL, *others):
        embedding = model.encode_prompt(text).numpy()
        cosine = sum(float(a) * float(b) for a, b in zip(image, embedding, strict=True))
        terms.append(math.exp(cosine / temperature))
    return terms[0] / sum(terms)


@pytest.mark.parametrize(
    ("function", "others"),
    [
        (Softmax(negatives=(LYING,)), [LYING, BASELINE]),
        (Softmax(negatives=(LYING, LEANING), temperature=0.1), [LYING, LEANING, BASELINE]),
        (Softmax(negatives=(LYING,), baseline=False, temperature=2.0), [LYING]),
    ],
)
def test_it_is_the_formula(
    model: ClipRewardModel, frames: np.ndarray, images: np.ndarray, function: Softmax, others: list[str]
) -> None:
    rewards = model.score(frames, [RewardSpec((GOAL,), (BASELINE,), function=function)])[:, 0]
    temperature = function.temperature or 1 / float(model.network.logit_scale.exp())
    expected = [probability(model, image, others, temperature) for image in images]
    np.testing.assert_allclose(rewards, expected, atol=2e-5)
    assert rewards.min() >= 0
    assert rewards.max() <= 1


def test_a_steep_softmax_does_not_overflow(model: ClipRewardModel, frames: np.ndarray) -> None:
    spec = RewardSpec((GOAL,), (BASELINE,), function=Softmax(negatives=(LYING,), temperature=1e-4))
    assert np.isfinite(model.score(frames, [spec])).all()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"negatives": ()}, "expected at least one"),
        ({"negatives": ("a", "a")}, "'a' stands there 2 times"),
        ({"negatives": (" ",)}, "none of them empty"),
        ({"negatives": ("a po\u00adle",)}, r"negatives: 'a po\\xadle' has the invisible character U\+00AD"),
        ({"negatives": (3,)}, "a number needs quotes"),
        ({"negatives": ("a",), "temperature": 0}, "greater than or equal to 0.000001"),
        ({"negatives": ("a",), "temperature": 1e-300}, "greater than or equal to 0.000001"),
    ],
)
def test_bad_parameters_are_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Softmax.model_validate(given)


@pytest.mark.parametrize(
    ("negative", "message"), [(GOAL, "is the goal, too"), (BASELINE, "is the baseline, which is a negative already")]
)
def test_a_negative_that_is_goal_or_baseline_is_refused(negative: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        RewardSpec((GOAL,), (BASELINE,), function=Softmax(negatives=(negative,)))


def test_a_negative_that_the_model_does_not_tell_from_the_goal_is_refused(model: ClipRewardModel) -> None:
    spec = RewardSpec((GOAL,), (BASELINE,), function=Softmax(negatives=("Pole  Upright",)))
    with pytest.raises(UserError, match="are the same to embedded/tiny"):
        model.check(spec)


def test_a_negative_that_is_too_long_is_refused(model: ClipRewardModel) -> None:
    spec = RewardSpec((GOAL,), (BASELINE,), function=Softmax(negatives=("pole " * 200,)))
    with pytest.raises(UserError, match="is longer than the"):
        model.check(spec)
