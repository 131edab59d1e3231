"""Where the states of a data set come from: uniform sampling of a task's states, episodes of learned policies, or images.

Rollouts import Ray's policies, which takes seconds: only where there is a policy to run.
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
from vlm_rm_sweeps.tasks.registry import known_task
from vlm_rm_sweeps.tasks.rendering import Rendering
from vlm_rm_sweeps.tasks.state_space import StateSpace
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
        rendering: How states are drawn; None takes the task's default.

    Yields:
        States with their success.

    Raises:
        UserError: The task has no state space.
    """
    space = task.require_states()
    rng = np.random.default_rng(seed)
    drawn = rendering or task.rendering()
    env = task.make_native_env(drawn, None)
    try:
        env.reset(seed=seed)
        for index in range(count):
            space.sample(env, rng)
            yield _state_of(env, space, Provenance("uniform", step=index, seed=seed, **asdict(drawn)))
    finally:
        env.close()


def _state_of(env: gym.Env, space: StateSpace, provenance: Provenance) -> State:
    """Return the state that the environment is in."""
    return State(np.asarray(env.render()), provenance, space.read(env), space.in_goal(env))


def task_of_all(checkpoints: "Sequence[Checkpoint]") -> Task:
    """Find the task that policies were trained for.

    Args:
        checkpoints: At least one policy.

    Raises:
        UserError: The policies are of several tasks, or of an `env` of a sweep file; or the task is unknown, see `known_task`.
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
    """Every `every`-th state of each policy's `episodes`, with its success, drawn as in the policy's training.

    The policies act greedily. The episodes of each have the seeds `seed`, `seed + 1`, ..., so all policies start alike. Raises
    UserError if the policies are not of one task, or no episode has as many steps as `every`.
    """
    from vlm_rm_sweeps.evaluation.rollouts import load_policy, rendering_of, run_episode

    task = task_of_all(checkpoints)
    space = task.require_states()
    if every > task.episode_steps:
        raise UserError(f"every {every} steps: expected at most {task.episode_steps}, the length of an episode of {task.name}")
    for checkpoint in checkpoints:
        policy, rendering, provenance = load_policy(checkpoint, task), rendering_of(checkpoint), _provenance(checkpoint)
        provenance = replace(provenance, **asdict(rendering))
        for each in range(seed, seed + episodes):
            visit = _visitor(space, every, replace(provenance, seed=each))
            visited = run_episode(task, policy, each, rendering=rendering, visit=visit).visited
            yield from (state for state in visited if state is not None)
        say(f"{checkpoint.folder}: {episodes} episodes")


def _visitor(space: StateSpace, every: int, provenance: Provenance) -> Callable[[gym.Env], State | None]:
    """Return a function to be called after each step of an episode, which returns every `every`-th state."""
    steps = count(1)

    def visit(env: gym.Env) -> State | None:
        step = next(steps)
        return None if step % every else _state_of(env, space, replace(provenance, step=step))

    return visit


def _provenance(checkpoint: "Checkpoint") -> Provenance:
    """Return what is named by the folders that a policy lies in: SWEEP/trials/TRIAL/CHECKPOINT. Elsewhere sweep and trial are unknown."""
    from vlm_rm_sweeps.training.checkpoints import TRIALS

    folder = checkpoint.folder.resolve()
    trial = folder.parent
    if trial.parent.name != TRIALS:
        return Provenance(ROLLOUT, checkpoint=folder.name)
    return Provenance(ROLLOUT, origin=trial.parent.parent.name, trial=trial.name, checkpoint=folder.name)


def states_of_images(folder: Path) -> Iterator[State]:
    """Return a state for each image in a folder and the folders below it; of these nothing is known but the picture."""
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
