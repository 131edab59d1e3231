"""DQN: what its settings mean to RLlib."""

from typing import Any

import pytest

from vlm_rm_sweeps.training.algorithms.dqn import Dqn


@pytest.mark.parametrize("env_runners", [0, 1, 3])
def test_rllib_makes_as_many_updates_as_were_asked_for(env_runners: int) -> None:
    """By its own reckoning of how many processes sample."""
    from ray.rllib.algorithms.dqn.dqn import calculate_rr_weights

    config: Any = Dqn(batch=16, updates_per_step=0.5, envs=4, rollout_steps=5).rllib_config(env_runners)
    config.env_runners(num_env_runners=env_runners, num_envs_per_env_runner=4, rollout_fragment_length=5)
    sampled, updates = calculate_rr_weights(config)
    transitions = 4 * 5 * max(1, env_runners)
    assert updates / (sampled * transitions) == 0.5
