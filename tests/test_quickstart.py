"""Does the shipped quick start learn? Minutes: run by `make test-slow`."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from vlm_rm_sweeps.sweeping.config.trial import TRUE_REWARD

REPOSITORY = Path(__file__).parent.parent


@pytest.mark.slow
def test_the_best_trial_balances_the_pole_by_the_environments_own_measure(tmp_path: Path) -> None:
    command = [str(Path(sys.executable).parent / "vlm-rm"), "sweep", "sweeps/quickstart.yaml", "--results", str(tmp_path)]
    ran = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=1800)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    (folder,) = tmp_path.glob("quickstart-*")
    table = pd.read_csv(folder / "trials.csv")
    assert (table["status"] == "finished").all()
    assert TRUE_REWARD in table["model"].tolist()
    assert table.loc[table["model"] != TRUE_REWARD, "success"].max() >= 0.9
