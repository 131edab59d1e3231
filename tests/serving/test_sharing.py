"""Servers that several holders share: who starts them, who finds them, and when they end."""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import ray
from own_rewards import Brightness, WithoutWeights
from ray.exceptions import RayActorError

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.rewards.registry import find_reward_model, load_reward_model
from vlm_rm_sweeps.rewards.reward_model import RewardModel, RewardSpec
from vlm_rm_sweeps.serving import sharing
from vlm_rm_sweeps.serving.packed_model import PackedModel
from vlm_rm_sweeps.serving.pool import NAMESPACE, PoolConfig, RewardPool, await_pool, running_servers
from vlm_rm_sweeps.serving.reward_pool import reward_pool
from vlm_rm_sweeps.serving.sharing import Patience, SharedServers, named_if_shared

SPEC = RewardSpec(("a pole standing up",), ("a pole",), 0.5)
FRAMES = np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3), np.uint8)
HURRIED = Patience(kept_s=0.0)


def config_of(model: RewardModel, **settings: Any) -> PoolConfig:
    return named_if_shared(PoolConfig.of("test", model, shared=True, **settings), model)


def wait_until(is_true: Callable[[], bool]) -> None:
    ends = time.monotonic() + 90
    while not is_true():
        assert time.monotonic() < ends
        time.sleep(0.1)


def keeper_of(config: PoolConfig) -> Any:
    return ray.get_actor(f"{config.name}/{config.model_id}/keeper", namespace=NAMESPACE)


@pytest.fixture
def tiny() -> Iterator[tuple[PoolConfig, RewardModel]]:
    """A shared pool that no other test has, and that has ended after the test."""
    model = find_reward_model("embedded/tiny")
    config = replace(config_of(model), name=f"shared-{time.monotonic_ns()}")
    yield config, model
    with suppress(ValueError):
        ray.kill(keeper_of(config))


def test_the_next_holder_finds_the_servers_and_the_last_one_ends_them(
    ray_cluster: None, tiny: tuple[PoolConfig, RewardModel]
) -> None:
    config, _ = tiny
    first, second = SharedServers(*tiny, HURRIED), SharedServers(*tiny, HURRIED)
    with second:
        with first as started:
            await_pool(config, started, [SPEC])
        time.sleep(3)  # longer than servers are kept that nobody holds
        assert running_servers(config) == set(config.server_names())
        rewards = RewardPool.connect(config).score(FRAMES, [SPEC])
    np.testing.assert_array_equal(rewards, load_reward_model("embedded/tiny", micro_batch=64).score(FRAMES, [SPEC]))
    wait_until(lambda: not running_servers(config))
    with SharedServers(*tiny, HURRIED) as anew:
        assert anew != started
        await_pool(config, anew, [SPEC])


def test_a_holder_that_was_killed_holds_no_longer(ray_cluster: None, tiny: tuple[PoolConfig, RewardModel]) -> None:
    config, model = tiny
    actor: Any = ray.remote(sharing.ServerKeeper)
    keeper = actor.options(name=f"{config.name}/{config.model_id}/keeper", namespace=NAMESPACE, num_cpus=0).remote(
        config, PackedModel.of(model), Patience(kept_s=0.0, silence_s=1.0)
    )
    assert len(ray.get(keeper.hold.remote("never heard of again"))) == 1
    wait_until(lambda: not running_servers(config))
    with pytest.raises(RayActorError):
        ray.get(keeper.hold.remote("too late"))


def test_a_keeper_that_dies_starts_the_servers_again(
    ray_cluster: None, tiny: tuple[PoolConfig, RewardModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "_BEAT_S", 0.5)
    config, _ = tiny
    with SharedServers(*tiny, HURRIED) as before:
        await_pool(config, before, [SPEC])
        expected = RewardPool.connect(config).score(FRAMES, [SPEC])
        ray.kill(keeper_of(config), no_restart=False)

        def is_served_again() -> bool:
            with suppress(ValueError, RayActorError):
                name = config.server_names()[0]
                return ray.get_actor(name, namespace=NAMESPACE) != before[0]
            return False

        wait_until(is_served_again)
        wait_until(lambda: bool(running_servers(config)))
        np.testing.assert_array_equal(RewardPool.connect(config).score(FRAMES, [SPEC]), expected)


def test_a_model_that_cannot_be_loaded_says_why_and_leaves_nothing(
    ray_cluster: None, tiny: tuple[PoolConfig, RewardModel]
) -> None:
    config = tiny[0]
    with (
        pytest.raises(UserError, match=r"could not start: the weights of gone are damaged$"),
        SharedServers(config, WithoutWeights("gone"), HURRIED) as servers,
    ):
        await_pool(config, servers, [SPEC])
    with SharedServers(*tiny, HURRIED) as servers:  # whose keeper is another one
        await_pool(config, servers, [SPEC])


def test_a_users_own_pool_may_be_shared(ray_cluster: None) -> None:
    with reward_pool("embedded/tiny", SPEC, shared=True) as first, reward_pool("embedded/tiny", SPEC, shared=True) as second:
        assert first.config == second.config
        np.testing.assert_array_equal(first.score(FRAMES, [SPEC]), second.score(FRAMES, [SPEC]))
    assert running_servers(first.config)  # kept for the next
    ray.kill(keeper_of(first.config))


def test_pools_are_shared_if_model_and_settings_are_the_same() -> None:
    tiny, small = find_reward_model("embedded/tiny"), find_reward_model("embedded/small")
    names = [config_of(tiny).name, config_of(small).name, config_of(tiny, micro_batch=32).name, config_of(tiny, servers=2).name]
    assert len(set(names)) == 4
    assert config_of(find_reward_model("embedded/tiny")).name == names[0]
    tiny.__dict__["weights_identity"] = "another checkpoint in the same file"
    assert config_of(tiny).name not in names
    not_shared = PoolConfig.of("test", tiny)
    assert named_if_shared(not_shared, tiny) == not_shared


def test_classes_of_users_and_models_with_a_budget_are_not_shared() -> None:
    own = Brightness("own_rewards:Brightness")
    assert not config_of(own).shared
    judge = find_reward_model("embedded/tiny")
    judge.judges_only = True
    assert not config_of(judge).shared
