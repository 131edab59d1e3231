"""MountainCar for reward models: an absorbing goal, episodes of fixed length, and a realistic scene.

The paper finds that a policy can be learned from a textured scene, but not from Gymnasium's line drawing (section 4.1). Both
scenes are implemented here.
"""

import math
from collections.abc import Mapping
from functools import cache
from typing import Any

import gymnasium as gym
import numpy as np
import pygame
from gymnasium.envs.classic_control.continuous_mountain_car import Continuous_MountainCarEnv
from scipy.ndimage import zoom

from vlm_rm_sweeps.frames import FrameFormat
from vlm_rm_sweeps.metrics import INFO_SUCCESS
from vlm_rm_sweeps.tasks.pygame_frames import bytes_of, draw, to_frame
from vlm_rm_sweeps.tasks.state_space import BoxStates, StateValue, StateVariable, innermost
from vlm_rm_sweeps.tasks.task import Task

_WIDTH, _HEIGHT = 600, 400
_LEFT_EDGE, _RIGHT_EDGE = -1.2, 0.6
"""The car's positions at the two edges of the picture."""
_SCALE = _WIDTH / (_RIGHT_EDGE - _LEFT_EDGE)


class SummitMountainCar(Continuous_MountainCarEnv):
    """Gymnasium's continuous MountainCar with an absorbing goal.

    Differences from `MountainCarContinuous-v0`:

    - A car that has reached the flag stays there, at rest, whatever the actions: the paper calls the goal absorbing.
    - It never terminates; the task's time limit ends the episode. A reset starts a new attempt.
    - The true reward, and `info["success"]`, is whether the car is at the flag.
    - With `modified` textures the scene is painted: sky, mountains, a red car, a yellow flag. Positions and slopes are the
      same.

    Args:
        textures: `modified` for the painted scene, `original` for Gymnasium's line drawing.
        frame_format: Format to which frames are resized; None for the size at which Gymnasium draws.
    """

    def __init__(self, textures: str = "modified", frame_format: FrameFormat | None = None) -> None:
        super().__init__(render_mode="rgb_array")
        self._frame_format = frame_format
        self._textures = textures

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Take a step, unless the car is at the flag."""
        if not self.is_at_flag():
            super().step(action)
        at_flag = self.is_at_flag()
        if at_flag:
            self.state = np.array([self.state[0], 0.0], dtype=np.float32)
        return self.state, float(at_flag), False, False, {INFO_SUCCESS: at_flag}

    def is_at_flag(self) -> bool:
        """Decide success: the car is at the flag or beyond it."""
        return bool(self.state[0] >= self.goal_position)

    def render(self) -> np.ndarray:  # type: ignore[override]  # Gymnasium types it for all render modes
        """Draw the current state.

        Returns:
            The frame, uint8 (H, W, 3): 400 x 600 pixels without a frame format.
        """
        painted = self._textures == "modified"
        surface = _painted(float(self.state[0]), self.goal_position) if painted else draw(self, super().render)
        return to_frame(surface, self._frame_format)


class MountainCarStates(BoxStates):
    """The car anywhere on the track, at rest."""

    variables = (StateVariable("position", "car position", "m", _LEFT_EDGE, _RIGHT_EDGE, goal=(0.45, 0.6)),)

    def set_values(self, env: gym.Env, values: Mapping[str, float]) -> None:
        """Set the car's position, at rest."""
        innermost(env).state = np.array([values["position"], 0.0], dtype=np.float32)

    def read(self, env: gym.Env) -> dict[str, StateValue]:
        """Read `position` (m) and `velocity` (m per step)."""
        return {name: float(value) for name, value in zip(("position", "velocity"), innermost(env).state, strict=True)}

    def in_goal(self, env: gym.Env) -> bool:
        """Decide whether the car is at the flag."""
        return bool(innermost(env).is_at_flag())


MOUNTAINCAR_SUMMIT = Task(
    name="mountaincar-summit",
    goal_prompt="a car at the peak of the mountain, next to the yellow flag",
    baseline_prompt="a car in the mountain",
    success_criterion="car at the flag",
    # Full throttle in the direction of travel reaches the flag in 105 to 109 steps; the paper states no length.
    episode_steps=400,
    make_native_env=lambda rendering, frame_format: SummitMountainCar(rendering.textures, frame_format),
    states=MountainCarStates(),
    textures=("modified", "original"),
)


def _ground(position: float | np.ndarray) -> Any:
    """Compute the height of the ground as Gymnasium draws it, in pixels above the lower edge of the picture."""
    return (np.sin(3 * position) * 0.45 + 0.55) * _SCALE


def _painted(position: float, goal_position: float) -> pygame.Surface:
    """Paint the car in front of the landscape, on a surface that the next picture replaces."""
    picture = _picture(goal_position)
    # pygame's own `copy` and `blit` take five times as long, or more.
    bytes_of(picture)[:] = bytes_of(_landscape(goal_position))
    slope = math.atan(1.35 * math.cos(3 * position))
    car = pygame.transform.rotozoom(_car(), math.degrees(slope), 1 / _CAR_OVERSIZE)
    # The car stands on the ground: its centre is half its height above, at right angles to the slope.
    x = (position - _LEFT_EDGE) * _SCALE - math.sin(slope) * _CAR_HEIGHT / 2
    y = _HEIGHT - _ground(position) - math.cos(slope) * _CAR_HEIGHT / 2
    picture.blit(car, car.get_rect(center=(round(x), round(y))))
    return picture


_CAR_WIDTH, _CAR_HEIGHT = 64, 30
_CAR_OVERSIZE = 4
"""The car is painted this many times larger and shrunk when it is rotated: smooth edges at any angle."""


@cache
def _car() -> pygame.Surface:
    """Paint a red hatchback that faces right, on a transparent background."""
    unit = _CAR_OVERSIZE
    car = pygame.Surface((_CAR_WIDTH * unit, _CAR_HEIGHT * unit), pygame.SRCALPHA)

    def polygon(color: tuple[int, int, int], *points: tuple[float, float]) -> None:
        pygame.draw.polygon(car, color, [(x * unit, y * unit) for x, y in points])

    polygon((176, 20, 24), (1, 14), (14, 12), (21, 2), (42, 2), (52, 12), (62, 15), (63, 23), (1, 23))
    polygon((214, 38, 38), (2, 14), (14, 12.5), (52, 12.5), (61, 15), (61, 18), (2, 18))
    polygon((40, 56, 74), (17.5, 11.5), (22.5, 4), (31, 4), (31, 11.5))
    polygon((40, 56, 74), (33, 11.5), (33, 4), (41, 4), (48, 11.5))
    polygon((128, 158, 184), (20, 9), (23, 4.8), (25, 4.8), (22, 9))
    polygon((255, 236, 170), (59, 15.5), (62.5, 16.5), (62.5, 19), (59, 18.5))
    polygon((255, 120, 60), (1, 15), (3, 15), (3, 19), (1, 19))
    for wheel in (15, 49):
        for color, radius in (((22, 22, 24), 6.9), ((150, 152, 158), 3.9), ((60, 60, 64), 1.4)):
            pygame.draw.circle(car, color, (wheel * unit, 23 * unit), radius * unit)
    return car


@cache
def _picture(goal_position: float) -> pygame.Surface:
    return _landscape(goal_position).copy()


@cache
def _landscape(goal_position: float) -> pygame.Surface:
    """Paint all but the car: sky with clouds, distant mountains, the mountain with grass, rock and snow, and the flag."""
    rng = np.random.default_rng(2310_12921)
    rows, columns = np.mgrid[0:_HEIGHT, 0:_WIDTH]
    altitude = _HEIGHT - rows
    picture = _blend((158, 202, 236), (52, 112, 190), np.clip((altitude - 120) / 280, 0, 1))
    clouds = np.clip((_noise(rng, 8) - 0.52) * 4, 0, 1) * np.clip((altitude - 150) / 120, 0, 1)
    picture += (np.array([250.0, 250.0, 252.0]) - picture) * (0.85 * clouds)[..., None]
    for base, relief, color in ((170, 150, (136, 160, 190)), (120, 120, (104, 132, 150))):
        ridge = base + relief * (_noise(rng, 6)[_HEIGHT // 2] - 0.4)
        picture[altitude < ridge[columns]] = color
    ground = _ground(columns / _SCALE + _LEFT_EDGE)
    depth = ground - altitude
    picture[depth >= 0] = _mountain(rng, altitude, depth)[depth >= 0]
    shadow = np.clip(1 - np.abs(depth - 2) / 2, 0, 1)[..., None]
    picture *= 1 - 0.35 * shadow
    surface = pygame.surfarray.make_surface(np.clip(picture, 0, 255).astype(np.uint8).swapaxes(0, 1))
    _plant_flag(surface, goal_position)
    return surface


def _mountain(rng: np.random.Generator, altitude: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Compute the colours (H, W, 3) of the mountain: grass in the valley, rock above, snow on top; darker with depth."""
    grain, patches = _noise(rng, 90), _noise(rng, 14)
    grass = _blend((62, 104, 44), (122, 158, 74), grain)
    rock = _blend((92, 80, 70), (164, 150, 136), 0.6 * grain + 0.4 * patches)
    snow = _blend((214, 222, 234), (252, 252, 255), grain)
    picture = _mix(grass, rock, np.clip((altitude + 70 * (patches - 0.5) - 120) / 40, 0, 1))
    thin = np.clip(1 - depth / 45, 0, 1)
    picture = _mix(picture, snow, np.clip((altitude + 60 * (patches - 0.5) - 262) / 18, 0, 1) * thin)
    return picture * (1 - 0.35 * np.clip(depth / 300, 0, 1))[..., None]


def _plant_flag(surface: pygame.Surface, goal_position: float) -> None:
    x = round((goal_position - _LEFT_EDGE) * _SCALE)
    foot = round(_HEIGHT - _ground(goal_position))
    pygame.draw.line(surface, (70, 66, 62), (x, foot), (x, foot - 66), 3)
    pygame.draw.polygon(
        surface,
        (250, 208, 16),
        [
            (x + 2, foot - 66),
            (x + 20, foot - 62),
            (x + 40, foot - 66),
            (x + 40, foot - 40),
            (x + 20, foot - 36),
            (x + 2, foot - 40),
        ],
    )
    pygame.draw.polygon(
        surface, (214, 170, 8), [(x + 20, foot - 62), (x + 28, foot - 63), (x + 28, foot - 37), (x + 20, foot - 36)]
    )


def _noise(rng: np.random.Generator, cells: int) -> np.ndarray:
    """Compute smooth noise (H, W) in [0, 1]: three octaves of interpolated values, the coarsest with `cells` per row."""
    total = np.zeros((_HEIGHT, _WIDTH))
    for octave in range(3):
        across = cells * 2**octave
        values = rng.random((max(2, round(across * _HEIGHT / _WIDTH)) + 1, across + 1))
        total += zoom(values, (_HEIGHT / values.shape[0], _WIDTH / values.shape[1]), order=1) / 2**octave
    low, high = np.quantile(total, (0.01, 0.99))
    return np.clip((total - low) / (high - low), 0, 1)


def _blend(first: tuple[int, int, int], second: tuple[int, int, int], share: np.ndarray) -> np.ndarray:
    return _mix(np.array(first, float), np.array(second, float), share)


def _mix(first: np.ndarray, second: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Interpolate between two colours: share 0 gives `first`, 1 gives `second`."""
    return first + (second - first) * share[..., None]
