"""More servers while frames wait, fewer while hardly any do: the rule by itself, and real servers of an embedded model."""

import dataclasses
import time
from collections.abc import Callable

import numpy as np
import pytest
import ray

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.frames import FrameFormat
from vlm_rm_sweeps.rewards.registry import find_reward_model, load_reward_model
from vlm_rm_sweeps.rewards.reward_model import RewardModel, RewardSpec
from vlm_rm_sweeps.serving import pool as pool_module
from vlm_rm_sweeps.serving import scaling
from vlm_rm_sweeps.serving.pool import NAMESPACE, PoolConfig, RewardPool, running_servers
from vlm_rm_sweeps.serving.reward_pool import reward_pool
from vlm_rm_sweeps.serving.scaling import QueueRule, ServerScaling

SPEC = RewardSpec(("a pole standing up",), ("a pole",), 0.5)
FRAMES = np.random.default_rng(0).integers(0, 256, (150, 64, 64, 3), np.uint8)


def changes(rule: QueueRule, waiting: list[int], servers: int) -> list[int]:
    return [rule.look(frames, servers) for frames in waiting]


def test_a_server_is_added_when_frames_wait_at_five_looks_one_after_the_other() -> None:
    rule = QueueRule(least=1, most=3, micro_batch=64)
    assert changes(rule, [65, 65, 65, 65, 64, 65, 65, 65, 65], servers=1) == [0] * 9
    assert changes(rule, [65], servers=1) == [1]
    # With two servers twice as many must wait, and looks before the change do not count.
    assert changes(rule, [128] * 9, servers=2) == [0] * 9
    assert changes(rule, [129] * 5, servers=2) == [0] * 4 + [1]
    assert changes(rule, [10_000] * 9, servers=3) == [0] * 9


def test_a_server_is_ended_when_the_others_had_hardly_anything_to_do_for_a_minute() -> None:
    rule = QueueRule(least=1, most=3, micro_batch=64)
    assert changes(rule, [0] * 30 + [64] + [0] * 59, servers=3) == [0] * 90
    assert changes(rule, [0], servers=3) == [-1]
    assert changes(rule, [31] * 60, servers=2) == [0] * 59 + [-1]
    assert changes(rule, [0] * 99, servers=1) == [0] * 99


def test_fewer_servers_than_at_least_are_made_up_for_unless_they_cannot_start() -> None:
    rule = QueueRule(least=2, most=3, micro_batch=64)
    assert changes(rule, [0, 0], servers=1) == [1, 1]
    rule.most = 1  # the last one did not start
    assert changes(rule, [0, 0], servers=1) == [0, 0]


def test_as_many_servers_at_most_as_at_least_are_never_changed() -> None:
    assert not any(changes(QueueRule(2, 2, 1), [10_000] * 9 + [0] * 99, servers=2))


@pytest.mark.parametrize("most", [-1, 1, 2.5, "3", True])
def test_fewer_servers_at_most_than_at_least_are_refused(most: int) -> None:
    with pytest.raises(UserError, match=r"most_servers is .*: expected 0, or a whole number that is not below `servers`, 2"):
        PoolConfig("test", "embedded/tiny", FrameFormat(64), servers=2, most_servers=most)


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks follow each other quickly."""
    monkeypatch.setattr(scaling, "_LOOK_S", 0.05)
    monkeypatch.setattr(pool_module, "_LOOK_FOR_SERVERS_S", 0.1)


def keep_busy_until(pool: RewardPool, is_true: Callable[[], bool]) -> list[np.ndarray]:
    """Score frames, two requests at a time, and return all rewards."""
    rewards, ends = [], time.monotonic() + 120
    while not is_true():
        assert time.monotonic() < ends
        pending = [pool.submit(FRAMES, [SPEC]) for _ in range(2)]
        rewards += [each.result().rewards for each in pending]
    return rewards


def wait_until(is_true: Callable[[], bool]) -> None:
    ends = time.monotonic() + 60
    while not is_true():
        assert time.monotonic() < ends
        time.sleep(0.1)


def numbers_of(pool: RewardPool) -> set[str]:
    """The last parts of the names of the servers that run or start."""
    return {name.rpartition("/")[2] for name in running_servers(pool.config)}


def test_a_second_server_joins_while_frames_wait_and_leaves_when_none_do(ray_cluster: None, hurried: None) -> None:
    said: list[str] = []
    with reward_pool("embedded/tiny", SPEC, say=said.append, micro_batch=1, most_servers=2) as pool:
        assert numbers_of(pool) == {"0"}
        rewards = keep_busy_until(pool, lambda: len(pool._servers) == 2)
        assert numbers_of(pool) == {"0", "1"}
        rewards += [pool.score(FRAMES, [SPEC]) for _ in range(3)]
        assert (
            len(RewardPool.connect(pool.config)._servers) == 1
        )  # a new client takes those of the start, and looks for others later
        wait_until(lambda: numbers_of(pool) == {"0"})
        # The client learns of it by its next request there, which another server gets.
        rewards += [pool.score(FRAMES, [SPEC]), pool.score(FRAMES, [SPEC])]
        assert pool.config.server_names()[0] in {server.name for server in pool._servers}
    assert not numbers_of(pool)
    expected = load_reward_model("embedded/tiny", micro_batch=1).score(FRAMES, [SPEC])
    for each in rewards:
        np.testing.assert_array_equal(each, expected)
    assert said[0].endswith("frames wait for embedded/tiny: starting another reward server (servers that run: 1)")
    assert said[1] == "few frames wait for embedded/tiny: a reward server was ended (servers that run: 1)"


def test_a_server_of_the_start_that_is_lost_is_replaced_when_it_is_needed(ray_cluster: None, hurried: None) -> None:
    said: list[str] = []
    with reward_pool("embedded/tiny", SPEC, say=said.append, micro_batch=1, most_servers=2) as pool:
        keep_busy_until(pool, lambda: len(pool._servers) == 2)
        ray.kill(ray.get_actor(pool.config.server_names()[0], namespace=NAMESPACE))
        wait_until(lambda: any("is lost" in line for line in said))
        rewards = keep_busy_until(pool, lambda: numbers_of(pool) == {"0", "1"})
    assert any("a reward server of embedded/tiny is lost" in line and "servers that run: 1" in line for line in said)
    assert np.isfinite(rewards).all()


def test_the_last_server_is_replaced_too(ray_cluster: None, hurried: None) -> None:
    said: list[str] = []
    with reward_pool("embedded/tiny", SPEC, say=said.append, micro_batch=1, most_servers=2) as pool:
        ray.kill(pool._servers[0].handle)
        wait_until(lambda: len(said) >= 2 and numbers_of(pool) == {"0"})
        assert np.isfinite(RewardPool.connect(pool.config).score(FRAMES[:3], [SPEC])).all()
    assert "is lost" in said[0]
    assert said[1].startswith("0 frames wait for embedded/tiny: starting another reward server")


def test_without_a_server_of_the_start_a_new_client_takes_the_further_ones(ray_cluster: None) -> None:
    with reward_pool("embedded/tiny", SPEC, servers=2) as pool:
        config = dataclasses.replace(pool.config, servers=1, most_servers=2)
        ray.kill(ray.get_actor(config.server_names()[0], namespace=NAMESPACE))
        wait_until(lambda: running_servers(config) == {*config.further_names()})
        client = RewardPool.connect(config)
        assert [server.name for server in client._servers] == config.further_names()
        assert np.isfinite(client.score(FRAMES[:3], [SPEC])).all()


def test_a_server_without_room_is_said_and_withdrawn_when_no_frames_wait_any_more(
    ray_cluster: None, hurried: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scaling, "_USUAL_START_S", 0.0)
    said: list[str] = []
    with reward_pool("embedded/tiny", SPEC, micro_batch=1) as pool:
        # No node has room for the further one.
        config = dataclasses.replace(pool.config, most_servers=2, cpus=99)
        with ServerScaling(config, find_reward_model("embedded/tiny"), [pool._servers[0].handle], said.append):
            keep_busy_until(pool, lambda: any("does not start" in line for line in said))
            assert running_servers(config) == {*config.server_names(), *config.further_names()}
            wait_until(lambda: running_servers(config) == {*config.server_names()})
    assert "another reward server of embedded/tiny does not start: is there room for 99 CPUs and 0 GPUs?" in said


class LoadsOnce(RewardModel):
    """The pool's first server can load it; no further one can."""

    frame_format = FrameFormat(64)

    def load(self, device: str, precision: str, micro_batch: int) -> None:  # type: ignore[override]
        self.micro_batch = micro_batch
        if not str(ray.get_runtime_context().get_actor_name()).endswith("/0"):
            raise MemoryError("the GPU is full")

    def score(self, frames: np.ndarray, specs: object) -> np.ndarray:
        time.sleep(0.05)
        return np.zeros((len(frames), 1), np.float32)


def test_a_further_server_that_cannot_start_is_said_once_and_those_that_run_go_on(ray_cluster: None, hurried: None) -> None:
    said: list[str] = []
    with reward_pool(LoadsOnce("once"), say=said.append, micro_batch=1, most_servers=3) as pool:
        keep_busy_until(pool, lambda: len(said) == 2)
        for _ in range(10):  # as many looks, at which more frames wait than for another server
            pool.score(FRAMES, [SPEC])
    assert len(said) == 2
    assert said[1] == "another reward server of once did not start: MemoryError: the GPU is full (servers that run: 1)"
