"""Train a Stable-Baselines3 agent from a sentence, with a Gymnasium wrapper and no Ray.

    python examples/stable_baselines3_agent.py [steps]

Gymnasium's CartPole ends an episode when the pole falls, which would reveal the task. This project's version never does (paper,
section 4).
"""

import sys

import gymnasium as gym
from stable_baselines3 import DQN

from vlm_rm_sweeps import ClipRewardWrapper, RewardSpec, find_task, load_reward_model


def main(steps: int = 5_000) -> DQN:
    """Train a DQN agent on CartPole from a reward model.

    Args:
        steps: Environment steps of the training.

    Returns:
        The trained agent.
    """
    task = find_task("cartpole-upright")
    env = gym.wrappers.TimeLimit(task.make_native_env(task.rendering(), None), task.episode_steps)
    spec = RewardSpec((task.goal_prompt,), (task.baseline_prompt,), alpha=0.5)
    rewarded = ClipRewardWrapper(env, load_reward_model("embedded/small"), spec)

    agent = DQN("MlpPolicy", rewarded, learning_starts=min(1_000, steps // 2), verbose=1)
    return agent.learn(steps)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5_000)
