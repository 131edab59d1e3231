"""Reward servers that all tests of training share: to start one takes seconds."""

from collections.abc import Iterator

import pytest
import ray

from vlm_rm_sweeps.rewards.registry import find_reward_model
from vlm_rm_sweeps.rewards.reward_model import RewardSpec
from vlm_rm_sweeps.serving.pool import PoolConfig, await_pool, start_pool


@pytest.fixture(scope="session")
def two_pools(ray_cluster: None) -> Iterator[tuple[PoolConfig, PoolConfig]]:
    """Two pools of `embedded/tiny`, a server each. Their micro-batch is one that rollouts do not fill evenly."""
    model = find_reward_model("embedded/tiny")
    first, second = (PoolConfig.of(f"test-training-{name}", model, micro_batch=16) for name in "ab")
    servers = {pool: start_pool(pool, model) for pool in (first, second)}
    for pool, handles in servers.items():
        await_pool(pool, handles, [RewardSpec(("a pole",), ("a cart",), 0.5)])
    yield first, second
    for handles in servers.values():
        for handle in handles:
            ray.kill(handle)
