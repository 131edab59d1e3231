"""Sources of states for a data set: uniform samples of a task's state space, episodes of learned policies, or images.

`evaluation.rollouts` imports RLlib, which takes seconds, so it is imported only when a policy is run.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import gymnasium as gym
import numpy as np
from PIL import Image, UnidentifiedImageError

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.evaluation.states import ROLLOUT, Provenance, State
from vlm_rm_sweeps.files import refuse_no_file
from vlm_rm_sweeps.frames import check_frames
from vlm_rm_sweeps.tasks.registry import known_task
from vlm_rm_sweeps.tasks.rendering import Rendering
from vlm_rm_sweeps.tasks.state_space import StateSpace, read_state
from vlm_rm_sweeps.tasks.task import Task

if TYPE_CHECKING:
    from vlm_rm_sweeps.training.checkpoints import Checkpoint

_IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


def sampled_states(task: Task, count: int, seed: int, rendering: Rendering | None = None) -> Iterator[State]:
    """Draw random states of a task from its state space.

    Args:
        task: The task.
        count: Number of states.
        seed: The same seed gives the same states.
        rendering: How states are rendered; by default the task's first textures and camera.

    Yields:
        `count` states, each with its variables and the result of the success test.

    Raises:
        UserError: The task has no state space.
    """
    space = task.require_states()
    rng = np.random.default_rng(seed)
    drawn = rendering or task.rendering()
    env = task.native_env(drawn)
    try:
        env.reset(seed=seed)
        for index in range(count):
            space.sample(env, rng)
            yield _state_of(env, space, Provenance("uniform", step=index, seed=seed, **asdict(drawn)))
    finally:
        env.close()


def _state_of(env: gym.Env, space: StateSpace, provenance: Provenance) -> State:
    """Read frame, variables and success from the environment in its current state."""
    frame = np.asarray(env.render())
    check_frames(frame[None])
    return State(frame, provenance, *read_state(space, env))


def task_of_all(checkpoints: "Sequence[Checkpoint]") -> Task:
    """Find the task that all of the policies were trained for.

    Args:
        checkpoints: At least one policy.

    Returns:
        The task.

    Raises:
        UserError: The policies were trained for several tasks, or for an `env` of a sweep file; or the task is unknown, see
            `known_task`.
    """
    first = checkpoints[0]
    for checkpoint in checkpoints:
        name = str(checkpoint.content["task"])
        if name != first.content["task"]:
            raise UserError(
                f"{checkpoint.folder} is a policy for {name}, and {first.folder} one for {first.content['task']}: a data set has "
                "states of one task; make one for each"
            )
        if checkpoint.content["env"]:
            raise UserError(
                f"{checkpoint.folder} is a policy for {name}: data sets of states are kept for the tasks of `vlm-rm tasks`, and for no "
                "other environments"
            )
    return known_task(str(first.content["task"]))


def states_of_policies(
    checkpoints: "Sequence[Checkpoint]", episodes: int, every: int, seed: int, say: Callable[[str], None]
) -> Iterator[State]:
    """Collect states from episodes of greedy policies, rendered as in each policy's training.

    Args:
        checkpoints: At least one policy, all for the same task.
        episodes: Number of episodes for each policy.
        every: Keep the state after one in this many actions.
        seed: Seed of each policy's first episode; it rises by 1 for each further episode, so all policies start from the same
            states.
        say: Prints a line of progress.

    Yields:
        States with their variables and the result of the success test.

    Raises:
        UserError: The policies are for different tasks, see `task_of_all`; the task has no state space; or `every` exceeds the
            length of an episode.
    """
    from vlm_rm_sweeps.evaluation.rollouts import load_policy, rendering_of, run_episode, task_of

    task = task_of_all(checkpoints)
    space = task.require_states()
    for checkpoint in checkpoints:
        acted_on = task_of(checkpoint)
        if every > acted_on.episode_actions:
            length = f"{acted_on.episode_actions}, the length of an episode of {task.name}"
            raise UserError(f"every {every} steps: expected at most {length}")
        policy, rendering, provenance = (
            load_policy(checkpoint, acted_on),
            rendering_of(checkpoint, acted_on),
            _provenance(checkpoint),
        )
        provenance = replace(provenance, **asdict(rendering))
        for each in range(seed, seed + episodes):
            visit = _visitor(space, every, replace(provenance, seed=each))
            visited = run_episode(acted_on, policy, each, rendering=rendering, visit=visit).visited
            yield from (state for state in visited if state is not None)
        say(f"{checkpoint.folder}: {episodes} episodes")


def _visitor(space: StateSpace, every: int, provenance: Provenance) -> Callable[[gym.Env], State | None]:
    """Make a function to call after each step of an episode: it returns each `every`-th state, and None for the others."""
    steps = count(1)

    def visit(env: gym.Env) -> State | None:
        step = next(steps)
        return None if step % every else _state_of(env, space, replace(provenance, step=step))

    return visit


def _provenance(checkpoint: "Checkpoint") -> Provenance:
    """Derive sweep and trial from a checkpoint's path, SWEEP/trials/TRIAL/CHECKPOINT; both are unknown for other paths."""
    from vlm_rm_sweeps.training.checkpoints import TRIALS

    folder = checkpoint.folder.resolve()
    trial = folder.parent
    if trial.parent.name != TRIALS:
        return Provenance(ROLLOUT, checkpoint=folder.name)
    return Provenance(ROLLOUT, origin=trial.parent.parent.name, trial=trial.name, checkpoint=folder.name)


def states_of_images(folder: Path) -> Iterator[State]:
    """Read the images of a folder and its subfolders as states without variables or success.

    Args:
        folder: With at least one PNG, JPEG or WebP image.

    Yields:
        A state for each image, in the order of the paths.

    Raises:
        UserError: The folder does not exist or has no images, or an image cannot be read.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder: expected one with images ({', '.join(_IMAGE_SUFFIXES)})")
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in _IMAGE_SUFFIXES)
    if not files:
        raise UserError(f"{folder} has no images: expected files that end in {', '.join(_IMAGE_SUFFIXES)}")
    for file in files:
        try:
            refuse_no_file(file)
            frame = np.asarray(Image.open(file).convert("RGB"))
        except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise UserError(f"{file} cannot be read as an image: {error}") from error
        yield State(frame, Provenance("images", origin=str(file.relative_to(folder))))
