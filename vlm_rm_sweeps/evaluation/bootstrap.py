"""Bootstrap over independent groups of states, for many rewards at once.

Array names end in their axes: `n` states, `r` rewards, `b` bootstrap samples, `g` groups of states.
"""

from typing import NamedTuple

import numpy as np

BOOTSTRAP_SAMPLES = 1_000
CONFIDENCE = 0.95


class Estimates(NamedTuple):
    """A measure of R rewards, with its interval.

    Attributes:
        value: float (R,), NaN where it is undefined.
        low: Lower end of the 95 % interval, float (R,); NaN where there is none.
        high: Its upper end.
    """

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, value_r: np.ndarray, samples_br: np.ndarray) -> "Estimates":
        """Combine values with the percentile interval of their bootstrap samples, see `bootstrap_interval`."""
        return cls(value_r, *bootstrap_interval(samples_br))

    @classmethod
    def without_interval(cls, value_r: np.ndarray) -> "Estimates":
        """Combine values with an interval that is unknown."""
        unknown = np.full_like(value_r, np.nan)
        return cls(value_r, unknown, unknown)


def drawn_counts(groups_n: np.ndarray, seed: int = 0) -> np.ndarray:
    """Draw bootstrap samples of groups of states.

    A sample is a row of weights, so a few matrix products do all rewards and samples.

    Args:
        groups_n: (N,): states with equal entries are not independent, and are drawn together.
        seed: Seed of the draws.

    Returns:
        How often each state is drawn in each sample, float (B, N); no samples, (0, N), of a single group, which has no interval.
    """
    group_of_n = np.unique(groups_n, return_inverse=True)[1]
    count = int(group_of_n.max(initial=-1)) + 1
    if count < 2:
        return np.empty((0, len(group_of_n)))
    drawn_bg = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), BOOTSTRAP_SAMPLES)
    return drawn_bg[:, group_of_n].astype(np.float64)


def bootstrap_interval(samples_br: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute the percentile interval (95 %) over bootstrap samples.

    Args:
        samples_br: float (B, R), NaN where a sample has no value.

    Returns:
        Lower and upper ends, float (R,) each; NaN for a reward that has a value in no sample.
    """
    tail = (1 - CONFIDENCE) / 2
    low, high = np.full((2, samples_br.shape[1]), np.nan)
    known = ~np.isnan(samples_br).all(axis=0)
    if known.any():
        low[known], high[known] = np.nanquantile(samples_br[:, known], (tail, 1 - tail), axis=0)
    return low, high
