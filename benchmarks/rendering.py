"""Milliseconds for one CartPole frame at the models' input size, against Gymnasium's render followed by a PIL resize.

Run: make bench (or: .venv/bin/python benchmarks/rendering.py). The two sides take turns in one run; the figures are medians.
"""

import statistics
import time
from collections.abc import Callable

import gymnasium as gym
import numpy as np
from PIL import Image

from vlm_rm_sweeps.rewards.catalog import EMBEDDED_PREPROCESSING
from vlm_rm_sweeps.tasks.cart_pole import UprightCartPole
from vlm_rm_sweeps.tasks.rendering import render_frame

FRAMES = 200
ROUNDS = 7


def milliseconds(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    for _ in range(FRAMES):
        action()
    return (time.perf_counter() - started) / FRAMES * 1e3


def main() -> None:
    ours = UprightCartPole()
    theirs = gym.make("CartPole-v1", render_mode="rgb_array").unwrapped
    ours.reset(seed=0)
    theirs.reset(seed=0)
    frame_format = EMBEDDED_PREPROCESSING.frame_format
    size = (frame_format.size, frame_format.size)

    def gymnasium_and_pil() -> np.ndarray:
        return np.asarray(Image.fromarray(np.asarray(theirs.render())).resize(size, Image.Resampling.BICUBIC))

    times = [(milliseconds(lambda: render_frame(ours, frame_format)), milliseconds(gymnasium_and_pil)) for _ in range(ROUNDS)]
    here, there = (statistics.median(column) for column in zip(*times, strict=True))
    print(
        f"frame at {size[0]} x {size[1]}: {here:.2f} ms; Gymnasium's render and PIL's resize: {there:.2f} ms; ratio {here / there:.2f}"
    )


if __name__ == "__main__":
    main()
