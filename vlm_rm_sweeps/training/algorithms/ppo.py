"""PPO: policy gradient with a clipped objective, from rollouts of the current policy.

Rewards are written into the episodes before they leave the env runner, so advantages are computed from the reward model's
rewards, which are standardized first (see `standardize_rewards.py`).

RLlib's defaults differ from those of the paper and of other libraries: a KL penalty, a value loss clipped at 10, 30 epochs, and
lambda 1. One difference remains: actor and critic share no layers.
"""

from typing import TYPE_CHECKING, Any, ClassVar

import gymnasium as gym
from pydantic import Field, model_validator

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.training.algorithms.base import Algorithm, LearningRate, Transitions, Width

if TYPE_CHECKING:
    from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

_GRADIENT_CLIP = 0.5


class Ppo(Algorithm):
    """PPO (clipped objective, generalized advantage estimation), for tasks with discrete or continuous actions.

    All sub-environments together sample `envs` x `rollout_steps` transitions, and those of each further env runner as many; the
    policy is updated from them for `epochs` epochs, in minibatches.
    """

    action_spaces: ClassVar[tuple[type[gym.Space], ...]] = (gym.spaces.Discrete, gym.spaces.Box)
    changeable: ClassVar[tuple[str, ...]] = ("learning_rate", "gamma", "gae_lambda", "clip", "epochs", "entropy", "value_loss")

    learning_rate: LearningRate = Field(3e-4, description="Step size of the optimiser.")
    gamma: float = Field(0.99, gt=0, lt=1, description="Discount of future rewards.")
    hidden: tuple[Width, ...] = Field((64, 64), min_length=1, description="Widths of the hidden layers.")
    rollout_steps: Transitions = Field(128, description="Steps of each sub-environment between updates.")
    gae_lambda: float = Field(0.95, ge=0, le=1, description="Trades the variance of advantages (1) against their bias (0).")
    clip: float = Field(
        0.2, ge=1e-6, le=1_000_000, description="How far the ratio of new to old probabilities is followed away from 1."
    )
    epochs: int = Field(10, gt=0, le=10_000, description="Passes over each rollout.")
    minibatch: Transitions = Field(64, description="Transitions in one update.")
    entropy: float = Field(0.0, ge=0, le=1_000, description="Weight of the entropy bonus.")
    value_loss: float = Field(0.5, ge=0, le=10_000, description="Weight of the value function's loss.")

    @model_validator(mode="after")
    def _minibatch_of_a_rollout(self) -> "Ppo":
        if self.minibatch > self.envs * self.rollout_steps:
            raise UserError(
                f"minibatch {self.minibatch}: expected at most the {self.envs * self.rollout_steps} transitions of a rollout, "
                f"envs x rollout_steps = {self.envs} x {self.rollout_steps}"
            )
        return self

    @property
    def update_size(self) -> int:
        """Number of transitions in one gradient update: a minibatch."""
        return self.minibatch

    def rllib_config(self, env_runners: int) -> "AlgorithmConfig":
        """Configure RLlib's PPO."""
        from ray.rllib.algorithms.ppo import PPOConfig

        from vlm_rm_sweeps.training.learners.ppo import PpoLearner

        return (
            PPOConfig()
            .learners(learner_class=PpoLearner)
            .training(
                lr=self.learning_rate,
                train_batch_size_per_learner=self.envs * self.rollout_steps * (env_runners or 1),
                use_critic=True,
                use_gae=True,
                lambda_=self.gae_lambda,
                clip_param=self.clip,
                num_epochs=self.epochs,
                minibatch_size=self.minibatch,
                shuffle_batch_per_epoch=True,
                entropy_coeff=self.entropy,
                vf_loss_coeff=self.value_loss,
                vf_clip_param=float("inf"),
                use_kl_loss=False,
                kl_coeff=0.0,
                grad_clip=_GRADIENT_CLIP,
                grad_clip_by="global_norm",
            )
        )

    def after_build(self, trainer: Any, seed: int) -> None:
        """Insert the connector that standardizes rewards before advantages are computed."""
        from ray.rllib.connectors.learner import GeneralAdvantageEstimation

        from vlm_rm_sweeps.training.connectors.standardize_rewards import StandardizeRewards
        from vlm_rm_sweeps.training.rllib_internals import learner_pieces, local_learner

        pieces = learner_pieces(local_learner(trainer))
        advantages = next(index for index, piece in enumerate(pieces) if isinstance(piece, GeneralAdvantageEstimation))
        pieces.insert(advantages, StandardizeRewards())
