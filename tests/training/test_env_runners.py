"""Trials that sample in several processes: each frame is scored once, nothing is lost or doubled, and errors keep their message."""

import dataclasses
import math
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from ray import tune
from replayed import replayed

from vlm_rm_sweeps import metrics
from vlm_rm_sweeps.rewards.open_clip_models import EMBEDDED_PREPROCESSING
from vlm_rm_sweeps.rewards.registry import load_reward_model
from vlm_rm_sweeps.rewards.reward_model import RewardSpec
from vlm_rm_sweeps.serving.pool import PoolConfig
from vlm_rm_sweeps.tasks.cart_pole import UprightCartPole
from vlm_rm_sweeps.tasks.registry import find_task
from vlm_rm_sweeps.tasks.rendering import render_frame
from vlm_rm_sweeps.tasks.task import Task
from vlm_rm_sweeps.training.algorithms.dqn import Dqn
from vlm_rm_sweeps.training.algorithms.sac import Sac
from vlm_rm_sweeps.training.audit import AuditPlan, gold_metric
from vlm_rm_sweeps.training.connectors.random_actions import HeldRandomActions
from vlm_rm_sweeps.training.connectors.reward import RewardSource, reward_connectors
from vlm_rm_sweeps.training.env_runners import on_each_runner, with_each_runner
from vlm_rm_sweeps.training.rllib_internals import module_to_env_pieces
from vlm_rm_sweeps.training.trainer import build_trainer
from vlm_rm_sweeps.training.trial import TrainableTrial, TrainingJob

pytestmark = pytest.mark.sweeps

TASK = find_task("cartpole-upright")
SPEC = RewardSpec((TASK.goal_prompt,), (TASK.baseline_prompt,), 0.5)
OTHER = RewardSpec((TASK.goal_prompt,), (TASK.baseline_prompt,), 0.0)
SETTINGS = Dqn(learning_starts=100, envs=2, rollout_steps=10, updates_per_step=0.1, batch=16, hidden=(16,), epsilon_steps=1_000)
STEPS = 840
"""Each of the four sub-environments comes past the end of its first episode."""


def job_of(folder: Path, pools: tuple[PoolConfig, PoolConfig] | None, **changed: Any) -> TrainingJob:
    """Two results, a checkpoint after each; with pools, an audit at the end whose gold model is the other pool's."""
    reward = RewardSource(pools[0], SPEC, EMBEDDED_PREPROCESSING.frame_format) if pools else None
    audit = AuditPlan({"other": OTHER}, (pools[1],), every=10_000, frames=STEPS) if pools else None
    job = TrainingJob(
        TASK,
        SETTINGS,
        reward,
        seed=3,
        steps=STEPS,
        steps_per_result=STEPS // 2,
        evaluation_episodes=1,
        folder=folder,
        checkpoint_every=100,
        audit=audit,
        env_runners=2,
    )
    return dataclasses.replace(job, **changed)


def episodes_of(trial: TrainableTrial) -> list[Any]:
    return replayed(trial._trainer)


@dataclass(frozen=True)
class Ran:
    """What became of a trial, and what its env runners knew at its end. They are gone: the cluster has no CPU for any others."""

    folder: Path
    results: list[dict[str, Any]]
    episodes: list[Any]
    pools: list[list[str]]
    steps_known: list[int]


@pytest.fixture(scope="module")
def ran(two_pools: tuple[PoolConfig, PoolConfig], tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """A whole trial of two results."""
    folder = tmp_path_factory.mktemp("trial")
    trial = TrainableTrial(config={"run": {"job": job_of(folder, two_pools)}})
    results = [trial.train(), trial.train()]
    pools, steps_known = on_each_runner(trial._trainer, _pools_of), on_each_runner(trial._trainer, _steps_known_to)
    ran = Ran(folder, results, episodes_of(trial), pools, steps_known)
    trial.stop()
    return ran


def _pools_of(env_runner: Any) -> list[str]:
    return [connector._source.pool.name for connector in reward_connectors(env_runner)]


def _steps_known_to(env_runner: Any) -> int:
    return int(env_runner.num_env_steps_sampled_lifetime)


def assert_whole(episodes: list[Any], steps: int) -> None:
    """Every state follows from the one before by the action between them, and there are as many as were sampled."""
    assert sum(len(episode) for episode in episodes) == steps
    env = UprightCartPole()
    env.reset(seed=0)
    for episode in episodes:
        observations, actions = episode.get_observations(), episode.get_actions()
        for before, action, after in zip(observations[:-1], actions, observations[1:], strict=True):
            # As float32, the edge of the track lies beyond the edge.
            env.state = np.clip(np.asarray(before, np.float64), [-2.4, -np.inf, -np.pi, -np.inf], [2.4, np.inf, np.pi, np.inf])
            np.testing.assert_allclose(env.step(int(action))[0], after, atol=1e-4)


def test_every_transition_of_both_was_scored_once_with_its_own_frame(ran: Ran) -> None:
    assert [result[metrics.ENV_STEPS] for result in ran.results] == [440, 880]  # whole rollouts of 2 x 2 x 10
    assert ran.results[-1]["done"]
    assert_whole(ran.episodes, 880)
    model, env = load_reward_model("embedded/tiny", micro_batch=16), UprightCartPole()
    env.reset(seed=0)
    for episode in ran.episodes:
        frames = []
        for observation in episode.get_observations()[1:]:
            env.state = np.asarray(observation, np.float64)
            frames.append(render_frame(env, EMBEDDED_PREPROCESSING.frame_format))
        np.testing.assert_allclose(episode.get_rewards(), model.score(np.stack(frames), [SPEC])[:, 0], atol=0.02)


def test_both_sample_from_the_same_pool_in_environments_of_their_own(
    ran: Ran, two_pools: tuple[PoolConfig, PoolConfig]
) -> None:
    assert ran.pools == [[two_pools[0].name], [two_pools[0].name]]
    starts = {tuple(episode.get_observations()[0].tolist()) for episode in ran.episodes}
    assert len(starts) == len(ran.episodes) == 8  # of four sub-environments the first, and the next


def test_returns_are_of_the_episodes_of_both(ran: Ran) -> None:
    result = ran.results[-1]
    finished = [episode for episode in ran.episodes if len(episode) == 200]
    assert len(finished) == 4
    assert result[metrics.CLIP_RETURN] == pytest.approx(np.mean([sum(episode.get_rewards()) for episode in finished]), rel=1e-5)
    in_goal = [np.abs(episode.get_observations()[1:, 2]) <= np.deg2rad(12) for episode in finished]
    assert result[metrics.TRUE_RETURN] == pytest.approx(np.mean([steps.sum() for steps in in_goal]), abs=0.5)


def test_updates_follow_the_ratio_that_was_asked_for(ran: Ran) -> None:
    """RLlib by itself would make half as many again."""
    first, last = ran.results
    assert last[metrics.UPDATES_PER_STEP] == SETTINGS.updates_per_step
    assert last[metrics.UPDATES] - first[metrics.UPDATES] == 440 * SETTINGS.updates_per_step


def test_epsilon_falls_with_the_steps_of_both(ran: Ran) -> None:
    assert ran.steps_known == [880, 880]


def test_the_audit_hears_of_every_step_of_both(ran: Ran) -> None:
    """As gold model serves the trial's own: that it gives the same mean shows that it is sent the frames of these steps."""
    point, rewards = ran.results[-1], np.concatenate([episode.get_rewards() for episode in ran.episodes])
    assert point[metrics.AUDIT_PROXY] == pytest.approx(rewards.mean(dtype=np.float64), abs=1e-6)
    assert point[gold_metric("embedded/tiny")] == pytest.approx(point[metrics.AUDIT_PROXY], abs=0.01)
    assert abs(point[metrics.AUDIT_SPEC + "other"] - point[metrics.AUDIT_PROXY]) > 1e-4
    angles = np.concatenate([episode.get_observations()[1:, 2] for episode in ran.episodes])
    assert point[metrics.AUDIT_GOAL_FRACTION] == pytest.approx((np.abs(angles) <= np.deg2rad(12)).mean(), abs=0.005)


def test_a_resumed_trial_has_lost_and_doubled_nothing(
    ran: Ran, two_pools: tuple[PoolConfig, PoolConfig], tmp_path: Path
) -> None:
    """Its process died in the second of two results, in the middle of all episodes and of the audit's interval."""
    shutil.copytree(ran.folder / "step-000000440", tmp_path / "step-000000440")
    resumed = TrainableTrial(config={"run": {"job": job_of(tmp_path, two_pools)}})
    sampled_before = [episode.get_observations() for episode in episodes_of(resumed)]
    assert [len(episode) for episode in episodes_of(resumed)] == [110] * 4
    result = resumed.train()
    episodes = episodes_of(resumed)
    resumed.stop()
    assert result["note"] == "resumed from step 440"
    assert (result[metrics.ENV_STEPS], result["done"]) == (880, True)
    assert_whole(episodes, 880)
    # The running episodes were continued, to their end, and none was begun anew in their place.
    for episode, before in zip(episodes[:4], sampled_before, strict=True):
        np.testing.assert_array_equal(episode.get_observations()[: len(before)], before)
    assert [len(episode) for episode in episodes] == [200] * 4 + [20] * 4
    assert result[metrics.UPDATES] == ran.results[-1][metrics.UPDATES]
    rewards = np.concatenate([episode.get_rewards() for episode in episodes])
    assert result[metrics.AUDIT_PROXY] == pytest.approx(rewards.mean(dtype=np.float64), abs=1e-6)


def test_env_runners_share_the_warm_up_and_draw_actions_of_their_own(ray_cluster: None) -> None:
    settings = Sac(learning_starts=41, envs=1, rollout_steps=10, batch=8, hidden=(8,), warm_up_hold=3)
    trainer: Any = build_trainer(
        settings, find_task("mountaincar-summit"), None, seed=3, steps_per_result=40, evaluation_episodes=1, env_runners=2
    )
    learned = [value.numpy() for value in trainer.get_module().state_dict().values()]
    for sampled_with in on_each_runner(trainer, _weights_of):
        for expected, value in zip(learned, sampled_with, strict=True):
            np.testing.assert_array_equal(value, expected)  # from the first step on
    trainer.train()
    assert on_each_runner(trainer, _warm_up_of) == [math.ceil(41 / 2)] * 2
    first, second = (np.concatenate(episode.get_actions()) for episode in replayed(trainer))
    for actions in (first, second):
        assert len(set(actions[:18].tolist())) == 6  # each held for three steps
    assert not set(first[:18].tolist()) & set(second[:18].tolist())
    with pytest.raises(ValueError, match="1 arguments for 2 env runners"):
        with_each_runner(trainer, lambda runner, argument: None, [None])
    trainer.stop()


def _weights_of(env_runner: Any) -> list[np.ndarray]:
    return [value.numpy() for value in env_runner.module.state_dict().values()]


def _warm_up_of(env_runner: Any) -> int:
    (piece,) = (piece for piece in module_to_env_pieces(env_runner) if isinstance(piece, HeldRandomActions))
    return int(piece._steps)


def failing_task() -> Task:
    """A task whose environment raises at its third step."""

    def make(*_: Any) -> gym.Env:
        class Failing(UprightCartPole):
            steps = 0

            # Without annotations, which a class that is sent to another process could not resolve there.
            def step(self, action):  # type: ignore[no-untyped-def]
                self.steps += 1
                if self.steps == 3:
                    raise ArithmeticError("the pole fell off")
                return super().step(action)

        return Failing()

    return dataclasses.replace(TASK, make_native_env=make)


@pytest.mark.parametrize("env_runners", [0, 1])
def test_an_environments_error_ends_the_trial_with_its_own_message(ray_cluster: None, tmp_path: Path, env_runners: int) -> None:
    """RLlib says no more than that something was raised, or that a process died, for which the machine would be to blame."""
    made = TrainableTrial(config={"run": {"job": job_of(tmp_path, None, task=failing_task(), env_runners=env_runners)}})
    result = made.train()
    made.stop()
    assert result["done"]
    assert re.fullmatch(
        r"EnvironmentFault: environment cartpole-upright, step 3 of an episode, action [01]: ArithmeticError: the pole fell off",
        result[metrics.FAILURE],
    )


@pytest.mark.parametrize("env_runners", [0, 1])
def test_an_environment_that_cannot_be_made_ends_the_trial_with_the_cause(
    ray_cluster: None, tmp_path: Path, env_runners: int
) -> None:
    """Tune would say no more than that the process died."""

    def make(*_: Any) -> gym.Env:
        raise FileNotFoundError("there is no robot.xml")

    task = dataclasses.replace(TASK, make_native_env=make)
    made = TrainableTrial(config={"run": {"job": job_of(tmp_path, None, task=task, env_runners=env_runners)}})
    result = made.train()
    made.stop()
    cause = "EnvironmentFault: environment cartpole-upright cannot be made: FileNotFoundError: there is no robot.xml"
    assert (result["done"], result[metrics.FAILURE]) == (True, cause)


@pytest.mark.slow
def test_tune_reserves_a_cpu_for_each_env_runner(ray_cluster: None, tmp_path: Path) -> None:
    """And they sample within what was reserved: beside the trial's CPU and theirs this cluster has none."""
    run = {"job": job_of(tmp_path / "trial", None, steps=80, steps_per_result=80, env_runners=1)}
    config = {"run": run | {"resources": {"CPU": 1, "GPU": 0}}}
    assert TrainableTrial.default_resource_request(config).bundles == [{"CPU": 1}, {"CPU": 1}]
    tuned = tune.Tuner(
        TrainableTrial,
        param_space=config,
        run_config=tune.RunConfig(
            storage_path=str(tmp_path / "tune"), verbose=0, checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False)
        ),
    ).fit()
    assert not tuned.errors
    assert tuned[0].metrics is not None
    assert tuned[0].metrics[metrics.ENV_STEPS] == 80
