"""The way of a reward into RLlib, checked on a real algorithm, a real pool and what lies in the replay buffer at the end."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from ray.rllib.connectors.connector_v2 import ConnectorV2
from replayed import replayed

from vlm_rm_sweeps import metrics
from vlm_rm_sweeps.rewards.functions.history import History
from vlm_rm_sweeps.rewards.open_clip_models import EMBEDDED_PREPROCESSING
from vlm_rm_sweeps.rewards.registry import load_reward_model
from vlm_rm_sweeps.rewards.reward_model import RewardSpec
from vlm_rm_sweeps.serving.pool import PoolConfig, RewardPool
from vlm_rm_sweeps.tasks.cart_pole import UprightCartPole
from vlm_rm_sweeps.tasks.registry import find_task
from vlm_rm_sweeps.tasks.rendering import render_frame
from vlm_rm_sweeps.training.algorithms.dqn import Dqn
from vlm_rm_sweeps.training.audit import AuditPlan, AuditTally
from vlm_rm_sweeps.training.connectors import reward as connector
from vlm_rm_sweeps.training.connectors.reward import RewardSource, reward_connectors
from vlm_rm_sweeps.training.trainer import build_trainer

TASK = find_task("cartpole-upright")
SPEC = RewardSpec((TASK.goal_prompt,), (TASK.baseline_prompt,), 0.5)
SETTINGS = Dqn(learning_starts=100, envs=4, rollout_steps=5, updates_per_step=0.05)


@pytest.fixture(scope="module")
def reward(two_pools: tuple[PoolConfig, PoolConfig]) -> RewardSource:
    return RewardSource(two_pools[0], SPEC, EMBEDDED_PREPROCESSING.frame_format)


@pytest.fixture(scope="module")
def trained(reward: RewardSource) -> Iterator[tuple[Any, dict[str, Any]]]:
    """An algorithm after 840 environment steps, past the end of its first episodes, and its last result."""
    algorithm = build_trainer(SETTINGS, TASK, reward, seed=3, steps_per_result=840, evaluation_episodes=2)
    yield algorithm, algorithm.train()
    algorithm.stop()


def test_every_transition_was_scored_once_with_its_own_frame(trained: tuple[Any, dict[str, Any]]) -> None:
    """The reward in the buffer is, to the bit, that of the frame of the state after the step."""
    algorithm, result = trained
    model = load_reward_model("embedded/tiny", micro_batch=16)
    env = UprightCartPole()
    env.reset(seed=0)
    transitions = 0
    for episode in replayed(algorithm):
        observations = episode.get_observations()[1:]
        frames = []
        for observation in observations:
            env.state = np.asarray(observation, np.float64)
            frames.append(render_frame(env, EMBEDDED_PREPROCESSING.frame_format))
        # The observation is float32 and the state that was rendered float64: a pixel's edge may round differently.
        np.testing.assert_allclose(episode.get_rewards(), model.score(np.stack(frames), [SPEC])[:, 0], atol=0.02)
        transitions += len(episode)
    assert transitions == result["num_env_steps_sampled_lifetime"] == 840
    assert result["env_runners"][metrics.FRAMES_SCORED] == 840


def test_no_reward_in_the_buffer_is_missing(trained: tuple[Any, dict[str, Any]]) -> None:
    for episode in replayed(trained[0]):
        assert np.isfinite(episode.get_rewards()).all()


def test_frames_and_other_info_never_leave_the_env_runner(trained: tuple[Any, dict[str, Any]]) -> None:
    for episode in trained[0].env_runner.sample():
        assert all(not info for info in episode.get_infos())


def test_both_returns_are_logged_under_their_own_names(trained: tuple[Any, dict[str, Any]]) -> None:
    algorithm, result = trained
    finished = [episode for episode in replayed(algorithm) if len(episode) == 200]
    assert len(finished) == SETTINGS.envs
    runner = result["env_runners"]
    clip_return = np.mean([sum(episode.get_rewards()) for episode in finished])
    assert runner["episode_return_mean"] == pytest.approx(clip_return, rel=1e-5)
    in_goal = [np.abs(episode.get_observations()[1:, 2]) <= np.deg2rad(12) for episode in finished]
    assert runner[metrics.TRUE_RETURN] == pytest.approx(np.mean([steps.sum() for steps in in_goal]), abs=0.5)
    assert runner[metrics.GOAL_FRACTION] == pytest.approx(np.mean([steps.mean() for steps in in_goal]), abs=0.01)
    assert runner[metrics.SUCCESS] == np.mean([steps.mean() >= 0.5 for steps in in_goal])


def test_evaluation_is_scored_as_well_and_has_whole_episodes(trained: tuple[Any, dict[str, Any]]) -> None:
    runner = trained[0].evaluate()["env_runners"]
    assert runner["num_episodes"] == 2
    assert runner["episode_len_mean"] == TASK.episode_steps
    assert 0 < runner["episode_return_mean"] <= TASK.episode_steps
    assert 0 <= runner[metrics.TRUE_RETURN] <= TASK.episode_steps


def test_the_true_reward_is_learned_from_without_rendering(ray_cluster: None) -> None:
    algorithm = build_trainer(SETTINGS, TASK, None, seed=3, steps_per_result=840, evaluation_episodes=2)
    runner = algorithm.train()["env_runners"]
    assert runner["episode_return_mean"] == runner[metrics.TRUE_RETURN]
    assert metrics.FRAMES_SCORED not in runner
    assert {reward for episode in replayed(algorithm) for reward in episode.get_rewards()} == {0.0, 1.0}
    algorithm.stop()


def test_updates_follow_the_ratio_that_was_asked_for(trained: tuple[Any, dict[str, Any]]) -> None:
    """`updates_per_step` counts from the first update on."""
    learner = trained[1]["learners"]["__all_modules__"]
    updates = learner["num_module_steps_trained_lifetime"] / SETTINGS.batch
    learned_steps = 840 - SETTINGS.learning_starts
    assert updates == pytest.approx(learned_steps * SETTINGS.updates_per_step, abs=2)


@pytest.mark.sweeps
def test_a_reward_of_the_last_frames_sees_them_across_rollouts(two_pools: tuple[PoolConfig, PoolConfig]) -> None:
    """The reward in the buffer is that of the whole episode, though it was scored in chunks of 5 steps."""
    function = History(frames=8, weight=2.0)
    spec = RewardSpec((TASK.goal_prompt,), (TASK.baseline_prompt,), function=function)
    source = RewardSource(two_pools[0], spec, EMBEDDED_PREPROCESSING.frame_format)
    algorithm = build_trainer(SETTINGS, TASK, source, seed=3, steps_per_result=840, evaluation_episodes=2)
    algorithm.train()
    model = load_reward_model("embedded/tiny", micro_batch=16)
    env = UprightCartPole()
    env.reset(seed=0)
    checked = 0
    for episode in replayed(algorithm):
        frames = []
        for observation in episode.get_observations()[1:]:
            env.state = np.asarray(observation, np.float64)
            frames.append(render_frame(env, EMBEDDED_PREPROCESSING.frame_format))
        columns, nothing = model.score(np.stack(frames), list(spec.parts())), np.zeros(len(frames), np.float32)
        in_chunks = [function.combine(columns[start : start + 5], nothing) for start in range(0, len(frames), 5)]
        rewards, whole = np.asarray(episode.get_rewards()), function.combine(columns, nothing)
        # A pixel's edge may round differently, as above.
        np.testing.assert_allclose(rewards, whole, atol=0.1)
        apart = np.abs(rewards - whole)
        assert np.median(apart) < 1e-3
        assert np.median(np.abs(np.concatenate(in_chunks) - whole)) > 100 * np.median(apart)
        checked += len(episode)
    assert checked == 840
    algorithm.stop()


NEVER_LEARNS = Dqn(learning_starts=10_000, envs=4, rollout_steps=5, updates_per_step=0.05)
"""Its first 160 steps are the same whatever the rewards are; no episode ends in them."""


def unlearned(reward: RewardSource, tally: AuditTally | None = None) -> tuple[np.ndarray, dict[str, Any]]:
    """The rewards of 40 steps in each of 4 environments, and RLlib's result."""
    algorithm = build_trainer(NEVER_LEARNS, TASK, reward, seed=3, steps_per_result=160, evaluation_episodes=2)
    for each in reward_connectors(algorithm.env_runner):
        each.tally = tally
    result = algorithm.train()
    rewards = np.stack([episode.get_rewards() for episode in replayed(algorithm)])
    algorithm.stop()
    return rewards, result["env_runners"]


@pytest.fixture(scope="module")
def each_step_scored(reward: RewardSource) -> np.ndarray:
    """Rewards of the frame after each step, as they were sent and answered."""
    sent: list[np.ndarray] = []
    submit = RewardPool.submit

    def spy(pool: RewardPool, frames: np.ndarray, specs: Any) -> Any:
        sent.append(frames)
        return submit(pool, frames, specs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RewardPool, "submit", spy)
        rewards, _ = unlearned(dataclasses.replace(reward, score_every=1))
    # The frames come by step, then by environment.
    own = load_reward_model("embedded/tiny", micro_batch=16).score(np.concatenate(sent), [SPEC])[:, 0]
    np.testing.assert_array_equal(rewards, own.reshape(40, 4).T)
    return rewards


def test_every_step_is_scored_by_default_and_has_its_own_reward_to_the_bit(
    reward: RewardSource, each_step_scored: np.ndarray
) -> None:
    rewards, runner = unlearned(reward)
    np.testing.assert_array_equal(rewards, each_step_scored)
    assert runner[metrics.FRAMES_SCORED] == 160


def test_between_scored_steps_the_last_reward_is_held_and_the_audit_sees_all_steps(
    reward: RewardSource, each_step_scored: np.ndarray
) -> None:
    tally = AuditTally(AuditPlan({"same": dataclasses.replace(SPEC, alpha=0.0)}, (reward.pool,), every=160, frames=500), seed=0)
    rewards, runner = unlearned(dataclasses.replace(reward, score_every=8), tally)
    np.testing.assert_array_equal(rewards, each_step_scored[:, [step - step % 8 for step in range(40)]])
    assert runner[metrics.FRAMES_SCORED] == 4 * 5
    audited = tally.take()
    assert audited.steps == len(audited.sample) == 160
    assert audited.rewards[0] == pytest.approx(rewards.sum(), rel=1e-6)
    assert audited.rewards[1] != audited.rewards[0]


def test_between_scored_steps_the_reward_is_interpolated_and_at_the_end_of_a_rollout_held(
    reward: RewardSource, each_step_scored: np.ndarray
) -> None:
    rewards, _ = unlearned(dataclasses.replace(reward, score_every=4, score_between="interpolate"))
    for step in range(40):
        before, rollout_ends = step - step % 4, step - step % 5 + 5
        share = 0.0 if before + 4 >= rollout_ends else step % 4 / 4
        expected = each_step_scored[:, before] * (1 - share)
        if share:
            expected = expected + each_step_scored[:, before + 4] * share
        np.testing.assert_allclose(rewards[:, step], expected, rtol=1e-5, err_msg=f"step {step}")


def test_stepping_goes_on_while_servers_score(reward: RewardSource, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full micro-batch leaves in the middle of a rollout, the rest at its end."""
    sent: list[int] = []
    submit = RewardPool.submit

    def spy(pool: RewardPool, frames: np.ndarray, specs: Any) -> Any:
        sent.append(len(frames))
        return submit(pool, frames, specs)

    monkeypatch.setattr(RewardPool, "submit", spy)
    algorithm = build_trainer(SETTINGS, TASK, reward, seed=3, steps_per_result=40, evaluation_episodes=2)
    algorithm.train()
    assert sent == [16, 4, 16, 4]
    algorithm.stop()


class _Unscored(connector.RewardConnector):
    """Loses the last frame of every step."""

    def __call__(self, **kwargs: Any) -> dict[str, Any]:
        for episode in kwargs["episodes"][-1:]:
            episode.get_infos(-1).pop("frame", None)
        return super().__call__(**kwargs)


def test_a_transition_without_a_reward_stops_the_sample(reward: RewardSource, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlm_rm_sweeps.training.rllib_config.RewardConnector", _Unscored)
    algorithm = build_trainer(SETTINGS, TASK, reward, seed=3, steps_per_result=40, evaluation_episodes=2)
    assert isinstance(algorithm.env_runner._env_to_module.connectors[-1], ConnectorV2)
    with pytest.raises(RuntimeError, match="0 of the 5 transitions of an episode were scored"):
        algorithm.train()
    algorithm.stop()
