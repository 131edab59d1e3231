"""The start of a sweep: what keeps it from running is said before anything is written, and the servers do not wait for imports."""

import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import ray
from disk import full_disk
from small_sweeps import SWEEP

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.metrics import CLIP_RETURN, FRAMES_SCORED, TRUE_RETURN
from vlm_rm_sweeps.serving.pool import NAMESPACE
from vlm_rm_sweeps.sweeping.config.plan import make_plan
from vlm_rm_sweeps.sweeping.config.sweep import Sweep
from vlm_rm_sweeps.sweeping.execution.pools import pool_configs
from vlm_rm_sweeps.sweeping.execution.run_sweep import run_sweep
from vlm_rm_sweeps.sweeping.tracking.folder import default_tracking_uri
from vlm_rm_sweeps.tasks import opengl


def test_what_cannot_be_placed_stops_the_sweep_before_its_first_trial(ray_cluster: None, tmp_path: Path) -> None:
    sweep = Sweep.model_validate(SWEEP | {"pool": {"gpus": 1}})
    with pytest.raises(UserError, match="needs 0 CPUs and 1 GPUs"):
        run_sweep(sweep, tmp_path, default_tracking_uri(tmp_path), lambda line: None)
    assert list(tmp_path.iterdir()) == []


def test_ray_is_given_more_than_one_chance_to_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine it does not always come up in the time that it gives itself."""

    def too_slow(**options: Any) -> None:
        raise Exception("The current node timed out during startup.")

    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.init", too_slow)
    monkeypatch.setattr("ray.shutdown", lambda: None)
    said: list[str] = []
    sweep = Sweep.model_validate(SWEEP | {"pool": {"shared": True}})
    with pytest.raises(UserError, match=r"Ray does not start: The current node timed out during startup"):
        run_sweep(sweep, tmp_path, default_tracking_uri(tmp_path), said.append)
    assert sum("retrying" in line for line in said) == 2
    assert "so no other one shares its servers" in said[0]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("cluster", [None, "10.0.0.1:6379"])
def test_a_missing_opengl_is_said_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cluster: str | None
) -> None:
    """But for a cluster, whose nodes draw."""

    def ray_cluster(say: object) -> None:
        raise UserError("Ray is started")

    monkeypatch.setattr("vlm_rm_sweeps.tasks.opengl.backend_works", lambda backend: False)
    for variable in (opengl.VARIABLE, opengl.DEVICE_VARIABLE, "RAY_ADDRESS"):
        monkeypatch.delenv(variable, raising=False)
    if cluster:
        monkeypatch.setenv("RAY_ADDRESS", cluster)
    monkeypatch.setattr("vlm_rm_sweeps.sweeping.execution.pools.ray_cluster", ray_cluster)
    sweep = Sweep.model_validate(SWEEP | {"task": "humanoid-kneeling", "settings": {}})
    with pytest.raises(UserError, match="Ray is started" if cluster else "apt install libegl1 libegl-mesa0"):
        run_sweep(sweep, tmp_path / "results", "sqlite:///unused.db", lambda line: None)
    assert not (tmp_path / "results").exists()


def test_labelled_states_that_cannot_be_used_are_said_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlm_rm_sweeps.sweeping.execution.pools.ray_cluster", lambda say: pytest.fail("Ray was started"))
    sweep = Sweep.model_validate(SWEEP | {"epic_states": {"states": str(tmp_path / "nowhere"), "truth": "raters"}})
    with pytest.raises(UserError, match="nowhere is not a data set of states"):
        run_sweep(sweep, tmp_path / "results", "sqlite:///unused.db", say=lambda line: None)
    assert not (tmp_path / "results").exists()


def test_a_full_disk_is_said_before_anything_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlm_rm_sweeps.sweeping.execution.pools.ray_cluster", lambda say: pytest.fail("Ray was started"))
    results = tmp_path / "new" / "results"
    with full_disk(room=2**16), pytest.raises(UserError, match=r"nothing can be written there \(File too large\): make room"):
        run_sweep(Sweep.model_validate(SWEEP), results, default_tracking_uri(results), say=lambda line: None)
    assert list(tmp_path.iterdir()) == []


def test_an_mlflow_that_cannot_be_is_said_before_anything_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlm_rm_sweeps.sweeping.execution.pools.ray_cluster", lambda say: pytest.fail("Ray was started"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for uri, message in (
        ("garbage://store", "MLflow knows no address that begins with garbage://: expected one of http, https, sqlite"),
        (f"http://anna:secret@127.0.0.1:{port}", f"MLflow at http://***@127.0.0.1:{port} does not answer: Connection refused"),
        ("http://a..b", "does not answer"),
        ("http://[::1", "does not answer"),
    ):
        with pytest.raises(UserError, match=re.escape(message)):
            run_sweep(Sweep.model_validate(SWEEP), tmp_path / "results", uri, say=lambda line: None)
    assert not (tmp_path / "results").exists()


def test_the_servers_do_not_wait_for_what_only_trials_and_tracking_need() -> None:
    """RLlib, Tune and MLflow take as long to import as a server takes to load its model: both happen at once."""
    code = """
import sys
import vlm_rm_sweeps.cli, vlm_rm_sweeps.serving.server, vlm_rm_sweeps.sweeping.execution.run_sweep
print([name for name in ("ray.rllib", "ray.tune", "mlflow", "scipy.stats", "sklearn") if name in sys.modules])
"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    assert shown.stdout.strip() == "[]"


@pytest.mark.sweeps
def test_a_second_sweep_uses_the_servers_of_the_first_and_finds_the_same(ray_cluster: None, tmp_path: Path) -> None:
    found, servers = [], []
    pool = {"shared": True, "micro_batch": 16}
    sweep = Sweep.model_validate(SWEEP | {"true_reward": False, "videos": False, "pool": pool})
    (config,) = pool_configs(make_plan(sweep), "unused").values()
    try:
        for name in ("first", "second"):
            outcome = run_sweep(sweep, tmp_path / name, default_tracking_uri(tmp_path / name), lambda line: None)
            (trial,) = outcome.outcomes
            found.append(
                {key: value for key, value in trial.metrics.items() if key in (CLIP_RETURN, TRUE_RETURN, FRAMES_SCORED)}
            )
            servers.append(ray.get_actor(config.server_names()[0], namespace=NAMESPACE))
    finally:
        ray.kill(ray.get_actor(f"{config.name}/{config.model_id}/keeper", namespace=NAMESPACE))
    assert servers[0] == servers[1]
    assert found[0] == found[1]
    assert found[0][FRAMES_SCORED] == 128  # of the last result
