"""Trained policies, loaded from JSON and safetensors files alone: without a trainer, env runners or a Ray cluster."""

from typing import Any

import gymnasium as gym
import numpy as np
from pydantic import ValidationError
from ray.rllib.utils.spaces.space_utils import unsquash_action

from vlm_rm_sweeps.errors import UserError, reason_of
from vlm_rm_sweeps.files import problems_in
from vlm_rm_sweeps.training.algorithms.base import Algorithm
from vlm_rm_sweeps.training.algorithms.registry import known_algorithm
from vlm_rm_sweeps.training.checkpoints import Checkpoint


class Policy:
    """The greedy policy of a checkpoint.

    Args:
        checkpoint: The checkpoint, of which only the JSON and safetensors files are read.
        observation_space: The environment's observation space.
        action_space: The environment's action space.

    Raises:
        UserError: The checkpoint belongs to another task, whose spaces differ from the environment's, or its algorithm cannot
            be found.
    """

    def __init__(self, checkpoint: Checkpoint, observation_space: gym.Space, action_space: gym.Space) -> None:
        self._algorithm = _algorithm_of(checkpoint)
        if not self._algorithm.can_learn(action_space):
            name = checkpoint.content["algorithm"]
            raise UserError(f"{checkpoint.folder} holds the policy of another task: {name} cannot choose from {action_space}")
        self._action_space = action_space
        self._network: Any = _build(self._algorithm, checkpoint, observation_space, action_space)
        checkpoint.load_policy(self._network)

    def __call__(self, observation: np.ndarray) -> Any:
        """Choose the best action.

        Args:
            observation: One observation, without a batch dimension.

        Returns:
            An action of the environment's action space.
        """
        # RLlib's policies act between -1 and 1 where the action space has bounds.
        return unsquash_action(self._algorithm.greedy_action(self._network, observation), self._action_space)


def _build(algorithm: Algorithm, checkpoint: Checkpoint, observation_space: gym.Space, action_space: gym.Space) -> Any:
    try:
        return algorithm.build_policy(observation_space, action_space, checkpoint.content["model_config"])
    except UserError:
        raise
    except Exception as error:  # RLlib does not check its model's configuration: a damaged one fails anywhere
        raise UserError(
            f"{checkpoint.folder}: no network can be built from the `model_config` of its checkpoint.json: {reason_of(error)}"
        ) from error


def _algorithm_of(checkpoint: Checkpoint) -> Algorithm:
    try:
        return known_algorithm(checkpoint.content["algorithm"]).model_validate(checkpoint.content["settings"])
    except ValidationError as error:
        raise UserError(f"{checkpoint.folder}: settings of another version of the algorithm: {problems_in(error)}") from error
    except UserError as error:
        raise UserError(f"{checkpoint.folder}: {error}") from error
