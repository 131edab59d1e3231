"""Which policies are found in the folder of a sweep, a trial, or a checkpoint."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from checkpoint_content import resumable

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.storage import RemoteFolder
from vlm_rm_sweeps.sweeping.config.sweep import Sweep
from vlm_rm_sweeps.sweeping.tracking.folder import SweepFolder
from vlm_rm_sweeps.sweeping.tracking.trained_policies import Which, trained_policies
from vlm_rm_sweeps.training.checkpoints import Checkpoint, TrialFolder

SavePolicy = Callable[..., Checkpoint]
SETTINGS = {"name": "a", "task": "cartpole-upright", "models": ["embedded/tiny"], "alphas": [0.5], "steps": 100}


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    folder = SweepFolder(tmp_path / "sweep")
    folder.create(Sweep.model_validate(SETTINGS))
    return folder


def found(*sources: Path | RemoteFolder, which: Which = "best") -> list[str]:
    policies = trained_policies(sources, which, lambda line: None)
    return [f"{policy.folder.parent.name}/{policy.folder.name}" for policy in policies]


def test_a_sweep_has_a_policy_for_each_trial_with_a_checkpoint(saved_policy: SavePolicy, folder: SweepFolder) -> None:
    saved_policy(folder.trial("b"))
    saved_policy(folder.trial("a"))
    TrialFolder(folder.trial("a")).save(torch.nn.Linear(1, 1), {}, resumable(900))  # type: ignore[arg-type]
    folder.trial("failed").mkdir()
    assert found(folder.path) == ["a/best-000000500", "b/best-000000500"]
    assert found(folder.path, which="last") == ["a/step-000000900", "b/best-000000500"]
    assert found(folder.trial("b"), folder.trial("a") / "step-000000900") == ["b/best-000000500", "a/step-000000900"]
    said: list[str] = []
    trained_policies([folder.path], "best", said.append)
    assert said == [f"{folder.path}: 2 policies of 2 of 3 trials"]


def test_all_that_a_trial_keeps_are_found_each_once(saved_policy: SavePolicy, folder: SweepFolder) -> None:
    best = saved_policy(folder.trial("a"))
    trial = TrialFolder(folder.trial("a"))
    for steps in (900, 700):
        trial.save(torch.nn.Linear(1, 1), {}, resumable(steps))  # type: ignore[arg-type]
    shutil.copytree(best.folder, best.folder.with_name("step-000000500"))  # the best may be one of the newest, too
    best.folder.with_name(".unfinished-step-000000950").mkdir()
    saved_policy(folder.trial("b"))
    everything = ["a/best-000000500", "a/step-000000700", "a/step-000000900", "b/best-000000500"]
    assert found(folder.path, which="all") == everything
    assert found(folder.trial("a"), which="all") == everything[:3]
    assert found(best.folder, which="all") == everything[:1]


def test_policies_at_an_address_are_fetched(
    saved_policy: SavePolicy, remote: RemoteFolder, machine: Callable[[str], None]
) -> None:
    sweep = SweepFolder.at(remote / "sweep")
    sweep.create(Sweep.model_validate(SETTINGS))
    for name in ("a", "b"):
        saved_policy(sweep.trial(name))
    TrialFolder(sweep.trial("a")).save(torch.nn.Linear(1, 1), {}, resumable(900))  # type: ignore[arg-type]
    remote.put_folder("sweep")
    machine("other")
    trial = remote / "sweep" / "trials" / "a"
    assert found(remote / "sweep") == ["a/best-000000500", "b/best-000000500"]
    assert [each.name for each in trial.copy.iterdir()] == ["best-000000500"]
    assert found(trial / "step-000000900", trial, which="last") == ["a/step-000000900", "a/step-000000900"]
    assert found(trial, which="all") == ["a/best-000000500", "a/step-000000900"]
    with pytest.raises(UserError, match=r"store/results/nowhere has no checkpoint"):
        found(remote / "nowhere")


def test_folders_without_checkpoints_are_named(saved_policy: SavePolicy, folder: SweepFolder, tmp_path: Path) -> None:
    for _ in range(2):  # no trial at all, then one that has none
        with pytest.raises(UserError, match="sweep: no trial has a checkpoint yet: wait for the first, or resume with"):
            found(folder.path)
        folder.trial("a").mkdir(parents=True, exist_ok=True)
    with pytest.raises(UserError, match="is not a checkpoint"):
        found(saved_policy(tmp_path / "trial").folder, tmp_path / "nowhere")
