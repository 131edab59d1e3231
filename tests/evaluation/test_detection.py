"""ROC-AUC and false positives at 95 % recall: every bootstrap sample against loops over its states."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from vlm_rm_sweeps.evaluation import detection as module
from vlm_rm_sweeps.evaluation.bootstrap import drawn_counts
from vlm_rm_sweeps.evaluation.detection import detection


def literal(rewards: list[float], truth: list[float]) -> tuple[float, float]:
    """Area and false-positive rate of one reward, pair by pair and threshold by threshold."""
    positives = [reward for reward, label in zip(rewards, truth, strict=True) if label]
    negatives = [reward for reward, label in zip(rewards, truth, strict=True) if not label]
    if not positives or not negatives:
        return float("nan"), float("nan")
    wins = sum((p > n) + 0.5 * (p == n) for p in positives for n in negatives)
    for threshold in sorted(rewards, reverse=True):
        if sum(p >= threshold for p in positives) * 20 >= 19 * len(positives):
            break
    return wins / len(positives) / len(negatives), sum(n >= threshold for n in negatives) / len(negatives)


@pytest.mark.parametrize("digits", [1, 9], ids=["ties", "no ties"])
def test_samples_are_those_of_loops(digits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    truth = (rng.random(40) < 0.4).astype(float)
    rewards = np.round(truth[:, None] + rng.normal(size=(40, 2)), digits)
    counts = drawn_counts(np.arange(40))[:150]
    seen: list[tuple[np.ndarray, np.ndarray]] = []
    samples = module._samples

    def kept(*given: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        seen.append(samples(*given))
        return seen[-1]

    monkeypatch.setattr(module, "_samples", kept)
    areas, rates = detection(rewards, truth, counts)
    for column in range(2):
        expected = literal(rewards[:, column].tolist(), truth.tolist())
        assert (areas.value[column], rates.value[column]) == pytest.approx(expected)
        assert areas.value[column] == pytest.approx(roc_auc_score(truth, rewards[:, column]))
        for sample, drawn in enumerate(counts.astype(int)):
            expected = literal(np.repeat(rewards[:, column], drawn).tolist(), np.repeat(truth, drawn).tolist())
            found = seen[column][0][sample], seen[column][1][sample]
            assert found == pytest.approx(expected, abs=1e-6), sample
        assert areas.low[column] <= areas.value[column] <= areas.high[column]


def test_samples_of_one_class_have_no_value() -> None:
    """A third of the samples lack the single positive."""
    truth = np.array([1.0] + [0.0] * 19)
    areas, rates = detection(np.random.default_rng(0).normal(size=(20, 1)), truth, drawn_counts(np.arange(20)))
    assert 0 <= areas.low[0] <= areas.high[0] <= 1
    assert 0 <= rates.low[0] <= rates.high[0] <= 1
    none = detection(np.arange(20.0)[:, None], truth, drawn_counts(np.zeros(20)))
    assert [each.value[0] for each in none] == [0.0, 1.0]
    assert all(np.isnan(each.low[0]) and np.isnan(each.high[0]) for each in none)
