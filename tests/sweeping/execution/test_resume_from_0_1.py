"""A sweep that version 0.1 was killed in the middle of is resumed: same trials, and the table of an undisturbed sweep."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

from vlm_rm_sweeps.sweeping.config.plan import Plan
from vlm_rm_sweeps.sweeping.config.screening import load_plan
from vlm_rm_sweeps.sweeping.execution.run_sweep import run_sweep
from vlm_rm_sweeps.sweeping.tracking.folder import SweepFolder
from vlm_rm_sweeps.sweeping.tracking.journal import ResultLogged, read_entries

INTERRUPTED = Path(__file__).parents[2] / "fixtures" / "interrupted-0.1"
"""What version 0.1 left: one trial had trained to its end, one was untrained, one was killed at step 608. `expected.csv` is the table
of the same sweep, undisturbed."""


@pytest.mark.slow
def test_a_sweep_that_version_0_1_left_is_resumed_to_the_bit(ray_cluster: None, tmp_path: Path, mlflow_database: Path) -> None:
    folder = SweepFolder(tmp_path / "resumed-20261125-164230")
    shutil.copytree(INTERRUPTED, folder.path)
    plan = load_plan(folder.sweep_file)
    assert isinstance(plan, Plan)
    said: list[str] = []
    outcome = run_sweep(plan, tmp_path, f"sqlite:///{mlflow_database}", said.append, resumed=folder)
    assert any(line.startswith("1 of 3 trials") for line in said)
    assert any("resumed from step" in line for line in said)
    expected = pd.read_csv(INTERRUPTED / "expected.csv")
    pd.testing.assert_frame_equal(pd.read_csv(folder.table)[list(expected.columns)], expected, check_exact=True)
    assert outcome.all_finished
    steps = [entry.step for entry in read_entries(folder.journal) if isinstance(entry, ResultLogged)]
    assert sorted(steps) == sorted([0, *2 * [224, 448, 672, 896, 1120, 1344]])
