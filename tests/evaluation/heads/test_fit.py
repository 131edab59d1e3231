"""Fits of heads: against closed forms, a slow literal likelihood, and themselves."""

import numpy as np
import pytest

from vlm_rm_sweeps.evaluation.heads.examples import ComparedStates, LabelledStates
from vlm_rm_sweeps.evaluation.heads.fit import fit_head, losses, predicted

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.normal(0.5, 0.01, (120, 6)).astype(np.float32)
DIRECTION = RANDOM.normal(size=6)
SCORES = (IMAGES - IMAGES.mean(axis=0)) @ DIRECTION
STATES = LabelledStates(IMAGES, (SCORES > 0).astype(float), np.arange(len(IMAGES)))
LEFT, RIGHT = RANDOM.integers(0, len(IMAGES), (2, 150))
PAIRS = ComparedStates(
    IMAGES[LEFT], IMAGES[RIGHT], np.sign(SCORES[LEFT] - SCORES[RIGHT]) / 2 + 0.5, np.stack([LEFT, RIGHT], axis=1)
)


@pytest.mark.parametrize("examples", [STATES, PAIRS])
@pytest.mark.parametrize("hidden", [0, 4])
def test_a_head_learns_and_repeats_itself(examples: LabelledStates | ComparedStates, hidden: int) -> None:
    first, second = (fit_head(examples, hidden, 0.01, seed=3) for _ in range(2))
    for name, tensor in first.tensors().items():
        np.testing.assert_array_equal(tensor, second.tensors()[name])
    right = np.sign(predicted(first, examples)) == np.sign(examples.targets_n - 0.5)
    assert right[examples.targets_n != 0.5].mean() > 0.95


def penalised_loss(output_d: np.ndarray, bias: float, penalty: float) -> float:
    """The loss of states that a logistic regression minimises, written out; the images are scaled as `fit.py` says."""
    mean = IMAGES.astype(float).mean(axis=0)
    scale = np.sqrt(np.mean([sum((image - mean) ** 2) for image in IMAGES.astype(float)]))
    total = penalty * sum(weight**2 for weight in output_d * scale) / 2
    for image, label in zip(IMAGES, STATES.targets_n, strict=True):
        probability = 1 / (1 + np.exp(-(sum(output_d * image) + bias)))
        total -= np.log(probability if label else 1 - probability)
    return float(total)


def test_no_logistic_regression_nearby_is_better() -> None:
    weights = fit_head(STATES, 0, 0.1, seed=0)
    best = penalised_loss(weights.output_h, weights.bias, 0.1)
    for step in (0.02, -0.02):
        for index in range(6):
            # The bias changes, too, so that only the slope along one dimension does.
            changed = weights.output_h.copy()
            changed[index] *= 1 + step
            bias = weights.bias - float((changed - weights.output_h) @ IMAGES.mean(axis=0))
            assert penalised_loss(changed, bias, 0.1) > best
        assert penalised_loss(weights.output_h, weights.bias + step, 0.1) > best


def test_exchanging_the_sides_of_a_pair_changes_nothing() -> None:
    exchanged = ComparedStates(PAIRS.right_nd, PAIRS.left_nd, 1 - PAIRS.targets_n, PAIRS.episodes_n2[:, ::-1])
    first, second = fit_head(PAIRS, 0, 0.1, 0), fit_head(exchanged, 0, 0.1, 0)
    np.testing.assert_allclose(first.output_h, second.output_h, rtol=1e-3)


def test_pairs_that_are_the_same_pull_rewards_together() -> None:
    undecided = ComparedStates(PAIRS.left_nd, PAIRS.right_nd, np.full(len(PAIRS), 0.5), PAIRS.episodes_n2)
    np.testing.assert_allclose(fit_head(undecided, 0, 0.1, 0).output_h, 0, atol=1e-4)


def test_a_larger_penalty_gives_smaller_weights() -> None:
    small, large = (np.linalg.norm(fit_head(STATES, 0, penalty, 0).output_h) for penalty in (0.01, 1.0))
    assert large < small


def test_losses_are_negative_log_likelihoods() -> None:
    probability = 1 / (1 + np.exp(-0.7))
    expected = -0.25 * np.log(probability) - 0.75 * np.log(1 - probability)
    np.testing.assert_allclose(losses(np.array([0.7]), np.array([0.25])), [expected])
