"""A learned policy by itself: built from plain data and safe weights, without a trainer, env runners or Ray."""

from typing import Any

import gymnasium as gym
import numpy as np
from pydantic import ValidationError
from ray.rllib.utils.spaces.space_utils import unsquash_action

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.training.algorithms.base import Algorithm
from vlm_rm_sweeps.training.algorithms.registry import find_algorithm
from vlm_rm_sweeps.training.checkpoints import Checkpoint


class Policy:
    """The policy of a checkpoint, acting greedily.

    Args:
        checkpoint: Only its JSON and safetensors files are read.
        observation_space: The environment's.
        action_space: The environment's.

    Raises:
        UserError: The checkpoint is of another task, so that its weights do not fit the environment's spaces, or its algorithm
            is not known here.
    """

    def __init__(self, checkpoint: Checkpoint, observation_space: gym.Space, action_space: gym.Space) -> None:
        self._algorithm = _algorithm_of(checkpoint)
        if not self._algorithm.can_learn(action_space):
            name = checkpoint.content["algorithm"]
            raise UserError(f"{checkpoint.folder} holds the policy of another task: {name} cannot choose from {action_space}")
        self._action_space = action_space
        self._network: Any = self._algorithm.build_policy(observation_space, action_space, checkpoint.content["model_config"])
        checkpoint.load_policy(self._network)

    def __call__(self, observation: np.ndarray) -> Any:
        """Choose the best action.

        Args:
            observation: One observation.

        Returns:
            The action, as the environment takes it.
        """
        # RLlib lets policies act between -1 and 1 wherever an action has bounds.
        return unsquash_action(self._algorithm.greedy_action(self._network, observation), self._action_space)


def _algorithm_of(checkpoint: Checkpoint) -> Algorithm:
    try:
        return find_algorithm(checkpoint.content["algorithm"]).model_validate(checkpoint.content["settings"])
    except ValidationError as error:
        raise UserError(f"{checkpoint.folder}: settings of another version of the algorithm: {error}") from error
    except UserError as error:
        raise UserError(f"{checkpoint.folder}: {error}") from error
