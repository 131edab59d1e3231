"""What serving takes from Ray's private modules: each test says what no longer works if a release of Ray changes it."""

import os
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from ray.core.generated.common_pb2 import ActorDiedErrorContext  # type: ignore[attr-defined]
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayActorError
from ray.tune.experiment import Trial

from vlm_rm_sweeps.serving.pool import cause_of_death
from vlm_rm_sweeps.serving.ray_internals import (
    actor_id,
    address_of_auto,
    count_no_lost_nodes,
    died_with_its_node,
    has_place,
    is_dead,
    restarts_of_running,
    show_work,
)


@pytest.fixture(scope="module")
def actor(ray_cluster: None) -> Any:
    remote: Any = ray.remote(num_cpus=0, max_restarts=-1)(Named)
    return remote.remote()


class Named:
    def own_id(self) -> str | None:
        return ray.get_runtime_context().get_actor_id()

    def work(self) -> list[str]:
        show_work("trial a on here")
        show_work("trial b on here")
        return psutil.Process().cmdline()

    def die(self) -> None:
        os._exit(1)


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


def test_the_title_of_a_process_says_what_it_does(actor: Any) -> None:
    before = psutil.Process().cmdline()
    assert " ".join(ray.get(actor.work.remote())).strip() == "ray::Named.work trial b on here"
    show_work("this process is no actor")
    assert psutil.Process().cmdline() == before


class Slow:
    def __init__(self) -> None:
        time.sleep(600)


def test_an_actor_that_waits_for_room_is_told_from_one_that_starts(ray_cluster: None) -> None:
    """Else a sweep says that a server waits for room while it loads its model, or says nothing."""
    remote: Any = ray.remote(num_cpus=0)(Slow)
    starts, waits = remote.remote(), remote.options(num_cpus=64).remote()
    deadline = time.monotonic() + 60
    # The head does not know either at first. Once it knows the second, it knows the first as well.
    while has_place(actor_id(waits)) and time.monotonic() < deadline:
        time.sleep(0.01)
    while not has_place(actor_id(starts)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert has_place(actor_id(starts))
    assert not has_place(actor_id(waits))
    for actor in (starts, waits):
        ray.kill(actor)


OF_A_NODE = (
    "The actor died because its node has died. Node Id: 12ab\n"
    "\tthe actor's node was terminated unexpectedly: health check failed due to missing too many heartbeats"
)
OF_A_PROCESS = "The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR"


def died(message: str) -> ActorDiedError:
    """As Ray makes it of what its head says; tests/cluster has real ones."""
    return ActorDiedError(cause=ActorDiedErrorContext(error_message=message, actor_id=b"1" * 16, class_name="TrainableTrial"))


def test_a_trial_whose_node_died_has_not_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a cluster of machines that come and go uses up `retries`."""
    monkeypatch.setattr(RayActorError, "preempted", RayActorError.preempted)  # restores it
    count_no_lost_nodes()
    monkeypatch.setattr(Trial, "local_path", None)  # nothing is written
    trial = Trial("any", stub=True, max_failures=0)
    for _ in range(3):
        trial.handle_error(died(OF_A_NODE))
    assert trial.should_recover()
    trial.handle_error(died(OF_A_PROCESS))
    assert not trial.should_recover()


def test_a_trial_that_cannot_be_reached_has_not_failed_unless_its_process_died(
    ray_cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it is while Ray has not yet taken its node for dead."""
    monkeypatch.setattr(RayActorError, "preempted", RayActorError.preempted)  # restores it
    count_no_lost_nodes()
    remote: Any = ray.remote(num_cpus=0)(Named)
    ended = remote.remote()
    ray.get(ended.own_id.remote())
    error = ActorUnavailableError("RPC error: Socket closed", bytes.fromhex(actor_id(ended)))
    assert error.preempted
    assert cause_of_death(error) == "its node or process died, or cannot be reached"
    ended.die.remote()
    deadline = time.monotonic() + 60
    while error.preempted and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not error.preempted


@pytest.mark.parametrize(
    ("message", "with_node", "cause"),
    [
        (OF_A_NODE, True, "its node died (terminated unexpectedly: health check failed due to missing too many heartbeats)"),
        (OF_A_PROCESS, False, OF_A_PROCESS),
    ],
    ids=["node", "process"],
)
def test_the_cause_of_a_death_is_one_line_that_tells_nodes_from_processes(message: str, with_node: bool, cause: str) -> None:
    assert died_with_its_node(died(message)) is with_node
    assert cause_of_death(died(message)) == cause


def test_auto_is_an_address_that_can_be_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a sweep with RAY_ADDRESS=auto waits for minutes, deaf to Ctrl-C, if the cluster that Ray finds has ended."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text("127.0.0.1:6390")
    host, _, port = str(address_of_auto()).rpartition(":")  # of another cluster, if one runs on this machine
    assert host
    assert port.isdigit()
