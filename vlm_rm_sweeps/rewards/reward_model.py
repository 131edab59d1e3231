"""The contract of reward models, and the specs that they score.

Everything that uses rewards (servers, pools, training, evaluation) depends only on `RewardModel`. To add another kind of
model, write one subclass, and register it by `register_reward_model` or name it in a sweep file as `module:Class`.
"""

import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal

import numpy as np

from vlm_rm_sweeps.errors import UserError, shown
from vlm_rm_sweeps.frames import FrameFormat, check_frames, resize_frames

Precision = Literal["fp32", "bf16", "fp16"]
"""Floating-point precision of the weights. On near-identical frames, less than fp32 changes the order of rewards."""

BackendName = Literal["torch", "folded", "onnxruntime"]
"""What runs a CLIP model's image tower, see `backends.py`."""


def visible_text(text: str) -> str:
    """Return a text without the characters that nobody sees: control and format characters, and spaces around the rest."""
    return "".join(letter for letter in text if unicodedata.category(letter) not in ("Cc", "Cf") or letter.isspace()).strip()


@dataclass(frozen=True)
class RewardSpec:
    """Prompts and alpha of one reward: plain, hashable data that is sent with every request.

    Args:
        goal_prompts: One or more prompts that describe the goal; their embeddings are averaged (prompt ensembling).
        baseline_prompts: One or more prompts that describe the scene without the goal, averaged in the same way.
        alpha: Weight of goal-baseline regularisation (paper, section 3.2), from 0 (none: cosine similarity to the goal) to 1
            (only the direction from baseline to goal counts).

    Raises:
        UserError: The prompts are a string, one of them is empty, alpha is out of range, or goal and baseline are the same, so
            that they define no direction.
    """

    goal_prompts: tuple[str, ...]
    baseline_prompts: tuple[str, ...]
    alpha: float = 0.0

    def __post_init__(self) -> None:
        for kind, prompts in (("goal", self.goal_prompts), ("baseline", self.baseline_prompts)):
            listed = _as_tuple(kind, prompts)
            object.__setattr__(self, f"{kind}_prompts", listed)
            if any(not isinstance(prompt, str) for prompt in listed):
                raise UserError(f"{kind} prompts {shown(list(listed))}: expected strings")
            if not listed or not all(map(visible_text, listed)):
                raise UserError(f"{kind} prompts {shown(list(listed))}: expected at least one, and none of them empty")
        if not isinstance(self.alpha, Real) or not 0 <= self.alpha <= 1:  # NaN is neither
            raise UserError(
                f"alpha {shown(self.alpha)}: expected a number from 0 (cosine to the goal) to 1 (baseline-to-goal line only)"
            )
        object.__setattr__(self, "alpha", float(self.alpha))  # models calculate with it, and a bool has no minus
        if set(self.goal_prompts) == set(self.baseline_prompts):
            raise UserError(
                f"goal and baseline are the same, {shown(list(self.goal_prompts))}: the baseline describes the scene without the goal, "
                "such as 'pole and cart'"
            )


def _as_tuple(kind: str, prompts: Any) -> tuple[Any, ...]:
    expected = f"{kind} prompts {shown(prompts)}: expected a tuple of prompts, such as ('a pole',)"
    if isinstance(prompts, str) or not isinstance(prompts, Iterable):
        raise UserError(expected)
    try:
        return tuple(prompts)
    except Exception as error:  # a tensor or an array without axes
        raise UserError(expected) from error


def check_request(frames: Any, specs: Any) -> None:
    """Refuse a scoring request that no reward model can answer.

    Args:
        frames: Anything. No frames (N = 0) are a request, too, whose answer is empty.
        specs: Anything.

    Raises:
        UserError: The frames are not uint8 (N, H, W, 3), or the specs are not a sequence of at least one RewardSpec.
    """
    check_frames(frames)
    if not isinstance(specs, Sequence) or not specs or not all(isinstance(spec, RewardSpec) for spec in specs):
        raise UserError(f"specs {shown(specs)}: expected a sequence of at least one RewardSpec, such as [RewardSpec(...)]")


class RewardModel(ABC):
    """Base class of reward models, which score frames.

    An instance is created from its model id alone and is cheap: it describes itself, checks specs, and can be pickled. `load`
    then loads the weights, once, in the process that scores. A model without weights need not override it.

    Models are deterministic: a frame's reward does not depend on the frames that it is batched with.

    Args:
        model_id: Its id in sweep files.

    Attributes:
        model_id: Its id in sweep files.
        frame_format: Size and resizing of frames. Environments render at this size; frames of any other size are accepted and
            resized.
        parameters: Number of parameters of the whole model; 0 for a model without any.
        micro_batch: Frames in one forward pass. The server halves it when memory runs out.
        backend: What runs its network.
    """

    model_id: str
    frame_format: FrameFormat
    parameters: int = 0
    micro_batch: int = 64
    backend: BackendName = "torch"

    def __init__(self, model_id: str) -> None:
        self.model_id = model_id

    def check_spec(self, spec: RewardSpec) -> None:  # noqa: B027 - most models can score any spec
        """Refuse a spec that this model cannot score.

        It is called before anything starts, without weights.

        Args:
            spec: Prompts and alpha to check.

        Raises:
            UserError: The model cannot score it, for example because a prompt is longer than its context.
        """

    def use_backend(self, backend: BackendName, device: str = "cpu", precision: Precision = "fp32") -> None:
        """Choose what will run the network, before `load`.

        It is called before anything starts. Only CLIP models have a choice.

        Args:
            backend: The backend.
            device: torch device that the model will run on.
            precision: Floating-point precision of the weights.

        Raises:
            UserError: The model does not support the backend, or the backend cannot run as asked.
        """
        if backend != "torch":
            raise UserError(
                f"backend {backend!r} is for CLIP models, and {self.model_id} is run by its own class: choose 'torch' for a sweep that "
                "includes it"
            )

    @property
    def identity(self) -> str:
        """What two ids of the same model have in common, unless a model overrides it: the id."""
        return self.model_id

    def remarks(self) -> list[str]:
        """List remarks about this model that may surprise the user, printed before a sweep starts; by default none."""
        return []

    def load(self, device: str = "cpu", precision: Precision = "fp32", micro_batch: int = 64) -> None:
        """Load the weights.

        Args:
            device: torch device that the model runs on: `cpu`, `cuda`, `cuda:1`.
            precision: Floating-point precision of the weights.
            micro_batch: Frames in one forward pass.

        Raises:
            UserError: This machine has no such device, the micro-batch has no frames, or the weights are missing, damaged or
                cannot be downloaded.
        """
        if micro_batch < 1:
            raise UserError(f"micro_batch {micro_batch}: expected at least one frame in each forward pass")
        self.micro_batch = micro_batch

    @abstractmethod
    def score(self, frames: np.ndarray, specs: Sequence[RewardSpec]) -> np.ndarray:
        """Score frames for many specs at once, encoding each frame once.

        Args:
            frames: uint8 (N, H, W, 3), of any height and width.
            specs: Prompts and alpha of each reward.

        Returns:
            Rewards, float32 (N, number of specs).

        Raises:
            UserError: The model cannot score one of the specs.
        """

    def visible(self, frames: np.ndarray) -> np.ndarray:
        """Return frames as the model sees them: resized, unless a model overrides it.

        Args:
            frames: uint8 (N, H, W, 3), of any height and width.

        Returns:
            uint8 (N, H', W', 3).
        """
        return resize_frames(frames, self.frame_format)
