"""Adds rewards to the configuration of any RLlib algorithm, this project's own and others.

Only RLlib's public settings are used, so they can be combined with the rest of an algorithm's configuration.
"""

import functools
from typing import Any

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.connectors.connector_v2 import ConnectorV2

from vlm_rm_sweeps.rewards.reward_model import RewardSpec
from vlm_rm_sweeps.serving.pool import PoolConfig, RewardPool
from vlm_rm_sweeps.tasks.rendering import Rendering
from vlm_rm_sweeps.tasks.task import Task
from vlm_rm_sweeps.training.connectors.reward import FillInRewards, RewardConnector, RewardSource
from vlm_rm_sweeps.training.connectors.true_return import TrueReturnConnector
from vlm_rm_sweeps.training.rllib_internals import callback_classes
from vlm_rm_sweeps.training.task_env import ENV_ID


def use_rewards(
    config: AlgorithmConfig, pool: RewardPool | PoolConfig, spec: RewardSpec, task: Task, rendering: Rendering | None = None
) -> AlgorithmConfig:
    """Let an RLlib algorithm of your own learn a task from a reward model.

    The environment becomes the task's, and each transition's reward that of the frame after the step, for any number of env
    runners. The configuration's own connectors and callbacks are kept; the callbacks see the reward model's rewards. Call this
    function last: connectors that are set later replace this project's, which raises an error at the first sample.

        config = use_rewards(PPOConfig().env_runners(num_env_runners=2), pool, spec, find_task("cartpole-upright"))
        config.build_algo().train()

    Results report the CLIP return as `env_runners/episode_return_mean`, and true return and success beside it under names of
    their own.

    Args:
        config: Configuration of any algorithm on RLlib's new API stack. It is not changed.
        pool: The reward model's pool, whose servers must have been started.
        spec: Prompts and function of the reward.
        task: The task to learn.
        rendering: How states are rendered; None for the task's default.

    Returns:
        A copy of `config`.
    """
    served = pool.config if isinstance(pool, RewardPool) else pool
    return learn_task(config, task, RewardSource(served, spec, served.frame_format, rendering))


def learn_task(config: AlgorithmConfig, task: Task, reward: RewardSource | None) -> AlgorithmConfig:
    """Let an RLlib algorithm learn a task, from a reward model or from the true reward.

    Args:
        config: Configuration of any algorithm on RLlib's new API stack. It is not changed.
        task: The task to learn.
        reward: Source of the rewards; None for the environment's own.

    Returns:
        A copy of `config`.
    """
    learning: Any = config.copy(copy_frozen=False)
    frame_format, rendering = (None, None) if reward is None else (reward.frame_format, reward.rendering)
    learning.environment(ENV_ID, env_config={"task": task, "frame_format": frame_format, "rendering": rendering})
    learning.env_runners(
        env_to_module_connector=functools.partial(_reward_last, config.copy(copy_frozen=False), reward),
        add_default_connectors_to_env_to_module_pipeline=False,
    )
    if reward is not None:
        learning.callbacks(callbacks_class=[FillInRewards, *callback_classes(config)])
    return learning


def _reward_last(
    config: AlgorithmConfig, reward: RewardSource | None, env: Any = None, spaces: Any = None, device: Any = None
) -> list[ConnectorV2]:
    """Build the connectors of `config`, followed by the one for rewards.

    RLlib calls this in each env runner, so the connectors are built there from plain data.
    """
    pipeline: Any = config.build_env_to_module_connector(env, spaces, device)
    return [*pipeline.connectors, TrueReturnConnector() if reward is None else RewardConnector(source=reward)]
