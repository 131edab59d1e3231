"""Full training state, for resumption in another process.

RLlib's own checkpoints lack the replay buffer, the environments with their running episodes, the random generators, the
learner's connectors, the step of the last target update and SAC's entropy coefficient. With all of them restored, training
continues bit-identically if the environments are deterministic and the trial's own process samples. There is no common
interface to save an environment's state: it is reached again from the state of its random generator at the episode's start, by
replaying the actions since. With remote env runners no step is lost or sampled twice, but their samples may arrive in another
order.
"""

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from vlm_rm_sweeps.training.algorithms.base import Algorithm
from vlm_rm_sweeps.training.env_runners import on_each_runner, with_each_runner
from vlm_rm_sweeps.training.rllib_internals import (
    ENV_RUNNER_MEMBERS,
    VECTOR_ENV_MEMBERS,
    env_runner_pipelines,
    get_iteration,
    get_members,
    learner_pipeline,
    local_learner,
    optimizers,
    set_iteration,
    set_members,
)
from vlm_rm_sweeps.training.task_env import ReplayableEnv

_REMOTE_RUNNERS = "runners"


def get_training_state(trainer: Any, algorithm: Algorithm) -> dict[str, Any]:
    """Collect the full state of a trainer, between two calls of its `train`.

    Args:
        trainer: RLlib's Algorithm object, with one local learner, whose environments are ReplayableEnv.
        algorithm: The algorithm that the trainer was built from.

    Returns:
        Values that can be pickled. They are the trainer's own objects, not copies.
    """
    learner = local_learner(trainer)
    return {
        "iteration": get_iteration(trainer),
        "metrics": [logger.get_state() for logger in _loggers(trainer)],
        "learner": learner.get_state(),
        "learner_connector": learner_pipeline(learner).get_state(),
        **_get_runner_states(trainer),
        **algorithm.training_state(trainer),
        **_get_random_state(),
    }


def take_over_training_state(trainer: Any, algorithm: Algorithm, state: Mapping[str, Any]) -> None:
    """Restore the full state of a trainer with other settings, and go on with this one's.

    Args:
        trainer: RLlib's Algorithm object, freshly built; of its settings, those that are `changeable` may be others.
        algorithm: The algorithm that the trainer was built from.
        state: The result of `get_training_state` of the other trainer.
    """
    groups = [group for optimizer in optimizers(local_learner(trainer)) for group in optimizer.param_groups]
    rates = [group["lr"] for group in groups]
    set_training_state(trainer, algorithm, state)
    # The state of an optimizer has the learning rate of the trainer that it is from.
    groups = [group for optimizer in optimizers(local_learner(trainer)) for group in optimizer.param_groups]
    for group, rate in zip(groups, rates, strict=True):
        group["lr"] = rate


def set_training_state(trainer: Any, algorithm: Algorithm, state: Mapping[str, Any]) -> None:
    """Restore a trainer's full state.

    Args:
        trainer: RLlib's Algorithm object, freshly built with the same settings.
        algorithm: The algorithm that the trainer was built from.
        state: The result of `get_training_state`.
    """
    learner = local_learner(trainer)
    if _REMOTE_RUNNERS in state:
        with_each_runner(trainer, _set_remote_runner_state, state[_REMOTE_RUNNERS])
    else:
        _set_runner_state(trainer.env_runner, state)
    learner.set_state(state["learner"])
    learner_pipeline(learner).set_state(state["learner_connector"])
    algorithm.restore_training_state(trainer, state)
    # Checkpoints of version 0.1 have one more, that of RLlib's replay buffer.
    for logger, logged in zip(_loggers(trainer), state["metrics"], strict=False):
        logger.set_state(logged)
    set_iteration(trainer, state["iteration"])
    if _REMOTE_RUNNERS in state:
        trainer.env_runner_group.sync_weights(from_worker_or_learner_group=trainer.learner_group, inference_only=True)
    # Last, because some of the calls above draw random numbers.
    _set_random_state(state)


def _loggers(trainer: Any) -> list[Any]:
    return [trainer.metrics, trainer.env_runner.metrics, local_learner(trainer).metrics]


def _get_runner_states(trainer: Any) -> dict[str, Any]:
    """Return the local env runner's state as top-level entries, or those of remote ones as a list."""
    if trainer.env_runner_group.num_remote_env_runners():
        return {_REMOTE_RUNNERS: on_each_runner(trainer, _get_remote_runner_state)}
    return _get_runner_state(trainer.env_runner)


def _get_runner_state(runner: Any) -> dict[str, Any]:
    vector = runner.env.unwrapped
    env_to_module, module_to_env = env_runner_pipelines(runner)
    return {
        "runner": get_members(runner, ENV_RUNNER_MEMBERS),
        "runner_module": runner.module.get_state(),
        "env_to_module": env_to_module.get_state(),
        "module_to_env": module_to_env.get_state(),
        "vector": get_members(vector, VECTOR_ENV_MEMBERS),
        "envs": [env.get_state() for env in _replayable(vector)],
    }


def _set_runner_state(runner: Any, state: Mapping[str, Any]) -> None:
    vector = runner.env.unwrapped
    env_to_module, module_to_env = env_runner_pipelines(runner)
    for env, env_state in zip(_replayable(vector), state["envs"], strict=True):
        env.set_state(env_state)
    set_members(vector, state["vector"])
    runner.module.set_state(state["runner_module"])
    env_to_module.set_state(state["env_to_module"])
    module_to_env.set_state(state["module_to_env"])
    set_members(runner, state["runner"])


def _get_remote_runner_state(runner: Any) -> dict[str, Any]:
    """Return a remote env runner's state, with its process's random generators and metrics."""
    return _get_runner_state(runner) | _get_random_state() | {"metrics": runner.metrics.get_state()}


def _set_remote_runner_state(runner: Any, state: Mapping[str, Any]) -> None:
    _set_runner_state(runner, state)
    runner.metrics.set_state(state["metrics"])
    _set_random_state(state)


def _get_random_state() -> dict[str, Any]:
    """Return the states of this process's random generators."""
    return {
        "rng": {"python": random.getstate(), "numpy": np.random.get_state(), "torch": torch.get_rng_state()},
        "rng_cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def _set_random_state(state: Mapping[str, Any]) -> None:
    random.setstate(state["rng"]["python"])
    np.random.set_state(state["rng"]["numpy"])
    torch.set_rng_state(state["rng"]["torch"])
    if state["rng_cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["rng_cuda"])


def _replayable(vector: Any) -> list[ReplayableEnv]:
    found = []
    for env in vector.envs:
        while not isinstance(env, ReplayableEnv):
            env = env.env
        found.append(env)
    return found
