"""The settings of the algorithms, as a sweep file names them. Apart from the algorithms, so that checking a sweep file does not
load RLlib."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

BestBy = Literal["success", "true_return", "clip_return"]
"""What a trial's best policy is chosen by: the mean over the episodes that ended since the result before."""


class DqnSettings(BaseModel):
    """DQN (double Q-learning, uniform replay, hard target updates)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    learning_rate: float = Field(1e-3, gt=0)
    gamma: float = Field(0.98, gt=0, lt=1)
    batch: int = Field(64, gt=0, description="Transitions in one update.")
    updates_per_step: float = Field(0.25, gt=0, description="Updates for each transition that is sampled.")
    buffer: int = Field(100_000, gt=0, description="Transitions that the replay buffer holds.")
    learning_starts: int = Field(1_000, ge=0, description="Environment steps before the first update.")
    target_update_every: int = Field(500, gt=0, description="Environment steps between copies to the target network.")
    epsilon_final: float = Field(0.05, ge=0, le=1)
    epsilon_steps: int = Field(4_000, gt=0, description="Environment steps over which epsilon falls from 1 to its final value.")
    hidden: tuple[PositiveInt, ...] = Field((128, 128), description="Widths of the hidden layers.")
    envs: int = Field(8, gt=0, description="Sub-environments stepped together.")
    rollout_steps: int = Field(8, gt=0, description="Steps of each sub-environment between updates.")
