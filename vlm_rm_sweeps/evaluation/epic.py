"""EPIC distance between a reward model and a ground truth (paper, appendix A)."""

import numpy as np


def epic_distance(rewards: np.ndarray, truth: np.ndarray) -> float:
    """Distance of two state-only rewards over the same N states, from 0 (same up to scale and shift) to 1 (opposite).

    For rewards of states alone the canonical shaping subtracts a constant, so the distance is `sqrt((1 - rho) / 2)` with rho
    the Pearson correlation. Raises ValueError if one of them is constant or not finite: the correlation is undefined.
    """
    rewards, truth = np.asarray(rewards, np.float64), np.asarray(truth, np.float64)
    if not (np.isfinite(rewards).all() and np.isfinite(truth).all()):
        raise ValueError("rewards and truth must be finite")
    if np.ptp(rewards) == 0 or np.ptp(truth) == 0:
        raise ValueError("EPIC needs rewards and truth that vary over the states")
    correlation = np.corrcoef(rewards, truth)[0, 1]
    return float(np.sqrt(max(0.0, 1 - correlation) / 2))
