"""The comparison of learned rewards with the cosine runs, and says what each reward is worth."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

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
