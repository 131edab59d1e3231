"""One trial of a sweep as a Tune trainable: train, evaluate at the end, checkpoint.

A trainable of our own keeps results small: passed to Tune directly, RLlib's algorithm reports 480 values each time.
"""

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from ray import tune
from ray.rllib.core import ALL_MODULES

from vlm_rm_sweeps.tasks.task import Task
from vlm_rm_sweeps.training import connector
from vlm_rm_sweeps.training.algorithms import build_algorithm
from vlm_rm_sweeps.training.settings import AlgorithmSettings

ENV_STEPS = "env_steps"
CLIP_RETURN = "clip_return"
EVALUATED = "evaluation_"
"""Prefix of the metrics of the greedy policy at the end of a trial."""


@dataclass(frozen=True)
class TrainingJob:
    """All that one trial needs. `reward` is None for a trial that learns from the true reward."""

    task: Task
    settings: AlgorithmSettings
    reward: connector.RewardSource | None
    seed: int
    steps: int
    steps_per_result: int
    evaluation_episodes: int


class Stopwatch:
    """Adds up the seconds spent in one method of one object."""

    def __init__(self, owner: Any, method: str) -> None:
        self._seconds = 0.0
        timed = getattr(owner, method)

        def stopped(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            try:
                return timed(*args, **kwargs)
            finally:
                self._seconds += time.perf_counter() - started

        setattr(owner, method, stopped)

    def lap(self) -> float:
        """Seconds since the last lap."""
        seconds, self._seconds = self._seconds, 0.0
        return seconds


class TrainableTrial(tune.Trainable):
    """`config["run"]["job"]` is its TrainingJob."""

    def setup(self, config: dict[str, Any]) -> None:
        # Trials share the machine with one another and with the reward servers.
        torch.set_num_threads(1)
        self._job: TrainingJob = config["run"]["job"]
        self._algorithm: Any = build_algorithm(
            self._job.task,
            self._job.settings,
            self._job.reward,
            self._job.seed,
            self._job.steps_per_result,
            self._job.evaluation_episodes,
        )
        self._updates_before = 0.0
        # RLlib's own timers are slowly moving averages for one call; these add up to where an iteration's time went.
        self._stopwatches = {
            "sampling_seconds": Stopwatch(self._algorithm.env_runner, "sample"),
            "replay_seconds": Stopwatch(self._algorithm.local_replay_buffer, "sample"),
            "update_seconds": Stopwatch(self._algorithm.learner_group, "update"),
        }

    def step(self) -> dict[str, Any]:
        started = time.perf_counter()
        result = self._algorithm.train()
        seconds = time.perf_counter() - started
        runner = result["env_runners"]
        env_steps = int(result["num_env_steps_sampled_lifetime"])
        updates = self._updates(result)
        metrics = self._returns(runner)
        metrics |= {
            "env_steps_per_second": runner["num_env_steps_sampled"] / seconds,
            "updates": updates,
            # What was asked for is rounded: each rollout is followed by a whole number of updates, or some by none.
            "updates_per_step": (updates - self._updates_before) / runner["num_env_steps_sampled"],
            connector.RENDER_SECONDS: runner.get(connector.RENDER_SECONDS),
            connector.ENCODE_SECONDS: runner.get(connector.ENCODE_SECONDS),
            connector.WAIT_SECONDS: runner.get(connector.WAIT_SECONDS),
            "iteration_seconds": seconds,
        } | {name: stopwatch.lap() for name, stopwatch in self._stopwatches.items()}
        self._updates_before = updates
        done = env_steps >= self._job.steps
        if done:
            evaluated = self._returns(self._algorithm.evaluate()["env_runners"])
            metrics |= {EVALUATED + name: value for name, value in evaluated.items()}
        finite = {name: float(value) for name, value in metrics.items() if value is not None and math.isfinite(value)}
        return finite | {ENV_STEPS: env_steps, "done": done}

    def _returns(self, runner: dict[str, Any]) -> dict[str, float | None]:
        """CLIP and true return under their own names. RLlib's own return is of whatever reward was learned from."""
        returns = {name: runner.get(name) for name in (connector.TRUE_RETURN, connector.SUCCESS, connector.GOAL_FRACTION)}
        if self._job.reward is not None:
            returns[CLIP_RETURN] = runner.get("episode_return_mean")
        return returns

    def _updates(self, result: dict[str, Any]) -> float:
        trained = result.get("learners", {}).get(ALL_MODULES, {}).get("num_module_steps_trained_lifetime", 0)
        return float(trained) / self._job.settings.batch

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        self._algorithm.save_to_path(str(Path(checkpoint_dir).resolve()))

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Become another trial, from scratch."""
        self._algorithm.stop()
        self.setup(new_config)
        return True

    def cleanup(self) -> None:
        self._algorithm.stop()
