"""The contract of reward models, and what they are asked to score for.

Everything that uses rewards (servers, pools, training, evaluation) takes a `RewardModel` and knows no particular one. Another kind
of model is one subclass, registered by `register_reward_model` or named in a sweep file as `module:Class`.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.frames import FrameFormat, resize_frames

Precision = Literal["fp32", "bf16", "fp16"]
"""Of the weights. fp32 by default: on near-identical frames lower precision changes the order of rewards."""


@dataclass(frozen=True)
class RewardSpec:
    """What to score for: plain, hashable data that travels with every request.

    Args:
        goal_prompts: Wordings of the goal, which are averaged (prompt ensembling). At least one.
        baseline_prompts: Wordings of the scene without the goal. At least one.
        alpha: Strength of goal-baseline regularisation, from 0 (none: the cosine to the goal) to 1 (only the direction from
            baseline to goal counts). Paper, section 3.2.

    Raises:
        UserError: A prompt is empty, alpha is out of range, or goal and baseline are the same: then no direction leads from one to
            the other.
    """

    goal_prompts: tuple[str, ...]
    baseline_prompts: tuple[str, ...]
    alpha: float = 0.0

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


class RewardModel(ABC):
    """Scores frames.

    An instance is made from its model id alone and is cheap: it describes itself, checks specs, and can be pickled. `load` then
    brings the weights into memory, once, in the process that scores. A model that has no weights need not override it.

    Models are deterministic: a frame's reward does not depend on the frames that it is batched with.

    Attributes:
        model_id: The id by which a sweep file names it.
        frame_format: What frames are resized to. Environments render at this size; frames of any other size are accepted and
            resized.
        parameters: Number of parameters of the whole model; 0 for a model without any.
        micro_batch: Frames in one forward pass. The server halves it when memory runs out.
    """

    model_id: str
    frame_format: FrameFormat
    parameters: int = 0
    micro_batch: int = 64

    def __init__(self, model_id: str) -> None:
        self.model_id = model_id

    def check_spec(self, spec: RewardSpec) -> None:  # noqa: B027 - most models can score any spec
        """Refuse a spec that this model cannot score. Called before anything starts, without weights.

        Args:
            spec: What is to be scored for.

        Raises:
            UserError: The model cannot score it, for example because a prompt is longer than its context.
        """

    def load(self, device: str = "cpu", precision: Precision = "fp32", micro_batch: int = 64) -> None:
        """Bring the weights into memory.

        Args:
            device: Where the model runs, in torch's terms: `cpu`, `cuda`, `cuda:1`.
            precision: Of the weights.
            micro_batch: Frames in one forward pass.

        Raises:
            UserError: There is no such device here, or the weights are missing, damaged or cannot be downloaded.
        """
        self.micro_batch = micro_batch

    @abstractmethod
    def score(self, frames: np.ndarray, specs: Sequence[RewardSpec]) -> np.ndarray:
        """Score frames for many specs at once, encoding each frame once.

        Args:
            frames: uint8 (N, H, W, 3), of any height and width.
            specs: What to score for.

        Returns:
            Rewards, float32 (N, number of specs).

        Raises:
            UserError: The model cannot score one of the specs.
        """

    def visible(self, frames: np.ndarray) -> np.ndarray:
        """Return what the model sees of frames: by default the frames, resized.

        Args:
            frames: uint8 (N, H, W, 3).

        Returns:
            uint8 (N, H', W', 3).
        """
        return resize_frames(frames, self.frame_format)
