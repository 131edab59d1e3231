"""Every private or undocumented member of RLlib (and of Gymnasium's vector environments) that training relies on.

They may change with any version: tests/training/test_rllib_internals.py has one test for each, which shows what breaks without
it. No other module of the package uses them, with two exceptions: `q_networks.PlainQCatalog` overrides a private method of SAC's
catalog, and `learners/`, whose tests compare them with RLlib's own learners, call and override private methods of learners.
"""

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any

ENV_RUNNER_MEMBERS = (
    "num_env_steps_sampled_lifetime",
    "_needs_initial_reset",
    "_cached_to_module",
    "_ongoing_episodes",
    "_done_episodes_for_metrics",
    "_ongoing_episodes_for_metrics",
    "_shared_data",
    "_weights_seq_no",
)
"""State of an env runner between two calls of `sample`."""
VECTOR_ENV_MEMBERS = ("_env_obs", "_observations", "_rewards", "_terminations", "_truncations", "_autoreset_envs")
"""State of Gymnasium's vector environment between two calls of `step`."""


def env_to_module_pieces(env_runner: Any) -> list[Any]:
    """Return the connectors between an env runner's environments and its policy, in order."""
    pieces: list[Any] = env_runner._env_to_module.connectors
    return pieces


def module_to_env_pieces(env_runner: Any) -> list[Any]:
    """Return the connectors between an env runner's policy and its environments, in order."""
    pieces: list[Any] = env_runner._module_to_env.connectors
    return pieces


def env_runner_pipelines(env_runner: Any) -> tuple[Any, Any]:
    """Return both pipelines of an env runner, env-to-module first, for their states."""
    return env_runner._env_to_module, env_runner._module_to_env


def spread_environment_seeds(env_runner: Any) -> None:
    """Keep the seeds of an env runner's sub-environments apart from those of other env runners.

    RLlib seeds the sub-environments of one env runner with consecutive numbers, but the env runners themselves too: so the seeds
    of one would begin with the second seed of the one before it.

    Args:
        env_runner: the remote env runner, before it makes its environments' first reset.
    """
    env_runner._seed += env_runner.worker_index * (env_runner.num_envs - 1)


def local_learner(trainer: Any) -> Any:
    """Return the learner in the trainer's own process."""
    return trainer.learner_group._learner


def optimizers(learner: Any) -> list[Any]:
    """Return all optimizers of a learner, in the order in which they were registered."""
    return list(learner._named_optimizers.values())


def learner_pieces(learner: Any) -> list[Any]:
    """Return the connectors between sampled episodes and the learner's batch, as a list that may be changed in place."""
    pieces: list[Any] = learner._learner_connector.connectors
    return pieces


def learner_pipeline(learner: Any) -> Any:
    """Return the learner's pipeline of connectors, for its state."""
    return learner._learner_connector


def target_update_steps(learner: Any) -> MutableMapping[str, int]:
    """Return the step of each module's last target update, which the state of DQN's and SAC's learners lacks."""
    steps: MutableMapping[str, int] = learner.last_update_ts_by_mid
    return steps


def log_temperatures(learner: Any) -> Mapping[str, Any]:
    """Return the logarithm of each module's entropy coefficient, a tensor, which the state of SAC's learner lacks."""
    temperatures: Mapping[str, Any] = learner.curr_log_alpha
    return temperatures


def get_iteration(trainer: Any) -> int:
    """Return the number of calls of `train`, by which RLlib decides when to evaluate."""
    return int(trainer._iteration)


def set_iteration(trainer: Any, iteration: int) -> None:
    """Set the number of calls of `train`, from which RLlib counts on."""
    trainer._iteration = iteration


def get_members(owner: Any, names: Sequence[str]) -> dict[str, Any]:
    """Return members of an object by name, not copied."""
    return {name: getattr(owner, name) for name in names}


def set_members(owner: Any, values: Mapping[str, Any]) -> None:
    """Set members of an object by name."""
    for name, value in values.items():
        setattr(owner, name, value)


def callback_classes(config: Any) -> list[type]:
    """Return the callback classes of an RLlib configuration, in the order in which they are called."""
    classes = config.callbacks_class
    return list(classes) if isinstance(classes, list | tuple) else [classes]


def environment_error(error: BaseException) -> BaseException:
    """Unwrap the error of an environment's step, which RLlib hides behind a RuntimeError without a message.

    Args:
        error: Any error.

    Returns:
        The environment's error; `error` itself if it hides none.
    """
    hidden = error.__cause__ if type(error) is RuntimeError and not error.args else None
    return hidden or error


class RaisingActor:
    """Mixin for env runners whose errors reach the trainer as they were raised.

    RLlib's own env runners end their process instead, and the trainer learns only that it died.
    """

    def apply(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function with this env runner, as RLlib's trainer requests."""
        try:
            return func(self, *args, **kwargs)
        except Exception as error:
            # The cause of an error is lost between processes.
            raise environment_error(error) from None
