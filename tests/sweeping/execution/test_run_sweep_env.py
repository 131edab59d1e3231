"""A small sweep of an environment that the package does not know."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from mlflow.tracking import MlflowClient
from small_sweeps import SWEEP, parent_and_children

from vlm_rm_sweeps.sweeping.config.sweep import load_sweep
from vlm_rm_sweeps.sweeping.execution.run_sweep import run_sweep


@pytest.mark.slow
def test_an_environment_of_gymnasium_needs_nothing_but_its_sweep_file(
    ray_cluster: None, tmp_path: Path, mlflow_database: Path
) -> None:
    written = {key: value for key, value in SWEEP.items() if key != "task"} | {
        "name": "acrobot",
        "env": {"id": "Acrobot-v1", "kwargs": {}, "episode_steps": 30, "success": "obs[0] < 0"},
        "prompts": [{"id": "up", "goal": "an acrobot standing upright", "baseline": "an acrobot"}],
        "true_reward": False,
        "videos": False,
    }
    file = tmp_path / "acrobot.yaml"
    file.write_text(yaml.safe_dump(written))
    outcome = run_sweep(load_sweep(file), tmp_path, f"sqlite:///{mlflow_database}", lambda line: None)
    assert outcome.table["status"].tolist() == ["finished"]
    assert np.isfinite(outcome.table[["clip_return", "true_return", "success"]].to_numpy(dtype=float)).all()
    (child,) = parent_and_children(MlflowClient(f"sqlite:///{mlflow_database}"), "acrobot")[1]
    # 256 steps of which 100 are before learning starts, with 0.02 updates for each of the others.
    assert child.data.metrics["updates"] == pytest.approx(156 * 0.02, abs=1)
    assert child.data.metrics["updates_per_step"] == pytest.approx(0.02, abs=0.005)
