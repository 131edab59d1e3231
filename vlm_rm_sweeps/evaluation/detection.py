"""How well rewards tell states in the goal from all others: ROC-AUC, and false positives at 95 % recall.

Array names end in their axes: `n` states, `p` positive and `m` negative states, `r` rewards, `b` bootstrap samples.
"""

import numpy as np

from vlm_rm_sweeps.evaluation.bootstrap import Estimates

KEPT_TRUE_POSITIVES = 0.95
_ROUNDING = 1e-3
"""Far below one state: 95 % of 20 states are 19, whatever the rounding."""


def detection(rewards_nr: np.ndarray, truth_n: np.ndarray, counts_bn: np.ndarray) -> tuple[Estimates, Estimates]:
    """Measure rewards as detectors of a truth that is yes or no.

    False positives hurt a policy that learns from a reward most (arXiv 2409.15922); at 95 % recall they are a usual measure of
    detectors (FPR95; Liang et al., 2018, arXiv 1706.02690). Both are read from scikit-learn's `roc_curve`.

    Args:
        rewards_nr: float (N, R).
        truth_n: float (N,), 0 or 1, both of which occur.
        counts_bn: Bootstrap samples, see `drawn_counts`.

    Returns:
        The area under the ROC curve, and the false-positive rate at the highest threshold that keeps 95 % of the positives.
    """
    from sklearn.metrics import (  # here: it takes a second to import, which sweeps that measure nothing would wait for
        auc,
        roc_curve,
    )

    is_positive_n = truth_n == 1
    positive_pb, negative_mb = (np.ascontiguousarray(counts_bn[:, of].T, np.float32) for of in (is_positive_n, ~is_positive_n))
    areas, rates = np.empty((2, rewards_nr.shape[1]))
    samples = np.empty((2, len(counts_bn), rewards_nr.shape[1]))
    for column, rewards_n in enumerate(rewards_nr.T):
        false_positives, true_positives, _ = roc_curve(truth_n, rewards_n, drop_intermediate=False)
        areas[column] = auc(false_positives, true_positives)
        rates[column] = false_positives[np.argmax(true_positives >= KEPT_TRUE_POSITIVES)]
        samples[..., column] = _samples(rewards_n[is_positive_n], rewards_n[~is_positive_n], positive_pb, negative_mb)
    return Estimates.of(areas, samples[0]), Estimates.of(rates, samples[1])


def _samples(
    positives_p: np.ndarray, negatives_m: np.ndarray, positive_pb: np.ndarray, negative_mb: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Compute area and false-positive rate of one reward in all bootstrap samples, float (b,) each.

    Sorted by reward, the states beyond any threshold are a part of the rows, whose sums are cumulative.
    """
    by_reward_p, by_reward_m = np.argsort(-positives_p, kind="stable"), np.argsort(-negatives_m, kind="stable")
    kept_pb, beyond_mb = _cumulative(positive_pb, by_reward_p), _cumulative(negative_mb, by_reward_m)
    positives_b, negatives_b = kept_pb[-1], beyond_mb[-1]
    above_p, reaching_p = (np.searchsorted(-negatives_m[by_reward_m], -positives_p, side) for side in ("left", "right"))

    # A negative above a positive is an error, one that ties with it is half of one.
    errors_b = np.einsum("pb,pb->b", positive_pb, beyond_mb[above_p])
    tied_p = above_p != reaching_p
    ties_pb = beyond_mb[reaching_p[tied_p]] - beyond_mb[above_p[tied_p]]
    errors_b += np.einsum("pb,pb->b", positive_pb[tied_p], ties_pb) / 2

    needed_b = np.ceil(KEPT_TRUE_POSITIVES * positives_b - _ROUNDING)
    threshold_b = by_reward_p[(kept_pb[1:-1] < needed_b).sum(axis=0)]
    false_b = beyond_mb[reaching_p[threshold_b], np.arange(len(threshold_b))]
    both_b = (positives_b > 0) & (negatives_b > 0)
    pairs_b, of_b = np.where(both_b, positives_b * negatives_b, np.nan), np.where(both_b, negatives_b, np.nan)
    return 1 - errors_b / pairs_b, false_b / of_b


def _cumulative(counts_nb: np.ndarray, order_n: np.ndarray) -> np.ndarray:
    """Add up the first rows in an order, float (n + 1, b): of none, of one, ..., of all.

    Rows at a time, this is 4 times as fast as `cumsum` along the same axis.
    """
    sums_nb = np.empty((len(counts_nb) + 1, counts_nb.shape[1]), counts_nb.dtype)
    sums_nb[0] = 0
    for place, row in enumerate(order_n.tolist()):
        np.add(sums_nb[place], counts_nb[row], out=sums_nb[place + 1])
    return sums_nb
