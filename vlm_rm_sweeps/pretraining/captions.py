"""Captions for rendered states: many wordings, several levels of detail, and a label noise that orders the landscape.

A contrastive model learns `similarity(image, text) ~ log p(text | image) - log p(text)`. With captions of the exact state,
the reward of "upright" is therefore flat wherever no caption says "upright": the goal is found and everything else is left
unordered. So captions describe a *neighbour* of the state, drawn with Laplace noise of one scale; `log p("upright" | angle)` then
falls in a straight line with the angle over the whole circle, and that is the reward an agent can climb.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from vlm_rm_sweeps.tasks.registry import BUILT_IN_TASKS, find_task

HELD_OUT_CAPTIONS = frozenset(
    prompt for task in map(find_task, BUILT_IN_TASKS) for prompt in (task.goal_prompt, task.baseline_prompt)
)
"""The tasks' own prompts, never a caption, so that evaluation with them measures generalisation. A few of the longer captions begin
with one; the model card says how many."""

Buckets = tuple[tuple[float, tuple[str, ...]], ...]
"""Wordings by the value of one quantity: (upper limit, wordings), in rising order; the last one is for all larger values."""


class CaptionedState(Protocol):
    """A state of some environment that can describe itself."""

    def caption(self, rng: np.random.Generator) -> str:
        """One of its many captions."""


def pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    """One of the options, all equally likely."""
    return options[int(rng.integers(len(options)))]


def bucket(buckets: Buckets, value: float) -> tuple[str, ...]:
    """The wordings for a value."""
    return next((wordings for limit, wordings in buckets if value <= limit), buckets[-1][1])


def caption_batch(states: Sequence[CaptionedState], rng: np.random.Generator) -> list[str]:
    """A caption for each state; none is a task's own prompt."""
    captions = []
    for state in states:
        caption = state.caption(rng)
        while caption in HELD_OUT_CAPTIONS:
            caption = state.caption(rng)
        captions.append(caption)
    return captions
