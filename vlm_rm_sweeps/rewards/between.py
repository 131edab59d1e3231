"""Rewards of the steps between those whose frames are encoded: with a large model, encoding is what takes the time."""

from typing import Literal

import numpy as np

Between = Literal["hold", "interpolate"]
"""What a step between two scored ones gets: the last scored value, or the straight line between both."""


def is_scored(step: int, every: int) -> bool:
    """Decide whether the frame after a step is encoded: after the first step of an episode, and each `every` steps later.

    Args:
        step: The step's number in its episode, from 0.
        every: Of how many steps one is scored.

    Returns:
        Whether it is.
    """
    return step % every == 0


def fill_between(steps: np.ndarray, scored: np.ndarray, values: np.ndarray, between: Between) -> np.ndarray:
    """Compute the values of all steps of an episode from those that were scored.

    After the last scored step its value is held, whatever `between` says: the next one is not known yet.

    Args:
        steps: Numbers of the steps in the episode, int (t,), ascending.
        scored: Numbers of the scored steps, int (m,), ascending. The first of them is not after the first of `steps`.
        values: Values of the scored steps, float32 (m, p).
        between: What the others get.

    Returns:
        float32 (t, p); at a scored step exactly its own.
    """
    if between == "hold":
        held: np.ndarray = values[np.searchsorted(scored, steps, side="right") - 1]
        return held
    columns = [np.interp(steps, scored, column) for column in values.T]
    return np.stack(columns, axis=1).astype(np.float32)
