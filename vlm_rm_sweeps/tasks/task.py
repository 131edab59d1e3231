"""Tasks: an environment, the sentence that describes its goal, and the ground truth that tells whether it was reached."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import gymnasium as gym
import numpy as np

from vlm_rm_sweeps.errors import UserError, unknown_name
from vlm_rm_sweeps.frames import FrameFormat
from vlm_rm_sweeps.tasks.cart_pole import UprightCartPole
from vlm_rm_sweeps.tasks.humanoid.env import CAMERAS, Humanoid
from vlm_rm_sweeps.tasks.humanoid.success import SUCCESS_TESTS
from vlm_rm_sweeps.tasks.mountain_car import SummitMountainCar
from vlm_rm_sweeps.tasks.rendering import FrameInInfo, Profile, Rendering, Textures, TrueRewardInInfo, machine_profile


@dataclass(frozen=True)
class Task:
    """One thing to learn.

    `make_native_env` returns the environment, without a time limit, drawn as its Rendering says and, where that is cheaper, at
    once in the FrameFormat that a reward model wants (None: nothing will be rendered). It renders `rgb_array` and its `info`
    has a boolean `success` for each step, unless `success_criterion` is None: then nothing tells success. An episode succeeds
    if at least half of its steps do (paper, section 4).
    `textures` and `cameras` are the renderings that there are, the default ones first.
    """

    name: str
    goal_prompt: str
    baseline_prompt: str
    success_criterion: str | None
    episode_steps: int
    make_native_env: Callable[[Rendering, FrameFormat | None], gym.Env]
    textures: tuple[Textures, ...] = ("original",)
    cameras: tuple[str, ...] = ("default",)
    draws_with_opengl: bool = False

    def rendering(self, textures: str | None = None, camera: str | None = None, profile: Profile | None = None) -> Rendering:
        """A rendering of this task; what is None is the task's default, or this machine's. UserError if there is no such one."""
        chosen = next((each for each in self.textures if each == textures), None) if textures else self.textures[0]
        if chosen is None:
            raise UserError(f"task {self.name!r}: " + unknown_name("textures", str(textures), self.textures))
        if camera is not None and camera not in self.cameras:
            raise UserError(f"task {self.name!r}: " + unknown_name("camera", camera, self.cameras))
        return Rendering(chosen, camera or self.cameras[0], profile or machine_profile())

    def make_env(self, frame_format: FrameFormat | None, rendering: Rendering | None = None) -> gym.Env:
        """The environment for training, drawn as `rendering` says (by default with the task's first textures and camera).

        Observations are vectors of float32, whatever the environment's are. With a `frame_format`, each step's `info` holds a
        frame and the reward is NaN until the frame is scored. With None nothing is rendered and the reward is the true one.
        """
        native = self.make_native_env(rendering or self.rendering(), frame_format)
        env: gym.Env = TrueRewardInInfo(gym.wrappers.TimeLimit(_observing_vectors(native), self.episode_steps))
        return env if frame_format is None else FrameInInfo(env, frame_format)

    @cached_property
    def action_space(self) -> gym.Space:
        """What the agent chooses from."""
        env = self.make_env(None)
        env.close()
        return env.action_space


def _observing_vectors(env: gym.Env) -> gym.Env:
    if not isinstance(env.observation_space, gym.spaces.Box) or len(env.observation_space.shape) != 1:
        env = gym.wrappers.FlattenObservation(env)
    space: Any = env.observation_space
    if space.dtype == np.float32:
        return env
    as_float32 = gym.spaces.Box(space.low.astype(np.float32), space.high.astype(np.float32), dtype=np.float32)
    return gym.wrappers.TransformObservation(env, lambda observation: observation.astype(np.float32), as_float32)


def _humanoid_task(name: str, goal: str, success_criterion: str) -> Task:
    is_success = SUCCESS_TESTS[name]
    return Task(
        name=name,
        goal_prompt=f"a humanoid robot {goal}",
        baseline_prompt="a humanoid robot",
        success_criterion=success_criterion,
        episode_steps=100,
        make_native_env=lambda rendering, frame_format: Humanoid(rendering, frame_format, is_success),
        textures=("modified", "original"),
        cameras=tuple(CAMERAS),
        draws_with_opengl=True,
    )


TASKS = {
    task.name: task
    for task in (
        Task(
            name="cartpole-upright",
            goal_prompt="pole vertically upright on top of the cart",
            baseline_prompt="pole and cart",
            success_criterion="pole within 12 degrees of upright",
            episode_steps=200,
            make_native_env=lambda rendering, frame_format: UprightCartPole(),
        ),
        Task(
            name="mountaincar-summit",
            goal_prompt="a car at the peak of the mountain, next to the yellow flag",
            baseline_prompt="a car in the mountain",
            success_criterion="car at the flag",
            # Full throttle in the direction of travel reaches the flag in 105 to 109 steps; the paper states no length.
            episode_steps=400,
            make_native_env=lambda rendering, frame_format: SummitMountainCar(rendering.textures),
            textures=("modified", "original"),
        ),
        _humanoid_task("humanoid-kneeling", "kneeling", "both knees bent and on the floor, torso upright"),
        _humanoid_task(
            "humanoid-lotus",
            "seated down, meditating in the lotus position",
            "seated on the floor, knees low, bent and facing out, feet inward",
        ),
        _humanoid_task("humanoid-standing", "standing up", "upright on one foot or both, legs straight enough"),
        _humanoid_task(
            "humanoid-arms-raised",
            "standing up, with both arms raised",
            "standing, both hands above the head",
        ),
        _humanoid_task(
            "humanoid-splits",
            "practicing gymnastics, doing the side splits",
            "seated on the floor, straight legs stretched out to both sides",
        ),
        _humanoid_task(
            "humanoid-hands-on-hips",
            "standing up with hands on hips",
            "standing, each hand within 12 cm of its hip, elbows out",
        ),
        _humanoid_task(
            "humanoid-one-leg",
            "standing up on one leg",
            "standing, balanced over one foot, the other at least 20 cm up",
        ),
        _humanoid_task(
            "humanoid-arms-crossed",
            "standing up, with its arms crossed",
            "standing, forearms crossed in front of the torso",
        ),
    )
}


def get_task(name: str) -> Task:
    """The task of this name; UserError with the nearest name if there is none."""
    if name not in TASKS:
        raise UserError(unknown_name("task", name, TASKS))
    return TASKS[name]
