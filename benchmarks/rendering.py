"""How fast frames are drawn, each side against what Gymnasium does by default, in one run.

Run: make bench (or: .venv/bin/python benchmarks/rendering.py). CartPole: milliseconds for a frame at the embedded models' input
size, against Gymnasium's render followed by a PIL resize. Humanoid: frames per second of both profiles, against Gymnasium's
default rendering at the same size; on a machine without a GPU expect `fast` to be at least 8 times as fast. Steps per second are
those of physics and success test, with and without a frame for each step.

The sides take turns and the figures are medians, so a busy machine slows all of them alike.
"""

import statistics
import time
from collections.abc import Callable

import gymnasium as gym
import numpy as np
from gymnasium.envs.mujoco.humanoid_v5 import HumanoidEnv
from PIL import Image

from vlm_rm_sweeps.frames import FrameFormat
from vlm_rm_sweeps.rewards.catalog import EMBEDDED_PREPROCESSING
from vlm_rm_sweeps.tasks.cart_pole import UprightCartPole
from vlm_rm_sweeps.tasks.humanoid import Humanoid
from vlm_rm_sweeps.tasks.opengl import choose_backend
from vlm_rm_sweeps.tasks.rendering import Profile, Rendering, render_frame
from vlm_rm_sweeps.tasks.task import get_task

ROUNDS = 5
CARTPOLE_FRAMES = 200
HUMANOID_SIZES = (224, 64)
HUMANOID_FRAMES = 10
HUMANOID_STEPS = 100


def median_seconds(actions: dict[str, Callable[[], object]], repetitions: int) -> dict[str, float]:
    """Seconds for one call of each action: they take turns, ROUNDS times `repetitions` calls."""
    times: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(ROUNDS):
        for name, action in actions.items():
            started = time.perf_counter()
            for _ in range(repetitions):
                action()
            times[name].append((time.perf_counter() - started) / repetitions)
    return {name: statistics.median(each) for name, each in times.items()}


def cart_pole() -> None:
    ours = UprightCartPole()
    theirs = gym.make("CartPole-v1", render_mode="rgb_array").unwrapped
    ours.reset(seed=0)
    theirs.reset(seed=0)
    frame_format = EMBEDDED_PREPROCESSING.frame_format
    size = (frame_format.size, frame_format.size)

    def gymnasium_and_pil() -> np.ndarray:
        return np.asarray(Image.fromarray(np.asarray(theirs.render())).resize(size, Image.Resampling.BICUBIC))

    seconds = median_seconds({"ours": lambda: render_frame(ours, frame_format), "theirs": gymnasium_and_pil}, CARTPOLE_FRAMES)
    here, there = seconds["ours"] * 1e3, seconds["theirs"] * 1e3
    print(
        f"CartPole, frame at {size[0]} x {size[1]}: {here:.2f} ms; Gymnasium's render and PIL's resize: {there:.2f} ms; "
        f"ratio {here / there:.2f}"
    )


def humanoid(size: int) -> None:
    def drawn(profile: Profile) -> Humanoid:
        return Humanoid(Rendering("modified", "paper", profile), FrameFormat(size))

    theirs = gym.make("Humanoid-v5", render_mode="rgb_array", width=size, height=size).unwrapped
    assert isinstance(theirs, HumanoidEnv)
    envs: dict[str, HumanoidEnv] = {"fast": drawn("fast"), "full": drawn("full"), "Gymnasium": theirs}
    for env in envs.values():
        env.reset(seed=0)
        env.render()
    seconds = median_seconds({name: env.render for name, env in envs.items()}, HUMANOID_FRAMES)
    rates = ", ".join(f"{name} {1 / each:.0f}" for name, each in seconds.items())
    ratio = seconds["Gymnasium"] / seconds["fast"]
    print(f"humanoid, frames/s at {size} x {size}: {rates}; fast is {ratio:.1f} times as fast as Gymnasium")
    for env in envs.values():
        env.close()


def humanoid_steps(size: int) -> None:
    task = get_task("humanoid-kneeling")
    fast = task.rendering(profile="fast")
    envs = {"with a frame each": task.make_env(FrameFormat(size), fast), "without frames": task.make_env(None)}
    for env in envs.values():
        env.reset(seed=0)
        env.action_space.seed(0)
        env.step(env.action_space.sample())

    def stepping(env: gym.Env) -> Callable[[], object]:
        # The last step of an episode only says that it is over; the physics goes on.
        return lambda: env.step(env.action_space.sample())

    seconds = median_seconds({name: stepping(env) for name, env in envs.items()}, HUMANOID_STEPS)
    print(f"humanoid, steps/s at {size} x {size}: " + ", ".join(f"{name} {1 / each:.0f}" for name, each in seconds.items()))


def main() -> None:
    print(f"OpenGL by {choose_backend()}")
    cart_pole()
    for size in HUMANOID_SIZES:
        humanoid(size)
    humanoid_steps(64)


if __name__ == "__main__":
    main()
