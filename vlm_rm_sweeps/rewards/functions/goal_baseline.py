"""Goal-baseline regularisation: the reward of the paper (arXiv 2310.12921, section 3.2), for many specs at once.

With s, g and b the embeddings of image, goal and baseline, and L the line through b and g,

    R(s) = 1 - || alpha * proj_L(s) + (1 - alpha) * s - g ||^2 / 2

As g lies on L, the vector in the norm is `alpha * P(s - g) + (1 - alpha) * (s - g)`, with P the projection onto u, the unit
vector along g - b. Its component along u is `t = (s - g) . u`, whatever alpha is; the orthogonal component is scaled by
`1 - alpha`. So

    R(s) = 1 - (t^2 + (1 - alpha)^2 * (|s - g|^2 - t^2)) / 2

needs two dot products for each image and spec.

Shape suffixes: n images, s specs, d embedding dimensions.
"""

from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import Field

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.rewards.functions.base import FrameReward, Range, Texts

if TYPE_CHECKING:
    import torch

MIN_DISTANCE = 1e-4
"""Least distance of the embeddings of a goal and its baseline: closer ones define no direction."""


class GoalBaseline(FrameReward):
    """Goal-baseline regularisation. In a sweep file, `alphas: [0.5]` is the short form.

    With s, g and b the embeddings of image, goal and baseline, and proj_L the projection onto the line L through b and g,

        R(s) = 1 - |alpha proj_L(s) + (1 - alpha) s - g|^2 / 2

    Source: arXiv 2310.12921, section 3.2.
    Shapes: images s (n, d) of length 1; g and b (d,), each a mean over its prompts; R(s) (n,), from -1 to 1.
    """

    formula: ClassVar[str] = "1 - |alpha proj_L(s) + (1 - alpha) s - g|^2 / 2, with L the line through baseline and goal"
    source: ClassVar[str] = "arXiv 2310.12921, section 3.2"

    alpha: float = Field(
        0.0, ge=0, le=1, description="From 0 (cosine to the goal) to 1 (only the direction from baseline to goal counts)."
    )

    def range(self) -> Range:
        """Return the bounds for unit embeddings.

        Returns:
            -1 and 1: the vector in the norm is at most as long as s - g, which is at most 2, and 1 - 2^2 / 2 is -1.
        """
        return -1.0, 1.0

    def reward(self, images: np.ndarray, texts: Texts) -> np.ndarray:
        """Compute the rewards of images, by the code of `goal_baseline_reward`."""
        import torch

        image_rows, goal, baseline = (
            torch.from_numpy(np.ascontiguousarray(each)) for each in (images, texts.goal[None], texts.baseline[None])
        )
        rewards: np.ndarray = goal_baseline_reward(image_rows, goal, baseline, torch.tensor([self.alpha]))[:, 0].numpy()
        return rewards


def prompt_embedding(embeddings: "torch.Tensor") -> "torch.Tensor":
    """Average the embeddings of several prompts (prompt ensembling).

    The mean is not normalised again (as in the paper's official code), so at alpha 0 the reward of several prompts is the mean
    of their cosine similarities, up to a constant.

    Args:
        embeddings: Unit embeddings (p, d) of p prompts that describe the same thing.

    Returns:
        One embedding (d,), of length at most 1.
    """
    return embeddings.mean(dim=0)


def goal_baseline_reward(
    images_nd: "torch.Tensor", goals_sd: "torch.Tensor", baselines_sd: "torch.Tensor", alphas_s: "torch.Tensor"
) -> "torch.Tensor":
    """Compute the rewards of images for several specs.

    Args:
        images_nd: Unit embeddings of the images.
        goals_sd: Goal embedding of each spec.
        baselines_sd: Baseline embedding of each spec.
        alphas_s: alpha of each spec, from 0 to 1.

    Returns:
        Rewards (n, s).

    Raises:
        UserError: The embeddings of a goal and its baseline coincide, so that they define no line.
    """
    directions_sd = goals_sd - baselines_sd
    lengths_s = directions_sd.norm(dim=-1)
    if bool((lengths_s < MIN_DISTANCE).any()):
        raise UserError("a goal and its baseline have the same embedding: word them differently")
    units_sd = directions_sd / lengths_s[:, None]
    # Sums over the last axis instead of a matrix product, whose rounding depends on its number of rows and columns: a frame's
    # reward would depend on what it is batched with.
    along_ns = ((images_nd[:, None] - goals_sd) * units_sd).sum(dim=-1)
    squared_ns = (images_nd[:, None] - goals_sd).square().sum(dim=-1)
    across_ns = squared_ns - along_ns.square()
    return 1 - (along_ns.square() + (1 - alphas_s).square() * across_ns) / 2
