"""Scores the states of a data set, or any frames, for many specs with one encoding of each image."""

from collections.abc import Sequence
from itertools import groupby

import numpy as np

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.evaluation.states import StateDataset
from vlm_rm_sweeps.frames import resize_frames
from vlm_rm_sweeps.rewards.reward_model import RewardModel, RewardSpec

_CHUNK = 64
"""Frames scored at a time: one micro-batch, and few enough that frames x specs x embedding fits into memory for 1 000 specs."""


def score_frames(model: RewardModel, frames: Sequence[np.ndarray] | np.ndarray, specs: Sequence[RewardSpec]) -> np.ndarray:
    """Rewards float32 (N, specs) of frames uint8 (H, W, 3), whose sizes may differ.

    Raises UserError if a reward is not finite.
    """
    resized = [resize_frames(frame[None], model.frame_format)[0] for frame in frames]
    chunks = []
    for _, same_size in groupby(resized, key=lambda frame: frame.shape):
        stacked = np.stack(list(same_size))
        chunks += [model.score(stacked[start : start + _CHUNK], specs) for start in range(0, len(stacked), _CHUNK)]
    rewards = np.concatenate(chunks)
    refuse_not_finite(rewards, model.model_id)
    return rewards


def refuse_not_finite(rewards: np.ndarray, model_id: str) -> None:
    """UserError if one of a model's rewards is NaN or infinite: no mean or correlation of them means anything."""
    broken = ~np.isfinite(rewards)
    if broken.any():
        raise UserError(
            f"{model_id} gave {int(broken.sum())} of {rewards.size} rewards that are not finite: it cannot be measured; try "
            "fp32, or check its weights"
        )


def score_states(model: RewardModel, dataset: StateDataset, specs: Sequence[RewardSpec]) -> np.ndarray:
    """Rewards float32 (states, specs) of a data set, in the order of its table; each image is encoded once."""
    chunks = [
        score_frames(model, [dataset.frame(index) for index in range(start, min(start + _CHUNK, len(dataset)))], specs)
        for start in range(0, len(dataset), _CHUNK)
    ]
    return np.concatenate(chunks)
