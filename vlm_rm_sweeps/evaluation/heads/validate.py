"""Cross-validation of heads by episodes, and what it measures on the examples that a head has not seen.

Shape suffixes: n examples, p penalties, b bootstrap samples.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.evaluation.bootstrap import bootstrap_interval, drawn_counts
from vlm_rm_sweeps.evaluation.detection import detection
from vlm_rm_sweeps.evaluation.heads.examples import ComparedStates, Examples
from vlm_rm_sweeps.evaluation.heads.fit import PENALTIES, fit_head, losses, predicted
from vlm_rm_sweeps.metrics import FALSE_POSITIVE_RATE, ROC_AUC

FOLDS = 5
BOOTSTRAP_SAMPLES = 400
BINS = 10


@dataclass(frozen=True)
class Interval:
    """A measure with its 95 % interval; NaN where it is undefined."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Bin:
    """A row of a reliability table.

    Attributes:
        low: Lowest probability in the bin.
        high: Upper end of the bin.
        count: Number of examples.
        predicted: Their mean probability.
        observed: Their mean target.
    """

    low: float
    high: float
    count: int
    predicted: float
    observed: float


@dataclass(frozen=True)
class Validation:
    """What cross-validation measured.

    Attributes:
        penalty: The penalty that was chosen for a head of all examples.
        judged: Number of examples that were held out.
        measures: By name.
        reliability: Bins that are not empty.
    """

    penalty: float
    judged: int
    measures: dict[str, Interval]
    reliability: list[Bin]


def cross_validate(examples: Examples, hidden: int, seed: int) -> Validation:
    """Measure what kind of head examples give, on examples of other episodes than it was trained on.

    The penalty of the head for some held-out examples is the one that did best on all other held-out examples.

    Args:
        examples: The examples.
        hidden: Hidden units; 0 for a logistic regression.
        seed: Seed of the folds, the first weights and the bootstrap.

    Returns:
        For states: `roc_auc` and `false_positive_rate` at 95 % recall; for pairs: `accuracy`, over those with a preference; for
        both: `brier` and `calibration_error`, see `calibration_error`. Each with an interval, bootstrapped over episodes.

    Raises:
        UserError: There are too few episodes to hold some out.
    """
    logits_pn = np.full((len(PENALTIES), len(examples)), np.nan)
    blocks = []
    for trained, held_out in _splits(examples, _folds(examples, seed)):
        if trained.any():
            blocks.append(held_out)
            training, testing = examples.at(trained), examples.at(held_out)
            for row, penalty in enumerate(PENALTIES):
                logits_pn[row, held_out] = predicted(fit_head(training, hidden, penalty, seed), testing)
    judged = np.isfinite(logits_pn[0])
    losses_pn = losses(logits_pn, examples.targets_n)
    logits_n = np.full(len(examples), np.nan)
    for held_out in blocks:
        others = judged & ~held_out
        chosen = _smallest(losses_pn[:, others if others.any() else judged])
        logits_n[held_out] = logits_pn[chosen, held_out]
    probabilities_n, targets_n = 1 / (1 + np.exp(-logits_n[judged])), examples.targets_n[judged]
    measures = _measures(probabilities_n, targets_n, examples.episodes[judged], seed)
    penalty = PENALTIES[_smallest(losses_pn[:, judged])]
    return Validation(penalty, int(judged.sum()), measures, reliability(probabilities_n, targets_n))


def _smallest(losses_pn: np.ndarray) -> int:
    """Return the row with the smallest mean; without columns, the last one."""
    return int(losses_pn.mean(axis=1).argmin()) if losses_pn.size else len(losses_pn) - 1


def _folds(examples: Examples, seed: int) -> np.ndarray:
    """Assign episodes to folds.

    Episodes are dealt out in turn, in an order in which those with a label of a class are neighbours, so that every fold leaves
    labels of both classes to train on.

    Args:
        examples: The examples.
        seed: Of the order.

    Returns:
        The fold of each example's episodes, int (n, 1 or 2).

    Raises:
        UserError: All labels of a class are of one episode, or there are fewer than three episodes with pairs.
    """
    names, places = np.unique(examples.episodes, return_inverse=True)
    places = places.reshape(examples.episodes.shape)
    order = np.random.default_rng(seed).permutation(len(names))
    if isinstance(examples, ComparedStates):
        count = min(FOLDS, len(names))
        if count < 3:
            raise UserError(f"the pairs are of {len(names)} episodes: expected at least 3, so that some can be held out")
    else:
        share = np.array([examples.targets_n[places[:, 0] == index].mean() for index in range(len(names))])
        one_class = (share == 1).astype(int) - (share == 0).astype(int)  # -1 and 1 for episodes of one class, 0 for both
        order = order[np.argsort(one_class[order], kind="stable")]
        count = min(FOLDS, int((share > 0).sum()), int((share < 1).sum()))
        if count < 2:
            raise UserError("all labels of a class are of one episode: expected at least 2, so that some can be held out")
    fold_of = np.empty(len(names), np.int64)
    fold_of[order] = np.arange(len(names)) % count
    return fold_of[places]


def _splits(examples: Examples, folds: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield training and held-out examples as masks: each example is held out once, from a head that saw none of its episodes.

    A pair may have episodes of two folds. It is then held out with the other pairs of these two, and the head is trained on the
    pairs that have no episode of either.
    """
    count = int(folds.max()) + 1
    if not isinstance(examples, ComparedStates):
        held_out_folds = [(fold, fold) for fold in range(count)]
    else:
        held_out_folds = list(combinations_with_replacement(range(count), 2))
    for block in held_out_folds:
        held_out = (np.sort(folds, axis=1)[:, [0, -1]] == block).all(axis=1)
        trained = np.logical_not(np.isin(folds, block).any(axis=1))
        if held_out.any():
            yield trained, held_out


def _measures(probabilities_n: np.ndarray, targets_n: np.ndarray, episodes: np.ndarray, seed: int) -> dict[str, Interval]:
    """Compute all measures with intervals."""
    are_pairs = episodes.shape[1] == 2

    def measured(weights_n: np.ndarray) -> dict[str, float]:
        found = _accuracy(probabilities_n, targets_n, weights_n) if are_pairs else {}
        return found | {
            "brier": float(np.average((probabilities_n - targets_n) ** 2, weights=weights_n)),
            "calibration_error": calibration_error(probabilities_n, targets_n, weights_n),
        }

    others = _with_intervals(measured, episodes, seed)
    return others if are_pairs else _detection(probabilities_n, targets_n, episodes[:, 0], seed) | others


def _detection(scores_n: np.ndarray, targets_n: np.ndarray, episodes_n: np.ndarray, seed: int) -> dict[str, Interval]:
    estimates = detection(scores_n[:, None], targets_n, drawn_counts(episodes_n, seed))
    return {
        name: Interval(*(float(end[0]) for end in each))
        for name, each in zip((ROC_AUC, FALSE_POSITIVE_RATE), estimates, strict=True)
    }


def _with_intervals(
    measured: Callable[[np.ndarray], dict[str, float]], episodes: np.ndarray, seed: int = 0
) -> dict[str, Interval]:
    """Compute measures with intervals, bootstrapped over episodes.

    Args:
        measured: Computes the measures by name from the weights of N examples, float64 (N,).
        episodes: Episodes that each example is about, int (N, 1) or (N, 2).
        seed: Seed of the bootstrap.

    Returns:
        The measures of all examples, by name.
    """
    samples = [measured(weights_n) for weights_n in _bootstrap_weights(episodes, seed)]
    intervals = {}
    for name, value in measured(np.ones(len(episodes))).items():
        low, high = bootstrap_interval(np.array([[sample[name]] for sample in samples]))
        intervals[name] = Interval(value, float(low[0]), float(high[0]))
    return intervals


def _bootstrap_weights(episodes: np.ndarray, seed: int) -> Iterator[np.ndarray]:
    """Yield how often each example is drawn when episodes are; a pair as often as both of its episodes together."""
    names, places = np.unique(episodes, return_inverse=True)
    drawn_b = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), BOOTSTRAP_SAMPLES)
    for drawn in drawn_b:
        weights_n = drawn[places.reshape(episodes.shape)].prod(axis=1).astype(np.float64)
        if weights_n.any():
            yield weights_n


def _accuracy(probabilities_n: np.ndarray, targets_n: np.ndarray, weights_n: np.ndarray) -> dict[str, float]:
    """Compute the share of pairs with a preference that the head prefers, too; half for one that it finds equal."""
    decided = (targets_n != 0.5) & (weights_n > 0)
    if not decided.any():
        return {"accuracy": float("nan")}
    agrees = 0.5 + np.sign(probabilities_n - 0.5) * np.sign(targets_n - 0.5) / 2
    return {"accuracy": float(np.average(agrees[decided], weights=weights_n[decided]))}


def _bins_of(probabilities_n: np.ndarray) -> np.ndarray:
    return np.minimum((probabilities_n * BINS).astype(np.int64), BINS - 1)


def calibration_error(probabilities_n: np.ndarray, targets_n: np.ndarray, weights_n: np.ndarray) -> float:
    """Compute the expected calibration error (Guo et al., arXiv 1706.04599).

    Args:
        probabilities_n: Predictions.
        targets_n: From 0 to 1.
        weights_n: Weight of each example.

    Returns:
        The mean of |predicted - observed| over ten bins of equal width, weighted by their examples.
    """
    gaps = np.bincount(_bins_of(probabilities_n), weights_n * (probabilities_n - targets_n), BINS)
    return float(np.abs(gaps).sum() / weights_n.sum())


def reliability(probabilities_n: np.ndarray, targets_n: np.ndarray) -> list[Bin]:
    """Compare predicted probabilities with observed shares, in ten bins of equal width.

    Args:
        probabilities_n: Predictions.
        targets_n: From 0 to 1.

    Returns:
        The bins that are not empty.
    """
    bin_of_n = _bins_of(probabilities_n)
    rows = []
    for index in range(BINS):
        within = bin_of_n == index
        if within.any():
            means = float(probabilities_n[within].mean()), float(targets_n[within].mean())
            rows.append(Bin(index / BINS, (index + 1) / BINS, int(within.sum()), *means))
    return rows
