"""Untrained heads for embedded/tiny, with random numbers."""

from typing import Any

import numpy as np

from vlm_rm_sweeps.rewards.clip import ClipRewardModel
from vlm_rm_sweeps.rewards.heads import Head, HeadDescription, HeadWeights

TINY = ClipRewardModel("embedded/tiny")
WIDTH = 32


def a_head(hidden: int = 0, **changed: Any) -> Head:
    """Make a head; keywords change its description."""
    random = np.random.default_rng(0)
    described: dict[str, Any] = {"model": "embedded/tiny", "identity": TINY.weights_identity, "width": WIDTH, "hidden": hidden}
    described |= {"frame_format": TINY.frame_format, "task": "cartpole-upright", "truth": "success", "pairs": False, "seed": 0}
    described |= {"data_sha256": "0" * 64, "counts": {"in the goal": 10}, "measures": {"roc_auc": 0.9, "accuracy": None}}
    numbers = {name: random.normal(size=shape).astype(np.float32) for name, shape in _shapes(hidden).items()}
    return Head(HeadDescription(**described | changed), HeadWeights(bias=0.25, **numbers))


def _shapes(hidden: int) -> dict[str, tuple[int, ...]]:
    if not hidden:
        return {"output_h": (WIDTH,)}
    return {"output_h": (hidden,), "hidden_hd": (hidden, WIDTH), "hidden_bias_h": (hidden,)}


def unit_embeddings(count: int) -> np.ndarray:
    """Draw unit vectors, float32 (count, 32)."""
    images = np.random.default_rng(1).normal(size=(count, WIDTH)).astype(np.float32)
    return images / np.linalg.norm(images, axis=1, keepdims=True)
