"""Let any RLlib algorithm learn from a reward pool: your own configuration with the project's pool and connector.

    python examples/rllib_algorithm.py [iterations]

It prints the CLIP return and the true return of each iteration. Each frame is scored exactly once, while the environments step.
"""

import sys
from typing import Any

from ray.rllib.algorithms.ppo import PPOConfig

from vlm_rm_sweeps import RewardSpec, find_task, reward_pool, use_rewards


def main(iterations: int = 5, steps: int = 2_000) -> list[dict[str, Any]]:
    """Train PPO on CartPole from a reward pool.

    Args:
        iterations: Number of training iterations.
        steps: Environment steps in each iteration.

    Returns:
        RLlib's `env_runners` metrics of each iteration.
    """
    task = find_task("cartpole-upright")
    spec = RewardSpec((task.goal_prompt,), (task.baseline_prompt,), alpha=0.5)
    config = PPOConfig().env_runners(num_env_runners=0, num_envs_per_env_runner=8).training(train_batch_size=steps)

    with reward_pool("embedded/small", spec) as pool:
        algorithm = use_rewards(config, pool, spec, task).build_algo()
        results = [algorithm.train()["env_runners"] for _ in range(iterations)]
        algorithm.stop()
    return results


if __name__ == "__main__":
    for result in main(int(sys.argv[1]) if len(sys.argv) > 1 else 5):
        print(f"CLIP return {result['episode_return_mean']:.1f}, true return {result['true_return']:.1f}")
