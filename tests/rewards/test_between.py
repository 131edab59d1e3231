"""Rewards of the steps between the scored ones."""

import numpy as np
import pytest

from vlm_rm_sweeps.rewards.between import Between, fill_between, is_scored

VALUES = np.array([[0.3, -1.0], [0.7, 2.0], [0.5, 0.0]], np.float32)


def test_the_first_step_and_every_kth_after_it_are_scored() -> None:
    assert [step for step in range(10) if is_scored(step, 4)] == [0, 4, 8]
    assert all(is_scored(step, 1) for step in range(10))


def test_the_last_scored_value_is_held() -> None:
    filled = fill_between(np.arange(2, 11), np.array([0, 4, 8]), VALUES, "hold")
    np.testing.assert_array_equal(filled[:, 0], VALUES[[0, 0, 1, 1, 1, 1, 2, 2, 2], 0])
    assert filled.dtype == np.float32


def test_between_two_values_there_is_a_straight_line_and_after_the_last_one_it_is_held() -> None:
    filled = fill_between(np.arange(11), np.array([0, 4, 8]), VALUES, "interpolate")
    np.testing.assert_allclose(filled[:, 1], [-1, -0.25, 0.5, 1.25, 2, 1.5, 1, 0.5, 0, 0, 0])
    assert filled.dtype == np.float32


@pytest.mark.parametrize("between", ["hold", "interpolate"])
def test_a_scored_step_has_its_own_value_to_the_bit(between: Between) -> None:
    values = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    steps = np.arange(7, 57)
    np.testing.assert_array_equal(fill_between(steps, steps, values, between), values)
