"""The video of a trial shows the reward that the policy learned from, whatever its kind; without a cluster."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vlm_rm_sweeps.rewards.columns import score_episode
from vlm_rm_sweeps.rewards.functions.goal_baseline import GoalBaseline
from vlm_rm_sweeps.rewards.functions.mixed import Mixed
from vlm_rm_sweeps.rewards.registry import load_reward_model
from vlm_rm_sweeps.rewards.reward_model import RewardSpec
from vlm_rm_sweeps.serving.pool import PoolConfig, RewardPool
from vlm_rm_sweeps.sweeping.execution.trial_videos import record_video
from vlm_rm_sweeps.tasks.registry import find_task
from vlm_rm_sweeps.training.algorithms.registry import find_algorithm
from vlm_rm_sweeps.training.checkpoints import Checkpoint
from vlm_rm_sweeps.training.connectors.reward import RewardSource
from vlm_rm_sweeps.training.trial import TrainingJob

CARTPOLE = find_task("cartpole-upright")
MODEL = "embedded/tiny"
REWARD: dict[str, Any] = {"of": [{"weight": 2.0, "reward": {"kind": "history", "frames": 3}}], "true_reward": 0.5}


def test_the_clip_return_of_a_video_is_that_of_the_trials_reward(
    saved_policy: Callable[..., Checkpoint], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    function = Mixed.model_validate(REWARD)
    model = load_reward_model(MODEL)
    seen: list[Any] = []

    class Watched:
        """The model in the place of a pool; it remembers what it was asked for."""

        frame_format = model.frame_format

        def score(self, frames: np.ndarray, specs: Any) -> np.ndarray:
            seen.append((frames, specs))
            return model.score(frames, specs)

    monkeypatch.setattr(RewardPool, "connect", lambda config: Watched())
    spec = RewardSpec((CARTPOLE.goal_prompt,), (CARTPOLE.baseline_prompt,), function=function)
    source = RewardSource(PoolConfig("p", MODEL, model.frame_format), spec, model.frame_format, label="mine")
    settings = find_algorithm("dqn")(hidden=(16,))
    job = TrainingJob(CARTPOLE, settings, source, 0, 500, 500, 1, tmp_path, 500)
    saved_policy(tmp_path, reward=job.description()["reward"])
    video = record_video(job)
    assert video.is_file()
    shown = json.loads((tmp_path / "video" / "episode.json").read_text())
    ((frames, specs),) = seen
    assert list(specs) == list(spec.parts())
    true_rewards = np.full(len(frames), shown["true_return"] / len(frames))  # the cart-pole's own reward is always 1
    expected = score_episode(model, spec, frames, true_rewards).astype(np.float64).sum()
    assert shown["clip_return"] == pytest.approx(expected)
    other = score_episode(
        model, RewardSpec(spec.goal_prompts, spec.baseline_prompts, function=GoalBaseline()), frames, true_rewards
    )
    assert shown["clip_return"] != pytest.approx(float(other.sum()))
