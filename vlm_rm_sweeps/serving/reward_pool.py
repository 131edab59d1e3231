"""A reward pool for the duration of a `with` block, for a user's own scripts: they have no sweep that starts one."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

from vlm_rm_sweeps.rewards.registry import find_reward_model
from vlm_rm_sweeps.rewards.reward_model import RewardModel, RewardSpec
from vlm_rm_sweeps.serving.cluster import ray_cluster
from vlm_rm_sweeps.serving.placement import check_placement
from vlm_rm_sweeps.serving.pool import PoolConfig, RewardPool, await_pool
from vlm_rm_sweeps.serving.scaling import ServerScaling
from vlm_rm_sweeps.serving.sharing import named_if_shared, reward_servers


def _silent(line: str) -> None:
    """Print nothing."""


@contextmanager
def reward_pool(
    model: RewardModel | str, *specs: RewardSpec, say: Callable[[str], None] = _silent, **settings: Any
) -> Iterator[RewardPool]:
    """Start the reward servers of one model, and stop them at the end of the `with` block.

    Ray is started on this machine unless it runs already or `RAY_ADDRESS` names a cluster.

        with reward_pool("embedded/small", servers=2) as pool:
            rewards = pool.score(frames, [RewardSpec(("a pole standing up",), ("a pole",))])

    Args:
        model: The model, not loaded, or its id.
        *specs: Specs that it will have to score; they are tried on one frame before the block begins.
        say: Prints a line about Ray or further servers.
        **settings: Attributes of `PoolConfig`: servers, most_servers, precision, backend, micro_batch, cpus, gpus, threads,
            timeout_s, shared.

    Yields:
        A client of the servers, which is itself a reward model.

    Raises:
        UserError: There is no such model or setting, Ray does not start, the servers cannot be placed, or the model cannot be
            loaded or cannot score a spec.
    """
    chosen = model if isinstance(model, RewardModel) else find_reward_model(model)
    for spec in specs:
        chosen.check(spec)
    config = named_if_shared(PoolConfig.of(f"pool-{uuid.uuid4().hex[:6]}", chosen, **settings), chosen)
    with ray_cluster(say):
        check_placement([config], trial_cpus=0, trial_gpus=0)
        with reward_servers(config, chosen) as servers:
            await_pool(config, servers, specs)
            with ServerScaling(config, chosen, servers, say), closing(RewardPool.connect(config)) as pool:
                yield pool
