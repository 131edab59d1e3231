"""Statistics of a few seeds: interquartile means, performance profiles and the probability of improvement.

They are those of Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical Precipice" (2021). A stratum is the
values of one combination, one for each seed. The bootstrap draws seeds within each stratum, so that combinations keep their weight.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

_SAMPLES = 2_000
_CUT = 0.25
Strata = Sequence[np.ndarray]
"""One array of values for each stratum, float (seeds,)."""


class Estimate(NamedTuple):
    """A statistic of S seeds, with its 95 % interval.

    Attributes:
        value: The statistic, float or (T,).
        low: Lower end of the interval, of the same shape; NaN where no interval is claimed.
        high: Its upper end.
    """

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray


def interquartile_mean(values: np.ndarray, axis: int = -1) -> np.ndarray:
    """Compute the mean of what is left without the lowest and the highest quarter; of fewer than four values, of all.

    Args:
        values: float, of any shape.
        axis: The axis of the seeds.

    Returns:
        The values without that axis; NaN for no values.
    """
    from scipy import stats  # here: it takes a second to import, which the start of a sweep would wait for

    return np.asarray(stats.trim_mean(values, _CUT, axis=axis)) if np.shape(values)[axis] else np.asarray(np.nan)


def iqm(strata: Strata) -> Estimate:
    """Estimate the interquartile mean over all seeds of all strata.

    Args:
        strata: Values without NaN.

    Returns:
        The estimate, see `_estimate` for when there is no interval.
    """
    return _estimate(strata, lambda *samples, axis: interquartile_mean(np.concatenate(samples, axis=axis), axis))


def performance_profile(strata: Strata, thresholds: np.ndarray) -> Estimate:
    """Estimate the share of runs that are better than each threshold, the mean over the strata.

    Args:
        strata: Values without NaN.
        thresholds: float (T,).

    Returns:
        The estimate, its arrays (T,).
    """

    def shares(*samples: np.ndarray, axis: int) -> np.ndarray:
        better = [(each[None] > thresholds.reshape(-1, *[1] * each.ndim)).mean(axis=-1) for each in samples]
        return np.mean(better, axis=0)

    return _estimate(strata, shares)


def probability_of_improvement(first: Strata, second: Strata) -> Estimate:
    """Estimate how likely a run of the first is better than one of the second in the same stratum, the mean over the strata.

    Args:
        first: Values without NaN, of as many strata as `second`.
        second: Those to improve on.

    Returns:
        The estimate: 0.5 if they are alike; ties count half.
    """

    def share(*samples: np.ndarray, axis: int) -> np.ndarray:
        half = len(samples) // 2
        pairs = zip(samples[:half], samples[half:], strict=True)
        return np.mean([_wins(one[..., :, None], other[..., None, :]) for one, other in pairs], axis=0)

    return _estimate([*first, *second], share)


def chance_of_no_difference(first: np.ndarray, second: np.ndarray) -> float:
    """Test whether the runs of one kind are better or worse than those of another.

    Source: a two-sided permutation test of the share of wins, which is that of Mann and Whitney; exact for a few seeds. Three seeds
    each cannot fall below 0.1, whatever their values, four below 0.029.

    Args:
        first: Values without NaN, one for each seed.
        second: Those of the other kind.

    Returns:
        The p-value: how likely a difference as large as this is if there is none.
    """
    from scipy import stats

    def share(one: np.ndarray, other: np.ndarray, axis: int) -> np.ndarray:
        return _wins(one[..., :, None], other[..., None, :])

    found = stats.permutation_test(
        (first, second), share, vectorized=True, axis=-1, n_resamples=_SAMPLES, rng=np.random.default_rng(0)
    )
    return float(found.pvalue)


def _wins(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return ((one > other) + 0.5 * (one == other)).mean(axis=(-2, -1))


def _estimate(strata: Strata, statistic: Callable[..., np.ndarray]) -> Estimate:
    """Estimate a statistic, with the percentile interval of a stratified bootstrap.

    There is none where a stratum has one seed. Nor is there one where all samples have the same value, as those of equal seeds do: an
    interval without width would claim a certainty that few seeds do not give.
    """
    value = np.asarray(statistic(*strata, axis=-1))
    unknown = np.full_like(value, np.nan, dtype=float)
    if not strata or min(map(len, strata)) < 2 or all(np.ptp(each) == 0 for each in strata):
        return Estimate(value, unknown, unknown)
    from scipy import stats

    found = stats.bootstrap(
        strata, statistic, n_resamples=_SAMPLES, method="percentile", vectorized=True, axis=-1, rng=np.random.default_rng(0)
    )
    low, high = np.asarray(found.confidence_interval.low), np.asarray(found.confidence_interval.high)
    wide = high > low
    return Estimate(value, np.where(wide, low, np.nan), np.where(wide, high, np.nan))
