"""The contract of RL algorithms."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import gymnasium as gym
import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from vlm_rm_sweeps.process_defaults import prepare_rllib

if TYPE_CHECKING:
    from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
    from ray.rllib.core.rl_module.rl_module import RLModule

Width = Annotated[int, Field(gt=0, le=65_536)]
"""Of a hidden layer."""
Transitions = Annotated[int, Field(gt=0, le=10**9)]
"""How many are collected or learned from; bounded, so that a slip of the finger does not fill the memory for minutes."""
LearningRate = Annotated[float, Field(ge=1e-12, le=10)]
"""Bounded, so that a slip in its exponent is not found out by what is never learned."""


class Algorithm(BaseModel, ABC):
    """Base class of RL algorithms with their settings.

    The fields are the settings that a sweep file may set. Those declared here are common to all algorithms; a subclass adds its
    own, or declares one of these again with another default. An instance is plain data, which is sent to the trials' processes.

    Subclasses must set `action_spaces` and implement `rllib_config` and `update_size`; all other methods have defaults. Import
    RLlib and torch inside the methods only, because a sweep file is checked without them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    action_spaces: ClassVar[tuple[type[gym.Space], ...]]
    """Classes of the action spaces that the algorithm supports."""
    changeable: ClassVar[tuple[str, ...]] = ()
    """Settings that a trainer, built with another value of them, can go on with from a state (see `scheduler: pbt`). Each one that is
    not only read from RLlib's configuration must be set again by `restore_training_state`, except for learning rates."""

    learning_rate: LearningRate = Field(1e-3, description="Step size of the optimiser.")
    gamma: float = Field(0.98, gt=0, lt=1, description="Discount of future rewards.")
    hidden: tuple[Width, ...] = Field((128, 128), min_length=1, description="Widths of the hidden layers.")
    envs: int = Field(8, gt=0, le=1_024, description="Sub-environments stepped together.")
    rollout_steps: Transitions = Field(8, description="Steps of each sub-environment between updates.")

    @classmethod
    def can_learn(cls, action_space: gym.Space) -> bool:
        """Return whether the algorithm supports an action space."""
        return isinstance(action_space, cls.action_spaces)

    @abstractmethod
    def rllib_config(self, env_runners: int) -> "AlgorithmConfig":
        """Configure RLlib for these settings.

        Set every hyperparameter that matters explicitly: RLlib's defaults differ from those of other RL libraries.
        `trainer.build_trainer` adds the task, the rewards, the sub-environments, `gamma`, the seed, evaluation and reporting.

        Args:
            env_runners: Number of remote env runners; 0 if the trial's own process samples.

        Returns:
            A new configuration of an RLlib algorithm, of the new API stack.
        """

    @property
    @abstractmethod
    def update_size(self) -> int:
        """Number of transitions in one gradient update."""

    @property
    def evaluates_an_average(self) -> bool:
        """Whether the greedy policy has other weights than the one that explores, such as their average over updates."""
        return False

    def steps_at_once(self, env_runners: int) -> int:
        """Return the number of environment steps between two times that the trainer may stop: whole rollouts.

        Args:
            env_runners: Number of remote env runners; 0 if the trial's own process samples.

        Returns:
            Steps of all sub-environments of all env runners.
        """
        return self.envs * self.rollout_steps * (env_runners or 1)

    def trained_steps(self, steps: int, steps_per_result: int, env_runners: int) -> tuple[int, int]:
        """Compute how many environment steps a trial trains for, since it ends with a whole result.

        Args:
            steps: Environment steps that were asked for.
            steps_per_result: Least number of environment steps between two results.
            env_runners: Number of remote env runners; 0 if the trial's own process samples.

        Returns:
            The trial's steps, and those of one result.
        """
        at_once = self.steps_at_once(env_runners)
        result = math.ceil(steps_per_result / at_once) * at_once
        return math.ceil(steps / result) * result, result

    def network_config(self) -> dict[str, Any]:
        """Return RLlib's model configuration: multilayer perceptrons with the `hidden` layers."""
        return {"fcnet_hiddens": list(self.hidden), "fcnet_activation": "relu", "head_fcnet_hiddens": []}

    def after_build(self, trainer: Any, seed: int) -> None:
        """Modify a trainer that RLlib has just built, where its configuration cannot express it.

        Args:
            trainer: RLlib's Algorithm object.
            seed: The trial's seed.
        """

    def training_state(self, trainer: Any) -> dict[str, Any]:
        """Return the algorithm's own part of a checkpoint, beside the state that every trainer has (see `resumption`).

        Args:
            trainer: RLlib's Algorithm object.

        Returns:
            Values that can be pickled, under keys of the algorithm's own.
        """
        return {}

    def restore_training_state(self, trainer: Any, state: Mapping[str, Any]) -> None:
        """Restore in a trainer the state that `training_state` returned.

        Args:
            trainer: RLlib's Algorithm object, built with the same settings.
            state: The whole training state of a checkpoint.
        """

    def build_policy(self, observation_space: gym.Space, action_space: gym.Space, model_config: dict[str, Any]) -> "RLModule":
        """Build the network that chooses actions, with random weights.

        Args:
            observation_space: The environment's observation space.
            action_space: The environment's action space.
            model_config: RLlib's model configuration, from a checkpoint.

        Returns:
            An RLlib module for inference only.
        """
        prepare_rllib()
        spec: Any = self.rllib_config(env_runners=0).rl_module_spec
        spec.observation_space, spec.action_space = observation_space, action_space
        spec.model_config, spec.inference_only = self.network_config() | model_config, True
        policy: RLModule = spec.build()
        return policy

    def greedy_action(self, policy: Any, observation: np.ndarray) -> np.ndarray:
        """Choose the policy's best action: the highest-valued one, or its distribution's deterministic one.

        Args:
            policy: A network that `build_policy` has built.
            observation: One observation, without a batch dimension.

        Returns:
            The action, between -1 and 1 where the action space has bounds.
        """
        import torch
        from ray.rllib.core.columns import Columns

        with torch.inference_mode():
            output = policy.forward_inference({Columns.OBS: torch.from_numpy(np.asarray(observation))[None]})
            if Columns.ACTIONS in output:
                return output[Columns.ACTIONS][0].numpy()
            distribution = policy.get_inference_action_dist_cls().from_logits(output[Columns.ACTION_DIST_INPUTS])
            return distribution.to_deterministic().sample()[0].numpy()

    def remarks(self, steps: int) -> list[str]:
        """List warnings about valid settings whose effect may surprise the user.

        Args:
            steps: Environment steps of each trial.

        Returns:
            One sentence for each warning.
        """
        return []
