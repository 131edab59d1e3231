"""A column that a reward model computes itself, beside rewards: what it can tell of a frame."""

from typing import ClassVar

import numpy as np
from pydantic import Field

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.rewards.functions.base import FrameReward, Texts


class ModelColumn(FrameReward):
    """One of a model's own `columns`, asked for as a reward is, so that it comes with the rewards from the same encoding.

    Prompts make no difference to it. It is for audits and measurements, and nothing that is learned from.
    """

    formula: ClassVar[str] = "what the model itself tells of a frame, by its name"

    name: str = Field(description="One of the model's columns, such as `drift` of a distilled model.")

    @property
    def label(self) -> str:
        """The name of the column."""
        return self.name

    def reward(self, images: np.ndarray, texts: Texts) -> np.ndarray:
        """Refuse to compute what embeddings do not tell.

        Args:
            images: Unit embeddings of the images, float32 (n, d).
            texts: Goal, baseline and other texts.

        Returns:
            Nothing.

        Raises:
            UserError: Always: the model that has the column returns it itself.
        """
        raise UserError(f"column {self.name!r} cannot be computed from embeddings: the model that has it returns it")
