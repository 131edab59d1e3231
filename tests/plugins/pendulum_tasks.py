"""A task as a user writes it: Gymnasium's Pendulum with two textures, two cameras, a success test and a state space."""

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.classic_control.pendulum import PendulumEnv

from vlm_rm_sweeps.tasks.state_space import BoxStates, StateVariable, innermost
from vlm_rm_sweeps.tasks.task import Task


class Pendulum(PendulumEnv):
    def __init__(self, textures: str, camera: str) -> None:
        super().__init__(render_mode="rgb_array")
        self.textures, self.camera = textures, camera

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        observation, reward, *_ = super().step(action)
        return observation, float(reward), False, False, {"success": self.is_up()}

    def is_up(self) -> bool:
        return abs(float(self.state[0])) < 0.3

    def render(self) -> np.ndarray:  # type: ignore[override]  # Gymnasium types it for all render modes
        frame = np.asarray(super().render())
        frame = 255 - frame if self.textures == "night" else frame
        return frame[:, ::-1] if self.camera == "behind" else frame


class PendulumStates(BoxStates):
    variables = (StateVariable("angle", "angle from upright", "rad", -3.14, 3.14, goal=(-0.3, 0.3)),)

    def set_values(self, env: gym.Env, values: Mapping[str, float]) -> None:
        innermost(env).state = np.array([values["angle"], 0.0])

    def read(self, env: gym.Env) -> dict[str, Any]:
        return {"angle": float(innermost(env).state[0])}

    def in_goal(self, env: gym.Env) -> bool:
        return bool(innermost(env).is_up())


PENDULUM_UP = Task(
    name="pendulum-up",
    goal_prompt="a red rod pointing up",
    baseline_prompt="a red rod",
    episode_steps=12,
    make_native_env=lambda rendering, frame_format: Pendulum(rendering.textures, rendering.camera),
    success_criterion="rod within 17 degrees of upright",
    states=PendulumStates(),
    textures=("day", "night"),
    cameras=("front", "behind"),
)


def pendulum_up() -> Task:
    return PENDULUM_UP


class PendulumUp(Task):
    """The same task as a class."""

    def __init__(self) -> None:
        super().__init__(**{name: getattr(PENDULUM_UP, name) for name in Task.__dataclass_fields__})


def needs_an_argument(name: str) -> Task:
    raise AssertionError(name)


NO_TASK = 3
