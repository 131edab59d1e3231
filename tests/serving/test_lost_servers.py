"""A server for which no node has room is said and given up, and those who wait for it are told."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
import ray

from vlm_rm_sweeps.rewards.registry import find_reward_model
from vlm_rm_sweeps.serving.lost_servers import LostServers
from vlm_rm_sweeps.serving.pool import PoolConfig, start_pool
from vlm_rm_sweeps.serving.ray_internals import actor_id, is_dead, restarts_of_running

MODEL = find_reward_model("embedded/tiny")


@pytest.fixture
def homeless(ray_cluster: None) -> Iterator[tuple[PoolConfig, dict[str, Any]]]:
    """A server that waits for a node, as one whose node died does."""
    config = PoolConfig.of("test-lost", MODEL, cpus=99)
    (handle,) = start_pool(config, MODEL)
    yield config, dict(zip(config.server_names(), [handle], strict=True))
    ray.kill(handle)


def test_a_lost_server_is_said_now_and_then_and_given_up_after_ten_minutes(homeless: tuple[PoolConfig, dict[str, Any]]) -> None:
    config, servers = homeless
    said: list[str] = []
    lost = LostServers(config, said.append)
    told_at = []
    for second in range(0, 600, 10):
        before = len(said)
        lost.look(servers, now=float(second))
        told_at += [second] * (len(said) - before)
    assert told_at == [30, 60, 120, 240, 480]
    assert said[0] == (
        "a reward server of embedded/tiny is lost, and has not started again for 30 s: is there room for 99 CPUs and 0 GPUs? "
        "It is given up after 600 s"
    )
    (handle,) = servers.values()
    assert not is_dead(actor_id(handle))
    lost.look(servers, now=600.0)
    assert said[-1] == "a reward server of embedded/tiny is given up: it did not start again for 600 s"
    ends = time.monotonic() + 60
    while not is_dead(actor_id(handle)):
        assert time.monotonic() < ends
        time.sleep(0.1)
    count = len(said)
    lost.look(servers, now=700.0)
    assert len(said) == count, "clients learn it from Ray"


def test_a_server_that_runs_is_not_mentioned_and_one_that_is_back_is(
    homeless: tuple[PoolConfig, dict[str, Any]],
) -> None:
    config, servers = homeless
    actor: Any = ray.remote(num_cpus=0)(Runs)
    running = actor.remote()
    ray.get(running.ready.remote())
    assert restarts_of_running(actor_id(running)) == 0
    said: list[str] = []
    lost = LostServers(config, said.append)
    (name,) = servers
    lost.look({name: running}, now=0.0)
    lost.look({name: running}, now=90.0)
    assert said == []
    lost.look(servers, now=100.0)
    lost.look(servers, now=130.0)
    lost.look({name: running}, now=140.0)
    assert len(said) == 2
    assert said[1] == "the reward server of embedded/tiny runs again"


class Runs:
    def ready(self) -> bool:
        return True
