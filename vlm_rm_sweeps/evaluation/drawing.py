"""Frames for measuring, drawn as training draws them.

OpenGL draws a small frame directly, and a large one that is shrunk afterwards looks different: antialiased. So where a task draws with
OpenGL, its states are drawn again at each reward model's own size. All others are drawn at one size and resized, in training, too.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack
from types import TracebackType

import gymnasium as gym
import numpy as np

from vlm_rm_sweeps.evaluation.states import StateDataset
from vlm_rm_sweeps.frames import FrameFormat, resize_frames
from vlm_rm_sweeps.tasks.rendering import Rendering, render_frame
from vlm_rm_sweeps.tasks.state_space import RestorableStates, StateValue
from vlm_rm_sweeps.tasks.task import Task


def redraws(task: Task) -> bool:
    """Whether a task's states are drawn again for each frame format: it draws with OpenGL, and its states can be restored."""
    return task.draws_with_opengl and isinstance(task.states, RestorableStates)


class StateDrawer:
    """Draws states of a task in several frame formats. It is a context manager.

    Args:
        task: The task.
        rendering: How states are drawn.
        formats: The formats.
    """

    def __init__(self, task: Task, rendering: Rendering, formats: Collection[FrameFormat]) -> None:
        self._space = task.states
        self._formats = tuple(formats)
        drawn = self._formats if redraws(task) else ()
        self._envs: dict[FrameFormat, gym.Env] = {each: task.make_native_env(rendering, each) for each in drawn}
        for env in self._envs.values():
            env.reset(seed=0)

    def __enter__(self) -> "StateDrawer":
        """Return the drawer itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        """Close the environments that draw."""
        for env in self._envs.values():
            env.close()

    def draw(self, frame: np.ndarray, variables: Mapping[str, StateValue]) -> dict[FrameFormat, np.ndarray]:
        """Draw a state.

        Args:
            frame: The state as it is drawn for people, uint8 (H, W, 3).
            variables: What the state space read of the state.

        Returns:
            uint8 (H', W', 3) by format.
        """
        if not self._envs or not isinstance(self._space, RestorableStates):
            return _resized(frame, self._formats)
        frames = {}
        for each, env in self._envs.items():
            self._space.restore(env, variables)
            frames[each] = render_frame(env, each)
        return frames


def _resized(frame: np.ndarray, formats: Collection[FrameFormat]) -> dict[FrameFormat, np.ndarray]:
    return {each: resize_frames(frame[None], each)[0] for each in formats}


def drawn_states(
    dataset: StateDataset, formats: Collection[FrameFormat], positions: Iterable[int] | None = None
) -> Iterator[dict[FrameFormat, np.ndarray]]:
    """Draw states of a data set, as each of them was drawn for it. Images without a state are resized.

    Args:
        dataset: The states.
        formats: The formats.
        positions: Which of them; None for all.

    Yields:
        For each state, uint8 (H, W, 3) by format.

    Raises:
        UserError: An image cannot be read, or this machine has no OpenGL and the task needs it.
    """
    task = dataset.task
    drawers: dict[Rendering, StateDrawer] = {}
    with ExitStack() as opened:
        for position in range(len(dataset)) if positions is None else map(int, positions):
            frame = dataset.frame(position)
            rendering = dataset.rendering(position) if redraws(task) else None
            if rendering is None:
                yield _resized(frame, formats)
                continue
            if rendering not in drawers:
                drawers[rendering] = opened.enter_context(StateDrawer(task, rendering, formats))
            yield drawers[rendering].draw(frame, dataset.state(position))
