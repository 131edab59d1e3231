"""A learned policy by itself: built from plain data and safe weights, without an algorithm, env runners or Ray."""

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.sac import SACConfig
from ray.rllib.core.columns import Columns
from ray.rllib.utils.spaces.space_utils import unsquash_action

from vlm_rm_sweeps.errors import UserError, unknown_name
from vlm_rm_sweeps.training.checkpoints import Checkpoint

_CONFIGS: dict[str, type[AlgorithmConfig]] = {"dqn": DQNConfig, "sac": SACConfig}
_CHOOSES_FROM: dict[str, type[gym.Space]] = {"dqn": gym.spaces.Discrete, "sac": gym.spaces.Box}


class Policy:
    """The policy of a checkpoint, acting greedily: the best action of DQN, the mean one of SAC.

    Raises UserError if the checkpoint is of another task: its weights do not fit the environment's spaces.
    """

    def __init__(self, checkpoint: Checkpoint, observation_space: gym.Space, action_space: gym.Space) -> None:
        algorithm = checkpoint.content["algorithm"]
        if algorithm not in _CONFIGS:
            raise UserError(f"{checkpoint.folder}: " + unknown_name("algorithm", str(algorithm), _CONFIGS))
        if not isinstance(action_space, _CHOOSES_FROM[algorithm]):
            raise UserError(
                f"{checkpoint.folder} holds the policy of another task: {algorithm} cannot choose from {action_space}"
            )
        spec: Any = _CONFIGS[algorithm]().get_default_rl_module_spec()
        spec.observation_space, spec.action_space = observation_space, action_space
        spec.model_config = checkpoint.content["model_config"]
        spec.inference_only = True
        self._module = spec.build()
        self._action_space = action_space
        checkpoint.load_policy(self._module)

    def __call__(self, observation: np.ndarray) -> Any:
        """The action for one observation, as the environment takes it."""
        with torch.inference_mode():
            batch = {Columns.OBS: torch.from_numpy(np.asarray(observation))[None]}
            output = self._module.forward_inference(batch)
            if Columns.ACTIONS in output:
                action = output[Columns.ACTIONS]
            else:
                distribution = self._module.get_inference_action_dist_cls().from_logits(output[Columns.ACTION_DIST_INPUTS])
                action = distribution.to_deterministic().sample()
        # RLlib lets policies act between -1 and 1 wherever an action has bounds.
        return unsquash_action(action[0].numpy(), self._action_space)
