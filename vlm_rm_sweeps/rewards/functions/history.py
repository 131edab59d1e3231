"""History: rewards of the last frames, for tasks that a single frame does not show."""

from typing import ClassVar

import numpy as np
from pydantic import Field

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.rewards.functions.base import OWN, FrameReward, Range, RewardFunction, Texts, Weight, dots
from vlm_rm_sweeps.rewards.functions.goal_baseline import MIN_DISTANCE


class GoalCosine(FrameReward):
    """Dot product of the image with the goal."""

    def reward(self, images: np.ndarray, texts: Texts) -> np.ndarray:
        """Compute s.g for each image."""
        return dots(images, texts.goal)


class GoalProjection(FrameReward):
    """Dot product of the image with the unit vector from baseline to goal."""

    def reward(self, images: np.ndarray, texts: Texts) -> np.ndarray:
        """Compute s.u for each image.

        Args:
            images: Unit embeddings of the images, float32 (n, d).
            texts: Goal and baseline.

        Returns:
            float32 (n,).

        Raises:
            UserError: The embeddings of goal and baseline coincide, so that they define no direction.
        """
        direction = texts.goal - texts.baseline
        length = np.sqrt(np.square(direction).sum(dtype=np.float32))
        if length < MIN_DISTANCE:
            raise UserError("a goal and its baseline have the same embedding: word them differently")
        return dots(images, direction / length)


class History(RewardFunction):
    """Mean and change over the last k frames of an episode.

    With s_t the embedding of the frame after step t, g and b those of goal and baseline, u = (g - b) / |g - b|, w the weight and
    k the number of frames,

        R_t = (s_(t-k+1) + ... + s_t).g / k + w (s_t - s_(t-k+1)).u

    The first k - 1 steps of an episode have fewer frames: mean and change are over those that there are, so the first step has the
    cosine and no change. Both terms are linear in numbers of single frames, so each frame is encoded once.

    Source: this project's own.
    Shapes: each s_t, g and b (d,); of t steps, the columns s.g and s.u (t, 2) and R (t,).
    """

    formula: ClassVar[str] = "mean over the last k frames of s.g + weight * (change over them of s.u), u from baseline to goal"
    source: ClassVar[str] = OWN

    frames: int = Field(4, ge=2, le=1_000, description="Number of frames, k: those after the last k steps.")
    weight: Weight = Field(1.0, description="Weight of the change along the direction from baseline to goal.")

    def parts(self) -> tuple[FrameReward, ...]:
        """Return the dot products with the goal and with the direction from baseline to goal."""
        return GoalCosine(), GoalProjection()

    @property
    def memory(self) -> int:
        """The frames before a step's own."""
        return self.frames - 1

    def range(self) -> Range:
        """Return the bounds for unit embeddings."""
        furthest = 1 + 2 * abs(self.weight)
        return -furthest, furthest

    def combine(self, columns: np.ndarray, true_rewards: np.ndarray) -> np.ndarray:
        """Compute the rewards of consecutive steps of one episode."""
        cosines, projections = columns.astype(np.float64).T
        steps = np.arange(len(columns))
        first = np.maximum(steps - self.frames + 1, 0)
        total = np.zeros(len(columns))
        for back in range(min(self.frames, len(columns))):
            # Newest first in every window, so that the rounding does not depend on where the steps begin.
            total[back:] += cosines[: len(columns) - back]
        means = total / (steps - first + 1)
        return (means + self.weight * (projections - projections[first])).astype(np.float32)
