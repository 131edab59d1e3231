"""The cluster: its processes import the modules that lie beside the sweep file."""

import subprocess
import sys
from pathlib import Path

import pytest

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.serving import cluster

SWEEP = """
name: own
task: cartpole-upright
models: ["beside:Redness", "package_beside.models:Blueness"]
alphas: [0]
steps: 10
"""
MODEL = """
from vlm_rm_sweeps.frames import FrameFormat
from vlm_rm_sweeps.rewards.reward_model import RewardModel

class {name}(RewardModel):
    frame_format = FrameFormat(16)

    def score(self, frames, specs):
        return frames[..., {channel}].mean(axis=(1, 2))[:, None].repeat(len(specs), axis=1)
"""
DRIVER = """
import sys
from pathlib import Path

import numpy as np

from vlm_rm_sweeps.serving.cluster import ray_cluster
from vlm_rm_sweeps.serving.pool import RewardPool, await_pool, start_pool
from vlm_rm_sweeps.sweeping.config.screening import load_plan
from vlm_rm_sweeps.sweeping.execution.pools import pool_configs

if __name__ == "__main__":
    plan = load_plan(Path(sys.argv[1]))
    specs = plan.served_specs()
    frames = np.arange(2 * 16 * 16 * 3, dtype=np.uint8).reshape(2, 16, 16, 3)
    with ray_cluster(lambda line: None):
        for model_id, config in pool_configs(plan, "own").items():
            model = plan.models[model_id]
            handles = start_pool(config, model)
            await_pool(config, handles, specs)
            rewards = RewardPool.connect(config).score(frames, specs)
            assert (rewards == model.score(frames, specs)).all()
            print(model_id, "is served")
"""


@pytest.mark.slow
def test_reward_models_beside_a_sweep_file_are_served(tmp_path: Path) -> None:
    for folder in ("sweep", "sweep/package_beside", "elsewhere"):
        (tmp_path / folder).mkdir()
    (tmp_path / "sweep" / "own.yaml").write_text(SWEEP)
    (tmp_path / "sweep" / "beside.py").write_text(MODEL.format(name="Redness", channel=0))
    (tmp_path / "sweep" / "package_beside" / "__init__.py").touch()
    (tmp_path / "sweep" / "package_beside" / "models.py").write_text(MODEL.format(name="Blueness", channel=2))
    driver = tmp_path / "driver.py"
    driver.write_text(DRIVER)
    command = [sys.executable, str(driver), str(tmp_path / "sweep" / "own.yaml")]
    ran = subprocess.run(command, cwd=tmp_path / "elsewhere", capture_output=True, text=True, timeout=400)
    assert ran.stdout.splitlines() == [
        "beside:Redness is served",
        "package_beside.models:Blueness is served",
    ], ran.stderr[-3000:]


def test_a_running_ray_that_lacks_a_module_of_the_users_is_refused(
    ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = tmp_path / "only_in_this_process.py"
    monkeypatch.setattr(cluster, "imported_user_modules", lambda: (missing,))
    with (
        pytest.raises(UserError, match=r"cannot import only_in_this_process: start it with ray\.init\(runtime_env="),
        cluster.ray_cluster(print),
    ):
        pass
