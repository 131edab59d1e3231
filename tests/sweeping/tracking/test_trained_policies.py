"""Which policies are found in the folder of a sweep, a trial, or a checkpoint."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.sweeping.config.sweep import Sweep
from vlm_rm_sweeps.sweeping.tracking.folder import SweepFolder
from vlm_rm_sweeps.sweeping.tracking.trained_policies import Which, learned_policies
from vlm_rm_sweeps.training.checkpoints import Checkpoint

SavePolicy = Callable[..., Checkpoint]


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    settings = {"name": "a", "task": "cartpole-upright", "models": ["embedded/tiny"], "alphas": [0.5], "steps": 100}
    folder = SweepFolder(tmp_path / "sweep")
    folder.create(Sweep.model_validate(settings))
    return folder


def found(*sources: Path, which: Which = "best") -> list[str]:
    policies = learned_policies(sources, which, lambda line: None)
    return [f"{policy.folder.parent.name}/{policy.folder.name}" for policy in policies]


def test_a_sweep_has_a_policy_for_each_trial_with_a_checkpoint(
    saved_policy: SavePolicy, saved_step: SavePolicy, folder: SweepFolder
) -> None:
    saved_policy(folder.trial("b"))
    saved_policy(folder.trial("a"))
    saved_step(folder.trial("a"), 900)
    folder.trial("failed").mkdir()
    assert found(folder.path) == ["a/best-000000500", "b/best-000000500"]
    assert found(folder.path, which="last") == ["a/step-000000900", "b/best-000000500"]
    assert found(folder.trial("b"), folder.trial("a") / "step-000000900") == ["b/best-000000500", "a/step-000000900"]
    said: list[str] = []
    learned_policies([folder.path], "best", said.append)
    assert said == [f"{folder.path}: 2 policies of 2 of 3 trials"]


def test_all_that_a_trial_keeps_are_found_each_once(
    saved_policy: SavePolicy, saved_step: SavePolicy, folder: SweepFolder
) -> None:
    best = saved_policy(folder.trial("a"))
    for index, steps in enumerate((900, 700)):
        # Each has weights of its own: those that are kept twice count once.
        torch.manual_seed(index)
        saved_step(folder.trial("a"), steps)
    shutil.copytree(best.folder, best.folder.with_name("step-000000500"))  # the best may be one of the newest, too
    best.folder.with_name(".unfinished-step-000000950").mkdir()
    saved_policy(folder.trial("b"))
    everything = ["a/best-000000500", "a/step-000000700", "a/step-000000900", "b/best-000000500"]
    assert found(folder.path, which="all") == everything
    assert found(folder.trial("a"), which="all") == everything[:3]
    assert found(best.folder, which="all") == everything[:1]


def test_folders_without_checkpoints_are_named(saved_policy: SavePolicy, folder: SweepFolder, tmp_path: Path) -> None:
    for _ in range(2):  # no trial at all, then one that has none
        with pytest.raises(UserError, match="sweep: no trial has a checkpoint yet: wait for the first, or go on with"):
            found(folder.path)
        folder.trial("a").mkdir(parents=True, exist_ok=True)
    with pytest.raises(UserError, match="is not a checkpoint"):
        found(saved_policy(tmp_path / "trial").folder, tmp_path / "nowhere")
