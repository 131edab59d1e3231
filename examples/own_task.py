"""A task of your own: an environment with a success test, a state space and, if you like, cameras. Here, Gymnasium's Pendulum.

    vlm-rm sweep examples/own_parts.yaml              names it as `own_task:PENDULUM_UP`
    vlm-rm --module examples/own_task.py tasks        lists it under the name that is registered below

All commands support it: `landscape`, `states`, screenings, `label`, `render`, `evaluate`.
"""

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.classic_control.pendulum import PendulumEnv

from vlm_rm_sweeps import BoxStates, StateVariable, Task, register_task


class UprightPendulum(PendulumEnv):
    """Gymnasium's Pendulum, whose frames show a red rod. True reward and success are whether the rod points up."""

    def __init__(self) -> None:
        super().__init__(render_mode="rgb_array")

    def is_up(self) -> bool:
        """Return whether the rod is within 17 degrees of upright."""
        return abs((float(self.state[0]) + np.pi) % (2 * np.pi) - np.pi) < 0.3

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Step the environment, and report whether the new state is in the goal."""
        observation, *_ = super().step(action)
        return observation, float(self.is_up()), False, False, {"success": self.is_up()}


class PendulumStates(BoxStates):
    """The rod at any angle, at rest."""

    variables = (StateVariable("angle", "angle from upright", "rad", -np.pi, np.pi, goal=(-0.3, 0.3)),)

    def set_values(self, env: gym.Env, values: Mapping[str, float]) -> None:
        """Set the environment's state, at rest, from the values of its variables."""
        env.unwrapped.state = np.array([values["angle"], 0.0])

    def read(self, env: gym.Env) -> dict[str, Any]:
        """Read the values of the variables from the environment's state."""
        return {"angle": float(env.unwrapped.state[0])}

    def in_goal(self, env: gym.Env) -> bool:
        """Apply the success test to the environment's state."""
        return env.unwrapped.is_up()


PENDULUM_UP = Task(
    name="pendulum-up",
    goal_prompt="a red rod pointing straight up",
    baseline_prompt="a red rod",
    success_criterion="rod within 17 degrees of upright",
    episode_steps=200,
    make_native_env=lambda rendering, frame_format: UprightPendulum(),
    states=PendulumStates(),
)
register_task("pendulum-up", PENDULUM_UP)
