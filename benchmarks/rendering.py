"""Speed of rendering, compared with Gymnasium's default rendering in the same run.

Run `make bench`, or `.venv/bin/python benchmarks/rendering.py`. The table shows milliseconds for one frame, at the input size
of the embedded models and at that of most CLIP models. Gymnasium renders the humanoid at the same size; its other frames are
resized by PIL, and its MountainCar is always the plain line drawing. On a machine without a GPU, expect the humanoid's `fast`
profile at 224 pixels to be at least 8 times as fast as Gymnasium. The last line shows environment steps per second (physics and
success test), with and without a frame for each step.

The compared renderers take turns, and all figures are medians, so that a busy machine slows all of them alike.
"""

import functools
import statistics
import time
from collections.abc import Callable
from typing import Any, get_args

import gymnasium as gym
import numpy as np
from PIL import Image

from vlm_rm_sweeps.frames import FrameFormat
from vlm_rm_sweeps.rewards.open_clip_models import EMBEDDED_PREPROCESSING
from vlm_rm_sweeps.tasks.cart_pole import UprightCartPole
from vlm_rm_sweeps.tasks.humanoid.env import Humanoid
from vlm_rm_sweeps.tasks.mountain_car import MOUNTAINCAR_SUMMIT, SummitMountainCar
from vlm_rm_sweeps.tasks.opengl import choose_backend
from vlm_rm_sweeps.tasks.registry import find_task
from vlm_rm_sweeps.tasks.rendering import Profile, Rendering, render_frame

ROUNDS = 5
SIZES = (EMBEDDED_PREPROCESSING.size, 224)
PYGAME_FRAMES = 100
HUMANOID_FRAMES = 10
HUMANOID_STEPS = 100


def median_seconds(actions: dict[str, Callable[[], object]], repetitions: int) -> dict[str, float]:
    """Time several actions, which take turns.

    Args:
        actions: Functions by name.
        repetitions: Calls of each action in each of the `ROUNDS` rounds.

    Returns:
        Seconds for one call of each action, median over the rounds.
    """
    times: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(ROUNDS):
        for name, action in actions.items():
            started = time.perf_counter()
            for _ in range(repetitions):
                action()
            times[name].append((time.perf_counter() - started) / repetitions)
    return {name: statistics.median(each) for name, each in times.items()}


def gymnasium_frame(env: gym.Env, size: int) -> Callable[[], np.ndarray]:
    """Make the function that renders a frame with Gymnasium and resizes it with PIL.

    Args:
        env: An environment that has been reset.
        size: Edge of the frame, in pixels.

    Returns:
        A function that renders the environment's state as uint8 (size, size, 3).
    """
    return lambda: np.asarray(Image.fromarray(np.asarray(env.render())).resize((size, size), Image.Resampling.BICUBIC))


def compare(size: int, ours: dict[str, gym.Env], theirs: gym.Env, repetitions: int) -> list[tuple[str, int, float, float]]:
    """Compare environments of this package with Gymnasium's, and close all of them.

    Args:
        size: Edge of the frames, in pixels.
        ours: This package's environments by name.
        theirs: Gymnasium's environment.
        repetitions: Frames in each round.

    Returns:
        For each of `ours`: its name, `size`, and the milliseconds for one frame here and in Gymnasium.
    """
    frame_format = FrameFormat(size)
    actions: dict[str, Callable[[], object]] = {
        name: functools.partial(render_frame, env, frame_format) for name, env in ours.items()
    }
    actions["Gymnasium"] = gymnasium_frame(theirs, size)
    for env in (*ours.values(), theirs):
        env.reset(seed=0)
        env.render()
    seconds = median_seconds(actions, repetitions)
    for env in (*ours.values(), theirs):
        env.close()
    return [(name, size, 1e3 * seconds[name], 1e3 * seconds["Gymnasium"]) for name in ours]


def all_frames(size: int) -> list[tuple[str, int, float, float]]:
    """Compare all environments at one size.

    Args:
        size: Edge of the frames, in pixels.

    Returns:
        The rows of `compare`.
    """

    def by_gymnasium(name: str, **arguments: Any) -> gym.Env:
        return gym.make(name, render_mode="rgb_array", **arguments).unwrapped

    def humanoid(profile: Profile) -> Humanoid:
        return Humanoid(Rendering("modified", "paper", profile), FrameFormat(size))

    cars: dict[str, gym.Env] = {
        f"MountainCar, {textures} textures": SummitMountainCar(textures, FrameFormat(size))
        for textures in MOUNTAINCAR_SUMMIT.textures
    }
    humanoids: dict[str, gym.Env] = {f"humanoid, {profile} profile": humanoid(profile) for profile in get_args(Profile)}
    return [
        *compare(size, {"CartPole": UprightCartPole(FrameFormat(size))}, by_gymnasium("CartPole-v1"), PYGAME_FRAMES),
        *compare(size, cars, by_gymnasium("MountainCarContinuous-v0"), PYGAME_FRAMES),
        *compare(size, humanoids, by_gymnasium("Humanoid-v5", width=size, height=size), HUMANOID_FRAMES),
    ]


def humanoid_steps(size: int) -> None:
    """Print the humanoid's steps per second, with frames of `size` pixels and without frames."""
    task = find_task("humanoid-kneeling")
    fast = task.rendering(profile="fast")
    envs = {"with a frame each": task.make_env(FrameFormat(size), fast), "without frames": task.make_env(None)}
    for env in envs.values():
        env.reset(seed=0)
        env.action_space.seed(0)
        env.step(env.action_space.sample())

    def stepping(env: gym.Env) -> Callable[[], object]:
        # No reset is needed: at the end of an episode the physics continues.
        return lambda: env.step(env.action_space.sample())

    seconds = median_seconds({name: stepping(env) for name, env in envs.items()}, HUMANOID_STEPS)
    print(f"humanoid, steps/s at {size} x {size}: " + ", ".join(f"{name} {1 / each:.0f}" for name, each in seconds.items()))


def main() -> None:
    """Print the table and the steps per second."""
    print(f"OpenGL by {choose_backend()}\n")
    print(f"{'frame':30}{'pixels':>8}{'here':>12}{'Gymnasium':>12}{'times as fast':>16}")
    for size in SIZES:
        for name, pixels, here, there in all_frames(size):
            print(f"{name:30}{pixels:8}{here:9.2f} ms{there:9.2f} ms{there / here:16.1f}", flush=True)
    print()
    humanoid_steps(64)


if __name__ == "__main__":
    main()
