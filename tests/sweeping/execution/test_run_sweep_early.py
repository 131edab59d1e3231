"""Sweeps that end early: trials that are good enough or given up, a time budget, and a signal to terminate."""

import os
import signal
from pathlib import Path

import pandas as pd
import pytest
from mlflow.tracking import MlflowClient
from small_sweeps import SWEEP, parent_and_children

from vlm_rm_sweeps.metrics import RunStatus
from vlm_rm_sweeps.sweeping.config.plan import plan_of
from vlm_rm_sweeps.sweeping.execution.run_sweep import run_sweep
from vlm_rm_sweeps.sweeping.tracking.folder import SweepFolder
from vlm_rm_sweeps.sweeping.tracking.journal import SweepEnded, read_entries
from vlm_rm_sweeps.sweeping.tracking.progress import Progress

pytestmark = pytest.mark.sweeps

EARLY = SWEEP | {
    "name": "early",
    "alphas": [0.0, 1.0],  # of which the second is further from the truth
    "steps": 512,
    "epic_states": 30,
    "trial": SWEEP["trial"] | {"evaluation_interval": 256},
    "scheduler": {"kind": "asha", "by": "epic_distance", "reduction": 2, "grace_steps": 100},
    "stop": {"true_return": 1.0},  # which any policy has
    "max_concurrent": 1,
    "videos": False,
}


def test_trials_end_early_and_stay_so_when_the_sweep_is_resumed(
    ray_cluster: None, tmp_path: Path, mlflow_database: Path
) -> None:
    said: list[str] = []
    plan, uri = plan_of(EARLY), f"sqlite:///{mlflow_database}"
    outcome = run_sweep(plan, tmp_path, uri, said.append)
    assert outcome.all_finished
    assert outcome.finished == 1
    table = pd.read_csv(outcome.folder / "trials.csv")
    assert table["status"].tolist() == ["finished", "stopped", "stopped"]
    assert table["reason"][1].endswith("reached 1 at step 256")
    assert "asha: epic_distance" in table["reason"][2]
    assert table["true_return"].notna().tolist() == [True, True, False]
    assert outcome.best is not None
    assert outcome.best.outcomes[0].trial.alpha == 0.0

    client = MlflowClient(uri)
    parent, children = parent_and_children(client, "early")
    runs = {run.data.tags["trial_id"]: run for run in children}
    good, given_up = (runs[trial.trial_id] for trial in plan.trials[1:])
    assert (parent.info.status, good.info.status, given_up.info.status) == ("FINISHED", "FINISHED", "KILLED")
    assert (good.data.tags["status"], good.data.tags["stopped_at_step"]) == ("stopped", "256")
    assert "asha" in given_up.data.tags["reason"]

    folder = SweepFolder(outcome.folder)
    entries = read_entries(folder.journal)
    resumed = run_sweep(plan, tmp_path, uri, said.append, resumed=folder)
    assert resumed.table.fillna(-1).to_dict() == outcome.table.fillna(-1).to_dict()
    assert read_entries(folder.journal) == entries


def test_what_a_time_budget_cuts_off_is_unfinished_and_says_so(
    ray_cluster: None, tmp_path: Path, mlflow_database: Path
) -> None:
    plan = plan_of(SWEEP | {"name": "brief", "time_budget_s": 0.01, "videos": False})
    outcome = run_sweep(plan, tmp_path, f"sqlite:///{mlflow_database}", lambda line: None)
    assert outcome.interrupted
    assert set(outcome.table["status"]) == {"unfinished"}
    assert set(outcome.table["reason"]) == {"interrupted: time_budget_s = 0.01 is used up"}


def test_sigterm_ends_a_sweep_in_order_as_ctrl_c_does(ray_cluster: None, tmp_path: Path, mlflow_database: Path) -> None:
    """Slurm and Kubernetes send it some seconds before they kill."""
    before, sent = signal.getsignal(signal.SIGTERM), list[bool]()

    def terminate(progress: Progress) -> None:
        if not sent:
            sent.append(True)
            os.kill(os.getpid(), signal.SIGTERM)

    plan = plan_of(SWEEP | {"name": "terminated", "true_reward": False, "videos": False})
    outcome = run_sweep(plan, tmp_path, f"sqlite:///{mlflow_database}", lambda line: None, watch=terminate)
    assert sent
    assert outcome.interrupted
    last = read_entries(SweepFolder(outcome.folder).journal)[-1]
    assert isinstance(last, SweepEnded)
    assert last.status == RunStatus.KILLED
    assert signal.getsignal(signal.SIGTERM) is before
