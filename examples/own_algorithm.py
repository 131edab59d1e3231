"""An algorithm of your own: one class, whose fields are the settings that a sweep file may name.

This is REINFORCE, made of RLlib's PPO: one epoch, no clipping, and a value function that stays untrained.

    vlm-rm sweep examples/own_parts.yaml          names it as `own_algorithm:Reinforce`
"""

from typing import Any, ClassVar

import gymnasium as gym
from pydantic import Field

from vlm_rm_sweeps import Algorithm


class Reinforce(Algorithm):
    """REINFORCE (Williams, 1992): one update along the gradient of each rollout's discounted returns.

    With several env runners, each rollout of one of them makes an update of its own.
    """

    action_spaces: ClassVar[tuple[type[gym.Space], ...]] = (gym.spaces.Discrete, gym.spaces.Box)

    rollout_steps: int = Field(100, gt=0, description="Steps of each sub-environment between updates.")

    @property
    def update_size(self) -> int:
        """Number of transitions in one gradient update: a whole rollout."""
        return self.envs * self.rollout_steps

    def rllib_config(self, env_runners: int) -> Any:
        """Configure RLlib's PPO as REINFORCE."""
        from ray.rllib.algorithms.ppo import PPOConfig

        return PPOConfig().training(
            lr=self.learning_rate,
            train_batch_size_per_learner=self.update_size * (env_runners or 1),
            minibatch_size=self.update_size,
            num_epochs=1,
            lambda_=1.0,
            clip_param=1e9,
            use_kl_loss=False,
            kl_coeff=0.0,
            vf_loss_coeff=0.0,
            grad_clip=0.5,
        )
