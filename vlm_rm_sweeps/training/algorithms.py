"""RLlib algorithms as this project configures them: every setting that matters is named, none is left to RLlib's default.

RLlib's defaults differ from those of the paper's stack (Stable-Baselines3): for DQN, double and dueling Q-networks and a
prioritised buffer are on; for SAC, the policy learns ten times slower than the Q-networks, the buffer is prioritised and the
Q-networks are several times as large. What still differs: SAC's loss is Huber's instead of squared, and DQN's actions before
`learning_starts` follow epsilon instead of a uniform distribution.
"""

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.spaces import flatdim
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.sac import SACConfig
from ray.rllib.algorithms.sac.sac_catalog import SACCatalog
from ray.rllib.algorithms.sac.torch.default_sac_torch_rl_module import DefaultSACTorchRLModule
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.connectors.learner import (
    AddNextObservationsFromEpisodesToTrainBatch,
    LearnerConnectorPipeline,
    NumpyToTensor,
)
from ray.rllib.connectors.module_to_env import NormalizeAndClipActions
from ray.rllib.core.columns import Columns
from ray.rllib.core.models.configs import MLPEncoderConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from vlm_rm_sweeps.tasks.task import Task
from vlm_rm_sweeps.training.connectors.random_actions import HeldRandomActions
from vlm_rm_sweeps.training.connectors.reward import RewardConnector, RewardSource, TrueReturnConnector, on_sample_end
from vlm_rm_sweeps.training.connectors.standardize_rewards import StandardizeRewards
from vlm_rm_sweeps.training.replay_buffer import TakeTransitions, TransitionReplayBuffer
from vlm_rm_sweeps.training.resumption import ReplayableEnv
from vlm_rm_sweeps.training.settings import AlgorithmSettings, DqnSettings, SacSettings

_ENV_ID = "vlm-rm/task-v0"
_NEVER = 10**12


class _Rewarded(AlgorithmConfig):
    """An algorithm whose env-to-module pipeline ends with the connector that fetches rewards.

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
        return LearnerConnectorPipeline(
            input_observation_space,
            input_action_space,
            connectors=[TakeTransitions(), NumpyToTensor(as_learner_connector=True, device=device), StandardizeRewards()],
        )


class _RewardedDqn(_Rewarded, DQNConfig):
    pass


class _RewardedSac(_Rewarded, SACConfig):
    warm_up_steps = 0
    warm_up_hold = 1

    def build_module_to_env_connector(self, env: Any = None, spaces: Any = None) -> ConnectorV2:
        pipeline: Any = super().build_module_to_env_connector(env, spaces)
        actions = HeldRandomActions(steps=self.warm_up_steps, hold=self.warm_up_hold, seed=self.seed or 0)
        pipeline.insert_before(NormalizeAndClipActions, actions)
        return pipeline

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        return RLModuleSpec(module_class=DefaultSACTorchRLModule, catalog_class=_PlainQCatalog)


class _PlainQCatalog(SACCatalog):
    """Q-networks as in the SAC paper: one multilayer perceptron of state and action together.

    RLlib's encode state and action apart, each with all hidden layers, and join them in three more of width 256.
    """

    def _build_qf_encoder_continuous(self, framework: str) -> Any:
        widths, activation = self._model_config_dict["fcnet_hiddens"], self._model_config_dict["fcnet_activation"]
        perceptron = MLPEncoderConfig(
            input_dims=[flatdim(self.observation_space) + flatdim(self.action_space)],
            hidden_layer_dims=widths[:-1],
            hidden_layer_activation=activation,
            output_layer_dim=widths[-1],
            output_layer_activation=activation,
        )
        return _StateActionEncoder(perceptron.build(framework=framework))


class _StateActionEncoder(torch.nn.Module):
    """Encodes states (B, S) and actions (B, A), put side by side."""

    def __init__(self, perceptron: Any) -> None:
        super().__init__()
        self._perceptron = perceptron

    def forward(self, batch: dict[str, torch.Tensor]) -> Any:
        return self._perceptron({Columns.OBS: torch.cat([batch[Columns.OBS], batch[Columns.ACTIONS]], dim=-1)})


def _dqn(settings: DqnSettings) -> _RewardedDqn:
    return _RewardedDqn().training(
        lr=settings.learning_rate,
        target_network_update_freq=settings.target_update_every,
        tau=1.0,
        double_q=settings.double_q,
        dueling=False,
        noisy=False,
        num_atoms=1,
        epsilon=[[0, 1.0], [settings.epsilon_steps, settings.epsilon_final]],
        grad_clip=10,
    )


def _sac(settings: SacSettings) -> _RewardedSac:
    # RLlib always learns the entropy coefficient: with a rate of 0 it stays what it is.
    coefficient, rate = (1.0, settings.learning_rate) if settings.entropy == "auto" else (settings.entropy, 0.0)
    config = _RewardedSac()
    config.warm_up_steps, config.warm_up_hold = settings.learning_starts, settings.warm_up_hold
    return config.training(
        actor_lr=settings.learning_rate,
        critic_lr=settings.learning_rate,
        alpha_lr=rate,
        initial_alpha=coefficient,
        target_entropy="auto",
        target_network_update_freq=0,
        tau=settings.tau,
        twin_q=True,
        grad_clip=None,
    )


def build_algorithm(
    task: Task,
    settings: AlgorithmSettings,
    reward: RewardSource | None,
    seed: int,
    steps_per_result: int,
    evaluation_episodes: int,
) -> Algorithm:
    """The algorithm whose settings these are, learning `task` from the reward model's rewards, or the true reward if `reward` is None.

    One call of its `train` samples at least `steps_per_result` environment steps; one call of its `evaluate` runs
    `evaluation_episodes` episodes with the greedy policy.
    """
    frame_format, rendering = (None, None) if reward is None else (reward.frame_format, reward.rendering)
    # Gymnasium's registry instead of RLlib's, which would add a checker to every step that warns of the NaN rewards.
    gym.registry.pop(_ENV_ID, None)
    gym.register(
        _ENV_ID,
        entry_point=lambda **_: ReplayableEnv(task.make_env(frame_format, rendering)),
        disable_env_checker=True,
        order_enforce=False,
    )
    config: Any = _dqn(settings) if isinstance(settings, DqnSettings) else _sac(settings)
    config.reward = reward
    config = (
        config.environment(_ENV_ID, normalize_actions=True)
        .env_runners(
            num_env_runners=0,
            num_envs_per_env_runner=settings.envs,
            rollout_fragment_length=settings.rollout_steps,
            explore=True,
        )
        .training(
            gamma=settings.gamma,
            train_batch_size_per_learner=settings.batch,
            # RLlib counts replayed transitions for each sampled one.
            training_intensity=settings.updates_per_step * settings.batch,
            num_steps_sampled_before_learning_starts=settings.learning_starts,
            n_step=1,
            replay_buffer_config={"type": "EpisodeReplayBuffer"},
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
        .reporting(
            min_sample_timesteps_per_iteration=steps_per_result,
            min_time_s_per_iteration=0,
            # RLlib's mean return is of this many of the episodes that end in one sample: of all of them.
            metrics_num_episodes_for_smoothing=max(evaluation_episodes, settings.envs * settings.rollout_steps),
        )
        .callbacks(on_sample_end=on_sample_end)
        .debugging(seed=seed, log_level="ERROR")
    )
    algorithm: Any = config.build_algo()
    # RLlib's learner adds this piece to any pipeline; transitions have their next observations already.
    algorithm.learner_group.foreach_learner(
        lambda learner: learner._learner_connector.remove(AddNextObservationsFromEpisodesToTrainBatch)
    )
    # RLlib does not take other classes of buffers, and seeds everything but the buffer.
    algorithm.local_replay_buffer = TransitionReplayBuffer(capacity=settings.buffer)
    algorithm.local_replay_buffer.rng = np.random.default_rng(seed)
    return algorithm
