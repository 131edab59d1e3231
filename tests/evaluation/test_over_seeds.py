"""Statistics of a few seeds, against values that follow from their definitions."""

import numpy as np
import pytest

from vlm_rm_sweeps.evaluation.over_seeds import (
    chance_of_no_difference,
    interquartile_mean,
    iqm,
    performance_profile,
    probability_of_improvement,
)


def test_the_interquartile_mean_leaves_out_the_lucky_and_the_unlucky_quarter() -> None:
    assert interquartile_mean(np.array([0.0, 1, 2, 3, 4, 5, 6, 100])) == 3.5
    assert interquartile_mean(np.array([0.0, 1, 5])) == 2.0, "of fewer than four seeds, all count"
    assert np.isnan(interquartile_mean(np.array([])))


def test_an_interval_needs_two_seeds_that_differ_in_each_stratum() -> None:
    several = iqm([np.array([0.2, 0.4, 0.6])])
    assert 0.2 <= several.low < several.value < several.high <= 0.6
    for strata in ([np.array([0.4])], [np.array([0.2, 0.6]), np.array([0.4])], [np.array([1.0, 1.0, 1.0])]):
        alone = iqm(strata)
        assert np.isnan([alone.low, alone.high]).all(), strata


def test_the_bootstrap_is_stratified_and_repeatable() -> None:
    """Values differ between strata only: whatever is drawn within them has the same mean but for their own small spread."""
    strata = [np.array([0.0, 0.01]), np.array([1.0, 0.99])]
    found = iqm(strata)
    assert found.high - found.low < 0.02
    assert found == iqm(strata)


def test_a_profile_is_the_share_of_runs_above_each_threshold() -> None:
    found = performance_profile([np.array([0.0, 0.5]), np.array([0.5, 1.0])], np.array([-0.1, 0.0, 0.5, 1.0]))
    assert found.value.tolist() == [1.0, 0.75, 0.25, 0.0]
    between = ~np.isnan(found.low)
    assert between.tolist() == [False, True, True, False], "above all runs, and below all, there is no interval"
    assert (found.low <= found.value)[between].all()
    assert (found.value <= found.high)[between].all()


def test_a_tie_is_half_an_improvement() -> None:
    better, worse = np.array([0.8, 0.9]), np.array([0.1, 0.2])
    assert probability_of_improvement([better], [worse]).value == 1.0
    assert probability_of_improvement([worse], [better]).value == 0.0
    assert probability_of_improvement([better, worse], [worse, better]).value == 0.5
    assert probability_of_improvement([np.ones(2)], [np.ones(3)]).value == 0.5
    mixed = probability_of_improvement([np.array([0.1, 0.5])], [np.array([0.3, 0.4])])
    assert mixed.value == pytest.approx(0.5)
    assert mixed.low == 0.0
    assert mixed.high == 1.0
    apart = probability_of_improvement([np.array([0.8, 0.9, 1.0])], [np.array([0.1, 0.2, 0.3])])
    assert apart.value == 1.0
    assert np.isnan([apart.low, apart.high]).all(), "three seeds that lie apart by chance would have no width either"


@pytest.mark.parametrize("seeds", [3, 4, 5])
def test_the_chance_of_no_difference_is_that_of_mann_and_whitney(seeds: int) -> None:
    from scipy.stats import mannwhitneyu

    rng = np.random.default_rng(seeds)
    for shift in (0.0, 1.0, 9.0):
        first, second = rng.normal(size=seeds) + shift, rng.normal(size=seeds)
        expected = mannwhitneyu(first, second, method="exact").pvalue
        assert chance_of_no_difference(first, second) == pytest.approx(expected)
    assert chance_of_no_difference(np.ones(seeds), np.ones(seeds)) == 1.0
