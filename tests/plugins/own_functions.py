"""Reward functions as users write them: a module that lies beside a sweep file, named there as `own_functions:Closeness`."""

import numpy as np
from pydantic import Field

from vlm_rm_sweeps.rewards.functions.base import FrameReward, RewardFunction, Texts, dots


class Closeness(FrameReward):
    """How much closer the image is to the goal than to the baseline."""

    power: float = Field(1.0, gt=0, description="Exponent.")

    def reward(self, images: np.ndarray, texts: Texts) -> np.ndarray:
        nearer = (1 + dots(images, texts.goal) - dots(images, texts.baseline)) / 2
        return np.sign(nearer) * np.abs(nearer) ** np.float32(self.power)


class OneForAll(FrameReward):
    """It returns one number for all images."""

    def reward(self, images: np.ndarray, texts: Texts) -> np.ndarray:
        return dots(images, texts.goal).mean(keepdims=True)


class Unfinished(RewardFunction):
    """It has parts, and does not say how they are combined."""

    def parts(self) -> tuple[FrameReward, ...]:
        return (Closeness(),)
