"""Mixed: a weighted sum of several rewards and the environment's own."""

from typing import ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.rewards.functions.base import OWN, FrameReward, Range, RewardFunction, Weight, combined
from vlm_rm_sweeps.rewards.functions.registry import NestedReward


class Weighted(BaseModel):
    """A reward and its weight in a mixture."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    weight: Weight = Field(strict=True, description="What the reward is multiplied by.")
    reward: NestedReward = Field(description="A kind of reward, or a mapping of `kind` and parameters.")


class Mixed(RewardFunction):
    """Weighted sum of several rewards and the environment's own.

    With R_i the rewards, w_i their weights, and E_t the environment's own reward of step t, with weight v,

        R_t = sum_i w_i R_i,t + v E_t

    On data sets of states, which have no rewards of the environment, E_t counts as 0.

    Source: this project's own.
    Shapes: of t steps and p parts of all rewards together, the parts' columns (t, p); each R_i, E and R (t,).
    """

    formula: ClassVar[str] = "sum_i weight_i * R_i + true_reward * (the environment's own reward)"
    source: ClassVar[str] = OWN

    of: tuple[Weighted, ...] = Field(min_length=1, description="Rewards with their weights: a list of {weight, reward}.")
    true_reward: Weight = Field(0.0, description="Weight of the environment's own reward.")

    @model_validator(mode="after")
    def _of_something(self) -> "Mixed":
        if not any(each.weight for each in self.of):
            raise UserError("of: all weights are 0: expected one of a model's rewards to count")
        return self

    def parts(self) -> tuple[FrameReward, ...]:
        """Return the parts of all rewards, one after the other."""
        return tuple(part for each in self.of for part in each.reward.parts())

    @property
    def memory(self) -> int:
        """That of the reward with the longest."""
        return max(each.reward.memory for each in self.of)

    @property
    def uses_true_reward(self) -> bool:
        """Whether the environment's own reward counts here or in one of the rewards."""
        return self.true_reward != 0 or any(each.reward.uses_true_reward for each in self.of)

    def prompts(self) -> tuple[str, ...]:
        """Return the texts of all rewards."""
        return tuple(text for each in self.of for text in each.reward.prompts())

    def check_prompts(self, goal: tuple[str, ...], baseline: tuple[str, ...]) -> None:
        """Refuse what one of the rewards refuses."""
        for each in self.of:
            each.reward.check_prompts(goal, baseline)

    def range(self) -> Range:
        """Return the sums of the bounds; infinite if the environment's own reward counts."""
        if self.true_reward:
            return super().range()
        ends = [[each.weight * end for end in each.reward.range()] for each in self.of if each.weight]
        return sum(map(min, ends)), sum(map(max, ends))

    def combine(self, columns: np.ndarray, true_rewards: np.ndarray) -> np.ndarray:
        """Compute the rewards of consecutive steps of one episode."""
        total = self.true_reward * true_rewards.astype(np.float64) if self.true_reward else np.zeros(len(columns))
        start = 0
        for each in self.of:
            end = start + len(each.reward.parts())
            total = total + each.weight * combined(each.reward, columns[:, start:end], true_rewards).astype(np.float64)
            start = end
        return total.astype(np.float32)
