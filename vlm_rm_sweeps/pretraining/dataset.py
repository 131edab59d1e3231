"""The training images of the embedded family: states of the supported environments, rendered as the tasks render them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from vlm_rm_sweeps.frames import FrameFormat
from vlm_rm_sweeps.pretraining import cart_pole, humanoid, mountain_car
from vlm_rm_sweeps.pretraining.captions import CaptionedState

_SUBJECTS = {"cart pole": (0.3, cart_pole), "mountain car": (0.2, mountain_car), "humanoid": (0.5, humanoid)}
"""What is shown, with its share of the images: the humanoid has by far the most kinds of states."""


@dataclass(frozen=True)
class CaptionedStates:
    """`frames`: uint8 (N, H, W, 3), kept as bytes because decoding and augmenting would cost more than the model;
    `states`: the N states that they show."""

    frames: np.ndarray
    states: Sequence[CaptionedState]


def sample_states(count: int, seed: int) -> Iterator[tuple[str, Sequence[CaptionedState]]]:
    """The states of a data set of `count`, by environment; nothing is drawn."""
    for name, (share, subject) in _SUBJECTS.items():
        yield name, subject.sample_states(round(share * count), np.random.default_rng(seed))


def build_dataset(count: int, seed: int, frame_format: FrameFormat) -> CaptionedStates:
    """`count` states and their frames; the same seed gives the same data set."""
    frames: list[np.ndarray] = []
    states: list[CaptionedState] = []
    for name, sampled in sample_states(count, seed):
        _, subject = _SUBJECTS[name]
        frames.append(subject.render_states(sampled, frame_format))
        states += sampled
    return CaptionedStates(np.concatenate(frames), states)
