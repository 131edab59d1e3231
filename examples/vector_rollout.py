"""Collect a rollout from a vector environment and score it in one call, as in a training loop of your own (such as CleanRL's).

    python examples/vector_rollout.py

It prints the mean reward of a rollout with random actions: 32 steps of 8 environments, 256 frames in one request.
"""

import gymnasium as gym
import numpy as np

from vlm_rm_sweeps import ClipRewardVectorWrapper, RewardSpec, load_reward_model


def main(steps: int = 32) -> np.ndarray:
    """Collect and score one rollout with random actions in 8 environments.

    Args:
        steps: Steps of each environment.

    Returns:
        Rewards, float32 (steps, 8).
    """
    envs = gym.vector.SyncVectorEnv([lambda: gym.make("CartPole-v1", render_mode="rgb_array")] * 8)
    spec = RewardSpec(("pole vertically upright on top of the cart",), ("pole and cart",), alpha=0.5)
    rewarded = ClipRewardVectorWrapper(envs, load_reward_model("embedded/small"), spec, deferred=True)

    rewarded.reset(seed=0)
    for _ in range(steps):
        rewarded.step(rewarded.action_space.sample())  # rewards are NaN until the rollout is scored
    return rewarded.rollout_rewards()


if __name__ == "__main__":
    rewards = main()
    print(f"{rewards.size} frames, mean reward {rewards.mean():.3f}")
