"""Scoring of frames and data sets of states by any reward model or pool. Each image is encoded once for all specs."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby, islice

import numpy as np

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.evaluation.drawing import drawn_states
from vlm_rm_sweeps.evaluation.states import StateDataset
from vlm_rm_sweeps.frames import FrameFormat, resize_frames
from vlm_rm_sweeps.rewards.columns import Columns
from vlm_rm_sweeps.rewards.reward_model import RewardModel, RewardSpec, scores_of

_CHUNK = 1_024
"""Frames scored at a time: 154 MB at 224 x 224 pixels."""


def score_frames(
    model: RewardModel,
    frames: Iterable[np.ndarray],
    specs: Sequence[RewardSpec],
    say: Callable[[str], None] | None = None,
    runs: Sequence[np.ndarray] = (),
) -> np.ndarray:
    """Score frames, whose sizes may differ.

    Args:
        model: A loaded model, or a pool.
        frames: N frames, each uint8 (H, W, 3). They are consumed one by one, and kept only at the model's input size.
        specs: Reward specs, at least one.
        say: Is told what the model remarks on these frames as a whole, such as that it has never seen their like; None to ask for no
            remarks.
        runs: Positions of frames of consecutive steps of one episode, int (t,) each. A reward of several frames sees those of its run;
            a frame of no run stands alone.

    Returns:
        Rewards, float32 (N, number of specs), in the order of the frames.

    Raises:
        UserError: A reward is not finite.
    """
    own = {name: specs[0].column(name) for name in model.columns} if say else {}
    columns = Columns([*specs, *own.values()])
    rewards = [scores_of(model, chunk, columns.asked) for chunk in in_chunks(frames, model.frame_format)]
    scored = columns.along(np.concatenate(rewards), runs)
    refuse_not_finite(scored, model.model_id)
    scored, told = scored[:, : len(specs)], scored[:, len(specs) :]
    if say and own:
        for remark in model.remarks_on_states(dict(zip(own, told.mean(axis=0, dtype=np.float64).tolist(), strict=True))):
            say(remark)
    return scored


def in_chunks(frames: Iterable[np.ndarray], frame_format: FrameFormat) -> Iterator[np.ndarray]:
    """Resize frames, whose sizes may differ, and stack them by size.

    Args:
        frames: Each uint8 (H, W, 3). They are consumed one by one.
        frame_format: The size.

    Yields:
        Frames in their order, uint8 (N, H', W', 3) with N of at most 1 024.
    """
    resized = (resize_frames(frame[None], frame_format)[0] for frame in frames)
    for _, same_size in groupby(resized, key=lambda frame: frame.shape):
        while chunk := list(islice(same_size, _CHUNK)):
            yield np.stack(chunk)


def frames_of(dataset: StateDataset, frame_format: FrameFormat, positions: Iterable[int] | None = None) -> Iterator[np.ndarray]:
    """Draw states of a data set one by one, as training would draw them (see `drawing`).

    Args:
        dataset: The states.
        frame_format: The reward model's.
        positions: Which of them; None for all.

    Yields:
        uint8 (H, W, 3) each.

    Raises:
        UserError: An image cannot be read.
    """
    return (frames[frame_format] for frames in drawn_states(dataset, [frame_format], positions))


def refuse_not_finite(rewards: np.ndarray, model_id: str) -> None:
    """Refuse rewards that are NaN or infinite, because their means and correlations would be meaningless.

    Args:
        rewards: Of any shape.
        model_id: The model that gave them, for the message.

    Raises:
        UserError: One of them is not finite.
    """
    broken = ~np.isfinite(rewards)
    if broken.any():
        raise UserError(
            f"{model_id} gave {int(broken.sum())} of {rewards.size} rewards that are not finite: it cannot be measured; try "
            "fp32, or check its weights"
        )


def score_states(
    model: RewardModel, dataset: StateDataset, specs: Sequence[RewardSpec], say: Callable[[str], None] | None = None
) -> np.ndarray:
    """Score the states of a data set, drawn as training would draw them.

    A reward of several frames sees those of the steps directly before, where the data set has them.

    Args:
        model: A loaded model, or a pool.
        dataset: N states; each image is read and encoded once.
        specs: Reward specs.
        say: See `score_frames`.

    Returns:
        Rewards, float32 (N, number of specs), in the order of the data set's table.

    Raises:
        UserError: An image cannot be read, or a reward is not finite.
    """
    return score_frames(model, frames_of(dataset, model.frame_format), specs, say, dataset.trajectories.runs())
