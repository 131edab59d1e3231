"""The cluster: its processes import the modules that lie beside the sweep file."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc  # type: ignore[import-untyped]
import pytest
import ray

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.serving import cluster, ray_address, ray_internals

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
    frames = np.arange(2 * 16 * 16 * 3, dtype=np.uint8).reshape(2, 16, 16, 3)
    with ray_cluster(lambda line: None):
        for model_id, config in pool_configs(plan, "own").items():
            model, specs = plan.models[model_id], plan.served_specs(model_id)
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
        pytest.raises(
            UserError, match=r"cannot import only_in_this_process: start it with ray\.init\(address='local', runtime_env="
        ),
        cluster.ray_cluster(print),
    ):
        pass


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[object]:
    """A machine on which Ray would start, in a home of one's own; records the address that it would start with."""
    asked: list[object] = []

    def init(address: object = None, **others: object) -> None:
        asked.append(address)
        raise ConnectionError("as far as this test goes")

    for name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE", "RAY_TMPDIR", "TMPDIR"):
        monkeypatch.setenv(name, "")  # so that what is set later is undone
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    return asked


def refusal() -> str:
    with pytest.raises(UserError) as refused, cluster.ray_cluster(lambda line: None):
        pass
    return str(refused.value)


def test_a_sweep_starts_a_cluster_of_its_own_whatever_else_runs_here(no_ray: list[object]) -> None:
    assert "as far as this test goes" in refusal()
    assert set(no_ray) == {"local"}


@pytest.fixture
def answers() -> Iterator[str]:
    """The address of something that answers as Ray does."""
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None)


@pytest.fixture
def on_a_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_internals, "runs_a_node", lambda: True)


def test_a_cluster_that_the_user_names_is_joined(
    no_ray: list[object], answers: str, on_a_node: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", answers)
    assert "as far as this test goes" in refusal()
    assert set(no_ray) == {answers}


def test_auto_is_the_cluster_that_ray_finds(
    no_ray: list[object], answers: str, on_a_node: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    monkeypatch.setattr(ray_internals, "address_of_auto", lambda: answers)
    assert "as far as this test goes" in refusal()
    assert set(no_ray) == {"auto"}


def test_auto_without_a_cluster_that_answers_is_refused_at_once(no_ray: list[object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    monkeypatch.setattr(ray_internals, "address_of_auto", lambda: None)
    assert "RAY_ADDRESS='auto': no Ray runs on this machine; correct it, start" in refusal()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        left_behind = f"127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setattr(ray_internals, "address_of_auto", lambda: left_behind)
    assert f"RAY_ADDRESS='auto', which is {left_behind} here: nothing answers there" in refusal()
    assert not no_ray


@pytest.mark.parametrize("address", ["nonsense", "host:port", "10.0.0.1", "ray://", "a:b:c", "http://[::1"])
def test_an_address_that_is_none_is_refused(no_ray: list[object], address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    assert f"RAY_ADDRESS={address!r}: expected host:port" in refusal()
    assert not no_ray


def test_an_address_where_nothing_answers_is_refused_at_once(no_ray: list[object], monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{free.getsockname()[1]}")
    assert "nothing answers there (Connection refused); correct it" in refusal()
    assert not no_ray


@pytest.mark.parametrize("name", ["a..b", "a" * 100])
def test_a_name_that_no_machine_has_is_refused(no_ray: list[object], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", f"{name}:6379")
    assert f"RAY_ADDRESS='{name}:6379': nothing answers there" in refusal()
    assert not no_ray


def test_an_address_of_something_else_is_refused_within_seconds(no_ray: list[object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_address, "_ANSWER_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{silent.getsockname()[1]}")
        threading.Thread(target=silent.accept, daemon=True).start()
        assert "what answers there is not Ray, or hangs" in refusal()
    assert not no_ray


def test_a_home_that_cannot_be_written_is_named(no_ray: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    message = refusal()
    assert f"Ray keeps its token in {tmp_path}/file/.ray/auth_token, which cannot be written: set HOME" in message
    assert not no_ray
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)
    assert "as far as this test goes" in refusal()


def test_a_temporary_folder_that_ray_cannot_use_is_named(
    no_ray: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("RAY_TMPDIR", f"/tmp/{'x' * 60}")
    assert "paths of more than 107 bytes: set RAY_TMPDIR to a path that is 26 bytes shorter" in refusal()
    monkeypatch.setattr(cluster, "_LONGEST_SOCKET", 300)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "file"))
    assert "Ray cannot write there: set RAY_TMPDIR" in refusal()
    monkeypatch.setenv("RAY_TMPDIR", "/proc")  # in which nobody can make a folder, whatever rights it shows
    assert "Ray cannot write there: set RAY_TMPDIR" in refusal()
    assert not no_ray
    assert os.environ["RAY_TMPDIR"]


def test_an_address_of_ray_client_is_refused(no_ray: list[object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    assert "Ray Client (ray://) keeps this process apart" in refusal()
    assert "with RAY_ADDRESS=head:6379" in refusal()
    assert not no_ray


def test_a_machine_that_is_no_node_is_told_how_to_become_one(
    no_ray: list[object], answers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", answers)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setattr(ray_internals, "runs_a_node", lambda: False)
    message = refusal()
    assert "this machine is no node of that cluster, and only a node can run a sweep" in message
    assert f"join it here with `ray start --address={answers}`" in message
    assert not no_ray


def test_a_cluster_that_asks_for_a_token_is_refused_with_the_cause(
    ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real one: this session's, which Ray itself has made a token for."""
    assert ray_internals.runs_a_node()
    monkeypatch.setenv("RAY_ADDRESS", ray.get_runtime_context().gcs_address)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    ray_address.check_ray_address()
    with pytest.MonkeyPatch.context() as elsewhere:  # where another Ray runs
        elsewhere.setattr(ray_address, "_own_addresses", lambda: {"192.0.2.1"})
        with pytest.raises(UserError, match="this machine is no node of that cluster"):
            ray_address.check_ray_address()
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(
        UserError, match=r"RAY_AUTH_MODE=token, but there is no token: put the cluster's into ~/\.ray/auth_token"
    ):
        ray_address.check_ray_address()
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)
    with pytest.raises(UserError, match="the cluster refuses this token"):
        ray_address.check_ray_address()
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with pytest.raises(
        UserError, match="asks for a token, and with RAY_AUTH_MODE=disabled none is sent: set RAY_AUTH_MODE=token"
    ):
        ray_address.check_ray_address()
    monkeypatch.delenv("RAY_AUTH_MODE")  # what Ray sends to an address that is named, it sends only with the variable
    with pytest.raises(UserError, match="asks for a token, and without RAY_AUTH_MODE none is sent: set RAY_AUTH_MODE=token"):
        ray_address.check_ray_address()
