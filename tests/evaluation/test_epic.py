"""EPIC distance: its closed forms, and what it cannot be computed for."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlm_rm_sweeps.evaluation.epic import epic_distance

TRUTH = np.random.default_rng(0).normal(size=500)


@settings(deadline=None)
@given(st.floats(0.01, 100), st.floats(-100, 100))
def test_scale_and_shift_do_not_matter(scale: float, shift: float) -> None:
    assert epic_distance(scale * TRUTH + shift, TRUTH) == pytest.approx(0, abs=1e-6)
    assert epic_distance(TRUTH, scale * TRUTH + shift) == pytest.approx(0, abs=1e-6)
    other = np.random.default_rng(1).normal(size=500) + TRUTH
    assert epic_distance(scale * other + shift, TRUTH) == pytest.approx(epic_distance(other, TRUTH), abs=1e-6)


@settings(deadline=None)
@given(st.floats(0.01, 100), st.floats(-100, 100))
def test_opposite_rewards_are_1_apart(scale: float, shift: float) -> None:
    assert epic_distance(-scale * TRUTH + shift, TRUTH) == pytest.approx(1)


def test_uncorrelated_rewards_are_0_707_apart() -> None:
    assert epic_distance(np.array([1.0, -1.0, 1.0, -1.0]), np.array([1.0, 1.0, -1.0, -1.0])) == pytest.approx(math.sqrt(0.5))
    noise = np.random.default_rng(1).normal(size=100_000)
    truth = np.random.default_rng(2).normal(size=100_000)
    assert epic_distance(noise, truth) == pytest.approx(0.7071, abs=0.005)


def test_distance_by_hand() -> None:
    # Correlation of (0, 1, 2) and (0, 2, 1) is 1/2, so the distance is sqrt((1 - 1/2) / 2).
    assert epic_distance(np.array([0, 1, 2]), np.array([0, 2, 1])) == pytest.approx(0.5)


def test_distance_is_symmetric_and_takes_float32() -> None:
    other = TRUTH + np.random.default_rng(1).normal(size=500)
    assert epic_distance(other, TRUTH) == pytest.approx(epic_distance(TRUTH, other))
    assert epic_distance(other.astype(np.float32), TRUTH) == pytest.approx(epic_distance(other, TRUTH), abs=1e-5)
    assert 0 < epic_distance(other, TRUTH) < 0.7


@pytest.mark.parametrize(("rewards", "truth"), [(np.ones(5), np.arange(5)), (np.arange(5), np.zeros(5))])
def test_constant_rewards_are_refused(rewards: np.ndarray, truth: np.ndarray) -> None:
    with pytest.raises(ValueError, match="vary over the states"):
        epic_distance(rewards, truth)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_rewards_that_are_not_finite_are_refused(bad: float) -> None:
    broken = np.array([0.0, 1.0, bad])
    for pair in ((broken, np.arange(3.0)), (np.arange(3.0), broken)):
        with pytest.raises(ValueError, match="must be finite"):
            epic_distance(*pair)
