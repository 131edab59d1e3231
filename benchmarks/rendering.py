"""Speed of rendering, compared with Gymnasium's default rendering in the same run.

Run `make bench`, or `.venv/bin/python benchmarks/rendering.py`; `--json FILE` writes the figures to a file, too. The table shows
milliseconds for one frame, at the input size of the embedded models and at that of most CLIP models. Gymnasium renders the humanoid
at the same size; its other frames are resized by PIL, and its MountainCar is always the plain line drawing. On a machine without a
GPU, expect the humanoid's `fast` profile at 224 pixels to be at least 8 times as fast as Gymnasium. The last line shows environment
steps per second (physics and success test), with and without a frame for each step.

The compared renderers take turns, and all figures are medians, so that a busy machine slows all of them alike. The file also has
CPU times.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_args

import gymnasium as gym
import numpy as np
from measuring import Cost, parser_of, take_turns, write_figures
from PIL import Image

from vlm_rm_sweeps.frames import FrameFormat
from vlm_rm_sweeps.rewards.open_clip_models import EMBEDDED_PREPROCESSING
from vlm_rm_sweeps.tasks.cart_pole import UprightCartPole
from vlm_rm_sweeps.tasks.humanoid.env import Humanoid
from vlm_rm_sweeps.tasks.mountain_car import MOUNTAINCAR_SUMMIT, SummitMountainCar
from vlm_rm_sweeps.tasks.opengl import choose_backend
from vlm_rm_sweeps.tasks.registry import find_task
from vlm_rm_sweeps.tasks.rendering import Profile, Rendering, render_frame

SIZES = (EMBEDDED_PREPROCESSING.size, 224)
PYGAME_FRAMES = 100
HUMANOID_FRAMES = 10
HUMANOID_STEPS = 100


@dataclass(frozen=True)
class Row:
    """The cost of one frame here and in Gymnasium."""

    frame: str
    pixels: int
    here: Cost
    gymnasium: Cost


def cost_of_each(actions: dict[str, Callable[[], object]], repetitions: int, rounds: int) -> dict[str, Cost]:
    """Time several actions, which take turns.

    Args:
        actions: Functions by name.
        repetitions: Calls of each action in each round.
        rounds: Rounds.

    Returns:
        The cost of one call of each action, median over the rounds.
    """

    def repeated(action: Callable[[], object]) -> None:
        for _ in range(repetitions):
            action()

    costs = take_turns({name: functools.partial(repeated, action) for name, action in actions.items()}, rounds)
    return {name: Cost(each.seconds / repetitions, each.cpu_seconds / repetitions) for name, each in costs.items()}


def gymnasium_frame(env: gym.Env, size: int) -> Callable[[], np.ndarray]:
    """Make the function that renders a frame with Gymnasium and resizes it with PIL.

    Args:
        env: An environment that has been reset.
        size: Edge of the frame, in pixels.

    Returns:
        A function that renders the environment's state as uint8 (size, size, 3).
    """
    return lambda: np.asarray(Image.fromarray(np.asarray(env.render())).resize((size, size), Image.Resampling.BICUBIC))


def compare(size: int, ours: dict[str, gym.Env], theirs: gym.Env, repetitions: int, rounds: int) -> list[Row]:
    """Compare environments of this package with Gymnasium's, and close all of them.

    Args:
        size: Edge of the frames, in pixels.
        ours: This package's environments by name.
        theirs: Gymnasium's environment.
        repetitions: Frames in each round.
        rounds: Rounds.

    Returns:
        A row for each of `ours`.
    """
    frame_format = FrameFormat(size)
    actions: dict[str, Callable[[], object]] = {
        name: functools.partial(render_frame, env, frame_format) for name, env in ours.items()
    }
    actions["Gymnasium"] = gymnasium_frame(theirs, size)
    for env in (*ours.values(), theirs):
        env.reset(seed=0)
        env.render()
    costs = cost_of_each(actions, repetitions, rounds)
    for env in (*ours.values(), theirs):
        env.close()
    return [Row(name, size, costs[name], costs["Gymnasium"]) for name in ours]


def all_frames(size: int, rounds: int) -> list[Row]:
    """Compare all environments at one size.

    Args:
        size: Edge of the frames, in pixels.
        rounds: Rounds.

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
        *compare(size, {"CartPole": UprightCartPole(FrameFormat(size))}, by_gymnasium("CartPole-v1"), PYGAME_FRAMES, rounds),
        *compare(size, cars, by_gymnasium("MountainCarContinuous-v0"), PYGAME_FRAMES, rounds),
        *compare(size, humanoids, by_gymnasium("Humanoid-v5", width=size, height=size), HUMANOID_FRAMES, rounds),
    ]


def humanoid_steps(size: int, rounds: int) -> dict[str, Cost]:
    """Return the cost of a step of the humanoid, with a frame of `size` pixels and without one."""
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

    return cost_of_each({name: stepping(env) for name, env in envs.items()}, HUMANOID_STEPS, rounds)


def main() -> None:
    """Print the table and the steps per second, and write them as JSON."""
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="turns of each renderer")
    options = parser.parse_args()
    print(f"OpenGL by {choose_backend()}\n")
    print(f"{'frame':30}{'pixels':>8}{'here':>12}{'Gymnasium':>12}{'times as fast':>16}")
    rows = []
    for size in SIZES:
        for row in all_frames(size, options.rounds):
            here, there = 1e3 * row.here.seconds, 1e3 * row.gymnasium.seconds
            print(f"{row.frame:30}{row.pixels:8}{here:9.2f} ms{there:9.2f} ms{there / here:16.1f}", flush=True)
            rows.append(row)
    steps = humanoid_steps(EMBEDDED_PREPROCESSING.size, options.rounds)
    rates = ", ".join(f"{name} {1 / each.seconds:.0f}" for name, each in steps.items())
    print(f"\nhumanoid, steps/s at {EMBEDDED_PREPROCESSING.size} x {EMBEDDED_PREPROCESSING.size}: {rates}")
    write_figures(options, {"frames": rows, "humanoid_steps": steps})


if __name__ == "__main__":
    main()
