"""PPO: advantages are of the reward model's rewards, trials repeat and resume to the bit, and the policy acts greedily."""

import copy
import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ray.rllib.connectors.connector_v2 import ConnectorV2

from vlm_rm_sweeps import metrics
from vlm_rm_sweeps.evaluation.rollouts import find_checkpoint, load_policy
from vlm_rm_sweeps.rewards.open_clip_models import EMBEDDED_PREPROCESSING
from vlm_rm_sweeps.rewards.registry import load_reward_model
from vlm_rm_sweeps.rewards.reward_model import RewardSpec
from vlm_rm_sweeps.serving.pool import PoolConfig
from vlm_rm_sweeps.tasks.cart_pole import UprightCartPole
from vlm_rm_sweeps.tasks.gym_task import GymEnv
from vlm_rm_sweeps.tasks.registry import find_task
from vlm_rm_sweeps.tasks.rendering import render_frame
from vlm_rm_sweeps.training.algorithms.ppo import Ppo
from vlm_rm_sweeps.training.connectors.reward import RewardSource
from vlm_rm_sweeps.training.connectors.standardize_rewards import StandardizeRewards
from vlm_rm_sweeps.training.rllib_internals import learner_pieces, local_learner
from vlm_rm_sweeps.training.trainer import build_trainer
from vlm_rm_sweeps.training.trial import TrainableTrial, TrainingJob

TASK = find_task("cartpole-upright")
SPEC = RewardSpec((TASK.goal_prompt,), (TASK.baseline_prompt,), 0.5)
SETTINGS = Ppo(envs=2, rollout_steps=120, epochs=2, minibatch=40, hidden=(16, 8), gae_lambda=0.9)
PENDULUM = GymEnv(id="Pendulum-v1", episode_steps=20, success="obs[0] > 0.9")


class _Seen(ConnectorV2):
    """Keeps copies of the episodes and batches that pass it, and the values that the critic gave them."""

    def __init__(self) -> None:
        super().__init__()
        self.episodes: list[Any] = []
        self.batches: list[dict[str, np.ndarray]] = []
        self.values: list[np.ndarray] = []

    def __call__(self, *, rl_module: Any, batch: dict[str, Any], episodes: Any, **kwargs: Any) -> dict[str, Any]:
        self.episodes.append(copy.deepcopy(episodes))
        if batch:
            columns = batch["default_policy"]
            self.batches.append({name: values.detach().numpy().copy() for name, values in columns.items() if name != "infos"})
            self.values.append(rl_module["default_policy"].compute_values(columns).detach().numpy())
        return batch


@pytest.fixture(scope="module")
def learned(two_pools: tuple[PoolConfig, PoolConfig]) -> Iterator[tuple[Any, dict[str, Any], _Seen, _Seen]]:
    """A trainer after two rollouts, its last result, and what its learner got and made of it."""
    reward = RewardSource(two_pools[0], SPEC, EMBEDDED_PREPROCESSING.frame_format)
    trainer: Any = build_trainer(SETTINGS, TASK, reward, seed=3, steps_per_result=480, evaluation_episodes=1)
    got, made = _Seen(), _Seen()
    pieces = learner_pieces(local_learner(trainer))
    pieces.insert(0, got)
    pieces.append(made)
    yield trainer, trainer.train(), got, made
    trainer.stop()


def test_rewards_are_in_place_before_advantages_are_computed(
    learned: tuple[Any, dict[str, Any], _Seen, _Seen],
) -> None:
    """The learner gets the reward model's rewards: of the frame of the state after each step."""
    model, env = load_reward_model("embedded/tiny", micro_batch=16), UprightCartPole()
    env.reset(seed=0)
    for episode in learned[2].episodes[0]:
        frames = []
        for observation in episode.get_observations()[1:]:
            env.state = np.asarray(observation, np.float64)
            frames.append(render_frame(env, EMBEDDED_PREPROCESSING.frame_format))
        # The observation is float32 and the state that was rendered float64: a pixel's edge may round differently.
        np.testing.assert_allclose(episode.get_rewards(), model.score(np.stack(frames), [SPEC])[:, 0], atol=0.02)


def test_advantages_are_those_of_the_standardized_rewards(learned: tuple[Any, dict[str, Any], _Seen, _Seen]) -> None:
    """Computed by hand for every rollout, on the scale of the first; at a time limit the value of the last state is bootstrapped."""
    _, _, got, made = learned
    first = np.concatenate([episode.get_rewards() for episode in got.episodes[0]])
    mean, deviation = first.mean(), first.std(ddof=1)
    assert len(got.episodes) == 2
    assert any(episode.is_truncated for episode in got.episodes[1])
    for episodes, batch, values in zip(got.episodes, made.batches, made.values, strict=True):
        hand_made, row = [], 0
        for episode in episodes:
            rewards = (episode.get_rewards() - mean) / deviation
            # RLlib gives each episode a row more, for the value of its last state.
            value = values[row : row + len(rewards) + 1]
            advantages, following = np.zeros(len(rewards) + 1), 0.0
            for step in reversed(range(len(rewards))):
                following = rewards[step] + 0.99 * value[step + 1] - value[step] + 0.99 * 0.9 * following
                advantages[step] = following
            hand_made.append(advantages)
            np.testing.assert_allclose(
                batch["value_targets"][row : row + len(rewards)], (advantages + value)[:-1], rtol=1e-4, atol=1e-4
            )
            row += len(rewards) + 1
        real = batch["loss_mask"]
        # RLlib scales advantages by all rows: any line through the origin's shift will do.
        slope, offset = np.polyfit(np.concatenate(hand_made)[real], batch["advantages"][real], deg=1)
        assert slope > 0
        np.testing.assert_allclose(batch["advantages"][real], slope * np.concatenate(hand_made)[real] + offset, atol=1e-3)


def test_rows_that_are_no_transitions_have_no_reward(learned: tuple[Any, dict[str, Any], _Seen, _Seen]) -> None:
    for batch in learned[3].batches:
        assert (~batch["loss_mask"]).sum() >= SETTINGS.envs
        assert not batch["rewards"][~batch["loss_mask"]].any()


def test_rewards_are_standardized_by_the_transitions_of_the_first_rollout(
    learned: tuple[Any, dict[str, Any], _Seen, _Seen],
) -> None:
    trainer, _, got, _ = learned
    (standardize,) = (piece for piece in learner_pieces(local_learner(trainer)) if isinstance(piece, StandardizeRewards))
    first = np.concatenate([episode.get_rewards() for episode in got.episodes[0]])
    assert standardize.mean == pytest.approx(first.mean(), rel=1e-5)
    assert standardize.deviation == pytest.approx(first.std(ddof=1), rel=1e-4)


def test_networks_have_the_widths_that_were_asked_for(learned: tuple[Any, dict[str, Any], _Seen, _Seen]) -> None:
    module = local_learner(learned[0]).module["default_policy"]
    for encoder, head, outputs in [
        (module.encoder.actor_encoder, module.pi, 2),
        (module.encoder.critic_encoder, module.vf, 1),
    ]:
        shapes = [tuple(each.shape) for each in [*encoder.parameters(), *head.parameters()] if each.ndim == 2]
        assert shapes == [(16, 4), (8, 16), (outputs, 8)]


@pytest.mark.parametrize("env_runners", [0, 1, 3])
def test_a_rollout_is_of_all_env_runners(env_runners: int) -> None:
    config: Any = SETTINGS.rllib_config(env_runners)
    assert config.train_batch_size_per_learner == 240 * max(1, env_runners)


def pendulum_job(folder: Path) -> TrainingJob:
    settings = Ppo(envs=4, rollout_steps=30, epochs=2, minibatch=30, hidden=(16,))
    return TrainingJob(
        PENDULUM.task(),
        settings,
        None,
        seed=5,
        steps=360,
        steps_per_result=120,
        evaluation_episodes=2,
        folder=folder,
        checkpoint_every=120,
        env=PENDULUM,
    )


def clip_job(pool: PoolConfig, folder: Path) -> TrainingJob:
    reward = RewardSource(pool, SPEC, EMBEDDED_PREPROCESSING.frame_format)
    settings = SETTINGS.model_copy(update={"rollout_steps": 60})
    changed: dict[str, Any] = {"task": TASK, "env": None, "reward": reward, "settings": settings, "steps": 360}
    return dataclasses.replace(pendulum_job(folder), **changed)


def results_of(trial: TrainableTrial, count: int) -> list[dict[str, Any]]:
    """Without what depends on the machine's speed."""
    timed = ("seconds", "per_second", "time_ms", "note")
    return [
        {name: value for name, value in trial.train().items() if name in metrics.METRICS and not name.endswith(timed)}
        for _ in range(count)
    ]


def weights_of(trial: TrainableTrial) -> dict[str, np.ndarray]:
    policy: Any = trial._trainer.get_module()
    return {name: values.numpy().copy() for name, values in policy.state_dict().items()}


@pytest.mark.sweeps
def test_same_seed_same_trial_to_the_bit(two_pools: tuple[PoolConfig, PoolConfig], tmp_path: Path) -> None:
    """Two runs with CLIP rewards, each on a server of its own."""
    outcomes = []
    for pool in two_pools:
        trial = TrainableTrial(config={"run": {"job": clip_job(pool, tmp_path / pool.name)}})
        outcomes.append((results_of(trial, 3), weights_of(trial)))
        trial.stop()
    (results, weights), (results_again, weights_again) = outcomes
    assert results == results_again
    assert (results[-1]["env_steps"], results[-1]["updates"]) == (360, 3 * math.ceil(2 * (120 + 2) / 40))
    assert "evaluation_clip_return" in results[-1]
    for name, values in weights.items():
        np.testing.assert_array_equal(values, weights_again[name])


@pytest.mark.sweeps
def test_resumes_from_its_last_checkpoint_to_the_bit(ray_cluster: None, tmp_path: Path) -> None:
    """With continuous actions; the process died in the second of three results."""
    undisturbed = TrainableTrial(config={"run": {"job": pendulum_job(tmp_path / "undisturbed")}})
    expected = results_of(undisturbed, 3)
    assert "evaluation_success" in expected[-1]
    died = TrainableTrial(config={"run": {"job": pendulum_job(tmp_path / "died")}})
    results_of(died, 2)
    died.stop()
    resumed = TrainableTrial(config={"run": {"job": pendulum_job(tmp_path / "died")}})
    assert results_of(resumed, 2) == expected[1:]
    for name, values in weights_of(undisturbed).items():
        np.testing.assert_array_equal(values, weights_of(resumed)[name])
    undisturbed.stop()
    resumed.stop()


@pytest.mark.parametrize("task", ["Pendulum", "CartPole"])
def test_the_policy_of_its_checkpoint_acts_greedily(ray_cluster: None, tmp_path: Path, task: str) -> None:
    """As in the evaluation at the end. The pendulum's torque goes from -2 to 2, and the actions of RLlib's episodes from -1 to 1."""
    job = dataclasses.replace(pendulum_job(tmp_path), steps=120)
    if task == "CartPole":
        job = dataclasses.replace(job, task=TASK, env=None)
    trial = TrainableTrial(config={"run": {"job": job}})
    sample, evaluated = trial._trainer.eval_env_runner.sample, []

    def recording(**kwargs: Any) -> Any:
        evaluated.extend(sample(**kwargs))
        return evaluated

    trial._trainer.eval_env_runner.sample = recording
    assert trial.train()["done"]
    trial.stop()
    policy = load_policy(find_checkpoint(tmp_path, last=True))
    assert len(evaluated) == 2
    for episode in evaluated:
        chosen = [policy(observation) for observation in episode.get_observations()[:-1]]
        factor = 2 if task == "Pendulum" else 1
        np.testing.assert_allclose(chosen, factor * np.clip(episode.get_actions(), -1, 1), atol=1e-5)
