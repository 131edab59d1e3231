"""Checkpoints of version 0.1 are resumed.

`version_0_1/` holds, of each algorithm of that version, a checkpoint after the first of two results, and what the trial came to when it
was not interrupted.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from vlm_rm_sweeps.tasks.registry import find_task
from vlm_rm_sweeps.training.algorithms.registry import find_algorithm
from vlm_rm_sweeps.training.checkpoints import TrialFolder, read_checkpoint
from vlm_rm_sweeps.training.policy import Policy
from vlm_rm_sweeps.training.trial import TrainableTrial, TrainingJob

STORED = Path(__file__).parent / "version_0_1"


@pytest.mark.parametrize("algorithm", ["dqn", "sac"])
def test_a_trial_of_version_0_1_is_resumed_as_if_it_had_not_stopped(ray_cluster: None, tmp_path: Path, algorithm: str) -> None:
    folder = tmp_path / "trial"
    shutil.copytree(STORED / algorithm, folder)
    content = read_checkpoint(folder / "step-000000120").content
    settings = find_algorithm(content["algorithm"])(**content["settings"])
    job = TrainingJob(
        find_task(content["task"]),
        settings,
        None,
        content["seed"],
        steps=240,
        steps_per_result=120,
        evaluation_episodes=2,
        folder=folder,
        checkpoint_every=120,
    )
    trial = TrainableTrial(config={"run": {"job": job}})
    result = trial.train()
    trial.stop()
    expected = json.loads((STORED / algorithm / "expected.json").read_text())
    assert result["note"] == "resumed from step 120"
    assert {name: result[name] for name in expected[-1]} == pytest.approx(expected[-1])
    saved, _ = TrialFolder(folder).last()
    assert saved is not None
    assert [each["updates"] for each in saved.content["results"]] == [each["updates"] for each in expected]
    weights, learned = load_file(STORED / algorithm / "expected.safetensors"), load_file(saved.folder / "policy.safetensors")
    assert weights.keys() == learned.keys()
    for name, values in weights.items():
        # To the bit on the machine that made them; others round differently.
        np.testing.assert_allclose(learned[name], values, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("algorithm", ["dqn", "sac"])
def test_a_policy_of_version_0_1_acts(ray_cluster: None, algorithm: str) -> None:
    checkpoint = read_checkpoint(STORED / algorithm / "step-000000120")
    env: Any = find_task(checkpoint.content["task"]).make_env(None)
    observation, _ = env.reset(seed=0)
    action = Policy(checkpoint, env.observation_space, env.action_space)(observation)
    assert env.action_space.contains(action)
