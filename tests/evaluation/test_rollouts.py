"""Episodes of a checkpoint's policy, and what is written of them. No Ray."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
import pandas as pd
import pytest
import torch
from checkpoint_content import resumable
from ray.rllib.algorithms.dqn import DQNConfig
from small_heads import a_head

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.evaluation.rollouts import (
    Episode,
    evaluate,
    find_checkpoint,
    load_policy,
    load_scorer,
    run_episode,
    spec_of,
    summarize,
    task_of,
    write_evaluation,
    write_plain_video,
    write_videos,
)
from vlm_rm_sweeps.frames import FrameFormat, resize_frames
from vlm_rm_sweeps.registry import import_module
from vlm_rm_sweeps.rewards.functions.registry import describe_reward, make_reward
from vlm_rm_sweeps.rewards.heads import write_head
from vlm_rm_sweeps.rewards.registry import load_reward_model
from vlm_rm_sweeps.tasks.registry import find_task
from vlm_rm_sweeps.training.checkpoints import Checkpoint, TrialFolder
from vlm_rm_sweeps.videos import read_episode

SavePolicy = Callable[..., Checkpoint]
TASK = find_task("cartpole-upright")


@pytest.fixture(scope="module")
def checkpoint(saved_policy: SavePolicy, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return saved_policy(tmp_path_factory.mktemp("trial"))


@pytest.fixture(scope="module")
def ran(checkpoint: Checkpoint) -> list[Episode]:
    return evaluate(checkpoint, episodes=2, seed=7, pictures=True, judges=["embedded/small"])


def frames_of_first(checkpoint: Checkpoint) -> np.ndarray:
    frames = run_episode(TASK, load_policy(checkpoint), seed=7, frame_format=FrameFormat(64, resize_mode="squash")).frames
    assert frames is not None
    return frames


def test_frames_are_dropped_once_they_are_scored(ran: list[Episode]) -> None:
    assert [episode.frames for episode in ran] == [None, None]


def test_scores_what_the_reward_model_would_have_seen(checkpoint: Checkpoint, ran: list[Episode]) -> None:
    first, second = ran
    frames = frames_of_first(checkpoint)
    assert frames.shape == (200, 64, 64, 3)
    spec = spec_of(checkpoint)
    assert spec is not None
    np.testing.assert_array_equal(first.clip_rewards, load_reward_model("embedded/tiny").score(frames, [spec])[:, 0])
    other = load_reward_model("embedded/small").score(frames, [spec])[:, 0]
    assert first.judged == {"embedded/small": pytest.approx(other.sum(dtype=np.float64))}
    assert first.observations.shape == (201, 4)
    assert first.true_return == first.in_goal.sum()
    assert not np.array_equal(first.observations, second.observations)


def test_pictures_show_the_same_states_at_a_readable_size(checkpoint: Checkpoint, ran: list[Episode]) -> None:
    assert [len(episode.pictures) for episode in ran] == [200, 0]
    assert ran[0].pictures[0].shape == (400, 600, 3)
    frames = frames_of_first(checkpoint)
    for step in (0, 100, 199):
        np.testing.assert_array_equal(resize_frames(ran[0].pictures[step][None], FrameFormat(64))[0], frames[step])


def test_the_policy_is_greedy_and_repeatable(checkpoint: Checkpoint, ran: list[Episode]) -> None:
    again = run_episode(TASK, load_policy(checkpoint), seed=7)
    np.testing.assert_array_equal(again.observations, ran[0].observations)
    assert again.frames is None
    assert np.isnan(again.clip_return)


def test_the_caller_can_look_into_the_simulator(checkpoint: Checkpoint) -> None:
    episode = run_episode(TASK, load_policy(checkpoint), seed=7, visit=lambda env: np.array(env.unwrapped.state))  # type: ignore[attr-defined]
    np.testing.assert_allclose(np.stack(episode.visited), episode.observations[1:], rtol=1e-6)


def episode_of(true_return: int, clip_reward: float | None = None) -> Episode:
    in_goal = np.arange(100) < true_return
    clip = None if clip_reward is None else np.full(100, clip_reward, np.float32)
    return Episode(np.zeros((101, 1)), in_goal.astype(float), in_goal, clip_rewards=clip)


def test_intervals() -> None:
    summary = summarize([episode_of(value, value / 100) for value in (20, 60, 70, 90)])
    assert summary["success"]["mean"] == 0.75
    # Wilson's interval for 3 of 4, by its closed form.
    p, n, z = 0.75, 4, 1.959963985
    centre, half = (p + z * z / (2 * n)) / (1 + z * z / n), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    assert summary["success"]["interval"] == pytest.approx([centre - half, centre + half])
    low, high = summary["true_return"]["interval"]
    assert 20 < low < summary["true_return"]["mean"] == 60 < high < 90
    assert summary["clip_return"]["mean"] == pytest.approx(60)
    assert "clip_return" not in summarize([episode_of(10)])
    assert summarize([episode_of(10)])["true_return"]["interval"] is None
    assert summarize([episode_of(10), episode_of(10)])["true_return"]["interval"] == [10, 10]


def test_files(checkpoint: Checkpoint, ran: list[Episode], tmp_path: Path) -> None:
    summary = write_evaluation(checkpoint, ran, 7, tmp_path / "new")
    assert json.loads((tmp_path / "new/evaluation.json").read_text()) == summary
    table = pd.read_csv(tmp_path / "new/evaluation.csv")
    assert table["seed"].tolist() == [7, 8]
    assert table["return by embedded/small"].tolist() == pytest.approx([each.judged["embedded/small"] for each in ran])
    assert summary["judged"]["embedded/small"]["mean"] == pytest.approx(table["return by embedded/small"].mean())
    assert table["clip_return"].tolist() == pytest.approx([episode.clip_return for episode in ran])
    with pytest.raises(UserError, match="exists already"):
        write_evaluation(checkpoint, ran, 7, tmp_path / "new")
    assert ran[0].clip_rewards is not None
    short = replace(ran[0], pictures=ran[0].pictures[:12], clip_rewards=ran[0].clip_rewards[:12])
    mp4, gif = write_videos(checkpoint, short, tmp_path / "new")
    video = iio.imread(mp4)
    assert video.shape == (12, 514, 600, 3)
    assert iio.improps(gif).n_images == 12
    write_plain_video(checkpoint, short, 7, tmp_path / "plain")
    plain = iio.imread(tmp_path / "plain" / "plain.mp4")
    assert plain.shape == (12, 400, 600, 3)  # nothing beneath it
    about = read_episode(tmp_path / "plain" / "plain.mp4")
    assert about is not None
    assert (about["task"], about["env_steps"], about["seed"]) == ("cartpole-upright", 500, 7)
    assert about["goal_fraction"] == pytest.approx(short.in_goal.mean())
    assert about["true_return"] == short.true_return
    # Beneath the picture the curve grows: blue pixels right of the middle only at the end.
    right = video[:, 420:470, 320:590].astype(int)
    blue = ((right[..., 2] - right[..., 0]) > 60).sum(axis=(1, 2))
    assert blue[3] == 0
    assert blue[-1] > 10


def test_a_trial_is_its_best_policy_else_its_last(saved_policy: SavePolicy, tmp_path: Path) -> None:
    TrialFolder(tmp_path).save(torch.nn.Linear(1, 1), {}, resumable(900))  # type: ignore[arg-type]
    assert find_checkpoint(tmp_path).folder.name == "step-000000900"
    saved_policy(tmp_path)
    assert find_checkpoint(tmp_path).folder.name == "best-000000500"
    assert find_checkpoint(tmp_path, last=True).folder.name == "step-000000900"
    assert find_checkpoint(tmp_path / "step-000000900").env_steps == 900


def test_an_environment_of_the_sweep_file_comes_back_with_its_checkpoint(saved_policy: SavePolicy, tmp_path: Path) -> None:
    env = {"id": "Acrobot-v1", "episode_steps": 7, "kwargs": {}, "success": None, "camera": None}
    task = task_of(saved_policy(tmp_path, task="Acrobot-v1", env=env))
    assert (task.name, task.episode_steps, task.success_criterion) == ("Acrobot-v1", 7, None)
    episode = run_episode(task, lambda observation: 0, seed=0)
    assert len(episode.true_rewards) == 7
    assert episode.success is None
    assert "success" not in summarize([episode])


def rewarded(checkpoint: Checkpoint) -> dict[str, Any]:
    """What the policy was rewarded by, as checkpoint.json has it."""
    reward = checkpoint.content["reward"]
    assert reward is not None
    return dict(reward)


@pytest.fixture
def own_rewards() -> None:
    """The user has named the module, as with `--module`."""
    import_module("own_rewards")


@pytest.mark.usefixtures("own_rewards")
def test_a_reward_model_of_ones_own_judges(saved_policy: SavePolicy, tmp_path: Path) -> None:
    reward = rewarded(saved_policy(tmp_path / "model")) | {"model": "own_rewards:Brightness", "alpha": 0.25}
    checkpoint = saved_policy(tmp_path / "own", reward=reward)
    (episode,) = evaluate(checkpoint, episodes=1, seed=7, pictures=False, judges=["own_rewards:Shade/0"])
    frames = run_episode(TASK, load_policy(checkpoint), seed=7, frame_format=FrameFormat(16)).frames
    assert frames is not None
    rewards = frames.mean(axis=(1, 2, 3)) - 0.25
    assert episode.clip_return == pytest.approx(rewards.sum(), rel=1e-5)
    assert episode.judged == {"own_rewards:Shade/0": pytest.approx(-rewards.sum(), rel=1e-5)}


def test_a_judge_that_cannot_compute_the_reward_judges_by_goal_and_baseline(saved_policy: SavePolicy, tmp_path: Path) -> None:
    write_head(tmp_path / "head.safetensors", a_head())
    learned = make_reward({"kind": "learned", "head": str(tmp_path / "head.safetensors")})
    reward = rewarded(saved_policy(tmp_path / "model")) | {"alpha": 0.0}
    said: list[str] = []
    (by_prompts,) = evaluate(
        saved_policy(tmp_path / "plain", reward=reward), 1, 7, pictures=False, judges=["embedded/small"], say=said.append
    )
    assert said == []
    checkpoint = saved_policy(tmp_path / "learned", reward=reward | {"function": describe_reward(learned)})
    (episode,) = evaluate(checkpoint, 1, 7, pictures=False, judges=["embedded/small"], say=said.append)
    assert episode.judged == by_prompts.judged
    assert episode.clip_return != by_prompts.clip_return
    assert said == [
        f"embedded/small cannot compute the reward {learned.label}: it judges by goal and baseline alone (goal_baseline at alpha 0)"
    ]


def test_a_judge_that_is_unavailable_is_one_message_and_one_that_only_judges_is_asked_about_any_frames(
    saved_policy: SavePolicy, tmp_path: Path
) -> None:
    """The policy's frames have 64 pixels, this judge's own format has 16."""
    with pytest.raises(UserError, match="the endpoint is down"):
        evaluate(saved_policy(tmp_path / "judged"), 1, seed=7, pictures=False, judges=["own_rewards:Unavailable"])


def test_a_checkpoint_imports_no_module(saved_policy: SavePolicy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "planted_rewards.py").write_text("raise SystemExit('the module was run')")
    monkeypatch.syspath_prepend(tmp_path)
    reward = rewarded(saved_policy(tmp_path / "model")) | {"model": "planted_rewards:Mine/0"}
    with pytest.raises(UserError, match="'planted_rewards:Mine' is named by data, which imports no modules"):
        load_scorer(saved_policy(tmp_path / "own", reward=reward))


@pytest.mark.usefixtures("own_rewards")
def test_rewards_that_are_not_finite_are_not_left_out(saved_policy: SavePolicy, tmp_path: Path) -> None:
    reward = rewarded(saved_policy(tmp_path / "model")) | {"model": "own_rewards:NotANumber"}
    loaded = load_scorer(saved_policy(tmp_path / "broken", reward=reward))
    assert loaded is not None
    with pytest.raises(UserError, match="own_rewards:NotANumber gave 3 of 3 rewards that are not finite"):
        loaded[0](np.zeros((3, 64, 64, 3), np.uint8), np.zeros(3))


def test_wrong_input_is_said(saved_policy: SavePolicy, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a checkpoint"):
        find_checkpoint(tmp_path)
    with pytest.raises(UserError, match="unknown task 'cartpole-uprigth': did you mean 'cartpole-upright'"):
        task_of(saved_policy(tmp_path / "task", task="cartpole-uprigth"))
    with pytest.raises(UserError, match="unknown algorithm 'dqnn'"):
        load_policy(saved_policy(tmp_path / "algorithm", algorithm="dqnn"))
    reward = rewarded(saved_policy(tmp_path / "model"))
    with pytest.raises(UserError, match="unknown model 'embedded/v1/huge'"):
        load_scorer(saved_policy(tmp_path / "model", reward=reward | {"model": "embedded/huge"}))
    wider = saved_policy(tmp_path / "network", model_config={"fcnet_hiddens": [32], "dueling": False} | _module_defaults())
    with pytest.raises(UserError, match="another task or network"):
        load_policy(wider)
    reference = saved_policy(tmp_path / "reference", reward=None)
    assert load_scorer(reference) is None
    with pytest.raises(UserError, match="no prompt that embedded/tiny could judge it by"):
        evaluate(reference, episodes=1, seed=0, pictures=False, judges=["embedded/tiny"])
    judged = saved_policy(tmp_path / "judged")
    with pytest.raises(UserError, match="own_rewards:WideBrightness wants other frames than embedded/v2/tiny"):
        evaluate(judged, episodes=1, seed=0, pictures=False, judges=["own_rewards:WideBrightness"])


def _module_defaults() -> dict[str, Any]:
    defaults: Any = DQNConfig().get_default_rl_module_spec()
    return {name: value for name, value in defaults.model_config.items() if name not in ("fcnet_hiddens", "dueling")}


def test_a_policy_is_run_as_it_was_trained_to_act(saved_policy: SavePolicy, tmp_path: Path) -> None:
    """Its pictures, drawn in a second environment, show the states after its actions."""
    task = task_of(saved_policy(tmp_path, control={"action_repeat": 2}))
    assert task.control.action_repeat == 2
    episode = run_episode(task, lambda observation: 1, seed=7, pictures=True, visit=lambda env: env.render())
    assert len(episode.true_rewards) == 100
    for shown, visited in zip(episode.pictures, episode.visited, strict=True):
        np.testing.assert_array_equal(shown, visited)


def test_a_control_of_another_version_is_one_message(saved_policy: SavePolicy, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is damaged: actions = 'muscles': input should be 'torque' or 'position'"):
        task_of(saved_policy(tmp_path, control={"actions": "muscles"}))
