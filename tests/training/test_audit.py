"""The audit of a training: it hears of every step once, and changes nothing of what is learned from."""

import dataclasses
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from replayed import replayed

from vlm_rm_sweeps import metrics
from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.rewards.functions.history import History
from vlm_rm_sweeps.rewards.open_clip_models import EMBEDDED_PREPROCESSING
from vlm_rm_sweeps.rewards.registry import find_reward_model
from vlm_rm_sweeps.rewards.reward_model import RewardSpec
from vlm_rm_sweeps.serving.pool import PoolConfig, RewardPool, start_pool
from vlm_rm_sweeps.tasks.registry import find_task
from vlm_rm_sweeps.training.algorithms.dqn import Dqn
from vlm_rm_sweeps.training.audit import Audit, AuditPlan, AuditTally, Interval, StepTruth, _merged_sample, gold_metric
from vlm_rm_sweeps.training.connectors.reward import RewardSource
from vlm_rm_sweeps.training.trial import TrainableTrial, TrainingJob

TASK = find_task("cartpole-upright")
SPEC = RewardSpec((TASK.goal_prompt,), (TASK.baseline_prompt,), 0.5)
OTHER = RewardSpec((TASK.goal_prompt,), (TASK.baseline_prompt,), 0.0)
GOLD = PoolConfig("never-asked", "embedded/small", EMBEDDED_PREPROCESSING.frame_format)


def ran(job: TrainingJob) -> tuple[list[dict[str, Any]], list[Any]]:
    """All results of a trial, and the episodes in its replay buffer."""
    trial = TrainableTrial(config={"run": {"job": job}})
    results = [trial.train(), trial.train()]
    episodes = replayed(trial._trainer)
    trial.stop()
    return results, episodes


@pytest.mark.sweeps
def test_rewards_are_the_same_to_the_bit_with_and_without_an_audit(
    two_pools: tuple[PoolConfig, PoolConfig], tmp_path: Path
) -> None:
    """And the audit's means are those of what lies in the replay buffer: of every step, once, and of no evaluation's.

    As gold model serves the trial's own: that it gives the same mean shows that it is sent the frames of these steps.
    """
    config, gold = two_pools
    plain = TrainingJob(
        TASK,
        Dqn(learning_starts=100, envs=4, rollout_steps=5, updates_per_step=0.05),
        RewardSource(config, SPEC, EMBEDDED_PREPROCESSING.frame_format),
        seed=3,
        steps=400,
        steps_per_result=200,
        evaluation_episodes=1,
        folder=tmp_path / "plain",
        checkpoint_every=10_000,
    )
    plan = AuditPlan({"own": SPEC, "other": OTHER}, (gold,), every=1_000, frames=400)
    audited = dataclasses.replace(plain, folder=tmp_path / "audited", audit=plan)
    (results, episodes), (audited_results, audited_episodes) = ran(plain), ran(audited)

    assert len(episodes) == len(audited_episodes)
    for episode, other in zip(episodes, audited_episodes, strict=True):
        np.testing.assert_array_equal(episode.get_rewards(), other.get_rewards())
        np.testing.assert_array_equal(episode.get_observations(), other.get_observations())
    for name in ("true_return", "evaluation_clip_return", "evaluation_true_return", "updates"):
        assert results[-1].get(name) == audited_results[-1].get(name)

    assert not any(name.startswith("audit") for name in results[-1] | audited_results[0])  # it was not due before the end
    point = audited_results[-1]
    rewards = np.concatenate([episode.get_rewards() for episode in episodes])
    angles = np.concatenate([episode.get_observations()[1:, 2] for episode in episodes])
    assert len(rewards) == 400
    assert point[metrics.AUDIT_PROXY] == pytest.approx(rewards.mean(dtype=np.float64), abs=1e-6)
    assert point[metrics.AUDIT_SPEC + "own"] == point[metrics.AUDIT_PROXY]
    assert point[gold_metric("embedded/tiny")] == pytest.approx(point[metrics.AUDIT_PROXY], abs=1e-6)
    assert abs(point[metrics.AUDIT_SPEC + "other"] - point[metrics.AUDIT_PROXY]) > 1e-4
    assert point[metrics.AUDIT_GOAL_FRACTION] == pytest.approx((np.abs(angles) <= np.deg2rad(12)).mean(), abs=0.005)
    assert point[metrics.AUDIT_TRUE_REWARD] == point[metrics.AUDIT_GOAL_FRACTION]


def frames_numbered(start: int, count: int) -> np.ndarray:
    frames = np.zeros((count, 2, 2, 3), np.uint8)
    frames[:, 0, 0, 0], frames[:, 0, 0, 1] = np.divmod(np.arange(start, start + count), 256)
    return frames


def numbers_of(frames: list[np.ndarray]) -> list[int]:
    return [256 * int(frame[0, 0, 0]) + int(frame[0, 0, 1]) for frame in frames]


def sampled_numbers(watched: AuditTally) -> list[int]:
    return numbers_of(watched.get_state()["_sample"])


def recorded(watched: AuditTally, start: int, count: int) -> None:
    rewards = np.full((count, 1 + len(watched.specs)), 0.5, np.float32)
    watched.record(list(frames_numbered(start, count)), rewards, [StepTruth(1.0, True)] * count)


def test_a_reward_model_of_ones_own_is_a_gold_model(ray_cluster: None) -> None:
    model = find_reward_model("own_rewards:Shade/200")
    config = PoolConfig.of("test-gold", model)
    handles = start_pool(config, model)
    plan = AuditPlan({}, (config,), every=100, frames=25)
    watched = AuditTally(plan, seed=1)
    recorded(watched, 0, 20)
    gold = Audit(plan, SPEC, seed=1).point(100, [watched.take()])[gold_metric("own_rewards:Shade/200")]
    assert gold == pytest.approx(model.score(frames_numbered(0, 20), [SPEC]).mean())
    for handle in handles:
        ray.kill(handle)


def test_a_pool_answers_for_its_models_own_columns(ray_cluster: None) -> None:
    model = find_reward_model("own_rewards:Sceptical")
    config = PoolConfig.of("test-columns", model)
    handles = start_pool(config, model)
    pool = RewardPool(config, handles)
    pool.check(SPEC.column("dark"))
    with pytest.raises(UserError, match="own_rewards:Sceptical has no column 'drift': expected dark"):
        pool.check(SPEC.column("drift"))
    frames = np.stack([np.full((4, 4, 3), shade, np.uint8) for shade in (10, 200)])
    np.testing.assert_array_equal(pool.score(frames, [SPEC, SPEC.column("dark")])[:, 1], [1, 0])
    for handle in handles:
        ray.kill(handle)


def test_an_audit_goes_on_without_a_judge_that_is_unavailable_and_says_so_once(ray_cluster: None) -> None:
    models = [find_reward_model(f"own_rewards:{name}", judging=True) for name in ("Unavailable", "Brightness")]
    configs = tuple(PoolConfig.of("test-judges", model) for model in models)
    handles = [handle for config, model in zip(configs, models, strict=True) for handle in start_pool(config, model)]
    plan = AuditPlan({}, configs, every=100, frames=25)
    watched, audit = AuditTally(plan, seed=1), Audit(plan, SPEC, seed=1)
    recorded(watched, 0, 20)
    point = audit.point(100, [watched.take()])
    assert [name for name in point if name.startswith(metrics.AUDIT_GOLD)] == [gold_metric("own_rewards:Brightness")]
    assert audit.take_remarks() == ["the audit goes on without own_rewards:Unavailable: the endpoint is down"]
    assert audit.take_remarks() == []
    for handle in handles:
        ray.kill(handle)


def test_a_judge_that_cannot_compute_the_trials_reward_judges_by_another_and_says_so_once(ray_cluster: None) -> None:
    model = find_reward_model("own_rewards:Brightness")
    own = RewardSpec(SPEC.goal_prompts, SPEC.baseline_prompts, function=History(frames=3))
    with pytest.raises(UserError, match="has no embeddings"):
        model.check(own)
    config = PoolConfig.of("test-other-reward", model)
    handles = start_pool(config, model)
    plan = AuditPlan({}, (config,), every=100, frames=25, judged_by={model.model_id: model.judged_by(own)})
    watched, audit = AuditTally(plan, seed=1), Audit(plan, own, seed=1)
    recorded(watched, 0, 20)
    gold = audit.point(100, [watched.take()])[gold_metric(model.model_id)]
    assert gold == pytest.approx(model.score(frames_numbered(0, 20), [OTHER]).mean())
    assert audit.take_remarks() == [
        "own_rewards:Brightness cannot compute the reward history-frames-3: it judges by goal and baseline alone (goal_baseline at "
        "alpha 0)"
    ]
    recorded(watched, 20, 20)
    assert gold_metric(model.model_id) in audit.point(200, [watched.take()])
    assert audit.take_remarks() == []
    for handle in handles:
        ray.kill(handle)


def test_gold_models_see_frames_of_the_whole_interval() -> None:
    drawn = []
    for seed in range(40):
        watched = AuditTally(AuditPlan({}, (GOLD,), every=100, frames=25), seed)
        recorded(watched, 0, 300)
        recorded(watched, 300, 700)
        numbers = sampled_numbers(watched)
        assert len(set(numbers)) == 25
        drawn += numbers
    # A thousand draws from 0 ... 999: each tenth of the interval gets about a hundred.
    assert np.histogram(drawn, bins=10, range=(0, 1000))[0] == pytest.approx(100, abs=40)


def test_a_sample_of_several_env_runners_is_uniform_over_their_steps() -> None:
    """One has sampled three times as many steps as the other, and both more than fit."""
    drawn = []
    plan = AuditPlan({}, (GOLD,), every=100, frames=20)
    for seed in range(50):
        tallies = [AuditTally(plan, 2 * seed), AuditTally(plan, 2 * seed + 1)]
        recorded(tallies[0], 0, 300)
        recorded(tallies[1], 300, 100)
        numbers = numbers_of(_merged_sample([tally.take() for tally in tallies], 20, np.random.default_rng(seed)))
        assert len(set(numbers)) == 20
        drawn += numbers
    assert np.histogram(drawn, bins=4, range=(0, 400))[0] == pytest.approx(250, abs=60)


def test_intervals_of_several_env_runners_are_added_up() -> None:
    intervals = [
        Interval(np.array([6.0, 2.0]), steps=3, goal_steps=1, true_reward=3.0),
        Interval(np.array([2.0, 2.0]), steps=1, goal_steps=1, true_reward=-1.0),
    ]
    point = Audit(AuditPlan({"other": OTHER}, (), every=100, frames=10), SPEC, seed=1).point(100, intervals)
    assert (point[metrics.AUDIT_PROXY], point[metrics.AUDIT_SPEC + "other"]) == (2.0, 1.0)
    assert (point[metrics.AUDIT_TRUE_REWARD], point[metrics.AUDIT_GOAL_FRACTION]) == (0.5, 0.5)


def test_the_means_of_a_models_own_columns_are_metrics() -> None:
    plan = AuditPlan({"other": OTHER}, (), every=100, frames=10, columns={"drift": SPEC.column("drift")})
    tally = AuditTally(plan, seed=1)
    assert tally.specs == [OTHER, SPEC.column("drift")]
    rewards = np.array([[0.1, 0.2, 1], [0.1, 0.2, 0], [0.1, 0.2, 0], [0.1, 0.2, 0]], np.float32)
    tally.record(list(frames_numbered(0, 4)), rewards, [StepTruth(1.0, True)] * 4)
    point = Audit(plan, SPEC, seed=1).point(4, [tally.take()])
    assert point[metrics.AUDIT_COLUMN + "drift"] == 0.25
    assert point[metrics.AUDIT_SPEC + "other"] == pytest.approx(0.2)


def test_resumes_in_the_middle_of_an_interval_to_the_bit() -> None:
    plan = AuditPlan({"other": OTHER}, (GOLD,), every=100, frames=10)
    undisturbed = AuditTally(plan, seed=1)
    recorded(undisturbed, 0, 500)
    resumed = AuditTally(plan, seed=1)
    resumed.set_state(pickle.loads(pickle.dumps(undisturbed.get_state())))
    for watched in (undisturbed, resumed):
        recorded(watched, 500, 500)
    assert sampled_numbers(undisturbed) == sampled_numbers(resumed)
    expected, again = undisturbed.take(), resumed.take()
    np.testing.assert_array_equal(expected.rewards, again.rewards)
    assert (expected.steps, expected.true_reward) == (again.steps, again.true_reward) == (1000, 1000.0)


def test_an_audit_point_is_due_after_as_many_steps_and_begins_anew() -> None:
    plan = AuditPlan({"other": OTHER}, (), every=100, frames=10)
    audit, tally = Audit(plan, SPEC, seed=1), AuditTally(plan, seed=1)
    recorded(tally, 0, 7)
    assert (audit.due(99), audit.due(100)) == (False, True)
    assert audit.point(100, [tally.take()])[metrics.AUDIT_PROXY] == 0.5
    assert audit.point(100, [tally.take()]) == {}
    assert audit.due(199) is False


def test_there_is_no_share_in_the_goal_where_nothing_tells_success() -> None:
    plan = AuditPlan({}, (), every=100, frames=10)
    tally = AuditTally(plan, seed=1)
    tally.record(list(frames_numbered(0, 2)), np.ones((2, 1), np.float32), [StepTruth(-1.0, None), StepTruth(-2.0, None)])
    point = Audit(plan, SPEC, seed=1).point(2, [tally.take()])
    assert metrics.AUDIT_GOAL_FRACTION not in point
    assert point[metrics.AUDIT_TRUE_REWARD] == -1.5


def test_the_name_of_a_gold_metric_suits_mlflow() -> None:
    first, second = (gold_metric(f"ViT-B-32//tmp/{name}.safetensors") for name in ("a b", "a_b"))
    assert first.startswith("audit_gold/ViT-B-32_tmp_a_b.safetensors-")
    assert first != second
    assert gold_metric("embedded/large") == "audit_gold/embedded_large"
