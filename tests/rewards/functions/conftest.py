"""A model, frames and embeddings for tests of reward functions."""

import numpy as np
import pytest

from vlm_rm_sweeps.pretraining.cart_pole import render_states, sample_states
from vlm_rm_sweeps.rewards.clip import ClipRewardModel
from vlm_rm_sweeps.rewards.open_clip_models import EMBEDDED_PREPROCESSING


@pytest.fixture(scope="session")
def model() -> ClipRewardModel:
    loaded = ClipRewardModel("embedded/tiny")
    loaded.load()
    return loaded


@pytest.fixture(scope="session")
def frames() -> np.ndarray:
    """70 frames of CartPole, all over the circle and the track."""
    return render_states(sample_states(70, np.random.default_rng(1)), EMBEDDED_PREPROCESSING.frame_format)


@pytest.fixture(scope="session")
def images(model: ClipRewardModel, frames: np.ndarray) -> np.ndarray:
    """Their embeddings, float64 (70, d)."""
    return model.encode_frames(frames).numpy().astype(np.float64)
