"""EPIC distance between rewards and a ground truth (paper, appendix A), and other measures of their agreement.

Array names end in their axes: `n` states, `r` rewards, `b` bootstrap samples, `g` groups of states.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.evaluation.ground_truth import Truth

BOOTSTRAP_SAMPLES = 1_000
CONFIDENCE = 0.95
KEPT_TRUE_POSITIVES = 0.95
_REWARDS_AT_ONCE = 1_000
"""Rewards in one pass of the bootstrap, whose arrays then take 8 MB each."""


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


@dataclass(frozen=True)
class Measures:
    """Agreement of one reward with a truth, over the states for which the truth is known.

    All measures are NaN for a reward that is constant over the states.

    Attributes:
        states: Number of states with a known truth.
        epic_distance: See `epic_distance`.
        epic_low: Lower end of the bootstrap interval (95 %, over independent groups of states) of the EPIC distance.
        epic_high: Its upper end.
        pearson: Linear correlation.
        spearman: Rank correlation.
        roc_auc: Area under the ROC curve; NaN unless the truth is yes or no.
        false_positive_rate: At the highest threshold that keeps 95 % of the true positives; NaN unless the truth is yes or no.
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
        """Return the measures by name, which are also the column names of tables."""
        return asdict(self)


def measure(
    rewards: np.ndarray, truth: Truth, names: Sequence[str], seed: int = 0, groups: np.ndarray | None = None
) -> list[Measures]:
    """Measure how well each of many rewards agrees with a ground truth.

    The bootstrap draws the same states for all rewards.

    Args:
        rewards: float (N, R), a column for each reward.
        truth: The ground truth of the same N states.
        names: R names, for messages.
        seed: Seed of the bootstrap.
        groups: (N,): states with equal entries, such as those of one episode, are not independent and are drawn together; by
            default each state is drawn by itself.

    Returns:
        R measures, in the order of the columns.

    Raises:
        UserError: All rewards are constant over the states.
    """
    rewards_nr = np.asarray(rewards, np.float64)[truth.known]
    truth_n = truth.values[truth.known]
    groups_n = None if groups is None else groups[truth.known]
    varying = np.flatnonzero(np.ptp(rewards_nr, axis=0) > 0)
    if not len(varying):
        raise UserError(
            f"{names[0]} gives all {len(truth_n)} states the same reward: expected rewards that vary; check the prompt"
        )
    undefined = Measures(len(truth_n), *[float("nan")] * 7)
    measured = [undefined] * rewards_nr.shape[1]
    for start in range(0, len(varying), _REWARDS_AT_ONCE):
        part = varying[start : start + _REWARDS_AT_ONCE]
        found = _measured(rewards_nr[:, part], truth_n, truth.is_binary, seed, groups_n)
        for column, measures in zip(part, found, strict=True):
            measured[column] = measures
    return measured


def _measured(
    rewards_nr: np.ndarray, truth_n: np.ndarray, is_binary: bool, seed: int, groups_n: np.ndarray | None
) -> list[Measures]:
    """Measure rewards, none of which is constant."""
    from scipy.stats import rankdata  # here: it takes a second to import, which sweeps that measure nothing would wait for

    pearson = _correlations(np.ones((1, len(truth_n))), rewards_nr, truth_n)[0]
    ranks = np.ones((1, len(truth_n))), rankdata(rewards_nr, axis=0), rankdata(truth_n)
    spearman = _correlations(*ranks)[0]
    low, high = bootstrap_interval(bootstrap_distances(rewards_nr, truth_n, seed, groups_n))
    detection = _detection(rewards_nr, truth_n) if is_binary else [(np.nan, np.nan)] * rewards_nr.shape[1]
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
    """Correlate each reward with the truth under each weighting of the states, float (b, r); NaN where one is constant."""
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


def bootstrap_distances(
    rewards_nr: np.ndarray, truth_n: np.ndarray, seed: int = 0, groups_n: np.ndarray | None = None
) -> np.ndarray:
    """Compute EPIC distances to a truth over bootstrap samples of the states.

    Args:
        rewards_nr: float (N, R), none of them constant.
        truth_n: float (N,).
        seed: Seed of the bootstrap.
        groups_n: (N,): states with equal entries are drawn together; by default each state is drawn by itself.

    Returns:
        float (B, R) for B bootstrap samples; NaN for a sample over which the truth or the reward is constant. A single group
        has no interval: it gives one sample of NaN.
    """
    group_of_n = np.arange(len(truth_n)) if groups_n is None else np.unique(groups_n, return_inverse=True)[1]
    count = int(group_of_n.max()) + 1
    if count < 2:
        return np.full((1, rewards_nr.shape[1]), np.nan)
    # A sample is a row of weights (how often each group is drawn), so a few matrix products do all rewards and samples.
    drawn_bg = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), BOOTSTRAP_SAMPLES)
    return _distance(_correlations(drawn_bg[:, group_of_n].astype(np.float64), rewards_nr, truth_n))


def bootstrap_interval(distances_br: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute the percentile interval (95 %) over bootstrap samples.

    Args:
        distances_br: float (B, R), NaN where a sample has no distance.

    Returns:
        Lower and upper ends, float (R,) each; NaN if no sample has a distance.
    """
    tail = (1 - CONFIDENCE) / 2
    if np.isnan(distances_br).all():
        return distances_br[0], distances_br[0]
    low, high = np.nanquantile(distances_br, (tail, 1 - tail), axis=0)
    return low, high


def _detection(rewards_nr: np.ndarray, truth_n: np.ndarray) -> Iterator[tuple[float, float]]:
    """Yield, for each reward, its ROC-AUC and the false-positive rate at the threshold that keeps 95 % of the positives."""
    from sklearn.metrics import auc, roc_curve  # here, as scipy.stats

    for rewards_n in rewards_nr.T:
        false_positives, true_positives, _ = roc_curve(truth_n, rewards_n, drop_intermediate=False)
        yield (
            float(auc(false_positives, true_positives)),
            float(false_positives[np.argmax(true_positives >= KEPT_TRUE_POSITIVES)]),
        )
