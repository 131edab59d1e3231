"""The env runners of a trial: a local one in the trial's own process, or several remote ones."""

import copy
import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME

from vlm_rm_sweeps.training.rllib_internals import RaisingActor, callback_classes, spread_environment_seeds

CPUS_PER_ENV_RUNNER = 1
"""CPUs that Ray reserves for each remote env runner."""

Result = TypeVar("Result")


class RemoteEnvRunner(RaisingActor, SingleAgentEnvRunner):
    """RLlib's env runner for a process of its own.

    Its errors reach the trial as they were raised, and no other env runner uses the seeds of its sub-environments.
    """

    def __init__(self, **kwargs: Any) -> None:
        """Create RLlib's env runner, and then spread the seeds.

        Args:
            kwargs: what RLlib passes to its own class.
        """
        super().__init__(**kwargs)
        spread_environment_seeds(self)


class TellStepsSampled(RLlibCallback):
    """Tells all env runners after each iteration how many steps they have sampled together: epsilon depends on it.

    RLlib would do so only together with merging the connectors' states, which must not be merged: each env runner has random
    actions of its own.
    """

    def on_train_result(self, *, algorithm: Any, result: dict[str, Any], **kwargs: Any) -> None:
        """Send the number of sampled steps to all env runners, in RLlib's hook at the end of each iteration."""
        steps = result[NUM_ENV_STEPS_SAMPLED_LIFETIME]
        on_each_runner(algorithm, functools.partial(_set_steps_sampled, steps=steps))


def _set_steps_sampled(env_runner: Any, steps: int) -> None:
    env_runner.set_state({NUM_ENV_STEPS_SAMPLED_LIFETIME: steps})


def sample_remotely(config: AlgorithmConfig, env_runners: int) -> None:
    """Configure an algorithm to sample by remote env runners.

    Args:
        config: RLlib's configuration of the algorithm, which is changed.
        env_runners: Number of remote env runners, at least 1.
    """
    config.env_runners(
        num_env_runners=env_runners,
        num_cpus_per_env_runner=CPUS_PER_ENV_RUNNER,
        env_runner_cls=RemoteEnvRunner,
        # RLlib drops the samples of an env runner that exceeds its timeout. None is needed, because the reward pool has its own
        # timeouts.
        sample_timeout_s=None,
        merge_env_runner_states=False,
        broadcast_env_runner_states=False,
    )
    # The trial restarts from its last checkpoint instead: a new process would lack the state of the one that died.
    config.fault_tolerance(restart_failed_env_runners=False, ignore_env_runner_failures=False)
    config.callbacks(callbacks_class=[*callback_classes(config), TellStepsSampled])


def on_each_runner(trainer: Any, function: Callable[[Any], Result]) -> list[Result]:
    """Call a function with each env runner that samples for a trainer, in the env runner's process.

    Args:
        trainer: RLlib's Algorithm object.
        function: Called with the env runner. If there are remote env runners, it must be picklable.

    Returns:
        The results, in the order of the env runners.
    """
    group = trainer.env_runner_group
    results: list[Result] = group.foreach_env_runner(function, local_env_runner=not group.num_remote_env_runners())
    return results


def with_each_runner(trainer: Any, function: Callable[[Any, Any], Any], arguments: Sequence[Any]) -> None:
    """Call a function with each env runner that samples for a trainer and an argument of its own.

    Args:
        trainer: RLlib's Algorithm object.
        function: Called with the env runner and its argument. If there are remote env runners, it must be picklable.
        arguments: One argument for each env runner, in their order.

    Raises:
        ValueError: The numbers of arguments and of env runners differ.
    """
    group = trainer.env_runner_group
    runners = group.num_remote_env_runners() or 1
    if len(arguments) != runners:
        raise ValueError(f"{len(arguments)} arguments for {runners} env runners")
    if not group.num_remote_env_runners():
        function(group.local_env_runner, arguments[0])
        return
    calls = [functools.partial(_with_argument, function, argument) for argument in arguments]
    group.foreach_env_runner(calls, kwargs=[{}] * runners, local_env_runner=False)


def _with_argument(function: Callable[[Any, Any], Any], argument: Any, env_runner: Any) -> None:
    # Arrays that Ray hands over can only be read.
    function(env_runner, copy.deepcopy(argument))
