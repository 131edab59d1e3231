"""Where the states of a data set come from: uniform sampling of a task's states, or a folder of images."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.evaluation.state_spaces import state_space
from vlm_rm_sweeps.evaluation.states import Provenance, State
from vlm_rm_sweeps.tasks.rendering import Rendering
from vlm_rm_sweeps.tasks.task import Task

_IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


def sampled_states(task: Task, count: int, seed: int, rendering: Rendering | None = None) -> Iterator[State]:
    """`count` states drawn by the task's state space, each with its success; the same seed gives the same states."""
    space = state_space(task)
    rng = np.random.default_rng(seed)
    env = task.make_native_env(rendering or task.rendering(), None)
    try:
        env.reset(seed=seed)
        for index in range(count):
            space.sample(env, rng)
            frame = np.asarray(env.render())
            provenance = Provenance("uniform", step=index, seed=seed)
            yield State(frame, provenance, space.read(env), space.in_goal(env))
    finally:
        env.close()


def states_of_images(folder: Path) -> Iterator[State]:
    """A state for each image in a folder and the folders below it; of these nothing is known but the picture."""
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder: expected one with images ({', '.join(_IMAGE_SUFFIXES)})")
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in _IMAGE_SUFFIXES)
    if not files:
        raise UserError(f"{folder} has no images: expected files that end in {', '.join(_IMAGE_SUFFIXES)}")
    for file in files:
        try:
            frame = np.asarray(Image.open(file).convert("RGB"))
        except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise UserError(f"{file} cannot be read as an image: {error}") from error
        yield State(frame, Provenance("images", origin=str(file.relative_to(folder))))
