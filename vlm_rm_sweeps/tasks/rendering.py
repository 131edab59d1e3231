"""Frames from environments: what the reward model sees, taken inside `step`."""

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
Textures = Literal["modified", "original"]


def machine_profile() -> Profile:
    """`full` where OpenGL draws on a GPU, else `fast`: software OpenGL would take most of a training's time."""
    return "full" if draws_on_gpu() else "fast"


@dataclass(frozen=True)
class Rendering:
    """How the states of a task are drawn.

    `textures`: `modified` are this project's own, realistic ones, `original` what Gymnasium draws (the paper compares both).
    `camera`: one of the task's cameras. `profile`: `fast` leaves out what costs most in software rendering (multisampling,
    shadows, reflections), `full` leaves out nothing; environments that do not render with OpenGL look the same in both.
    """

    textures: Textures = "original"
    camera: str = "default"
    profile: Profile = field(default_factory=machine_profile)


def render_frame(env: gym.Env, frame_format: FrameFormat) -> np.ndarray:
    """The current state as a frame `uint8 (H, W, 3)`, resized as the reward model wants it."""
    frame: Any = env.render()
    if not isinstance(frame, np.ndarray):
        raise TypeError(f"{env} rendered {type(frame).__name__}: expected an array; make it with render_mode='rgb_array'")
    return resize_frames(frame[None], frame_format)[0]


class TrueRewardInInfo(gym.Wrapper):
    """Keeps just what learning and its evaluation need in `info`: `true_reward` (float) and, if it is known, `success` (bool).

    `success` says whether the state *after* this step is in the goal. All other info keys are dropped, because RLlib would
    carry them into the replay buffer.
    """

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        observation, _ = self.env.reset(seed=seed, options=options)
        return observation, {}

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        kept: dict[str, Any] = {INFO_TRUE_REWARD: float(reward)}
        if INFO_SUCCESS in info:
            kept[INFO_SUCCESS] = bool(info[INFO_SUCCESS])
        return observation, reward, terminated, truncated, kept


class FrameInInfo(gym.Wrapper):
    """Adds `info["frame"]`, the state after the step, and takes the environment's reward away.

    `info["render_seconds"]` is what the frame cost.

    The frame is rendered inside `step`: a vector environment may reset right after it, and would show the next episode's
    first state as this one's last. The reward becomes NaN, so that a transition that nobody scored cannot be learned from
    unnoticed.
    """

    def __init__(self, env: gym.Env, frame_format: FrameFormat) -> None:
        super().__init__(env)
        prepare_pygame()  # which a task of the user's own may draw with
        self.frame_format = frame_format

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        observation, _, terminated, truncated, info = self.env.step(action)
        started = time.perf_counter()
        info[INFO_FRAME] = render_frame(self.env, self.frame_format)
        info[INFO_RENDER_SECONDS] = time.perf_counter() - started
        return observation, float("nan"), terminated, truncated, info
