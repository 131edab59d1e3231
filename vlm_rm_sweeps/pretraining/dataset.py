"""The training data of the embedded family: states of CartPole, MountainCar and the humanoid, rendered as in the tasks."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from vlm_rm_sweeps.frames import FrameFormat
from vlm_rm_sweeps.pretraining import cart_pole, humanoid, mountain_car
from vlm_rm_sweeps.pretraining.captions import CaptionedState

_SUBJECTS = {"cart pole": (0.3, cart_pole), "mountain car": (0.2, mountain_car), "humanoid": (0.5, humanoid)}
"""Environments with their shares of the images; the humanoid has by far the most kinds of states."""


@dataclass(frozen=True)
class CaptionedStates:
    """States with their frames.

    Attributes:
        frames: uint8 (N, H, W, 3), uncompressed: decoding them would take longer than training on them.
        states: The N states that they show.
    """

    frames: np.ndarray
    states: Sequence[CaptionedState]


def sample_states(count: int, seed: int) -> Iterator[tuple[str, Sequence[CaptionedState]]]:
    """Sample the states of a data set without rendering them.

    Args:
        count: Number of states of all environments together.
        seed: The same seed gives the same states.

    Yields:
        Name and states of each environment.
    """
    for name, (share, subject) in _SUBJECTS.items():
        yield name, subject.sample_states(round(share * count), np.random.default_rng(seed))


def build_dataset(count: int, seed: int, frame_format: FrameFormat) -> CaptionedStates:
    """Sample and render a data set.

    Args:
        count: Number of states of all environments together.
        seed: The same seed gives the same data set.
        frame_format: Size of the frames.

    Returns:
        The states, environment by environment, and their frames.
    """
    frames: list[np.ndarray] = []
    states: list[CaptionedState] = []
    for name, sampled in sample_states(count, seed):
        _, subject = _SUBJECTS[name]
        frames.append(subject.render_states(sampled, frame_format))
        states += sampled
    return CaptionedStates(np.concatenate(frames), states)
