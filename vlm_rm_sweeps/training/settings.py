"""The settings of the algorithms, as a sweep file names them. Apart from the algorithms, so that checking a sweep file does not
load RLlib."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt

BestBy = Literal["success", "true_return", "clip_return"]
"""What a trial's best policy is chosen by: the mean over the episodes that ended since the result before."""


class _OffPolicySettings(BaseModel):
    """What all algorithms have that learn from a replay buffer."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    learning_rate: float = Field(1e-3, gt=0, description="Step size of the optimiser.")
    gamma: float = Field(0.98, gt=0, lt=1, description="Discount of future rewards.")
    batch: int = Field(64, gt=0, description="Transitions in one update.")
    updates_per_step: float = Field(0.25, gt=0, description="Updates for each transition that is sampled.")
    buffer: int = Field(100_000, gt=0, description="Transitions that the replay buffer holds.")
    learning_starts: int = Field(1_000, ge=0, description="Environment steps before the first update.")
    hidden: tuple[PositiveInt, ...] = Field((128, 128), min_length=1, description="Widths of the hidden layers.")
    envs: int = Field(8, gt=0, description="Sub-environments stepped together.")
    rollout_steps: int = Field(8, gt=0, description="Steps of each sub-environment between updates.")


class DqnSettings(_OffPolicySettings):
    """DQN (uniform replay, hard target updates), for tasks with discrete actions."""

    double_q: bool = Field(
        True, description="The online network chooses the action that the target network rates: less overestimation."
    )
    target_update_every: int = Field(500, gt=0, description="Environment steps between copies to the target network.")
    epsilon_final: float = Field(0.05, ge=0, le=1, description="Share of random actions once epsilon has fallen.")
    epsilon_steps: int = Field(4_000, gt=0, description="Environment steps over which epsilon falls from 1 to its final value.")


class SacSettings(_OffPolicySettings):
    """SAC (twin Q-networks, squashed Gaussian policy, uniform replay), for tasks with continuous actions.

    One learning rate serves policy, Q-networks and entropy coefficient, as in the paper's stack. Rewards reach the learner with
    deviation 1 (see `standardization.py`), so a fixed `entropy` weighs against rewards of that scale.
    """

    tau: float = Field(0.005, gt=0, le=1, description="Share of the Q-networks that each update mixes into their targets.")
    warm_up_hold: int = Field(
        1,
        gt=0,
        description="Before learning starts actions are random, each held for this many steps. Hold them where momentum is needed.",
    )
    entropy: Literal["auto"] | PositiveFloat = Field(
        "auto",
        description="Entropy coefficient: a fixed number, or `auto`: it is learned, towards an entropy of -1 nat per action.",
    )


AlgorithmSettings = DqnSettings | SacSettings

AlgorithmName = Literal["dqn", "sac"]

ALGORITHMS: dict[AlgorithmName, type[DqnSettings] | type[SacSettings]] = {"dqn": DqnSettings, "sac": SacSettings}
"""The settings of each algorithm, by the name that a sweep file uses."""
