"""The examples run, for a few steps, and show what they say."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(autouse=True)
def examples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))


def example(name: str) -> Any:
    return __import__(name)


def test_images_are_scored_with_a_sentence() -> None:
    rewards = example("score_images").main()
    assert max(rewards, key=rewards.get) == 0


def test_a_rollout_is_scored_in_one_call() -> None:
    rewards = example("vector_rollout").main(steps=4)
    assert rewards.shape == (4, 8)
    assert np.isfinite(rewards).all()


def test_stable_baselines3_learns_from_the_wrapper() -> None:
    agent = example("stable_baselines3_agent").main(steps=120)
    assert agent.num_timesteps >= 120
    rewards = agent.replay_buffer.rewards[:100]
    assert 0 < rewards.min() < rewards.max() < 1  # CLIP's, where the environment's own are 0 and 1


@pytest.mark.slow
def test_an_algorithm_of_rllib_learns_from_the_pool(ray_cluster: None) -> None:
    (result,) = example("rllib_algorithm").main(iterations=1, steps=1_600)
    assert result["frames_scored"] >= 1_600
    assert result["episode_return_mean"] != result["true_return"]


@pytest.mark.slow
def test_a_sweep_of_own_parts_runs_in_other_processes(tmp_path: Path) -> None:
    """The modules lie beside the sweep file, and nowhere on Python's path."""
    beside = tmp_path / "mine"
    beside.mkdir()
    for name in ("own_parts.yaml", "own_reward_model.py", "own_reward.py", "own_task.py", "own_algorithm.py"):
        shutil.copy(EXAMPLES / name, beside)
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}

    def vlm_rm(*arguments: object) -> str:
        command = [sys.executable, "-c", "from vlm_rm_sweeps.cli import main; main()", *map(str, arguments)]
        ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900)
        assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
        return ended.stdout

    vlm_rm(
        "sweep",
        beside / "own_parts.yaml",
        "--results",
        tmp_path / "results",
        "--set",
        "steps=400",
        "--set",
        "steps_per_result=200",
    )
    (folder,) = (tmp_path / "results").glob("own-parts-*")
    table = pd.read_csv(folder / "trials.csv")
    assert table["model"].tolist() == ["true reward", "own_reward_model:Redness", "embedded/tiny"]
    assert table["reward"].tolist() == ["-", "goal_baseline", "nearness"]
    assert (table["status"] == "finished").all()
    assert pd.read_csv(folder / "epic.csv")["model"].tolist() == ["own_reward_model:Redness", "embedded/tiny"]
    assert len(list(folder.glob("trials/*/video/episode.mp4"))) == 3
    trial = folder / "trials" / table["trial_id"][1]
    modules = [
        option for name in ("own_reward_model", "own_task", "own_algorithm") for option in ("--module", beside / f"{name}.py")
    ]
    assert "CLIP return" in vlm_rm(*modules, "evaluate", trial, "--episodes", 1)
