"""The reward pool on a real Ray cluster with the real embedded models."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import psutil
import pytest
import ray
from prometheus_client.samples import Sample
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayTaskError

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.frames import FrameFormat
from vlm_rm_sweeps.rewards.clip import ClipRewardModel
from vlm_rm_sweeps.rewards.registry import find_reward_model, load_reward_model
from vlm_rm_sweeps.rewards.reward_model import RewardSpec
from vlm_rm_sweeps.serving.messages import ScoredFrames
from vlm_rm_sweeps.serving.pool import (
    NAMESPACE,
    PendingRewards,
    PoolConfig,
    PoolError,
    PoolUnavailable,
    RewardPool,
    await_pool,
    server_environment,
    start_pool,
)
from vlm_rm_sweeps.serving.ray_internals import restarts_of_running
from vlm_rm_sweeps.serving.reward_pool import reward_pool

# The servers below travel to their processes by value: else these would import this module, torch and open_clip for them.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])

SPECS = [
    RewardSpec(("pole vertically upright on top of the cart",), ("pole and cart",), 0.0),
    RewardSpec(("pole vertically upright on top of the cart",), ("pole and cart",), 0.5),
    RewardSpec(("a pole hanging down",), ("pole and cart",), 1.0),
]


def tiny_pool(name: str, **settings: Any) -> PoolConfig:
    return PoolConfig(name, "embedded/tiny", FrameFormat(64), **settings)


@pytest.fixture(scope="module")
def two_servers(ray_cluster: None) -> Iterator[PoolConfig]:
    model = find_reward_model("embedded/tiny")
    config = PoolConfig.of("test-pool", model, servers=2)
    handles = start_pool(config, model)
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


@pytest.mark.parametrize("count", [1, 200])
def test_a_pool_is_a_reward_model(two_servers: PoolConfig, count: int) -> None:
    pool, model = RewardPool.connect(two_servers), load_reward_model("embedded/tiny")
    assert (pool.model_id, pool.frame_format, pool.parameters) == (model.model_id, model.frame_format, model.parameters)
    rewards = pool.score(frames(count), SPECS)
    assert rewards.dtype == np.float32
    np.testing.assert_array_equal(rewards, model.score(frames(count), SPECS))


@pytest.mark.parametrize(("micro_batch", "sizes"), [(48, [96, 96, 58]), (1, [64, 64, 64, 58]), (256, [250])])
def test_frames_are_spread_over_the_servers_in_whole_micro_batches(
    two_servers: PoolConfig, monkeypatch: pytest.MonkeyPatch, micro_batch: int, sizes: list[int]
) -> None:
    sent: list[PendingRewards] = []
    submit, result = RewardPool.submit, PendingRewards.result

    def submitted(pool: RewardPool, *request: Any) -> PendingRewards:
        sent.append(submit(pool, *request))
        return sent[-1]

    def awaited(pending: PendingRewards) -> ScoredFrames:
        assert [each._count for each in sent] == sizes, "all requests leave before the first is waited for"
        return result(pending)

    monkeypatch.setattr(RewardPool, "submit", submitted)
    monkeypatch.setattr(PendingRewards, "result", awaited)
    pool = RewardPool.connect(dataclasses.replace(two_servers, micro_batch=micro_batch))
    pool.score(frames(250), SPECS)
    assert len({id(each._server) for each in sent}) == min(2, len(sizes))


def test_a_reward_model_of_ones_own_is_served(ray_cluster: None) -> None:
    model = find_reward_model("own_rewards:Shade/200")
    config = PoolConfig.of("test-own", model, servers=2, threads=2)
    handles: Any = start_pool(config, model)
    await_pool(config, handles, SPECS)
    rewards = RewardPool.connect(config).score(frames(130), SPECS)
    np.testing.assert_array_equal(rewards, model.score(frames(130), SPECS))
    # Models may use more libraries than torch.
    assert ray.get(handles[0].__ray_call__.remote(lambda server: os.environ["OMP_NUM_THREADS"])) == "2"
    for handle in handles:
        ray.kill(handle)


def test_the_servers_use_the_pools_backend(ray_cluster: None) -> None:
    model, by_torch = ClipRewardModel("embedded/tiny"), ClipRewardModel("embedded/tiny")
    config = PoolConfig.of("test-backend", model, backend="folded")
    handles = start_pool(config, model)
    await_pool(config, handles, SPECS)
    rewards = RewardPool.connect(config).score(frames(70), SPECS)
    model.load()
    by_torch.load()
    np.testing.assert_array_equal(rewards, model.score(frames(70), SPECS))
    assert (rewards != by_torch.score(frames(70), SPECS)).any()
    for handle in handles:
        ray.kill(handle)


@pytest.mark.parametrize(
    ("settings", "environment", "own"),
    [
        ({}, {}, False),
        ({"cpus": 3.5, "threads": 3}, {}, False),
        ({"threads": 2}, {}, True),
        ({"cpus": 2.0, "threads": 1}, {}, True),
        ({"threads": 2}, {"OMP_NUM_THREADS": "2"}, False),
        ({"threads": 1}, {"OMP_NUM_THREADS": "2"}, True),
        ({}, {"RAY_ADDRESS": "10.0.0.1:6379"}, True),
    ],
)
def test_a_server_has_an_environment_of_its_own_only_for_another_number_of_threads(
    settings: dict[str, Any], environment: dict[str, str], own: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it starts in a process that Ray keeps ready, which is seconds faster."""
    for name in ("OMP_NUM_THREADS", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    config = tiny_pool("threads", **settings)
    assert server_environment(config) == ({"env_vars": {"OMP_NUM_THREADS": str(config.threads)}} if own else None)


def test_a_request_that_always_kills_its_server_is_given_up(ray_cluster: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system kills whoever takes the memory that the request needs."""
    monkeypatch.setattr("vlm_rm_sweeps.serving.pool._SENDS", 1)
    actor: Any = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=0)(MortalServer)
    pool = RewardPool(tiny_pool("mortal", timeout_s=30), [actor.remote()])
    retries: list[int] = []
    monkeypatch.setattr(pool.metrics, "sent_again", lambda: retries.append(1))
    with pytest.raises(PoolUnavailable, match="died or was not reached 2 times while it had the same 13 frames"):
        pool.submit(frames(13), SPECS[:1]).result()
    assert len(retries) == 1
    # Another one is scored: the server is there again.
    assert pool.submit(frames(2), SPECS[:1]).result().rewards.tolist() == [[0.5], [0.5]]


class MortalServer:
    """Does not survive 13 frames."""

    def score(self, frames: np.ndarray, specs: tuple[RewardSpec, ...]) -> ScoredFrames:
        if len(frames) == 13:
            os._exit(1)
        return ScoredFrames(np.full((len(frames), len(specs)), 0.5, np.float32), 0.0, 0, 0.0, 64)


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


class Silent:
    """Takes a request in the place of a server, and never answers."""

    def __init__(self) -> None:
        self.score = self

    def remote(self, *request: object) -> None: ...


def test_of_equally_busy_servers_one_on_the_clients_node_is_chosen_and_those_take_turns() -> None:
    handles: list[Any] = [Silent() for _ in range(4)]
    pool = RewardPool(tiny_pool("near", servers=4), handles)
    pool._here = "a"
    places = dict(zip(handles, ("b", "a", "b", "a"), strict=True))

    def chosen() -> list[int]:
        found = []
        for _ in range(4):
            server, _ = pool._send(None, 8, ())  # type: ignore[arg-type]
            pool._answered(server, 8, 0, 0.0)
            server.node = places[server.handle]
            found.append(handles.index(server.handle))
        return found

    assert chosen() == [0, 1, 2, 3]  # while nothing is known of them
    assert chosen() == [1, 3, 1, 3]
    busy = [pool._send(None, 8, ())[0] for _ in range(4)]  # type: ignore[arg-type]
    assert [handles.index(server.handle) for server in busy] == [1, 3, 0, 2]


def test_sends_to_the_least_busy_server(two_servers: PoolConfig) -> None:
    pool = RewardPool.connect(two_servers)
    busy = pool.submit(frames(500), SPECS)
    others = [pool.submit(frames(10), SPECS) for _ in range(3)]
    assert all(other._server is not busy._server for other in others)
    for request in [busy, *others]:
        request.result()
    assert [server.load for server in pool._servers] == [0, 0]


def test_an_old_answer_that_is_read_late_does_not_make_a_server_busy() -> None:
    handles: list[Any] = [Silent()]
    pool = RewardPool(tiny_pool("late", servers=1), handles)
    for _ in range(3):
        server, _ = pool._send(None, 10, ())  # type: ignore[arg-type]
    pool._answered(server, 10, 10, 2.0)
    pool._answered(server, 10, 0, 3.0)
    pool._answered(server, 10, 20, 1.0)  # the first that was given: two more waited behind it then
    assert server.load == 0


@pytest.mark.sweeps
def test_a_killed_server_comes_back_and_no_reward_is_lost(two_servers: PoolConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = RewardPool.connect(two_servers)
    retries: list[int] = []
    monkeypatch.setattr(pool.metrics, "sent_again", lambda: retries.append(1))
    expected = load_reward_model("embedded/tiny").score(frames(300), SPECS)
    handle: Any = ray.get_actor(two_servers.server_names()[0], namespace=NAMESPACE)

    pid = ray.get(handle.__ray_call__.remote(lambda server: os.getpid()))
    pending = [pool.submit(frames(300), SPECS) for _ in range(6)]
    os.kill(pid, signal.SIGKILL)
    for request in pending:
        np.testing.assert_array_equal(request.result().rewards, expected)
    assert ray.get(handle.__ray_call__.remote(lambda server: os.getpid())) != pid
    # Whoever watches the sweep sees it.
    assert 1 <= len(retries) <= 6


@pytest.mark.sweeps
def test_a_server_that_hangs_is_restarted_and_no_reward_is_lost(two_servers: PoolConfig) -> None:
    pool = RewardPool.connect(dataclasses.replace(two_servers, timeout_s=5))
    expected = load_reward_model("embedded/tiny").score(frames(70), SPECS)
    handle: Any = ray.get_actor(two_servers.server_names()[0], namespace=NAMESPACE)
    pid = ray.get(handle.__ray_call__.remote(lambda server: os.getpid()))
    os.kill(pid, signal.SIGSTOP)
    pending = [pool.submit(frames(70), SPECS) for _ in range(2)]
    for request in pending:
        np.testing.assert_array_equal(request.result().rewards, expected)
    assert ray.get(handle.__ray_call__.remote(lambda server: os.getpid())) != pid


def test_a_server_that_is_only_slow_to_start_is_not_killed(ray_cluster: None) -> None:
    """It takes longer to load its model than it may take for an answer, and two trials wait for it."""
    actor: Any = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=0)(SlowServer)
    handle = actor.remote(start_s=2.5)
    pools = [RewardPool(tiny_pool("slow", timeout_s=1), [handle]) for _ in range(2)]
    first = ray.get(handle.life.remote())
    ray.kill(handle, no_restart=False)
    pending = [pool.submit(frames(2), SPECS[:1]) for pool in pools]
    for request in pending:
        assert request.result().rewards.tolist() == [[0.5], [0.5]]
    assert ray.get(handle.life.remote()) == first + 1
    ray.kill(handle)


class SlowServer:
    """Answers as a reward server does, once it has started, which takes it long."""

    def __init__(self, start_s: float) -> None:
        time.sleep(start_s)

    def life(self) -> int:
        own_id = ray.get_runtime_context().get_actor_id()
        assert own_id is not None
        restarts = restarts_of_running(own_id)
        assert restarts is not None
        return restarts

    def score(self, frames: np.ndarray, specs: tuple[RewardSpec, ...]) -> ScoredFrames:
        return ScoredFrames(np.full((len(frames), len(specs)), 0.5, np.float32), 0.0, 0, 0.0, 64)


def test_a_server_that_is_gone_for_good_is_replaced_by_another(ray_cluster: None) -> None:
    actor: Any = ray.remote(num_cpus=0)(ObedientServer)
    handles = [actor.remote() for _ in range(2)]
    rewards = np.full((8, 1), 0.5, np.float32)
    ray.get([handle.answer_with.remote(rewards) for handle in handles])
    pool = RewardPool(tiny_pool("gone", servers=2), handles)
    ray.kill(handles[0])
    pending = [pool.submit(frames(8), SPECS[:1]) for _ in range(4)]
    for request in pending:
        np.testing.assert_array_equal(request.result().rewards, rewards)
    ray.kill(handles[1])
    with pytest.raises(PoolUnavailable, match=r"^the last reward server of embedded/tiny died: .*`ray\.kill`\.$"):
        pool.submit(frames(8), SPECS[:1]).result()


def test_a_server_that_ray_does_not_reach_for_a_while_is_asked_again(obedient_server: Any) -> None:
    rewards = np.full((2, 1), 0.5, np.float32)
    ray.get(obedient_server.answer_with.remote(rewards, unreachable=2))
    pool = RewardPool(tiny_pool("away", timeout_s=30), [obedient_server])
    np.testing.assert_array_equal(pool.submit(frames(2), SPECS[:1]).result().rewards, rewards)
    assert [server.load for server in pool._servers] == [0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"servers": 0}, "servers is 0: expected at least 1"),
        ({"micro_batch": 0}, "micro_batch is 0: expected at least 1"),
        ({"servers": 1.5}, "servers is 1.5: expected at least 1, a whole number"),
        ({"servers": "2"}, "servers is '2'"),
        ({"threads": 0}, "threads is 0"),
        ({"precision": "fp8"}, "precision is 'fp8': expected one of fp32, bf16, fp16"),
        ({"backend": None}, "backend is None: expected one of torch, folded, onnxruntime"),
        ({"gpus": -1.0}, "gpus is -1.0: expected at least 0"),
        ({"timeout_s": float("nan")}, "timeout_s is nan: expected more than 0 seconds"),
    ],
)
def test_a_pool_of_nothing_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=f"pool of embedded/tiny: {message}"):
        tiny_pool("none", **settings)


@pytest.mark.parametrize(
    ("odd", "specs", "message"),
    [
        (frames(2)[0], SPECS, "expected RGB images from 0 to 255, uint8"),
        (frames(2).astype(np.float64), SPECS, "type float64: expected RGB images"),
        (frames(2), [], "expected a sequence of at least one RewardSpec"),
        (frames(2), SPECS[0], "expected a sequence of at least one RewardSpec"),
    ],
)
def test_an_odd_request_is_refused_before_anything_is_sent(
    obedient_server: Any, odd: np.ndarray, specs: Any, message: str
) -> None:
    pool = RewardPool(tiny_pool("odd"), [obedient_server])
    for ask in (pool.submit, pool.score):
        with pytest.raises(ValueError, match=message):
            ask(odd, specs)
    assert [server.load for server in pool._servers] == [0]
    with pytest.raises(ValueError, match=r"shape \(0, 64, 64, 3\): expected at least one frame"):
        pool.submit(frames(0), SPECS)
    assert pool.score(frames(0), SPECS).shape == (0, 3)


@pytest.mark.parametrize(
    ("model", "spec", "message"),
    [("embedded/tiny", "a pole", "spec 'a pole': expected a RewardSpec"), (None, SPECS[0], "model None: expected an id")],
)
def test_a_pool_of_ones_own_is_checked_before_ray_starts(model: Any, spec: Any, message: str) -> None:
    with pytest.raises(UserError, match=message), reward_pool(model, spec):
        pass


def test_the_served_model_says_which_spec_it_cannot_score(two_servers: PoolConfig) -> None:
    pool = RewardPool.connect(two_servers)
    pool.check_spec(SPECS[0])
    with pytest.raises(UserError, match="are the same to embedded/tiny"):
        pool.check_spec(RewardSpec(("a pole",), ("A  pole",)))


def test_a_request_that_fails_leaves_nothing_in_flight(obedient_server: Any) -> None:
    ray.get(obedient_server.answer_with.remote(None, unreachable=0))
    pool = RewardPool(tiny_pool("failing", micro_batch=64), [obedient_server])
    with pytest.raises(RayTaskError, match="nothing to answer with"):
        pool.score(frames(130), SPECS[:1])
    assert [server.load for server in pool._servers] == [0]


def test_a_request_that_is_sent_to_another_server_has_the_whole_time_again(
    obedient_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each server that a request is sent to may take as long as any."""
    rewards = np.full((2, 1), 0.5, np.float32)
    ray.get(obedient_server.answer_with.remote(rewards))
    pool = RewardPool(tiny_pool("moved", servers=2, timeout_s=30), [obedient_server, obedient_server])
    waits, get = list[float](), ray.get

    def first_dies_late(answer: Any, timeout: float) -> Any:
        waits.append(timeout)
        if len(waits) == 1:
            now[0] += timeout  # the time is up
            raise ActorDiedError
        return get(answer)

    now = [1000.0]
    monkeypatch.setattr("vlm_rm_sweeps.serving.pool.time.monotonic", lambda: now[0])
    monkeypatch.setattr("vlm_rm_sweeps.serving.pool.ray.get", first_dies_late)
    np.testing.assert_array_equal(pool.submit(frames(2), SPECS[:1]).result().rewards, rewards)
    assert waits == [1.0, 1.0]
    assert [server.load for server in pool._servers] == [0]


class ObedientServer:
    """Answers as a reward server does, with whatever rewards it was told."""

    def __init__(self) -> None:
        self._rewards: np.ndarray | None = np.zeros(0)
        self._unreachable = 0

    def answer_with(self, rewards: np.ndarray | None, unreachable: int = 0) -> None:
        self._rewards, self._unreachable = rewards, unreachable

    def ready(self) -> bool:
        return True

    def score(self, frames: np.ndarray, specs: tuple[RewardSpec, ...]) -> ScoredFrames:
        if self._unreachable:
            self._unreachable -= 1
            raise ActorUnavailableError("it does not answer", None)
        if self._rewards is None:
            raise RuntimeError("nothing to answer with")
        return ScoredFrames(self._rewards, 0.0, 0, 0.0, 64)


@pytest.fixture(scope="module")
def obedient_server(ray_cluster: None) -> Any:
    actor: Any = ray.remote(num_cpus=0)(ObedientServer)
    return actor.remote()


@pytest.mark.parametrize(
    ("rewards", "message"),
    [
        (np.array([[0.5], [np.nan]], np.float32), "1 of 2 rewards that are not finite"),
        (np.array([[0.5], [np.inf]], np.float32), "1 of 2 rewards that are not finite"),
        (np.array([[0.5]], np.float32), r"shape \(1, 1\), expected \(2, 1\)"),
    ],
)
def test_missing_and_non_finite_rewards_are_loud(obedient_server: Any, rewards: np.ndarray, message: str) -> None:
    ray.get(obedient_server.answer_with.remote(rewards))
    pool = RewardPool(tiny_pool("broken"), [obedient_server])
    with pytest.raises(PoolError, match=message):
        pool.submit(frames(2), SPECS[:1]).result()


def test_a_model_that_gives_nan_is_refused_before_any_trial(obedient_server: Any) -> None:
    ray.get(obedient_server.answer_with.remote(np.array([[np.nan]], np.float32)))
    with pytest.raises(UserError, match="embedded/tiny gave 1 of 1 rewards that are not finite: try fp32"):
        await_pool(tiny_pool("broken"), [obedient_server], SPECS[:1])


def test_a_spec_that_cannot_be_scored_is_an_error_of_the_start(two_servers: PoolConfig) -> None:
    same_but_for_case = RewardSpec(("Pole and cart",), ("pole and cart",), 0.5)
    handles = [ray.get_actor(name, namespace=NAMESPACE) for name in two_servers.server_names()]
    with pytest.raises(UserError, match="same embedding"):
        await_pool(two_servers, handles, [same_but_for_case])


def test_a_model_that_cannot_be_loaded_is_an_error_of_the_start(ray_cluster: None) -> None:
    model = find_reward_model("own_rewards:WithoutWeights")
    config = PoolConfig.of("test-load", model)
    damaged = "the weights of own_rewards:WithoutWeights are damaged"
    with pytest.raises(UserError, match=f"^a reward server of own_rewards:WithoutWeights could not start: {damaged}$"):
        await_pool(config, start_pool(config, model), SPECS)


def test_servers_and_clients_report_ray_metrics(two_servers: PoolConfig, scrape: Callable[[], list[Sample]]) -> None:
    RewardPool.connect(two_servers).submit(frames(3), SPECS).result()
    expected = load_reward_model("embedded/tiny").score(frames(3), SPECS)
    wanted = {
        "frames_total",
        "encode_seconds_total",
        "request_frames_bucket",
        "request_seconds_bucket",
        "backlog_frames",
        "micro_batch_frames",
        "reward_mean",
        "reward_std",
    }
    deadline = time.monotonic() + 60  # Ray exports at intervals
    found: dict[str, list[Sample]] = {}
    while time.monotonic() < deadline and not (
        wanted <= found.keys() and any(each.value == pytest.approx(expected.mean()) for each in found["reward_mean"])
    ):
        found = {}
        for sample in scrape():
            # Other models' counters stay as long as the cluster.
            if sample.labels.get("model") == "embedded/tiny":
                found.setdefault(sample.name.removeprefix("ray_vlm_rm_"), []).append(sample)
        time.sleep(0.5)
    assert wanted <= found.keys()
    assert any(sample.value == pytest.approx(expected.mean()) for sample in found["reward_mean"])
    assert any(sample.value == pytest.approx(expected.std(axis=0).mean(), rel=1e-3) for sample in found["reward_std"])
    # Prompts would make a series each, and are nobody's business.
    tags = {key for samples in found.values() for sample in samples for key in sample.labels}
    assert tags.isdisjoint({"prompt", "goal", "baseline", "spec"})


def test_nothing_of_ray_listens_beyond_this_machine(two_servers: PoolConfig) -> None:
    """Ray's servers, its workers and its metrics: all processes of the cluster are children of the one that started it."""
    listening: set[tuple[str, str]] = set()
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):  # workers of other tests end at any time
            name, connections = process.name(), process.net_connections("tcp")
            listening |= {(name, each.laddr.ip) for each in connections if each.status == psutil.CONN_LISTEN}
    assert {"gcs_server", "raylet"} <= {name for name, _ in listening}
    assert len(listening) >= 3, "nothing was found to look at"
    assert {address for _, address in listening} <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}, listening


def test_a_cluster_of_this_machine_asks_for_a_token(ray_cluster: None) -> None:
    code = (
        "import sys; from ray._raylet import GcsClient; "
        "print(GcsClient(address=sys.argv[1]).internal_kv_keys(b'', b'session', timeout=10))"
    )

    def knock(**environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code, ray.get_runtime_context().gcs_address]
        return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, timeout=60)

    assert "session_name" in knock().stdout
    stranger = knock(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="0" * 64)
    assert stranger.returncode != 0
    assert "InvalidAuthToken" in stranger.stderr, stranger.stderr[-1000:]


def test_a_setting_that_a_pool_does_not_have_is_refused() -> None:
    for settings in ({"device": "cuda"}, {"server": 2}, {"model_id": "x"}):
        with pytest.raises(UserError, match="unknown setting of a pool"):
            PoolConfig.of("test", find_reward_model("embedded/tiny"), **settings)


def test_a_pool_that_has_ended_refuses_frames_without_using_ray(ray_cluster: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with reward_pool("embedded/tiny", SPECS[0]) as pool:
        pool.score(frames(2), SPECS)
    monkeypatch.setattr(ray, "put", lambda _: pytest.fail("Ray would start or join a cluster"))
    with pytest.raises(PoolUnavailable, match="no reward server of embedded/tiny is left: has the pool been closed"):
        pool.score(frames(2), SPECS)
    with pytest.raises(PoolUnavailable):
        pool.check_spec(SPECS[0])
