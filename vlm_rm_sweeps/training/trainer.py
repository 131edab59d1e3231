"""Builds RLlib's trainer of one trial from an algorithm of this project."""

from typing import Any

from ray.rllib.algorithms.algorithm import Algorithm as RllibAlgorithm

from vlm_rm_sweeps.process_defaults import prepare_rllib
from vlm_rm_sweeps.tasks.task import Task
from vlm_rm_sweeps.training.algorithms.base import Algorithm
from vlm_rm_sweeps.training.connectors.reward import RewardSource
from vlm_rm_sweeps.training.env_runners import sample_remotely
from vlm_rm_sweeps.training.rllib_config import learn_task

_NEVER = 10**12


def build_trainer(
    algorithm: Algorithm,
    task: Task,
    reward: RewardSource | None,
    seed: int,
    steps_per_result: int,
    evaluation_episodes: int,
    env_runners: int = 0,
    learns_on_gpu: bool = False,
) -> RllibAlgorithm:
    """Build the RLlib object that trains a trial's policy.

    Args:
        algorithm: The algorithm with its settings.
        task: The task to learn.
        reward: Source of its rewards; None for the environment's own.
        seed: Seed of everything random.
        steps_per_result: Least number of environment steps that one call of its `train` samples.
        evaluation_episodes: Number of episodes that one call of its `evaluate` runs with the greedy policy.
        env_runners: Number of remote env runners; 0 if this process samples.
        learns_on_gpu: Whether updates are computed on this process's GPU.

    Returns:
        RLlib's Algorithm object. Its `stop` ends it.
    """
    prepare_rllib()
    config: Any = learn_task(algorithm.rllib_config(env_runners), task, reward)
    config = (
        config.environment(normalize_actions=True)
        .env_runners(
            num_env_runners=0,
            num_envs_per_env_runner=algorithm.envs,
            rollout_fragment_length=algorithm.rollout_steps,
            explore=True,
        )
        .training(gamma=algorithm.gamma)
        # The learner is in this process, so none is reserved: RLlib only asks whether it is more than 0.
        .learners(num_gpus_per_learner=int(learns_on_gpu))
        .rl_module(model_config=algorithm.network_config())
        .evaluation(
            # Never automatically. But without an interval RLlib creates no env runner for evaluations: it would use the one for
            # training, which explores, and silently ignore the configuration below.
            evaluation_interval=_NEVER,
            evaluation_duration=evaluation_episodes,
            evaluation_duration_unit="episodes",
            evaluation_num_env_runners=0,
            # As many sub-environments as episodes, because all episodes have the same length.
            evaluation_config={
                "explore": False,
                "num_envs_per_env_runner": evaluation_episodes,
                # The episodes of an earlier evaluation do not count.
                "metrics_num_episodes_for_smoothing": evaluation_episodes,
            },
        )
        .reporting(
            min_sample_timesteps_per_iteration=steps_per_result,
            min_time_s_per_iteration=0,
            # RLlib averages returns over this many episodes: enough for all that end in one sample.
            metrics_num_episodes_for_smoothing=max(
                evaluation_episodes, algorithm.envs * algorithm.rollout_steps * (env_runners or 1)
            ),
        )
        .debugging(seed=seed, log_level="ERROR", log_sys_usage=False)
    )
    if env_runners:
        sample_remotely(config, env_runners)
    trainer: Any = config.build_algo()
    algorithm.after_build(trainer, seed)
    if env_runners:
        # RLlib sends the first weights only together with the states of connectors.
        trainer.env_runner_group.sync_weights(from_worker_or_learner_group=trainer.learner_group, inference_only=True)
    return trainer
