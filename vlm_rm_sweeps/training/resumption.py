"""All that a training is made of, so that it can go on in another process as if it had never stopped.

RLlib's own checkpoints leave out the replay buffer, the environments with their running episodes, the random generators,
the learner's connectors, the step of the last target update and SAC's temperature. What is restored here continues to the
bit, if the environments are deterministic: their states are not saved, which no common interface could do, but reached
again, from the random generator's state at the episode's start and the actions taken since.
"""

import copy
import random
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from ray.rllib.algorithms.algorithm import Algorithm

from vlm_rm_sweeps.tasks.rendering import FrameInInfo

_RUNNER_ATTRIBUTES = (
    "num_env_steps_sampled_lifetime",
    "_needs_initial_reset",
    "_cached_to_module",
    "_ongoing_episodes",
    "_done_episodes_for_metrics",
    "_ongoing_episodes_for_metrics",
    "_shared_data",
    "_weights_seq_no",
)
_VECTOR_ATTRIBUTES = ("_env_obs", "_observations", "_rewards", "_terminations", "_truncations", "_autoreset_envs")


class ReplayableEnv(gym.Wrapper):
    """Remembers how its current state was reached: the random state before the last reset, and the actions since."""

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        self._seed: int | None = None
        self._rng_at_reset: Mapping[str, Any] | None = None
        self._actions: list[Any] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        # A seed replaces the generator: then the state that it had does not matter.
        self._rng_at_reset = None if seed is not None else copy.deepcopy(self.env.unwrapped.np_random.bit_generator.state)
        self._seed, self._actions = seed, []
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> Any:
        self._actions.append(np.array(action))
        return self.env.step(action)

    def get_state(self) -> dict[str, Any]:
        return {"seed": self._seed, "rng_at_reset": self._rng_at_reset, "actions": self._actions}

    def set_state(self, state: dict[str, Any]) -> None:
        """Take the same way again. Frames are not rendered for it."""
        env = self.env.env if isinstance(self.env, FrameInInfo) else self.env
        if state["rng_at_reset"] is not None:
            self.env.unwrapped.np_random.bit_generator.state = state["rng_at_reset"]
        env.reset(seed=state["seed"])
        for action in state["actions"]:
            env.step(action if action.ndim else action.item())
        self._seed, self._rng_at_reset, self._actions = state["seed"], state["rng_at_reset"], list(state["actions"])


def get_training_state(algorithm: Algorithm) -> dict[str, Any]:
    """The state of an algorithm with one local env runner and one local learner, whose environments are ReplayableEnv.

    To be called between two calls of `train`. The values are the algorithm's own, not copies.
    """
    runner, learner, buffer = _parts(algorithm)
    vector = runner.env.unwrapped
    return {
        "iteration": algorithm._iteration,
        "metrics": [logger.get_state() for logger in _loggers(algorithm)],
        "runner": {name: getattr(runner, name) for name in _RUNNER_ATTRIBUTES},
        "runner_module": runner.module.get_state(),
        "env_to_module": runner._env_to_module.get_state(),
        "module_to_env": runner._module_to_env.get_state(),
        "vector": {name: getattr(vector, name) for name in _VECTOR_ATTRIBUTES},
        "envs": [env.get_state() for env in _replayable(vector)],
        "learner": learner.get_state(),
        "learner_connector": learner._learner_connector.get_state(),
        "last_target_update": dict(learner.last_update_ts_by_mid),
        # SAC's temperature, which RLlib's learner leaves out of its state.
        "log_alpha": {key: value.detach().cpu() for key, value in getattr(learner, "curr_log_alpha", {}).items()},
        "buffer": buffer.get_state(),
        "buffer_rng": buffer.rng.bit_generator.state,
        "rng": {"python": random.getstate(), "numpy": np.random.get_state(), "torch": torch.get_rng_state()},
        "rng_cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_training_state(algorithm: Algorithm, state: dict[str, Any]) -> None:
    """Bring a freshly built algorithm with the same settings into a saved state."""
    runner, learner, buffer = _parts(algorithm)
    vector = runner.env.unwrapped
    for env, env_state in zip(_replayable(vector), state["envs"], strict=True):
        env.set_state(env_state)
    for name, value in state["vector"].items():
        setattr(vector, name, value)
    runner.module.set_state(state["runner_module"])
    runner._env_to_module.set_state(state["env_to_module"])
    runner._module_to_env.set_state(state["module_to_env"])
    for name, value in state["runner"].items():
        setattr(runner, name, value)
    learner.set_state(state["learner"])
    learner._learner_connector.set_state(state["learner_connector"])
    learner.last_update_ts_by_mid.update(state["last_target_update"])
    for key, value in state["log_alpha"].items():
        learner.curr_log_alpha[key].data.copy_(value)
    buffer.set_state(state["buffer"])
    buffer.rng.bit_generator.state = state["buffer_rng"]
    for logger, logged in zip(_loggers(algorithm), state["metrics"], strict=True):
        logger.set_state(logged)
    algorithm._iteration = state["iteration"]
    # Last, because some of the above draws random numbers.
    random.setstate(state["rng"]["python"])
    np.random.set_state(state["rng"]["numpy"])
    torch.set_rng_state(state["rng"]["torch"])
    if state["rng_cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["rng_cuda"])


def _parts(algorithm: Any) -> tuple[Any, Any, Any]:
    return algorithm.env_runner, algorithm.learner_group._learner, algorithm.local_replay_buffer


def _loggers(algorithm: Any) -> list[Any]:
    runner, learner, buffer = _parts(algorithm)
    return [algorithm.metrics, runner.metrics, learner.metrics, buffer.metrics]


def _replayable(vector: Any) -> list[ReplayableEnv]:
    found = []
    for env in vector.envs:
        while not isinstance(env, ReplayableEnv):
            env = env.env
        found.append(env)
    return found
