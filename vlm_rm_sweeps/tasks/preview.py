"""Frames of an episode without learning, to show what a reward model will see."""

import gymnasium as gym
import numpy as np

from vlm_rm_sweeps.frames import FrameFormat
from vlm_rm_sweeps.metrics import INFO_FRAME
from vlm_rm_sweeps.tasks.rendering import Rendering
from vlm_rm_sweeps.tasks.task import Task


def frames_of_episode(
    task: Task, rendering: Rendering, frame_format: FrameFormat, steps: int, seed: int, random: bool
) -> np.ndarray:
    """Render the state after each of the first steps of a task; a new episode starts where one ends.

    Args:
        task: The task.
        rendering: How states are drawn.
        frame_format: The format to which the reward model needs frames resized.
        steps: Number of steps.
        seed: Seed of the first episode and of the actions.
        random: Whether actions are random; else they are zeros (of Discrete actions, the first one).

    Returns:
        Frames, uint8 (steps, H, W, 3).
    """
    env = task.make_env(frame_format, rendering)
    env.reset(seed=seed)
    env.action_space.seed(seed)
    frames = []
    for _ in range(steps):
        action = env.action_space.sample() if random else _zero(env.action_space)
        *_, terminated, truncated, info = env.step(action)
        frames.append(info[INFO_FRAME])
        if terminated or truncated:
            env.reset()
    env.close()
    return np.stack(frames)


def _zero(space: gym.Space) -> np.ndarray | int:
    if isinstance(space, gym.spaces.Box):
        return np.clip(np.zeros(space.shape, space.dtype), space.low, space.high)
    return 0
