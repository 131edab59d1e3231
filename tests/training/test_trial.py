"""A whole trial: what it reports, that it can be repeated, and that its checkpoint holds the learned policy."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ray.exceptions import ActorDiedError
from safetensors.torch import load_file

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.rewards.catalog import EMBEDDED_PREPROCESSING
from vlm_rm_sweeps.rewards.reward_model import RewardSpec
from vlm_rm_sweeps.serving.pool import PoolConfig, PoolUnavailable
from vlm_rm_sweeps.tasks.task import get_task
from vlm_rm_sweeps.training.checkpoints import TrialFolder
from vlm_rm_sweeps.training.connector import RewardSource
from vlm_rm_sweeps.training.policies import Policy
from vlm_rm_sweeps.training.settings import DqnSettings
from vlm_rm_sweeps.training.trial import TrainableTrial, TrainingJob

TASK = get_task("cartpole-upright")
SPEC = RewardSpec((TASK.goal_prompt,), (TASK.baseline_prompt,), 0.5)


def job(reward: RewardSource | None, folder: Path, seed: int = 5) -> TrainingJob:
    settings = DqnSettings(learning_starts=200, envs=4, rollout_steps=10, updates_per_step=0.1, epsilon_steps=400)
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


def run(job: TrainingJob) -> tuple[list[dict[str, Any]], list[np.ndarray]]:
    """Its results, and all rewards in its replay buffer."""
    trial = TrainableTrial(config={"run": {"job": job}})
    results = [trial.train(), trial.train()]
    rewards = [episode.get_rewards() for episode in trial._algorithm.local_replay_buffer.episodes]
    trial.stop()
    return results, rewards


def test_same_seed_same_trial_to_the_bit(two_pools: tuple[PoolConfig, PoolConfig], tmp_path: Path) -> None:
    """Two runs, each on a server of its own: the same rewards of the same transitions, and the same learned policy."""
    (results, rewards), (results_again, rewards_again) = (
        run(job(RewardSource(pool, SPEC, EMBEDDED_PREPROCESSING.frame_format), tmp_path / pool.name)) for pool in two_pools
    )
    assert len(rewards) == len(rewards_again)
    for episode, episode_again in zip(rewards, rewards_again, strict=True):
        np.testing.assert_array_equal(episode, episode_again)
    repeatable = ("clip_return", "true_return", "goal_fraction", "evaluation_clip_return", "evaluation_true_return", "updates")
    for result, again in zip(results, results_again, strict=True):
        assert [result.get(name) for name in repeatable] == [again.get(name) for name in repeatable]
    assert "evaluation_clip_return" in results[-1]


def test_another_seed_is_another_trial(ray_cluster: None, tmp_path: Path) -> None:
    rewards, other = run(job(None, tmp_path / "5", seed=5))[1], run(job(None, tmp_path / "6", seed=6))[1]
    assert any(not np.array_equal(a, b) for a, b in zip(rewards, other, strict=False))


def test_ends_after_its_steps_with_an_evaluation_and_a_checkpoint(ray_cluster: None, tmp_path: Path) -> None:
    trial = TrainableTrial(config={"run": {"job": job(None, tmp_path)}})
    first = trial.train()
    evaluated = record_samples(trial._algorithm)
    last = trial.train()
    assert (first["env_steps"], first["done"]) == (520, False)  # 13 rollouts of 4 sub-environments and 10 steps
    assert (last["env_steps"], last["done"]) == (1040, True)
    assert not any(name.startswith("evaluation_") for name in first)
    assert {"evaluation_true_return", "evaluation_success", "evaluation_goal_fraction"} <= last.keys()
    assert "clip_return" not in last
    assert last["updates"] == pytest.approx((1040 - 200) * 0.1, abs=5)

    checkpoint, problems = TrialFolder(tmp_path).last()
    assert checkpoint is not None
    assert not problems
    assert (checkpoint.env_steps, checkpoint.content["done"]) == (1040, True)
    learned: Any = trial._algorithm.get_module()
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


def test_without_steps_the_policy_is_evaluated_as_it_is(ray_cluster: None, tmp_path: Path) -> None:
    trial = TrainableTrial(config={"run": {"job": dataclasses.replace(job(None, tmp_path), steps=0)}})
    untrained = trial._algorithm.get_module()
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


def test_goes_on_from_its_last_checkpoint_to_the_bit(ray_cluster: None, tmp_path: Path) -> None:
    """Without and with a process that died in the second of three results: same results, replay buffer and policy."""

    def three_results(folder: Path) -> TrainingJob:
        return dataclasses.replace(job(None, folder), steps=1500)

    undisturbed = TrainableTrial(config={"run": {"job": three_results(tmp_path / "undisturbed")}})
    expected = [undisturbed.train() for _ in range(3)]

    died = TrainableTrial(config={"run": {"job": three_results(tmp_path / "died")}})
    assert [died.train()["env_steps"], died.train()["env_steps"]] == [520, 1040]
    died.stop()
    resumed = TrainableTrial(config={"run": {"job": three_results(tmp_path / "died")}})
    again = [resumed.train(), resumed.train()]
    assert again[0]["note"] == "goes on from step 520"
    assert again[1]["done"]
    for one, other in zip(expected[1:], again, strict=True):
        repeatable = ("true_return", "success", "goal_fraction", "updates", "updates_per_step", "evaluation_true_return")
        for name in ("env_steps", *repeatable):
            assert one.get(name) == other.get(name), name
    # The names of episodes are random.
    assert_same_buffers(undisturbed, resumed)
    policies: list[Any] = [trial._algorithm.get_module() for trial in (undisturbed, resumed)]
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

        trial._algorithm.train = train

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
    [PoolUnavailable("the reward servers of m did not answer"), OSError(28, "No space left on device"), ActorDiedError()],
    ids=["servers", "disk", "ray"],
)
def test_what_the_machine_may_be_to_blame_for_is_left_to_tune(trial: TrainableTrial, error: Exception) -> None:
    """However often it comes back at the same step: that is what `retries` counts."""

    def train() -> None:
        raise error

    trial._algorithm.train = train
    for _ in range(3):
        with pytest.raises(type(error)):
            trial.train()


def test_the_first_line_of_an_error_is_its_reason(trial: TrainableTrial) -> None:
    def train() -> None:
        raise RuntimeError("CUDA error: device-side assert triggered\nCompile with `TORCH_USE_CUDA_DSA` to enable assertions.")

    trial._algorithm.train = train
    with pytest.raises(RuntimeError):
        trial.train()
    assert trial.train()["failure"] == "RuntimeError: CUDA error: device-side assert triggered"


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
    """As finished it would be without one for ever; started again, it goes on from the checkpoint before."""

    def disk_full(*arguments: Any) -> None:
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


def assert_same_buffers(one: TrainableTrial, other: TrainableTrial) -> None:
    episodes, others = (trial._algorithm.local_replay_buffer.episodes for trial in (one, other))
    assert len(episodes) == len(others)
    for episode, again in zip(episodes, others, strict=True):
        np.testing.assert_array_equal(episode.get_observations(), again.get_observations())
        np.testing.assert_array_equal(episode.get_actions(), again.get_actions())
        np.testing.assert_array_equal(episode.get_rewards(), again.get_rewards())
