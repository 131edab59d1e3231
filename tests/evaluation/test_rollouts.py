"""Episodes of a checkpoint's policy, and what is written of them. No Ray."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import imageio.v3 as iio
import numpy as np
import pandas as pd
import pytest
from ray.rllib.algorithms.dqn import DQNConfig

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.evaluation import rollouts
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
from vlm_rm_sweeps.rewards.open_clip_models import load_reward_model
from vlm_rm_sweeps.tasks.task import get_task
from vlm_rm_sweeps.training.checkpoints import Checkpoint
from vlm_rm_sweeps.videos import read_episode

SavePolicy = Callable[..., Checkpoint]
TASK = get_task("cartpole-upright")


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
    with pytest.raises(FileExistsError):
        write_evaluation(checkpoint, ran, 7, tmp_path / "new")
    assert ran[0].clip_rewards is not None
    short = replace(ran[0], pictures=ran[0].pictures[:12], clip_rewards=ran[0].clip_rewards[:12])
    mp4, gif = write_videos(checkpoint, short, tmp_path / "new")
    video = iio.imread(mp4)
    assert video.shape == (12, 496, 600, 3)
    assert iio.improps(gif).n_images == 12
    write_plain_video(checkpoint, short, 7, tmp_path / "plain")
    plain = iio.imread(tmp_path / "plain" / "plain.mp4")
    assert plain.shape == (12, 400, 600, 3)  # nothing beneath it
    about = read_episode(tmp_path / "plain" / "plain.mp4")
    assert (about["task"], about["env_steps"], about["seed"]) == ("cartpole-upright", 500, 7)
    assert about["goal_fraction"] == pytest.approx(short.in_goal.mean())
    assert about["true_return"] == short.true_return
    # Beneath the picture the curve grows: blue pixels right of the middle only at the end.
    right = video[:, 420:470, 320:590].astype(int)
    blue = ((right[..., 2] - right[..., 0]) > 60).sum(axis=(1, 2))
    assert blue[3] == 0
    assert blue[-1] > 10


def test_a_trial_is_its_best_policy_else_its_last(saved_policy: SavePolicy, saved_step: SavePolicy, tmp_path: Path) -> None:
    saved_step(tmp_path, 900)
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


def test_rewards_that_are_not_finite_are_not_left_out(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_reward_model("embedded/tiny")
    monkeypatch.setattr(model, "score", lambda frames, specs: np.full((len(frames), len(specs)), np.nan, np.float32))
    monkeypatch.setattr(rollouts, "load_reward_model", lambda *_: model)
    loaded = load_scorer(checkpoint)
    assert loaded is not None
    with pytest.raises(UserError, match="embedded/tiny gave 3 of 3 rewards that are not finite"):
        loaded[0](np.zeros((3, 64, 64, 3), np.uint8))


def test_wrong_input_is_said(saved_policy: SavePolicy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="is not a checkpoint"):
        find_checkpoint(tmp_path)
    with pytest.raises(UserError, match="unknown task 'cartpole-uprigth': did you mean 'cartpole-upright'"):
        task_of(saved_policy(tmp_path / "task", task="cartpole-uprigth"))
    with pytest.raises(UserError, match="unknown algorithm 'a2c'"):
        load_policy(saved_policy(tmp_path / "algorithm", algorithm="a2c"))
    reward: Any = saved_policy(tmp_path / "model").content["reward"]
    with pytest.raises(UserError, match="unknown model 'embedded/huge'"):
        load_scorer(saved_policy(tmp_path / "model", reward=reward | {"model": "embedded/huge"}))
    wider = saved_policy(tmp_path / "network", model_config={"fcnet_hiddens": [32], "dueling": False} | _module_defaults())
    with pytest.raises(UserError, match="another task or network"):
        load_policy(wider)
    reference = saved_policy(tmp_path / "reference", reward=None)
    assert load_scorer(reference) is None
    with pytest.raises(UserError, match="no prompt that embedded/tiny could judge it by"):
        evaluate(reference, episodes=1, seed=0, pictures=False, judges=["embedded/tiny"])
    judged = saved_policy(tmp_path / "judged")
    wide = Mock(model_id="test/wide", frame_format=FrameFormat(224))
    load = load_reward_model
    monkeypatch.setattr(rollouts, "load_reward_model", lambda name, *rest: wide if name == "test/wide" else load(name, *rest))
    with pytest.raises(UserError, match="test/wide wants other frames than embedded/tiny"):
        evaluate(judged, episodes=1, seed=0, pictures=False, judges=["test/wide"])


def _module_defaults() -> dict[str, Any]:
    defaults: Any = DQNConfig().get_default_rl_module_spec()
    return {name: value for name, value in defaults.model_config.items() if name not in ("fcnet_hiddens", "dueling")}
