"""CartPole for reward models: the pole swings through the full circle, and nothing ends an episode early."""

import math
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import gymnasium as gym
import numpy as np
import pygame
from gymnasium import spaces
from gymnasium.envs.classic_control.cartpole import CartPoleEnv
from pygame import gfxdraw

from vlm_rm_sweeps.frames import FrameFormat
from vlm_rm_sweeps.metrics import INFO_SUCCESS
from vlm_rm_sweeps.process_defaults import prepare_pygame
from vlm_rm_sweeps.tasks.pygame_frames import bytes_of, to_frame
from vlm_rm_sweeps.tasks.state_space import BoxStates, StateValue, StateVariable, innermost
from vlm_rm_sweeps.tasks.task import Task

_CART_WIDTH, _CART_HEIGHT, _POLE_WIDTH = 50.0, 30.0, 10.0
_CART_Y = 100
"""Sizes and height of the cart in pixels, as Gymnasium draws it. The colours are Gymnasium's, too."""
_BLACK, _BROWN, _VIOLET = (0, 0, 0), (202, 152, 101), (129, 132, 203)


class UprightCartPole(CartPoleEnv):
    """Gymnasium's CartPole without its early termination, which would leak the task (paper, section 4).

    Differences from `CartPole-v1`:

    - It never terminates; the task's time limit ends the episode.
    - The pole's angle is wrapped to [-pi, pi] and the cart stops at the edge of the visible track (|x| <= 2.4): a cart outside
      the picture cannot be judged from a frame.
    - The true reward, and `info["success"]`, is whether the pole is upright.

    Args:
        frame_format: Format to which frames are resized; None for the size at which Gymnasium draws.
    """

    def __init__(self, frame_format: FrameFormat | None = None) -> None:
        super().__init__(render_mode="rgb_array")
        self._frame_format = frame_format
        high = np.array([self.x_threshold, np.inf, math.pi, np.inf], dtype=np.float32)
        self.observation_space = spaces.Box(-high, high, dtype=np.float32)

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Take a step of 0.02 s."""
        super().step(action)
        assert self.state is not None
        x, x_dot, theta, theta_dot = (float(value) for value in self.state)
        if abs(x) > self.x_threshold:
            x, x_dot = math.copysign(self.x_threshold, x), 0.0
        theta = math.remainder(theta, 2 * math.pi)
        self.state = np.array([x, x_dot, theta, theta_dot], dtype=np.float64)
        # Otherwise Gymnasium would warn and return no reward once its own episode is over.
        self.steps_beyond_terminated = None
        upright = self.is_upright()
        return self.state.astype(np.float32), float(upright), False, False, {INFO_SUCCESS: upright}

    def is_upright(self) -> bool:
        """Decide success: the pole is within 12 degrees of upright, the environment's own `theta_threshold_radians`."""
        assert self.state is not None
        return abs(float(self.state[2])) <= self.theta_threshold_radians

    def render(self) -> np.ndarray:  # type: ignore[override]  # Gymnasium types it for all render modes
        """Draw the same picture as Gymnasium's `rgb_array`, but faster.

        Returns:
            The frame, uint8 (H, W, 3): 400 x 600 pixels without a frame format.
        """
        return to_frame(self._drawn_upside_down(), self._frame_format)[::-1].copy()

    @cached_property
    def _surface(self) -> pygame.Surface:
        prepare_pygame()
        return pygame.Surface((self.screen_width, self.screen_height))

    def _drawn_upside_down(self) -> pygame.Surface:
        """Draw the state with Gymnasium's commands, but each time on the same surface, and without turning it over.

        Gymnasium makes a surface for each frame, and turns it over into a second one and copies that onto a third one: together
        they take longer than the drawing. A frame is turned over once it is small.
        """
        assert self.state is not None
        x, angle = float(self.state[0]), float(self.state[2])
        scale = self.screen_width / (2 * self.x_threshold)
        cart_x, axle_y = x * scale + self.screen_width / 2, _CART_Y + _CART_HEIGHT / 4
        # White in any format. pygame's own `fill` takes five times as long.
        bytes_of(self._surface).fill(255)
        corners = _rectangle(_CART_WIDTH / 2, -_CART_HEIGHT / 2, _CART_HEIGHT / 2)
        _polygon(self._surface, [(right + cart_x, up + _CART_Y) for right, up in corners], _BLACK)
        pole = _rectangle(_POLE_WIDTH / 2, -_POLE_WIDTH / 2, scale * 2 * self.length - _POLE_WIDTH / 2)
        turned = [pygame.math.Vector2(corner).rotate_rad(-angle) for corner in pole]
        _polygon(self._surface, [(corner[0] + cart_x, corner[1] + axle_y) for corner in turned], _BROWN)
        for circle in (gfxdraw.aacircle, gfxdraw.filled_circle):
            circle(self._surface, int(cart_x), int(axle_y), int(_POLE_WIDTH / 2), _VIOLET)
        gfxdraw.hline(self._surface, 0, self.screen_width, _CART_Y, _BLACK)
        return self._surface


def _rectangle(half_width: float, bottom: float, top: float) -> list[tuple[float, float]]:
    return [(-half_width, bottom), (-half_width, top), (half_width, top), (half_width, bottom)]


def _polygon(surface: pygame.Surface, corners: list[tuple[float, float]], color: tuple[int, int, int]) -> None:
    gfxdraw.aapolygon(surface, corners, color)
    gfxdraw.filled_polygon(surface, corners, color)


class CartPoleStates(BoxStates):
    """The pole anywhere on the circle and the cart anywhere on the track, both at rest: a frame does not show velocities."""

    variables = (
        StateVariable("theta", "pole angle", "rad", -math.pi, math.pi, goal=(0.0, 0.0)),
        StateVariable("x", "cart position", "m", -2.4, 2.4),
    )

    def set_values(self, env: gym.Env, values: Mapping[str, float]) -> None:
        """Set the pole's angle and the cart's position, both at rest."""
        innermost(env).state = np.array([values["x"], 0.0, values["theta"], 0.0])

    def read(self, env: gym.Env) -> dict[str, StateValue]:
        """Read positions and velocities: `x` (m), `x_dot` (m/s), `theta` (rad), `theta_dot` (rad/s)."""
        names = ("x", "x_dot", "theta", "theta_dot")
        return {name: float(value) for name, value in zip(names, innermost(env).state, strict=True)}

    def in_goal(self, env: gym.Env) -> bool:
        """Decide whether the pole is upright."""
        return bool(innermost(env).is_upright())


CARTPOLE_UPRIGHT = Task(
    name="cartpole-upright",
    goal_prompt="pole vertically upright on top of the cart",
    baseline_prompt="pole and cart",
    success_criterion="pole within 12 degrees of upright",
    episode_steps=200,
    make_native_env=lambda rendering, frame_format: UprightCartPole(frame_format),
    states=CartPoleStates(),
)
