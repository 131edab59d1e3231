"""The contract of reward models, and what they are asked to score for.

Everything that uses rewards (the pool, training, evaluation) takes this protocol, so another kind of model is plugged in by
implementing it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.frames import FrameFormat

Precision = Literal["fp32", "bf16", "fp16"]
"""Of the weights. fp32 by default: on near-identical frames lower precision changes the order of rewards."""


@dataclass(frozen=True)
class RewardSpec:
    """What to score for: plain, hashable data that travels with every request.

    `alpha` is the strength of the goal-baseline regularisation, 0 (none: the cosine to the goal) to 1 (only the direction
    from baseline to goal counts). Raises UserError if a prompt is empty, alpha is out of range, or goal and baseline are the
    same, since then no direction leads from one to the other.
    """

    goal_prompts: tuple[str, ...]
    baseline_prompts: tuple[str, ...]
    alpha: float

    def __post_init__(self) -> None:
        for kind, prompts in (("goal", self.goal_prompts), ("baseline", self.baseline_prompts)):
            if not prompts or any(not prompt.strip() for prompt in prompts):
                raise UserError(f"{kind} prompts {list(prompts)!r}: expected at least one, and none of them empty")
        if not 0 <= self.alpha <= 1:
            raise UserError(
                f"alpha {self.alpha!r}: expected a number from 0 (cosine to the goal) to 1 (baseline-to-goal line only)"
            )
        if set(self.goal_prompts) == set(self.baseline_prompts):
            raise UserError(
                f"goal and baseline are the same, {list(self.goal_prompts)!r}: the baseline describes the scene without the goal, "
                "such as 'pole and cart'"
            )


class RewardModel(Protocol):
    """Scores frames. Implementations are deterministic: a frame's reward does not depend on what it is batched with."""

    @property
    def model_id(self) -> str: ...

    @property
    def parameters(self) -> int:
        """Number of parameters of the whole model, image and text tower."""
        ...

    @property
    def frame_format(self) -> FrameFormat:
        """What frames are resized to; frames of any other size are accepted and resized."""
        ...

    def score(self, frames: np.ndarray, specs: Sequence[RewardSpec]) -> np.ndarray:
        """`uint8 (N, H, W, 3)` frames to `float32 (N, len(specs))` rewards, from one encoding of each frame.

        Raises UserError for a spec that this model cannot score, such as a prompt longer than its context.
        """
        ...
