"""A whole trial: what it reports, that it can be repeated, and that its checkpoint holds the learned policy."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from ray.rllib.core.rl_module.rl_module import RLModule

from vlm_rm_sweeps.rewards.catalog import EMBEDDED_PREPROCESSING
from vlm_rm_sweeps.rewards.reward_model import RewardSpec
from vlm_rm_sweeps.serving.pool import PoolConfig, await_pool, start_pool
from vlm_rm_sweeps.tasks.task import get_task
from vlm_rm_sweeps.training.connector import RewardSource
from vlm_rm_sweeps.training.settings import DqnSettings
from vlm_rm_sweeps.training.trial import TrainableTrial, TrainingJob

TASK = get_task("cartpole-upright")
SPEC = RewardSpec((TASK.goal_prompt,), (TASK.baseline_prompt,), 0.5)


def job(reward: RewardSource | None, seed: int = 5) -> TrainingJob:
    settings = DqnSettings(learning_starts=200, envs=4, rollout_steps=10, updates_per_step=0.1, epsilon_steps=400)
    return TrainingJob(TASK, settings, reward, seed, steps=1000, steps_per_result=500, evaluation_episodes=2)


def run(job: TrainingJob) -> tuple[list[dict[str, Any]], list[np.ndarray]]:
    """Its results, and all rewards in its replay buffer."""
    trial = TrainableTrial(config={"run": {"job": job}})
    results = [trial.train(), trial.train()]
    rewards = [episode.get_rewards() for episode in trial._algorithm.local_replay_buffer.episodes]
    trial.stop()
    return results, rewards


def test_same_seed_same_trial_to_the_bit(ray_cluster: None) -> None:
    """Two runs, on two servers of their own: the same rewards of the same transitions, and the same learned policy."""
    outcomes = []
    for name in ("first", "second"):
        config = PoolConfig(name=f"test-trial-{name}", model_id="embedded/tiny")
        handles = start_pool(config)
        await_pool(config, handles, [SPEC])
        outcomes.append(run(job(RewardSource(config, SPEC, EMBEDDED_PREPROCESSING.frame_format))))
        for handle in handles:
            ray.kill(handle)
    (results, rewards), (results_again, rewards_again) = outcomes
    assert len(rewards) == len(rewards_again)
    for episode, episode_again in zip(rewards, rewards_again, strict=True):
        np.testing.assert_array_equal(episode, episode_again)
    repeatable = ("clip_return", "true_return", "goal_fraction", "evaluation_clip_return", "evaluation_true_return", "updates")
    for result, again in zip(results, results_again, strict=True):
        assert [result.get(name) for name in repeatable] == [again.get(name) for name in repeatable]
    assert "evaluation_clip_return" in results[-1]


def test_another_seed_is_another_trial(ray_cluster: None) -> None:
    rewards, other = run(job(None, seed=5))[1], run(job(None, seed=6))[1]
    assert any(not np.array_equal(a, b) for a, b in zip(rewards, other, strict=False))


def test_ends_after_its_steps_with_an_evaluation_and_a_checkpoint(ray_cluster: None, tmp_path: Path) -> None:
    trial = TrainableTrial(config={"run": {"job": job(None)}})
    first, last = trial.train(), trial.train()
    assert (first["env_steps"], first["done"]) == (520, False)  # 13 rollouts of 4 sub-environments and 10 steps
    assert (last["env_steps"], last["done"]) == (1040, True)
    assert not any(name.startswith("evaluation_") for name in first)
    assert {"evaluation_true_return", "evaluation_success", "evaluation_goal_fraction"} <= last.keys()
    assert "clip_return" not in last
    assert last["updates"] == pytest.approx((1040 - 200) * 0.1, abs=5)

    trial.save_checkpoint(str(tmp_path))
    module: Any = RLModule.from_checkpoint(tmp_path / "learner_group/learner/rl_module/default_policy")
    learned: Any = trial._algorithm.get_module()
    for name, value in learned.state_dict().items():
        np.testing.assert_array_equal(module.state_dict()[name].numpy(), value.numpy())
    trial.stop()
