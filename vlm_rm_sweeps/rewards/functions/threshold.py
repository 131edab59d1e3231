"""Threshold: a reward of 1 above a value, because false positives hurt most (arXiv 2409.15922)."""

import re
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import Field, field_validator, model_validator

from vlm_rm_sweeps.errors import UserError, shown
from vlm_rm_sweeps.rewards.functions.base import EmbeddingModel, FrameReward, Range, Texts, combined
from vlm_rm_sweeps.rewards.functions.goal_baseline import GoalBaseline
from vlm_rm_sweeps.rewards.functions.registry import NestedReward


class Threshold(FrameReward):
    """1 where another reward is above a value, else 0: against false positives.

    With R the other reward and x the value,

        T(s) = 1 if R(s) > x else 0

    Where R is of a single frame, so is this one. Else it has the parts of R, and is made of them where the episode is.

    The value is given as `above`. Or it is the `quantile` q of R over those `states` that are not in the goal, which a sweep measures
    for each model and prompt before the first trial: of such states, 1 - q get a reward. The `truth` says which these are: the success
    test, or people's labels.

    Source: arXiv 2409.15922, which recommends it.
    Shapes: images s (n, d); R(s) and T(s) (n,); x a number.
    """

    formula: ClassVar[str] = "1 if R(s) > above else 0, with R another reward"
    source: ClassVar[str] = "arXiv 2409.15922"

    of: NestedReward = Field(GoalBaseline(), description="Another reward; by default goal_baseline at alpha 0.")
    above: float | None = Field(None, description="The value; or else `quantile` and `states`.")
    quantile: float | None = Field(
        None, gt=0, lt=1, description="Quantile of the rewards of labelled states that are not in the goal, such as 0.95."
    )
    states: Path | None = Field(None, description="Folder of a labelled data set of states, as `vlm-rm states` makes it.")
    truth: str = Field(
        "success",
        description="Which of the states are not in the goal: those that fail the `success` test, or by labels, `raters` (their "
        "majority) or `rater:NAME`.",
    )

    @field_validator("truth")
    @classmethod
    def _is_of_labels(cls, truth: str) -> str:
        if not re.fullmatch(r"success|raters|rater:.+", truth):
            raise UserError(f"truth = {shown(truth)}: expected `success`, `raters` or `rater:NAME`")
        return truth

    @model_validator(mode="after")
    def _has_a_value(self) -> "Threshold":
        if (self.above is None) == (self.quantile is None) or (self.quantile is None) != (self.states is None):
            raise UserError("expected either `above`, a number, or `quantile` and `states`, a labelled data set")
        if self.above is not None and self.truth != "success":
            raise UserError("`truth` goes with `quantile`, whose states it labels: expected no `truth` beside `above`")
        if self.above is None and self.of.needs_episode:
            raise UserError(
                f"quantile = {self.quantile:g}: {self.of.label} needs an episode, and labelled states stand alone, where it is another "
                "reward: write the value as `above`"
            )
        low, high = self.of.range()
        if self.above is not None and not low <= self.above < high:
            raise UserError(
                f"above = {self.above:g}: {self.of.label} is between {low:g} and {high:g}, so the reward would be the same everywhere: "
                f"expected a number from {low:g} to less than {high:g}"
            )
        return self

    @property
    def needs_states(self) -> bool:
        """Whether its value has to be measured first."""
        return self.above is None

    def at(self, value: float) -> "Threshold":
        """Return the threshold with a measured value in the place of the quantile.

        Args:
            value: The quantile of the other reward's values.

        Returns:
            A threshold that can compute rewards.
        """
        return Threshold.model_construct(of=self.of, above=value, quantile=None, states=None)

    def parts(self) -> tuple[FrameReward, ...]:
        """Return itself if the other reward is of one frame, else the other reward's parts."""
        return (self,) if self.of.is_of_one_frame else self.of.parts()

    @property
    def memory(self) -> int:
        """The other reward's."""
        return self.of.memory

    @property
    def uses_true_reward(self) -> bool:
        """Whether the other reward uses it."""
        return self.of.uses_true_reward

    @property
    def needs_episode(self) -> bool:
        """Whether the other reward does."""
        return self.of.needs_episode

    def combine(self, columns: np.ndarray, true_rewards: np.ndarray) -> np.ndarray:
        """Compute the rewards of consecutive steps of one episode."""
        if self.of.is_of_one_frame:
            return super().combine(columns, true_rewards)
        return self._above(combined(self.of, columns, true_rewards))

    def alone(self, columns: np.ndarray) -> np.ndarray:
        """Compute the rewards of frames that stand alone, from the other reward's there."""
        return columns[:, 0] if self.of.is_of_one_frame else self._above(self.of.alone(columns))

    def _above(self, rewards: np.ndarray) -> np.ndarray:
        if self.above is None:
            raise UserError(f"{self.label}: its value is not measured yet: expected `above`")
        return (rewards.astype(np.float64) > self.above).astype(np.float32)

    def prompts(self) -> tuple[str, ...]:
        """Return the other reward's texts."""
        return self.of.prompts()

    def check_prompts(self, goal: tuple[str, ...], baseline: tuple[str, ...]) -> None:
        """Refuse what the other reward refuses."""
        self.of.check_prompts(goal, baseline)

    def check_model(self, model: EmbeddingModel) -> None:
        """Refuse a model that the other reward refuses."""
        self.of.check_model(model)

    def range(self) -> Range:
        """Return 0 and 1."""
        return 0.0, 1.0

    def reward(self, images: np.ndarray, texts: Texts) -> np.ndarray:
        """Compute 1 for each image whose other reward is above the value, else 0.

        Args:
            images: Unit embeddings of the images, float32 (n, d).
            texts: Goal, baseline and other texts.

        Returns:
            float32 (n,).

        Raises:
            UserError: The value has to be measured first, or the other reward is not of one frame.
        """
        if not isinstance(self.of, FrameReward):
            raise UserError(f"reward {self.label} has no value of one frame: ask for its `parts()`")
        return self._above(self.of.reward(images, texts))
