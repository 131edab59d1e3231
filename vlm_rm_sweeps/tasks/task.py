"""Tasks: an environment, the sentence that describes its goal, and the ground truth that tells whether it was reached."""

from collections.abc import Callable
from dataclasses import dataclass

import gymnasium as gym

from vlm_rm_sweeps.errors import UserError, unknown_name
from vlm_rm_sweeps.frames import FrameFormat
from vlm_rm_sweeps.tasks.cart_pole import UprightCartPole
from vlm_rm_sweeps.tasks.rendering import FrameInInfo, TrueRewardInInfo


@dataclass(frozen=True)
class Task:
    """One thing to learn.

    `make_native_env` returns the environment without a time limit; it renders `rgb_array` and its `info` has a boolean
    `success` for each step. An episode succeeds if at least half of its steps do (paper, section 4).
    """

    name: str
    goal_prompt: str
    baseline_prompt: str
    success_criterion: str
    episode_steps: int
    make_native_env: Callable[[], gym.Env]

    def make_env(self, frame_format: FrameFormat | None) -> gym.Env:
        """The environment for training.

        With a `frame_format`, each step's `info` holds a frame and the reward is NaN until the frame is scored. With None
        nothing is rendered and the reward is the true one.
        """
        limited: gym.Env = gym.wrappers.TimeLimit(self.make_native_env(), self.episode_steps)
        env: gym.Env = TrueRewardInInfo(limited)
        return env if frame_format is None else FrameInInfo(env, frame_format)


TASKS = {
    task.name: task
    for task in (
        Task(
            name="cartpole-upright",
            goal_prompt="pole vertically upright on top of the cart",
            baseline_prompt="pole and cart",
            success_criterion="pole within 12 degrees of upright",
            episode_steps=200,
            make_native_env=UprightCartPole,
        ),
    )
}


def get_task(name: str) -> Task:
    """The task of this name; UserError with the nearest name if there is none."""
    if name not in TASKS:
        raise UserError(unknown_name("task", name, TASKS))
    return TASKS[name]
