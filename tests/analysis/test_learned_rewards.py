"""The comparison of learned rewards with the cosine runs, and says what each reward is worth."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from vlm_rm_sweeps.evaluation.bootstrap import Estimates, drawn_counts
from vlm_rm_sweeps.evaluation.detection import detection

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_row_for_each_reward_of_a_task(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    options: list[str | Path] = [
        "--model",
        "embedded/tiny",
        "--tasks",
        "cartpole-upright",
        "--labels",
        "120",
        "--held-out",
        "150",
        "--draws",
        "2",
        "--csv",
        table,
    ]
    subprocess.run([sys.executable, REPOSITORY / "analysis" / "learned_rewards.py", *options], check=True, cwd=tmp_path)
    rows = pd.read_csv(table)
    assert set(rows["task"]) == {"cartpole-upright"}
    assert rows["reward"].is_unique
    assert len(rows) == 3
    assert rows["roc_auc"].between(0.5, 1).all()
    assert rows["labels"].str.fullmatch(r"\d+, \d+ of 120").all()
    cosine, *learned = rows.to_dict("records")
    assert cosine["roc_auc_least"] == cosine["roc_auc"] == cosine["roc_auc_most"]
    for row in learned:
        assert row["roc_auc_least"] < row["roc_auc"] < row["roc_auc_most"]
        assert row["roc_auc"] == pytest.approx((row["roc_auc_least"] + row["roc_auc_most"]) / 2)
        assert row["roc_auc_low"] < row["roc_auc"] < row["roc_auc_high"]


def test_draws_of_the_labels_are_none_of_the_held_out_states(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(REPOSITORY / "analysis")
    from learned_rewards import HELD_OUT_SEED, label_seeds

    for draws in (1, 2, 5):
        seeds = label_seeds(draws)
        assert len(set(seeds)) == draws
        assert HELD_OUT_SEED not in seeds
        assert seeds[0] == 1  # as the heads in sweeps/heads


def test_the_spread_over_draws_is_beside_the_interval_over_states(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(REPOSITORY / "analysis")
    from learned_rewards import over_draws

    found = Estimates(np.array([0.8, 0.9, 1.0]), np.array([0.7, 0.8, 0.9]), np.array([0.9, 1.0, 1.0]))
    expected = {"auc": 0.9, "auc_low": 0.8, "auc_high": 2.9 / 3, "auc_least": 0.8, "auc_most": 1.0}
    assert over_draws("auc", found) == pytest.approx(expected)


def test_a_reward_without_an_error_has_a_bound_by_the_number_of_states(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(REPOSITORY / "analysis")
    from learned_rewards import bounded

    truth = np.array([1.0] * 20 + [0.0] * 80)
    noisy = truth + np.random.default_rng(0).normal(scale=0.7, size=100)
    found = detection(np.stack([truth, noisy], axis=1), truth, drawn_counts(np.arange(100)))
    areas, rates = bounded(*found, 20, 80)
    assert (found[0].low[0], found[1].high[0]) == (1, 0)
    assert (areas.value[0], areas.high[0], rates.value[0], rates.low[0]) == (1, 1, 0, 0)
    assert areas.low[0] == pytest.approx(binomtest(20, 20).proportion_ci().low)
    assert rates.high[0] == pytest.approx(binomtest(0, 80).proportion_ci().high)
    for before, after in zip(found, (areas, rates), strict=True):
        assert [each[1] for each in after] == [each[1] for each in before]
