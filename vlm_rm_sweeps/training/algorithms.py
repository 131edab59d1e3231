"""RLlib algorithms as this project configures them: every setting that matters is named, none is left to RLlib's default.

RLlib's defaults differ from those of the paper's stack (Stable-Baselines3): double and dueling Q-networks and a prioritised
buffer are on, learning rates differ.
"""

from typing import Any

import gymnasium as gym
import numpy as np
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.connectors.connector_v2 import ConnectorV2

from vlm_rm_sweeps.tasks.task import Task
from vlm_rm_sweeps.training.connector import RewardConnector, RewardSource, TrueReturnConnector, on_sample_end
from vlm_rm_sweeps.training.resumption import ReplayableEnv
from vlm_rm_sweeps.training.settings import DqnSettings
from vlm_rm_sweeps.training.standardization import StandardizeRewards

_ENV_ID = "vlm-rm/task-v0"
_NEVER = 10**12


class _RewardedDqnConfig(DQNConfig):
    """DQN whose env-to-module pipeline ends with the connector that fetches rewards.

    The piece is attached here, from plain data, because RLlib builds the pipeline anew in every env runner.
    """

    reward: RewardSource | None = None

    def build_env_to_module_connector(self, env: Any = None, spaces: Any = None, device: Any = None) -> ConnectorV2:
        pipeline: Any = super().build_env_to_module_connector(env, spaces, device)
        if self.reward is None:
            pipeline.append(TrueReturnConnector())
        else:
            pipeline.append(RewardConnector(source=self.reward))
        return pipeline

    def build_learner_connector(self, input_observation_space: Any, input_action_space: Any, device: Any = None) -> ConnectorV2:
        pipeline: Any = super().build_learner_connector(input_observation_space, input_action_space, device)
        pipeline.append(StandardizeRewards())
        return pipeline


def build_dqn(
    task: Task,
    settings: DqnSettings,
    reward: RewardSource | None,
    seed: int,
    steps_per_result: int,
    evaluation_episodes: int,
) -> Algorithm:
    """A DQN that learns `task` from the reward model's rewards, or from the true reward if `reward` is None.

    One call of its `train` samples at least `steps_per_result` environment steps; one call of its `evaluate` runs
    `evaluation_episodes` episodes with the greedy policy.
    """
    frame_format = None if reward is None else reward.frame_format
    # Gymnasium's registry instead of RLlib's, which would add a checker to every step that warns of the NaN rewards.
    gym.registry.pop(_ENV_ID, None)
    gym.register(
        _ENV_ID,
        entry_point=lambda **_: ReplayableEnv(task.make_env(frame_format)),
        disable_env_checker=True,
        order_enforce=False,
    )
    config = _RewardedDqnConfig()
    config.reward = reward
    config = (
        config.environment(_ENV_ID)
        .env_runners(
            num_env_runners=0,
            num_envs_per_env_runner=settings.envs,
            rollout_fragment_length=settings.rollout_steps,
            explore=True,
        )
        .training(
            lr=settings.learning_rate,
            gamma=settings.gamma,
            train_batch_size=settings.batch,
            # RLlib counts replayed transitions for each sampled one.
            training_intensity=settings.updates_per_step * settings.batch,
            num_steps_sampled_before_learning_starts=settings.learning_starts,
            target_network_update_freq=settings.target_update_every,
            tau=1.0,
            double_q=True,
            dueling=False,
            noisy=False,
            num_atoms=1,
            n_step=1,
            epsilon=[[0, 1.0], [settings.epsilon_steps, settings.epsilon_final]],
            grad_clip=10,
            replay_buffer_config={"type": "EpisodeReplayBuffer", "capacity": settings.buffer},
        )
        .rl_module(model_config={"fcnet_hiddens": list(settings.hidden), "fcnet_activation": "relu", "head_fcnet_hiddens": []})
        .evaluation(
            # Never by itself. But without an interval RLlib makes no env runner for evaluations: it would take the one for
            # training, which explores, and would ignore the configuration below without a word.
            evaluation_interval=_NEVER,
            evaluation_duration=evaluation_episodes,
            evaluation_duration_unit="episodes",
            evaluation_num_env_runners=0,
            # As many sub-environments as episodes: all have the same length, so none is started in vain.
            evaluation_config={"explore": False, "num_envs_per_env_runner": evaluation_episodes},
        )
        .reporting(min_sample_timesteps_per_iteration=steps_per_result, min_time_s_per_iteration=0)
        .callbacks(on_sample_end=on_sample_end)
        .debugging(seed=seed, log_level="ERROR")
    )
    algorithm: Any = config.build_algo()
    # RLlib seeds everything but the replay buffer.
    algorithm.local_replay_buffer.rng = np.random.default_rng(seed)
    return algorithm
