"""EPIC distance between rewards and a ground truth (paper, appendix A), and the correlations that it is made of.

Array names end in their axes: `n` states, `r` rewards, `b` weightings of the states, such as bootstrap samples.
"""

import numpy as np


def epic_distance(rewards: np.ndarray, truth: np.ndarray) -> float:
    """Compute the EPIC distance of two rewards that depend on the state alone (paper, appendix A; Gleave et al., 2021).

    For such rewards canonical shaping subtracts a constant, so the distance is `sqrt((1 - rho) / 2)`, where rho is the Pearson
    correlation over the states.

    Args:
        rewards: float (N,).
        truth: float (N,), of the same N states.

    Returns:
        From 0 (equal up to scale and shift) through 0.707 (uncorrelated) to 1 (opposite).

    Raises:
        ValueError: One of them is constant or not finite, so the correlation is undefined.
    """
    rewards, truth = np.asarray(rewards, np.float64), np.asarray(truth, np.float64)
    if not (np.isfinite(rewards).all() and np.isfinite(truth).all()):
        raise ValueError("rewards and truth must be finite")
    if np.ptp(rewards) == 0 or np.ptp(truth) == 0:
        raise ValueError("EPIC needs rewards and truth that vary over the states")
    return float(_distance(np.corrcoef(rewards, truth)[0, 1]))


def epic_distances(weights_bn: np.ndarray, rewards_nr: np.ndarray, truth_n: np.ndarray) -> np.ndarray:
    """Compute the EPIC distance of each reward to a truth under each weighting of the states.

    Args:
        weights_bn: float (B, N).
        rewards_nr: float (N, R).
        truth_n: float (N,).

    Returns:
        float (B, R); NaN where the truth or the reward is constant.
    """
    return _distance(correlations(weights_bn, rewards_nr, truth_n))


def _distance(correlation: np.ndarray | float) -> np.ndarray:
    return np.sqrt(np.clip(1 - np.asarray(correlation), 0, 2) / 2)


def correlations(weights_bn: np.ndarray, rewards_nr: np.ndarray, truth_n: np.ndarray) -> np.ndarray:
    """Correlate each reward with a truth under each weighting of the states (Pearson; of ranks, it is Spearman).

    Args:
        weights_bn: float (B, N).
        rewards_nr: float (N, R).
        truth_n: float (N,).

    Returns:
        float (B, R); NaN where the truth or the reward is constant.
    """
    rewards_nr, truth_n = standardized(rewards_nr), standardized(truth_n)
    weights_bn = weights_bn / weights_bn.sum(axis=1, keepdims=True)
    mean_br, mean_b1 = weights_bn @ rewards_nr, (weights_bn @ truth_n)[:, None]
    covariance = weights_bn @ (rewards_nr * truth_n[:, None]) - mean_br * mean_b1
    variance_br = weights_bn @ rewards_nr**2 - mean_br**2
    variance_b1 = (weights_bn @ truth_n**2)[:, None] - mean_b1**2
    # Rounding leaves a constant with a variance of about 1e-16.
    varies = (variance_br > 1e-12) & (variance_b1 > 1e-12)
    scale = np.sqrt(np.where(varies, variance_br * variance_b1, 1))
    return np.where(varies, covariance / scale, np.nan)


def standardized(values: np.ndarray) -> np.ndarray:
    """Bring values to mean 0 and standard deviation 1 over the states, float (N,) or (N, R); a constant becomes 0."""
    spread = values.std(axis=0)
    return (values - values.mean(axis=0)) / np.where(np.ptp(values, axis=0) > 0, spread, 1)
