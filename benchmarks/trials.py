"""Real trials for benchmarks: the trainer that a trial of a sweep builds, in a process of its own."""

import os
import time
from pathlib import Path
from typing import Any

import torch
import yaml

from vlm_rm_sweeps.rewards.reward_model import RewardSpec
from vlm_rm_sweeps.serving.pool import PoolConfig
from vlm_rm_sweeps.tasks.registry import find_task
from vlm_rm_sweeps.tasks.rendering import Profile
from vlm_rm_sweeps.tasks.task import Task
from vlm_rm_sweeps.training.algorithms.dqn import Dqn
from vlm_rm_sweeps.training.algorithms.sac import Sac
from vlm_rm_sweeps.training.connectors.reward import RewardSource
from vlm_rm_sweeps.training.env_runners import on_each_runner
from vlm_rm_sweeps.training.trainer import build_trainer

SWEEPS = Path(__file__).parent.parent / "sweeps"


def recipe(sweep: str, **changes: Any) -> tuple[Task, Dqn | Sac]:
    """Read task and settings of a file in `sweeps/` that has no `base`, and let it learn from its first step.

    Args:
        sweep: Name of the file.
        **changes: Settings to change.

    Returns:
        The task, and DQN or SAC.
    """
    keys = yaml.safe_load((SWEEPS / f"{sweep}.yaml").read_text())
    algorithm = {"dqn": Dqn, "sac": Sac}[keys["algorithm"]]
    return find_task(keys["task"]), algorithm(**keys.get("settings", {}) | {"learning_starts": 0} | changes)


def spec_of(task: Task) -> RewardSpec:
    """Return the reward of a task's own prompts."""
    return RewardSpec((task.goal_prompt,), (task.baseline_prompt,), 0.5)


class RealTrial:
    """A trial that trains from a pool's rewards; a Ray actor.

    Args:
        sweep: As of `recipe`.
        pool: The pool.
        seed: Seed of everything random.
        rollouts: Rollouts in one result.
        env_runners: Remote env runners.
        profile: How much OpenGL draws; None for this machine's default.
        learns_on_gpu: Whether updates are computed on the GPU that this actor reserves.
        **changes: Settings to change.
    """

    def __init__(
        self,
        sweep: str,
        pool: PoolConfig,
        seed: int = 0,
        rollouts: int = 16,
        env_runners: int = 0,
        profile: Profile | None = None,
        learns_on_gpu: bool = False,
        **changes: Any,
    ) -> None:
        torch.set_num_threads(1)
        task, settings = recipe(sweep, **changes)
        self._least = rollouts * settings.envs * settings.rollout_steps * (env_runners or 1)
        source = RewardSource(pool, spec_of(task), pool.frame_format, task.rendering(profile=profile))
        self._trainer: Any = build_trainer(settings, task, source, seed, self._least, 1, env_runners, learns_on_gpu)
        self._steps = 0

    def processes(self) -> list[int]:
        """Return the ids of this process and of its env runners."""
        # Without remote env runners, the runner is in this process.
        return sorted({os.getpid(), *on_each_runner(self._trainer, _process_id)})

    def train(self, results: int = 1) -> tuple[int, float]:
        """Train for some results.

        Args:
            results: Number of results.

        Returns:
            Environment steps, and seconds.
        """
        before, started = self._steps, time.perf_counter()
        for _ in range(results):
            self._steps = int(self._trainer.train()["num_env_steps_sampled_lifetime"])
        return self._steps - before, time.perf_counter() - started


def _process_id(_: Any) -> int:
    return os.getpid()
