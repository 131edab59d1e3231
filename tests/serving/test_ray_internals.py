"""What serving takes from Ray's private modules: each test says what no longer works if a release of Ray changes it."""

import time
from pathlib import Path
from typing import Any

import pytest
import ray

from vlm_rm_sweeps.serving.ray_internals import actor_id, address_of_auto, is_dead, restarts_of_running


@pytest.fixture(scope="module")
def actor(ray_cluster: None) -> Any:
    remote: Any = ray.remote(num_cpus=0, max_restarts=-1)(Named)
    return remote.remote()


class Named:
    def own_id(self) -> str | None:
        return ray.get_runtime_context().get_actor_id()


def test_the_id_in_a_handle_is_the_actors(actor: Any) -> None:
    """Else a client of a pool looks up another server, or none, and takes a slow one for hung."""
    assert actor_id(actor) == ray.get(actor.own_id.remote())


def test_the_state_of_actors_tells_one_that_is_up_from_one_that_restarts(actor: Any) -> None:
    """Else a server that is being restarted is killed as hung, or one that hangs is waited for without end."""
    ray.get(actor.own_id.remote())
    assert restarts_of_running(actor_id(actor)) == 0
    ray.kill(actor, no_restart=False)
    seen = [restarts_of_running(actor_id(actor))]
    deadline = time.monotonic() + 60
    while seen[-1] != 1 and time.monotonic() < deadline:
        time.sleep(0.01)
        seen.append(restarts_of_running(actor_id(actor)))
    assert set(seen) >= {None, 1}


def test_an_actor_that_is_not_known_is_not_up(ray_cluster: None) -> None:
    assert restarts_of_running("0" * 32) is None
    assert not is_dead("0" * 32)


def test_an_actor_that_was_ended_is_dead_and_one_that_restarts_is_not(ray_cluster: None) -> None:
    """Else a client waits ten minutes for a server that was ended."""
    remote: Any = ray.remote(num_cpus=0, max_restarts=-1)(Named)
    ended = remote.remote()
    ray.get(ended.own_id.remote())
    ray.kill(ended, no_restart=False)
    deadline = time.monotonic() + 60
    while restarts_of_running(actor_id(ended)) != 1 and time.monotonic() < deadline:
        assert not is_dead(actor_id(ended))
        time.sleep(0.01)
    ray.kill(ended)
    while not is_dead(actor_id(ended)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert is_dead(actor_id(ended))


def test_auto_is_an_address_that_can_be_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a sweep with RAY_ADDRESS=auto waits for minutes, deaf to Ctrl-C, if the cluster that Ray finds has ended."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text("127.0.0.1:6390")
    host, _, port = str(address_of_auto()).rpartition(":")  # of another cluster, if one runs on this machine
    assert host
    assert port.isdigit()
