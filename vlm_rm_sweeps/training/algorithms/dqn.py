"""DQN: Q-learning from uniform replay with hard target updates.

RLlib's defaults differ from those of the paper's stack (Stable-Baselines3): double and dueling Q-networks and a prioritised
buffer are on. One difference remains: before `learning_starts` actions are epsilon-greedy instead of uniformly random.
"""

from typing import TYPE_CHECKING, ClassVar

import gymnasium as gym
from pydantic import Field

from vlm_rm_sweeps.training.algorithms.off_policy import OffPolicyAlgorithm

if TYPE_CHECKING:
    from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

_GRADIENT_CLIP = 10


class Dqn(OffPolicyAlgorithm):
    """DQN (uniform replay, hard target updates), for tasks with discrete actions."""

    action_spaces: ClassVar[tuple[type[gym.Space], ...]] = (gym.spaces.Discrete,)
    changeable: ClassVar[tuple[str, ...]] = (
        "learning_rate",
        "gamma",
        "double_q",
        "target_update_every",
        "epsilon_final",
        "epsilon_steps",
    )

    double_q: bool = Field(
        True, description="The online network chooses the action that the target network rates: less overestimation."
    )
    target_update_every: int = Field(500, gt=0, description="Environment steps between copies to the target network.")
    epsilon_final: float = Field(0.05, ge=0, le=1, description="Share of random actions once epsilon has fallen.")
    epsilon_steps: int = Field(4_000, gt=0, description="Environment steps over which epsilon falls from 1 to its final value.")

    def rllib_config(self, env_runners: int) -> "AlgorithmConfig":
        """Configure RLlib's DQN."""
        from ray.rllib.algorithms.dqn import DQNConfig

        from vlm_rm_sweeps.training.learners.replay import DqnLearner
        from vlm_rm_sweeps.training.replay_training import ReplayDqn

        config = DQNConfig(algo_class=ReplayDqn).learners(learner_class=DqnLearner)
        return self.learn_from_replay(config, env_runners).training(
            lr=self.learning_rate,
            target_network_update_freq=self.target_update_every,
            tau=1.0,
            double_q=self.double_q,
            dueling=False,
            noisy=False,
            num_atoms=1,
            epsilon=[[0, 1.0], [self.epsilon_steps, self.epsilon_final]],
            grad_clip=_GRADIENT_CLIP,
        )
