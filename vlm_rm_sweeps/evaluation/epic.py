"""EPIC distance between rewards and a ground truth (paper, appendix A), and what else tells how far they agree."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from scipy.stats import rankdata
from sklearn.metrics import auc, roc_curve

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.evaluation.truth import Truth

BOOTSTRAP_SAMPLES = 1_000
CONFIDENCE = 0.95
KEPT_TRUE_POSITIVES = 0.95


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
    return float(_distance(np.corrcoef(rewards, truth)[0, 1]))


@dataclass(frozen=True)
class Measures:
    """How far one reward agrees with a truth over the states where that is known.

    `epic_low`, `epic_high`: bootstrap interval (95 %, over states) of the EPIC distance. `roc_auc`, `false_positive_rate`: NaN unless
    the truth is yes or no; the rate is that of the highest threshold which keeps 95 % of the true positives.
    """

    states: int
    epic_distance: float
    epic_low: float
    epic_high: float
    pearson: float
    spearman: float
    roc_auc: float
    false_positive_rate: float

    def to_dict(self) -> dict[str, float]:
        return asdict(self)


def measure(rewards: np.ndarray, truth: Truth, names: Sequence[str], seed: int = 0) -> list[Measures]:
    """The measures of many rewards (N, R) of the same N states, whose `names` are for messages.

    The bootstrap draws the same states for all of them. Raises UserError if a reward is constant over the states.
    """
    rewards_nr = np.asarray(rewards, np.float64)[truth.known]
    truth_n = truth.values[truth.known]
    constant = np.flatnonzero(np.ptp(rewards_nr, axis=0) == 0)
    if len(constant):
        raise UserError(
            f"{names[constant[0]]} gives all {len(truth_n)} states the same reward: it cannot be compared with a truth"
        )
    pearson = _correlations(np.ones((1, len(truth_n))), rewards_nr, truth_n)[0]
    ranks = np.ones((1, len(truth_n))), rankdata(rewards_nr, axis=0), rankdata(truth_n)
    spearman = _correlations(*ranks)[0]
    low, high = bootstrap_interval(bootstrap_distances(rewards_nr, truth_n, seed))
    detection = _detection(rewards_nr, truth_n) if truth.is_binary else [(np.nan, np.nan)] * rewards_nr.shape[1]
    return [
        Measures(
            states=len(truth_n),
            epic_distance=float(_distance(pearson[column])),
            epic_low=float(low[column]),
            epic_high=float(high[column]),
            pearson=float(pearson[column]),
            spearman=float(spearman[column]),
            roc_auc=roc_auc,
            false_positive_rate=false_positive_rate,
        )
        for column, (roc_auc, false_positive_rate) in enumerate(detection)
    ]


def _distance(correlation: np.ndarray | float) -> np.ndarray:
    return np.sqrt(np.clip(1 - np.asarray(correlation), 0, 2) / 2)


def _correlations(weights_bn: np.ndarray, rewards_nr: np.ndarray, truth_n: np.ndarray) -> np.ndarray:
    """Pearson correlations (b, r) with the truth under b weightings of the states; NaN where one of them is constant."""
    rewards_nr = (rewards_nr - rewards_nr.mean(axis=0)) / rewards_nr.std(axis=0)
    truth_n = (truth_n - truth_n.mean()) / truth_n.std()
    weights_bn = weights_bn / weights_bn.sum(axis=1, keepdims=True)
    mean_br, mean_b1 = weights_bn @ rewards_nr, (weights_bn @ truth_n)[:, None]
    covariance = weights_bn @ (rewards_nr * truth_n[:, None]) - mean_br * mean_b1
    variance_br = weights_bn @ rewards_nr**2 - mean_br**2
    variance_b1 = (weights_bn @ truth_n**2)[:, None] - mean_b1**2
    # Rounding leaves a constant with a variance of about 1e-16.
    varies = (variance_br > 1e-12) & (variance_b1 > 1e-12)
    scale = np.sqrt(np.where(varies, variance_br * variance_b1, 1))
    return np.where(varies, covariance / scale, np.nan)


def bootstrap_distances(rewards_nr: np.ndarray, truth_n: np.ndarray, seed: int = 0) -> np.ndarray:
    """EPIC distances (B, R) of R rewards (N, R) to a truth (N,) over B bootstrap samples of the N states.

    A sample without a single positive (or negative) state has no correlation: NaN.
    """
    # How often each state is drawn is a row of weights: all rewards and samples then take a few matrix products.
    count = len(truth_n)
    weights_bn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), BOOTSTRAP_SAMPLES)
    return _distance(_correlations(weights_bn.astype(np.float64), rewards_nr, truth_n))


def bootstrap_interval(distances_br: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper ends of the percentile interval (95 %) over the first axis."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.nanquantile(distances_br, (tail, 1 - tail), axis=0)
    return low, high


def _detection(rewards_nr: np.ndarray, truth_n: np.ndarray) -> Iterator[tuple[float, float]]:
    """For each reward the area under its ROC curve, and the false-positive rate where 95 % of the positives are kept."""
    for rewards_n in rewards_nr.T:
        false_positives, true_positives, _ = roc_curve(truth_n, rewards_n, drop_intermediate=False)
        yield (
            float(auc(false_positives, true_positives)),
            float(false_positives[np.argmax(true_positives >= KEPT_TRUE_POSITIVES)]),
        )
