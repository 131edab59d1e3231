"""Softmax over descriptions: the probability that an image shows the goal, and not something else that it could be."""

from typing import ClassVar

import numpy as np
from pydantic import Field, field_validator

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.rewards.functions.base import FrameReward, Range, Texts, dots
from vlm_rm_sweeps.rewards.prompt_text import check_texts


class Softmax(FrameReward):
    """Probability of the goal among several descriptions, as in zero-shot classification.

    With s the image, g the goal, n_1 to n_k the negatives (the baseline is one of them, unless `baseline` is false), all unit
    embeddings, and T the temperature,

        R(s) = exp(s.g / T) / (exp(s.g / T) + sum_i exp(s.n_i / T))

    With a low temperature it saturates, and is then flat where a policy has to learn.

    Source: arXiv 2103.00020, section 3.1.
    Shapes: images s (n, d); g and each n_i (d,); R(s) (n,), from 0 to 1.
    """

    formula: ClassVar[str] = "exp(s.g / T) / (exp(s.g / T) + sum_i exp(s.n_i / T))"
    source: ClassVar[str] = "arXiv 2103.00020, section 3.1"

    negatives: tuple[str, ...] = Field(
        min_length=1, description="What else the image could show, one sentence each, such as `a humanoid robot lying down`."
    )
    baseline: bool = Field(True, description="Whether the prompt's baseline is one of the descriptions, too.")
    temperature: float | None = Field(
        None, ge=1e-6, description="Divides the cosines: a low one makes the reward steep; by default the model's own."
    )

    @field_validator("negatives", mode="before", json_schema_input_type=str | tuple[str, ...])
    @classmethod
    def _one_or_many(cls, value: object) -> tuple[str, ...]:
        return check_texts("negatives", value)

    def prompts(self) -> tuple[str, ...]:
        """Return the negatives."""
        return self.negatives

    def check_prompts(self, goal: tuple[str, ...], baseline: tuple[str, ...]) -> None:
        """Refuse negatives that are the goal, or the baseline where that is a negative anyway.

        Args:
            goal: The goal prompts.
            baseline: The baseline prompts.

        Raises:
            UserError: One of the negatives is among them.
        """
        super().check_prompts(goal, baseline)
        if self.baseline and set(self.negatives) & set(baseline):
            raise UserError(
                f"{self.label}: {sorted(set(self.negatives) & set(baseline))[0]!r} is the baseline, which is a negative already: "
                "leave it out"
            )

    def range(self) -> Range:
        """Return 0 and 1: it is a probability."""
        return 0.0, 1.0

    def reward(self, images: np.ndarray, texts: Texts) -> np.ndarray:
        """Compute the probability of the goal for each image."""
        others = [texts.embed(negative) for negative in self.negatives] + ([texts.baseline] if self.baseline else [])
        scale = np.float32(texts.logit_scale if self.temperature is None else 1 / self.temperature)
        logits = [scale * dots(images, text) for text in (texts.goal, *others)]
        largest = np.maximum.reduce(logits)
        exponentials = [np.exp(each - largest) for each in logits]
        # One by one: the rounding of a sum over a short axis might depend on the number of images.
        total = exponentials[0]
        for each in exponentials[1:]:
            total = total + each
        probabilities: np.ndarray = exponentials[0] / total
        return probabilities
