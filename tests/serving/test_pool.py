"""The reward pool on a real Ray cluster with the real embedded models."""

import os
import signal
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import ray

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.rewards.catalog import load_reward_model
from vlm_rm_sweeps.rewards.reward_model import RewardSpec
from vlm_rm_sweeps.serving.messages import ScoredFrames
from vlm_rm_sweeps.serving.pool import NAMESPACE, PoolConfig, RewardPool, await_pool, check_placement, start_pool

SPECS = [
    RewardSpec(("pole vertically upright on top of the cart",), ("pole and cart",), 0.0),
    RewardSpec(("pole vertically upright on top of the cart",), ("pole and cart",), 0.5),
    RewardSpec(("a pole hanging down",), ("pole and cart",), 1.0),
]


@pytest.fixture(scope="module")
def two_servers(ray_cluster: None) -> Iterator[PoolConfig]:
    config = PoolConfig(name="test-pool", model_id="embedded/tiny", servers=2)
    handles = start_pool(config)
    await_pool(config, handles, SPECS)
    yield config
    for handle in handles:
        ray.kill(handle)


def frames(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 64, 64, 3), np.uint8)


@pytest.mark.parametrize("count", [1, 7, 64, 200])
def test_gives_the_models_own_rewards_to_the_bit(two_servers: PoolConfig, count: int) -> None:
    expected = load_reward_model("embedded/tiny").score(frames(count), SPECS)
    scored = RewardPool.connect(two_servers).submit(frames(count), SPECS).result()
    assert scored.rewards.dtype == np.float32
    np.testing.assert_array_equal(scored.rewards, expected)


def test_is_found_by_name_from_other_processes(two_servers: PoolConfig) -> None:
    @ray.remote(num_cpus=0)
    def score_elsewhere(config: PoolConfig, batch: np.ndarray) -> np.ndarray:
        return RewardPool.connect(config).submit(batch, SPECS).result().rewards

    here = RewardPool.connect(two_servers).submit(frames(5), SPECS).result().rewards
    np.testing.assert_array_equal(ray.get(score_elsewhere.remote(two_servers, frames(5))), here)


def test_requests_overlap_and_come_home_in_any_order(two_servers: PoolConfig) -> None:
    pool = RewardPool.connect(two_servers)
    batches = [frames(20 + index, seed=index) for index in range(6)]
    pending = [pool.submit(batch, SPECS) for batch in batches]
    model = load_reward_model("embedded/tiny")
    for batch, request in reversed(list(zip(batches, pending, strict=True))):
        np.testing.assert_array_equal(request.result().rewards, model.score(batch, SPECS))


def test_sends_to_the_least_busy_server(two_servers: PoolConfig) -> None:
    pool = RewardPool.connect(two_servers)
    busy = pool.submit(frames(500), SPECS)
    others = [pool.submit(frames(10), SPECS) for _ in range(3)]
    assert all(other._server is not busy._server for other in others)
    for request in [busy, *others]:
        request.result()
    assert [server.load for server in pool._servers] == [0, 0]


def test_a_killed_server_comes_back_and_no_reward_is_lost(two_servers: PoolConfig) -> None:
    pool = RewardPool.connect(two_servers)
    expected = load_reward_model("embedded/tiny").score(frames(300), SPECS)
    handle: Any = ray.get_actor(two_servers.server_names()[0], namespace=NAMESPACE)

    pid = ray.get(handle.__ray_call__.remote(lambda server: os.getpid()))
    pending = [pool.submit(frames(300), SPECS) for _ in range(6)]
    os.kill(pid, signal.SIGKILL)
    for request in pending:
        np.testing.assert_array_equal(request.result().rewards, expected)
    assert ray.get(handle.__ray_call__.remote(lambda server: os.getpid())) != pid


@pytest.mark.slow
def test_a_server_that_hangs_is_restarted_and_no_reward_is_lost(ray_cluster: None) -> None:
    config = PoolConfig(name="test-hang", model_id="embedded/tiny", timeout_s=20)
    (handle,) = start_pool(config)
    await_pool(config, [handle], SPECS)
    hung: Any = ray.get(handle.__ray_call__.remote(lambda server: os.getpid()))
    os.kill(hung, signal.SIGSTOP)
    scored = RewardPool.connect(config).submit(frames(70), SPECS).result()
    np.testing.assert_array_equal(scored.rewards, load_reward_model("embedded/tiny").score(frames(70), SPECS))
    assert ray.get(handle.__ray_call__.remote(lambda server: os.getpid())) != hung
    ray.kill(handle)


def test_a_server_that_is_gone_for_good_is_replaced_by_another(ray_cluster: None) -> None:
    config = PoolConfig(name="test-gone", model_id="embedded/tiny", servers=2)
    handles = start_pool(config)
    await_pool(config, handles, SPECS)
    pool = RewardPool.connect(config)
    ray.kill(handles[0])
    pending = [pool.submit(frames(8), SPECS) for _ in range(4)]
    expected = load_reward_model("embedded/tiny").score(frames(8), SPECS)
    for request in pending:
        np.testing.assert_array_equal(request.result().rewards, expected)
    ray.kill(handles[1])
    with pytest.raises(RuntimeError, match=r"last reward server of embedded/tiny died"):
        pool.submit(frames(8), SPECS).result()


class BrokenServer:
    """Answers as a reward server does, with whatever rewards it was told."""

    def __init__(self) -> None:
        self._rewards = np.zeros(0)

    def answer_with(self, rewards: np.ndarray) -> None:
        self._rewards = rewards

    def score(self, frames: np.ndarray, specs: tuple[RewardSpec, ...]) -> ScoredFrames:
        return ScoredFrames(self._rewards, 0.0, 0, 64)


@pytest.fixture(scope="module")
def broken_server(ray_cluster: None) -> Any:
    actor: Any = ray.remote(num_cpus=0)(BrokenServer)
    return actor.remote()


@pytest.mark.parametrize(
    ("rewards", "message"),
    [
        (np.array([[0.5], [np.nan]], np.float32), "1 of 2 rewards that are not finite"),
        (np.array([[0.5], [np.inf]], np.float32), "1 of 2 rewards that are not finite"),
        (np.array([[0.5]], np.float32), r"shape \(1, 1\), expected \(2, 1\)"),
    ],
)
def test_missing_and_non_finite_rewards_are_loud(broken_server: Any, rewards: np.ndarray, message: str) -> None:
    ray.get(broken_server.answer_with.remote(rewards))
    pool = RewardPool(PoolConfig(name="broken", model_id="embedded/tiny"), [broken_server])
    with pytest.raises(RuntimeError, match=message):
        pool.submit(frames(2), SPECS[:1]).result()


@pytest.mark.parametrize(
    ("pool", "trial_cpus", "what"),
    [
        (
            PoolConfig(name="p", model_id="embedded/tiny", gpus=1),
            1.0,
            "reward server p/embedded/tiny/0 needs 0 CPUs and 1 GPUs",
        ),
        (
            PoolConfig(name="p", model_id="embedded/tiny", servers=3, cpus=1),
            1.0,
            "reward server p/embedded/tiny/2 needs 1 CPUs",
        ),
        (PoolConfig(name="p", model_id="embedded/tiny", cpus=2), 1.0, "one trial beside the reward servers needs 1 CPUs"),
        (PoolConfig(name="p", model_id="embedded/tiny"), 64.0, "one trial beside the reward servers needs 64 CPUs"),
    ],
)
def test_what_cannot_be_placed_is_an_error_at_once(ray_cluster: None, pool: PoolConfig, trial_cpus: float, what: str) -> None:
    started = time.monotonic()
    with pytest.raises(UserError, match=what):
        check_placement([pool], trial_cpus, trial_gpus=0)
    assert time.monotonic() - started < 5


def test_what_fits_is_not_refused(ray_cluster: None) -> None:
    check_placement(
        [PoolConfig(name="p", model_id="embedded/tiny", servers=4), PoolConfig(name="q", model_id="m", cpus=1)], 1, 0
    )


def test_a_spec_that_cannot_be_scored_is_an_error_of_the_start(ray_cluster: None) -> None:
    same_but_for_case = RewardSpec(("Pole and cart",), ("pole and cart",), 0.5)
    config = PoolConfig(name="test-spec", model_id="embedded/tiny")
    with pytest.raises(UserError, match="same embedding"):
        await_pool(config, start_pool(config), [same_but_for_case])


def test_a_model_that_cannot_be_loaded_is_an_error_of_the_start(ray_cluster: None) -> None:
    config = PoolConfig(name="test-load", model_id="embedded/smal")
    with pytest.raises(UserError, match=r"embedded/smal"):
        await_pool(config, start_pool(config), SPECS)


def test_servers_report_ray_metrics(two_servers: PoolConfig) -> None:
    RewardPool.connect(two_servers).submit(frames(3), SPECS).result()
    port = ray.nodes()[0]["MetricsExportPort"]
    wanted = ["frames_total", "requests_total", "request_frames_bucket", "request_seconds_bucket", "backlog_frames"]
    deadline = time.monotonic() + 60  # Ray exports at intervals
    page = ""
    while time.monotonic() < deadline:
        page = urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=10).read().decode()
        if all(f"ray_vlm_rm_{name}{{" in page for name in wanted):
            break
        time.sleep(1)
    for name in wanted:
        lines = [line for line in page.splitlines() if line.startswith(f"ray_vlm_rm_{name}{{")]
        assert lines, name
        assert all('model="embedded/tiny"' in line for line in lines), lines
