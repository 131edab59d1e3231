"""Every measure of how well rewards agree with a ground truth, with bootstrap intervals, for many rewards at once.

Each measure has a function of its own, with its source: `epic`, `starc`, `detection` and `trajectories`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields

import numpy as np

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.evaluation.bootstrap import Estimates, drawn_counts
from vlm_rm_sweeps.evaluation.detection import detection
from vlm_rm_sweeps.evaluation.epic import correlations, epic_distances
from vlm_rm_sweeps.evaluation.ground_truth import Truth
from vlm_rm_sweeps.evaluation.starc import starc_distances
from vlm_rm_sweeps.evaluation.trajectories import (
    Trajectories,
    kendall_tau,
    value_order_correlation,
    why_no_ranking,
    why_no_value_order,
)
from vlm_rm_sweeps.metrics import (
    EPIC_DISTANCE,
    FALSE_POSITIVE_RATE,
    INTERVALS,
    KENDALL_TAU,
    PEARSON,
    ROC_AUC,
    SPEARMAN,
    STARC_DISTANCE,
    VALUE_ORDER_CORRELATION,
)

_NAN = float("nan")
_REWARDS_AT_ONCE = 1_000
"""Rewards in one pass of the bootstrap, whose arrays then take 8 MB each."""
_OF_THIS_REWARD = {
    VALUE_ORDER_CORRELATION: "the reward is constant along every successful episode",
    KENDALL_TAU: "the reward puts all policies at one rank",
}
"""Why a measure may be undefined for one reward and not for another."""


@dataclass(frozen=True)
class Measures:
    """Agreement of one reward with a truth, over the states for which the truth is known.

    Each measure is NaN where it is undefined. `_low` and `_high` are the ends of a bootstrap interval (95 %, over independent
    groups of states), NaN where there is a single group.

    Attributes:
        states: Number of states with a known truth.
        epic_distance: See `epic_distance`.
        epic_low: Of the EPIC distance.
        epic_high: Of the EPIC distance.
        pearson: Linear correlation.
        spearman: Rank correlation.
        roc_auc: Area under the ROC curve, see `detection`; only if the truth is yes or no.
        false_positive_rate: At the highest threshold that keeps 95 % of the true positives; only if the truth is yes or no.
        starc_distance: See `starc_distances`.
        starc_low: Of the STARC distance.
        starc_high: Of the STARC distance.
        roc_auc_low: Of the area under the ROC curve.
        roc_auc_high: Of the area under the ROC curve.
        false_positive_rate_low: Of the false-positive rate.
        false_positive_rate_high: Of the false-positive rate.
        value_order_correlation: See `value_order_correlation`; only of states along successful episodes.
        voc_low: Of the value-order correlation, over these episodes.
        voc_high: Of the value-order correlation.
        kendall_tau: See `kendall_tau`; only of states along episodes of several policies.
        kendall_low: Of Kendall's tau, over all episodes.
        kendall_high: Of Kendall's tau.
        undefined: Why measures are undefined, such as "roc_auc: ..."; empty if all are defined.
    """

    states: int
    epic_distance: float = _NAN
    epic_low: float = _NAN
    epic_high: float = _NAN
    pearson: float = _NAN
    spearman: float = _NAN
    roc_auc: float = _NAN
    false_positive_rate: float = _NAN
    starc_distance: float = _NAN
    starc_low: float = _NAN
    starc_high: float = _NAN
    roc_auc_low: float = _NAN
    roc_auc_high: float = _NAN
    false_positive_rate_low: float = _NAN
    false_positive_rate_high: float = _NAN
    value_order_correlation: float = _NAN
    voc_low: float = _NAN
    voc_high: float = _NAN
    kendall_tau: float = _NAN
    kendall_low: float = _NAN
    kendall_high: float = _NAN
    undefined: str = ""

    def to_dict(self) -> dict[str, float | str]:
        """Return the measures by name, which are also the column names of tables."""
        return asdict(self)


MEASURED = tuple(each.name for each in fields(Measures) if each.type is float)
"""The columns of tables that hold measures and the ends of their intervals."""


def why_undefined(truth: Truth, trajectories: Trajectories | None = None) -> dict[str, str]:
    """Say which measures no reward has on these states. It needs no rewards, so it can be asked before anything is scored.

    Args:
        truth: The ground truth of the N states.
        trajectories: The episodes of the same states, if any.

    Returns:
        The reason, by the name of the measure.
    """
    reasons: dict[str, str | None] = {}
    if np.ptp(truth.values[truth.known]) == 0:
        same = "the truth is the same for all states"
        reasons |= dict.fromkeys(
            (EPIC_DISTANCE, STARC_DISTANCE, PEARSON, SPEARMAN, ROC_AUC, FALSE_POSITIVE_RATE, KENDALL_TAU), same
        )
    elif not truth.is_binary:
        reasons |= dict.fromkeys((ROC_AUC, FALSE_POSITIVE_RATE), "the truth is not yes or no")
    reasons[VALUE_ORDER_CORRELATION] = why_no_value_order(trajectories)
    known = trajectories.among(truth.known) if trajectories else None
    reasons.setdefault(KENDALL_TAU, why_no_ranking(truth.values[truth.known], known))
    return {name: reason for name, reason in reasons.items() if reason}


def measure(
    rewards: np.ndarray,
    truth: Truth,
    names: Sequence[str],
    seed: int = 0,
    groups: np.ndarray | None = None,
    trajectories: Trajectories | None = None,
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
        trajectories: The episodes of the same N states, if any.

    Returns:
        R measures, in the order of the columns.

    Raises:
        UserError: All rewards are constant over the states.
    """
    rewards_nr = np.asarray(rewards, np.float64)
    count = int(truth.known.sum())
    varying = np.flatnonzero(np.ptp(rewards_nr[truth.known], axis=0) > 0)
    if not len(varying):
        raise UserError(f"{names[0]} gives all {count} states the same reward: expected rewards that vary; check the prompt")
    reasons = why_undefined(truth, trajectories)
    counts_bn = drawn_counts((np.arange(len(truth.known)) if groups is None else groups)[truth.known], seed)
    measured = [Measures(count, undefined="all: the reward is the same for all states")] * rewards_nr.shape[1]
    for start in range(0, len(varying), _REWARDS_AT_ONCE):
        part = varying[start : start + _REWARDS_AT_ONCE]
        found = _estimates(rewards_nr[:, part], truth, counts_bn, trajectories, reasons, seed)
        for place, column in enumerate(part):
            measured[column] = _measures(count, found, place, reasons)
    return measured


def _estimates(
    rewards_nr: np.ndarray,
    truth: Truth,
    counts_bn: np.ndarray,
    trajectories: Trajectories | None,
    reasons: Mapping[str, str],
    seed: int,
) -> dict[str, Estimates]:
    """Compute the measures that are not undefined, of rewards none of which is constant."""
    from scipy.stats import rankdata  # here: it takes a second to import, which sweeps that measure nothing would wait for

    known_nr, truth_n = rewards_nr[truth.known], truth.values[truth.known]
    once = np.ones((1, len(truth_n)))
    found: dict[str, Estimates] = {}
    if EPIC_DISTANCE not in reasons:
        for name, distances in ((EPIC_DISTANCE, epic_distances), (STARC_DISTANCE, starc_distances)):
            found[name] = Estimates.of(distances(once, known_nr, truth_n)[0], distances(counts_bn, known_nr, truth_n))
        found[PEARSON] = Estimates.without_interval(correlations(once, known_nr, truth_n)[0])
        found[SPEARMAN] = Estimates.without_interval(correlations(once, rankdata(known_nr, axis=0), rankdata(truth_n))[0])
    if ROC_AUC not in reasons:
        found[ROC_AUC], found[FALSE_POSITIVE_RATE] = detection(known_nr, truth_n, counts_bn)
    if trajectories and VALUE_ORDER_CORRELATION not in reasons:
        found[VALUE_ORDER_CORRELATION] = value_order_correlation(rewards_nr, trajectories, seed)
    if trajectories and KENDALL_TAU not in reasons:
        found[KENDALL_TAU] = kendall_tau(known_nr, truth_n, trajectories.among(truth.known), seed)
    return found


def _measures(count: int, found: Mapping[str, Estimates], place: int, reasons: Mapping[str, str]) -> Measures:
    """Collect the measures of one reward."""
    values: dict[str, float] = {}
    for name, estimates in found.items():
        names = (name, *INTERVALS.get(name, ()))
        values |= {each: float(numbers[place]) for each, numbers in zip(names, estimates, strict=False)}
    missing = dict(reasons) | {name: _OF_THIS_REWARD[name] for name in found if np.isnan(values[name])}
    by_reason: dict[str, list[str]] = {}
    for name, reason in missing.items():
        by_reason.setdefault(reason, []).append(name)
    return Measures(count, **values, undefined="; ".join(f"{', '.join(each)}: {reason}" for reason, each in by_reason.items()))
