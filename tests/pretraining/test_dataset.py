"""The training data: the same seed gives the same states and frames."""

import numpy as np
import pytest

from vlm_rm_sweeps.frames import FrameFormat
from vlm_rm_sweeps.pretraining.dataset import build_dataset


@pytest.mark.usefixtures("opengl")
def test_dataset_is_decided_by_its_seed() -> None:
    frame_format = FrameFormat(32)
    dataset, again, other = (build_dataset(60, seed, frame_format) for seed in (3, 3, 4))
    assert dataset.frames.shape == (60, 32, 32, 3)
    assert dataset.frames.dtype == np.uint8
    assert dataset.states == again.states
    np.testing.assert_array_equal(dataset.frames, again.frames)
    assert dataset.states != other.states
