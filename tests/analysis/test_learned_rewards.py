"""The comparison of learned rewards with the cosine runs, and says what each reward is worth."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from vlm_rm_sweeps.evaluation.bootstrap import drawn_counts
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
        "--csv",
        table,
    ]
    subprocess.run([sys.executable, REPOSITORY / "analysis" / "learned_rewards.py", *options], check=True, cwd=tmp_path)
    rows = pd.read_csv(table)
    assert set(rows["task"]) == {"cartpole-upright"}
    assert rows["reward"].is_unique
    assert len(rows) == 3
    assert rows["roc_auc"].between(0.5, 1).all()


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
