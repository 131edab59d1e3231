"""A whole trial: what it reports, that it can be repeated, and that its checkpoint holds the learned policy."""

import dataclasses
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
import pandas as pd
import pytest
from ray.exceptions import ActorDiedError, RayTaskError
from replayed import replayed
from safetensors.torch import load_file
from typer.testing import CliRunner

from vlm_rm_sweeps.cli import app
from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.evaluation.rollouts import find_checkpoint, load_policy
from vlm_rm_sweeps.metrics import BestBy
from vlm_rm_sweeps.rewards.functions.history import History
from vlm_rm_sweeps.rewards.open_clip_models import EMBEDDED_PREPROCESSING
from vlm_rm_sweeps.rewards.reward_model import RewardSpec
from vlm_rm_sweeps.serving.nodes import InCommon
from vlm_rm_sweeps.serving.pool import PoolConfig, PoolUnavailable
from vlm_rm_sweeps.serving.refused_nodes import NodeRefused
from vlm_rm_sweeps.tasks.control import Control
from vlm_rm_sweeps.tasks.gym_task import GymEnv
from vlm_rm_sweeps.tasks.registry import find_task
from vlm_rm_sweeps.training.algorithms.dqn import Dqn
from vlm_rm_sweeps.training.algorithms.sac import Sac
from vlm_rm_sweeps.training.checkpoints import TrialFolder
from vlm_rm_sweeps.training.connectors.reward import RewardSource
from vlm_rm_sweeps.training.policy import Policy
from vlm_rm_sweeps.training.trial import TrainableTrial, TrainingJob

TASK = find_task("cartpole-upright")
SPEC = RewardSpec((TASK.goal_prompt,), (TASK.baseline_prompt,), 0.5)


def job(reward: RewardSource | None, folder: Path, seed: int = 5) -> TrainingJob:
    settings = Dqn(learning_starts=200, envs=4, rollout_steps=10, updates_per_step=0.1, epsilon_steps=400)
    return TrainingJob(
        TASK,
        settings,
        reward,
        seed,
        steps=1000,
        steps_per_result=500,
        evaluation_episodes=2,
        folder=folder,
        checkpoint_every=500,
    )


def sac_job(task: str, pool: PoolConfig, folder: Path, steps: int) -> TrainingJob:
    """Two results of half the steps each. The first 60 % of the steps are random, in actions that are repeated."""
    settings = Sac(
        learning_starts=steps * 6 // 10, envs=4, rollout_steps=10, updates_per_step=0.1, hidden=(32,), batch=32, warm_up_hold=7
    )
    chosen = find_task(task)
    spec = RewardSpec((chosen.goal_prompt,), (chosen.baseline_prompt,), 0.5)
    reward = RewardSource(pool, spec, EMBEDDED_PREPROCESSING.frame_format)
    return TrainingJob(
        chosen, settings, reward, 5, steps, steps // 2, evaluation_episodes=2, folder=folder, checkpoint_every=steps // 2
    )


def run(job: TrainingJob) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Its results, and the episodes in its replay buffer."""
    trial = TrainableTrial(config={"run": {"job": job}})
    results = [trial.train(), trial.train()]
    episodes = replayed_episodes(trial)
    trial.stop()
    return results, episodes


def replayed_episodes(trial: TrainableTrial) -> list[dict[str, Any]]:
    """All transitions in a trial's replay buffer, episode by episode, with their CLIP or true rewards."""
    return [
        {
            "observations": episode.get_observations(),
            "actions": episode.get_actions(),
            "rewards": episode.get_rewards(),
            "ended": episode.terminated,
        }
        for episode in replayed(trial._trainer)
    ]


def assert_same_transitions(episodes: list[dict[str, Any]], others: list[dict[str, Any]]) -> None:
    """To the bit."""
    assert len(episodes) == len(others)
    for episode, other in zip(episodes, others, strict=True):
        for name, values in episode.items():
            np.testing.assert_array_equal(values, other[name], err_msg=name)


REPEATABLE = (
    *("env_steps", "updates", "updates_per_step", "clip_return", "true_return", "success", "goal_fraction"),
    *("evaluation_clip_return", "evaluation_true_return", "evaluation_success"),
)
"""Of a result, all but the times."""


def assert_same_results(results: list[dict[str, Any]], others: list[dict[str, Any]]) -> None:
    for result, other in zip(results, others, strict=True):
        assert {name: result.get(name) for name in REPEATABLE} == {name: other.get(name) for name in REPEATABLE}


@pytest.mark.sweeps
def test_same_seed_same_trial_to_the_bit(two_pools: tuple[PoolConfig, PoolConfig], tmp_path: Path) -> None:
    """Two runs, each on a server of its own: the same 1000 transitions with the same rewards, and the same learned policy."""
    (results, episodes), (results_again, episodes_again) = (
        run(job(RewardSource(pool, SPEC, EMBEDDED_PREPROCESSING.frame_format), tmp_path / pool.name)) for pool in two_pools
    )
    assert sum(len(episode["rewards"]) for episode in episodes) == results[-1]["env_steps"] >= 1000
    assert_same_transitions(episodes, episodes_again)
    assert_same_results(results, results_again)
    assert "evaluation_clip_return" in results[-1]
    assert [result["env_steps"] for result in results] == [520, 1040]
    assert Dqn(envs=4, rollout_steps=10).trained_steps(1000, 500, 0) == (1040, 520)


@pytest.mark.sweeps
def test_evaluating_in_between_chooses_the_best_policy_and_changes_nothing_else(
    two_pools: tuple[PoolConfig, PoolConfig], tmp_path: Path
) -> None:
    """Greedy episodes, of the same first states each time; the training goes on as if there had been none."""
    plain = job(RewardSource(two_pools[0], SPEC, EMBEDDED_PREPROCESSING.frame_format), tmp_path / "plain")
    evaluating = dataclasses.replace(plain, folder=tmp_path / "evaluating", evaluation_interval=500)
    (results, episodes), (evaluated, same_episodes) = run(plain), run(evaluating)
    assert_same_transitions(episodes, same_episodes)
    greedy = [{name: result.pop(name) for name in REPEATABLE if name.startswith("evaluation_")} for result in evaluated]
    assert greedy[-1] == {name: results[-1].pop(name) for name in greedy[-1]}
    assert_same_results(results, evaluated)
    exploring, best = (TrialFolder(each.folder).best() for each in (plain, evaluating))
    assert exploring is not None
    assert best is not None
    assert (exploring.chosen, best.chosen) == ("chosen with exploration", "chosen by greedy episodes")
    merits = [(each["evaluation_success"], each["evaluation_true_return"]) for each in greedy]
    assert (best.content["metrics"]["success"], best.content["metrics"]["true_return"]) == max(merits)


@pytest.mark.sweeps
@pytest.mark.usefixtures("opengl")
@pytest.mark.parametrize("steps", [80, pytest.param(1000, marks=pytest.mark.slow)])
def test_same_seed_same_humanoid_to_the_bit(two_pools: tuple[PoolConfig, PoolConfig], tmp_path: Path, steps: int) -> None:
    """With SAC: repeated random actions, then those that the policy draws while it learns."""
    (results, episodes), (results_again, episodes_again) = (
        run(sac_job("humanoid-standing", pool, tmp_path / pool.name, steps)) for pool in two_pools
    )
    assert sum(len(episode["rewards"]) for episode in episodes) == results[-1]["env_steps"] >= steps
    assert results[-1]["updates"] > 0
    assert_same_transitions(episodes, episodes_again)
    assert_same_results(results, results_again)


@pytest.mark.sweeps
def test_another_seed_is_another_trial(ray_cluster: None, tmp_path: Path) -> None:
    episodes, other = run(job(None, tmp_path / "5", seed=5))[1], run(job(None, tmp_path / "6", seed=6))[1]
    assert any(not np.array_equal(a["observations"], b["observations"]) for a, b in zip(episodes, other, strict=False))


def test_ends_after_its_steps_with_an_evaluation_and_a_checkpoint(ray_cluster: None, tmp_path: Path) -> None:
    trial = TrainableTrial(config={"run": {"job": job(None, tmp_path)}})
    first = trial.train()
    evaluated = record_samples(trial._trainer)
    last = trial.train()
    assert (first["env_steps"], first["done"]) == (520, False)  # 13 rollouts of 4 sub-environments and 10 steps
    assert (last["env_steps"], last["done"]) == (1040, True)
    assert not any(name.startswith("evaluation_") for name in first)
    assert {"evaluation_true_return", "evaluation_success", "evaluation_goal_fraction"} <= last.keys()
    assert "clip_return" not in last
    assert last["updates"] == pytest.approx((1040 - 200) * 0.1, abs=5)
    assert last["updates_per_step"] == (last["updates"] - first["updates"]) / 520 == pytest.approx(0.1, abs=0.01)

    checkpoint, problems = TrialFolder(tmp_path).last()
    assert checkpoint is not None
    assert not problems
    assert (checkpoint.env_steps, checkpoint.content["done"]) == (1040, True)
    learned: Any = trial._trainer.get_module()
    expected = {name: value.numpy() for name, value in learned.state_dict().items()}
    saved = load_file(checkpoint.folder / "policy.safetensors")
    for name, value in expected.items():
        np.testing.assert_array_equal(saved[name].numpy(), value)
    # The evaluation was of as many episodes as asked for, and took the best action in every state.
    policy = Policy(checkpoint, TASK.make_env(None).observation_space, TASK.make_env(None).action_space)
    assert len(evaluated) == 2
    for episode in evaluated:
        assert episode.get_actions().tolist() == [int(policy(state)) for state in episode.get_observations()[:-1]]
    assert last["evaluation_true_return"] == np.mean([episode.get_return() for episode in evaluated])
    trial.stop()


def test_a_checkpoint_of_sac_is_evaluated_and_shown(two_pools: tuple[PoolConfig, PoolConfig], tmp_path: Path) -> None:
    """The pendulum's actions go from -2 to 2, and those of RLlib's episodes from -1 to 1."""
    env = GymEnv(id="Pendulum-v1", episode_steps=20, success="obs[0] > 0.9")
    prompts = RewardSpec(("a pole standing up",), ("a pole",), 0.5)
    pendulum = dataclasses.replace(
        sac_job("mountaincar-summit", two_pools[0], tmp_path / "trial", 160),
        task=env.task(),
        env=env,
        reward=RewardSource(two_pools[0], prompts, EMBEDDED_PREPROCESSING.frame_format),
    )
    trial = TrainableTrial(config={"run": {"job": pendulum}})
    trial.train()
    evaluated = record_samples(trial._trainer)
    learned = trial.train()
    assert learned["updates_per_step"] == learned["updates"] / 80 > 0  # before the second half none were made
    trial.stop()
    checkpoint = find_checkpoint(pendulum.folder, last=True)
    policy = load_policy(checkpoint)
    assert len(evaluated) == 2
    for episode in evaluated:
        chosen = [policy(observation) for observation in episode.get_observations()[:-1]]
        np.testing.assert_allclose(chosen, 2 * episode.get_actions(), atol=1e-5)

    folder = tmp_path / "evaluation"
    arguments = ("evaluate", checkpoint.folder, "--episodes", 3, "--video", "--out", folder)
    shown = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert shown.exit_code == 0, shown.output
    assert "Pendulum-v1, step 160, 3 greedy episodes" in shown.output
    summary, rows = json.loads((folder / "evaluation.json").read_text()), pd.read_csv(folder / "evaluation.csv")
    assert summary["algorithm"] == "sac"
    for name in ("clip_return", "true_return", "success"):
        assert summary[name]["mean"] == pytest.approx(rows[name].mean())
    assert rows["clip_return"].nunique() == 3
    assert all(len(iio.imread(folder / f"episode{suffix}")) == env.episode_steps for suffix in (".mp4", ".gif"))


def test_without_steps_the_policy_is_evaluated_as_it_is(ray_cluster: None, tmp_path: Path) -> None:
    trial = TrainableTrial(config={"run": {"job": dataclasses.replace(job(None, tmp_path), steps=0)}})
    untrained = trial._trainer.get_module()
    before = {name: value.numpy().copy() for name, value in untrained.state_dict().items()}
    result = trial.train()
    trial.stop()
    assert (result["env_steps"], result["done"]) == (0, True)
    assert 0 <= result["evaluation_success"] <= 1
    assert "updates" not in result
    checkpoint, _ = TrialFolder(tmp_path).last()
    assert checkpoint is not None
    saved = load_file(checkpoint.folder / "policy.safetensors")
    assert all(np.array_equal(saved[name].numpy(), value) for name, value in before.items())


def record_samples(algorithm: Any) -> list[Any]:
    """The episodes that the algorithm's evaluations sample from now on."""
    evaluate, runner, recorded = algorithm.evaluate, algorithm.eval_env_runner or algorithm.env_runner, []
    sample = runner.sample

    def recording(**kwargs: Any) -> Any:
        recorded.extend(sample(**kwargs))
        return recorded

    def evaluating() -> Any:
        runner.sample = recording
        return evaluate()

    algorithm.evaluate = evaluating
    return recorded


@pytest.mark.sweeps
@pytest.mark.parametrize("algorithm", ["dqn", "dqn by history", "dqn by every 7th frame", "sac"])
def test_resumes_from_its_last_checkpoint_to_the_bit(
    two_pools: tuple[PoolConfig, PoolConfig], tmp_path: Path, algorithm: str
) -> None:
    """Without and with a process that died in the second of three results: same results, replay buffer and policy.

    A reward of the last frames has some of them before the checkpoint, which is in the middle of episodes, and a reward that is held
    or interpolated between scored steps has the last one. SAC has CLIP rewards, and
    dies while its random actions are repeated; the rest is as the policy draws it.
    """

    def three_results(folder: Path) -> TrainingJob:
        if algorithm == "dqn":
            return dataclasses.replace(job(None, folder), steps=1500)
        if algorithm == "dqn by history":
            spec = dataclasses.replace(SPEC, alpha=0.0, function=History(frames=20, weight=3.0))
            reward = RewardSource(two_pools[0], spec, EMBEDDED_PREPROCESSING.frame_format)
            return dataclasses.replace(job(reward, folder), steps=1500)
        if algorithm == "dqn by every 7th frame":
            reward = RewardSource(two_pools[0], SPEC, EMBEDDED_PREPROCESSING.frame_format, None, None, 7, "interpolate")
            return dataclasses.replace(job(reward, folder), steps=1500)
        return dataclasses.replace(sac_job("mountaincar-summit", two_pools[0], folder, 400), steps=600)

    undisturbed = TrainableTrial(config={"run": {"job": three_results(tmp_path / "undisturbed")}})
    expected = [undisturbed.train() for _ in range(3)]
    assert expected[-1]["updates"] > 0

    died = TrainableTrial(config={"run": {"job": three_results(tmp_path / "died")}})
    assert [died.train()["env_steps"], died.train()["env_steps"]] == [result["env_steps"] for result in expected[:2]]
    died.stop()
    resumed = TrainableTrial(config={"run": {"job": three_results(tmp_path / "died")}})
    again = [resumed.train(), resumed.train()]
    assert again[0]["note"] == f"resumed from step {expected[0]['env_steps']}"
    assert again[1]["done"]
    assert_same_results(expected[1:], again)
    assert_same_transitions(replayed_episodes(undisturbed), replayed_episodes(resumed))
    policies: list[Any] = [trial._trainer.get_module() for trial in (undisturbed, resumed)]
    for name, value in policies[0].state_dict().items():
        np.testing.assert_array_equal(policies[1].state_dict()[name].numpy(), value.numpy())

    # It died again, after its end and before anyone heard of it: nothing is trained anew.
    resumed.stop()
    ended = TrainableTrial(config={"run": {"job": three_results(tmp_path / "died")}})
    last = ended.train()
    assert {name: last[name] for name in again[1] if name.startswith("evaluation_")} == {
        name: value for name, value in again[1].items() if name.startswith("evaluation_")
    }
    assert last["done"]
    undisturbed.stop()
    ended.stop()


def test_an_error_that_comes_back_at_the_same_step_ends_the_trial(ray_cluster: None, tmp_path: Path) -> None:
    trial = TrainableTrial(config={"run": {"job": job(None, tmp_path)}})

    def fails_with(error: Exception) -> None:
        def train() -> None:
            raise error

        trial._trainer.train = train

    # Raised, so that Tune starts the trial again: the machine may be to blame.
    for message in ("the machine is on fire", "it is under water"):
        fails_with(RuntimeError(message))
        with pytest.raises(RuntimeError, match=message):
            trial.train()
    ended = trial.train()
    assert (ended["done"], ended["failure"]) == (True, "RuntimeError: it is under water")
    # Nothing that is tried again would mend this.
    fails_with(UserError("the file is not there"))
    ended = trial.train()
    assert ended["done"]
    assert ended["failure"].endswith("UserError: the file is not there")
    trial.stop()


@pytest.mark.parametrize(
    "error",
    [
        PoolUnavailable("the reward servers of m did not answer"),
        OSError(28, "No space left on device"),
        ActorDiedError(),
        # As an env runner in another process raises it.
        RayTaskError("sample", "", PoolUnavailable("no reward server is left")).as_instanceof_cause(),
    ],
    ids=["servers", "disk", "ray", "servers, elsewhere"],
)
def test_what_the_machine_may_be_to_blame_for_is_left_to_tune(trial: TrainableTrial, error: Exception) -> None:
    """However often it comes back at the same step: that is what `retries` counts."""

    def train() -> None:
        raise error

    trial._trainer.train = train
    for _ in range(3):
        with pytest.raises(type(error)):
            trial.train()


def test_a_machine_that_does_not_see_the_sweep_gives_its_trials_back_and_writes_nothing(tmp_path: Path) -> None:
    """However often one comes."""
    place = InCommon(tmp_path / "sweep.yaml")
    made = dataclasses.replace(job(None, tmp_path / "trials" / "a"), in_common=place)
    refused = TrainableTrial(config={"run": {"job": made}})
    for _ in range(3):
        with pytest.raises(NodeRefused, match=f"{tmp_path} is another folder, or none, on node {socket.gethostname()}"):
            refused.train()
    refused.stop()
    assert list(tmp_path.iterdir()) == []


def test_the_first_line_of_an_error_is_its_reason(trial: TrainableTrial) -> None:
    def train() -> None:
        raise RuntimeError("CUDA error: device-side assert triggered\nCompile with `TORCH_USE_CUDA_DSA` to enable assertions.")

    trial._trainer.train = train
    with pytest.raises(RuntimeError):
        trial.train()
    assert trial.train()["failure"] == "RuntimeError: CUDA error: device-side assert triggered"


@pytest.mark.parametrize("best_by", ["success", "true_return", "clip_return"])
def test_the_best_policy_is_by_the_metric_that_was_chosen(
    trial: TrainableTrial, monkeypatch: pytest.MonkeyPatch, best_by: BestBy
) -> None:
    """Each metric has its largest value after another result; where it is equal, the true return decides."""
    monkeypatch.setattr(trial, "_job", dataclasses.replace(trial._job, best_by=best_by))
    names = ("success", "true_return", "clip_return")
    kept = []
    for step, values in enumerate([(0.5, 1.0, 1.0), (0.0, 5.0, 1.0), (0.0, 1.0, 9.0), (0.5, 2.0, 1.0), (0.0, 0.0, 0.0)]):
        trial._env_steps = step
        trial._keep_if_best(dict(zip(names, values, strict=True)))
        best = trial._folder.best()
        assert best is not None
        kept.append(best.env_steps)
    assert kept == {"success": [0, 0, 0, 3, 3], "true_return": [0, 1, 1, 1, 1], "clip_return": [0, 1, 2, 2, 2]}[best_by]


def test_a_policy_that_could_not_be_kept_is_not_the_best(trial: TrainableTrial, monkeypatch: pytest.MonkeyPatch) -> None:
    def disk_full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    good, worse = ({"success": value, "true_return": 10.0} for value in (0.5, 0.25))
    with monkeypatch.context() as full:
        full.setattr(trial._folder, "save_best", disk_full)
        trial._keep_if_best(good)
    assert trial._folder.best() is None
    trial._keep_if_best(worse)
    kept = trial._folder.best()
    assert kept is not None
    assert kept.content["metrics"] == worse


def test_a_trial_is_not_finished_without_its_last_checkpoint(trial: TrainableTrial, monkeypatch: pytest.MonkeyPatch) -> None:
    """As finished it would be without one for ever; started again, it resumes from the checkpoint before."""

    def disk_full(*arguments: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(trial._folder, "save", disk_full)
    monkeypatch.setattr(trial, "_job", dataclasses.replace(trial._job, steps=0))
    with pytest.raises(OSError, match="the last checkpoint could not be written"):
        trial.train()


@pytest.fixture
def trial(ray_cluster: None, tmp_path: Path) -> Iterator[TrainableTrial]:
    made = TrainableTrial(config={"run": {"job": job(None, tmp_path)}})
    yield made
    made.stop()


def test_a_checkpoint_says_how_its_policy_acts(tmp_path: Path) -> None:
    control = Control(action_repeat=3)
    described = dataclasses.replace(job(None, tmp_path), task=TASK.controlled(control)).description()
    assert Control(**described["control"]) == control
    assert job(None, tmp_path).description()["control"] == Control().model_dump()
