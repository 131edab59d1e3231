"""Renders the frames that reward models see, inside `step`."""

import time
from dataclasses import dataclass, field
from typing import Any, Literal, SupportsFloat

import gymnasium as gym
import numpy as np

from vlm_rm_sweeps.frames import FrameFormat, resize_frames
from vlm_rm_sweeps.metrics import INFO_FRAME, INFO_RENDER_SECONDS, INFO_SUCCESS, INFO_TRUE_REWARD
from vlm_rm_sweeps.process_defaults import prepare_pygame
from vlm_rm_sweeps.tasks.opengl import draws_on_gpu

Profile = Literal["fast", "full"]
"""How much OpenGL draws, see `Rendering`."""


def machine_profile() -> Profile:
    """Choose how much OpenGL draws on this machine.

    Returns:
        `full` on a GPU, else `fast`: in software, the full profile would take most of the training time.
    """
    return "full" if draws_on_gpu() else "fast"


@dataclass(frozen=True)
class Rendering:
    """How the states of a task are drawn.

    Attributes:
        textures: One of the task's textures. In the tasks of this package, `original` is the scene as Gymnasium draws it and
            `modified` a realistic one; the paper compares both.
        camera: One of the task's cameras.
        profile: `full` draws everything. `fast` leaves out what costs most in software: multisampling, shadows and reflections.
            Both are the same for environments that do not draw with OpenGL.
    """

    textures: str = "original"
    camera: str = "default"
    profile: Profile = field(default_factory=machine_profile)


def render_frame(env: gym.Env, frame_format: FrameFormat) -> np.ndarray:
    """Render the current state.

    Args:
        env: An environment with `render_mode="rgb_array"`.
        frame_format: The format to which the reward model needs frames resized.

    Returns:
        The frame, uint8 (H, W, 3).

    Raises:
        TypeError: `render` did not return an array.
    """
    frame: Any = env.render()
    if not isinstance(frame, np.ndarray):
        raise TypeError(f"{env} rendered {type(frame).__name__}: expected an array; make it with render_mode='rgb_array'")
    return resize_frames(frame[None], frame_format)[0]


class TrueRewardInInfo(gym.Wrapper):
    """Reduces `info` to the keys that learning and evaluation need: `true_reward` (float) and, if known, `success` (bool).

    `success` is whether the state *after* the step is in the goal. All other keys are dropped, because RLlib would carry them
    into the replay buffer.
    """

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode; `info` is empty."""
        observation, _ = self.env.reset(seed=seed, options=options)
        return observation, {}

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Take a step and reduce its `info`."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        kept: dict[str, Any] = {INFO_TRUE_REWARD: float(reward)}
        if INFO_SUCCESS in info:
            kept[INFO_SUCCESS] = bool(info[INFO_SUCCESS])
        return observation, reward, terminated, truncated, kept


class FrameInInfo(gym.Wrapper):
    """Adds `info["frame"]`, the state after the step, and replaces the environment's reward by NaN.

    The frame is rendered inside `step`: a vector environment may reset right after it, and a later frame would show the first
    state of the next episode. The reward is NaN so that nothing is learned from a transition that was not scored.
    `info["render_seconds"]` is the time that rendering the frame took.

    Args:
        env: The environment.
        frame_format: The format to which the reward model needs frames resized.
    """

    def __init__(self, env: gym.Env, frame_format: FrameFormat) -> None:
        super().__init__(env)
        prepare_pygame()  # a user's task may draw with pygame
        self.frame_format = frame_format

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Take a step and render the new state."""
        observation, _, terminated, truncated, info = self.env.step(action)
        started = time.perf_counter()
        info[INFO_FRAME] = render_frame(self.env, self.frame_format)
        info[INFO_RENDER_SECONDS] = time.perf_counter() - started
        return observation, float("nan"), terminated, truncated, info
