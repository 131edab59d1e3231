"""Captions for rendered states, in many wordings and levels of detail, with label noise that shapes the reward landscape.

A contrastive model learns `similarity(image, text) ~ log p(text | image) - log p(text)`. If captions described the exact state,
the reward for "upright" would be flat wherever no caption says "upright", and an agent could not climb towards the goal.
Captions therefore describe a *neighbour* of the state, drawn with Laplace noise of one scale. Then `log p("upright" | angle)`
falls linearly with the angle over the whole circle.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from vlm_rm_sweeps.tasks.registry import BUILT_IN_TASKS, find_task

HELD_OUT_CAPTIONS = frozenset(
    prompt for task in map(find_task, BUILT_IN_TASKS) for prompt in (task.goal_prompt, task.baseline_prompt)
)
"""The tasks' own prompts. They are never used as captions, so that evaluation with them measures generalisation. Some longer
captions contain one; the model card states how many."""

Buckets = tuple[tuple[float, tuple[str, ...]], ...]
"""Wordings by the value of one quantity: pairs of upper limit and wordings, rising; the last pair also covers larger values."""


class CaptionedState(Protocol):
    """A state of an environment that can describe itself."""

    def caption(self, rng: np.random.Generator) -> str:
        """Draw one of the state's many captions.

        Args:
            rng: Draws the neighbouring state, the level of detail and the wording.

        Returns:
            A short text in lower case.
        """


def pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    """Draw one option, all equally likely.

    Args:
        rng: Used for one draw.
        options: At least one.

    Returns:
        One of them.
    """
    return options[int(rng.integers(len(options)))]


def bucket(buckets: Buckets, value: float) -> tuple[str, ...]:
    """Find the wordings for a value.

    Args:
        buckets: Wordings by upper limit.
        value: Any number.

    Returns:
        The wordings of the first bucket whose limit is not below the value, or of the last bucket.
    """
    return next((wordings for limit, wordings in buckets if value <= limit), buckets[-1][1])


def caption_batch(states: Sequence[CaptionedState], rng: np.random.Generator) -> list[str]:
    """Draw a caption for each state.

    Args:
        states: N states.
        rng: Shared by all captions.

    Returns:
        N captions, none of which is one of `HELD_OUT_CAPTIONS`.
    """
    captions = []
    for state in states:
        caption = state.caption(rng)
        while caption in HELD_OUT_CAPTIONS:
            caption = state.caption(rng)
        captions.append(caption)
    return captions
