"""A reward function of your own: one class. Here, how much nearer the frame is to the goal than to the baseline.

    vlm-rm sweep examples/own_parts.yaml          names it as `own_reward:Nearness`
    vlm-rm --module own_reward.py epic DATASET --model embedded/small --reward own_reward:Nearness    (in this folder)

Any CLIP model computes it: trials, `landscape`, `epic`, screenings, audits, `--judge` and the report use it like any other reward.
"""

import numpy as np
from pydantic import Field

from vlm_rm_sweeps import FrameReward, Texts, dots


class Nearness(FrameReward):
    """Cosine to the goal minus cosine to the baseline, which may count less. Its fields are parameters in the sweep file."""

    weight: float = Field(1.0, ge=0, le=1, description="How much the cosine to the baseline counts.")

    def reward(self, images: np.ndarray, texts: Texts) -> np.ndarray:
        """Compute rewards (n,) of unit embeddings (n, d); `texts.embed("a sentence")` embeds any other text."""
        return dots(images, texts.goal) - np.float32(self.weight) * dots(images, texts.baseline)
