"""Trials that fail, in small sweeps on real Ray."""

import os
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from mlflow.tracking import MlflowClient
from small_sweeps import SWEEP, parent_and_children
from typer.testing import CliRunner, Result

from vlm_rm_sweeps.cli import app
from vlm_rm_sweeps.cli.terminal import EXIT_FAILED
from vlm_rm_sweeps.sweeping.config.plan import plan_of
from vlm_rm_sweeps.sweeping.config.sweep import Sweep
from vlm_rm_sweeps.sweeping.execution.run_sweep import run_sweep
from vlm_rm_sweeps.sweeping.tracking.folder import SweepFolder
from vlm_rm_sweeps.sweeping.tracking.journal import TrialEnded, read_entries
from vlm_rm_sweeps.sweeping.tracking.report import write_report
from vlm_rm_sweeps.training.trial import TrainableTrial

FAILING = SWEEP | {"name": "failing", "models": ["own_rewards:Brightness"], "videos": False, "trial": {"cpus": 2, "retries": 5}}


@pytest.mark.sweeps
def test_a_failing_trial_does_not_take_the_others_along(
    ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mlflow_database: Path
) -> None:
    class FailsOnTrueReward(TrainableTrial):
        def _train(self) -> dict[str, Any]:
            if self._job.reward is None:
                raise RuntimeError("the machine is on fire\nSome advice for whoever debugs it")
            return super()._train()

    monkeypatch.setattr("vlm_rm_sweeps.sweeping.execution.sweep_run.TrainableTrial", FailsOnTrueReward)
    sweep, uri, said = Sweep.model_validate(FAILING), f"sqlite:///{mlflow_database}", list[str]()
    file = tmp_path / "failing.yaml"
    file.write_text(yaml.safe_dump(FAILING))
    shown = CliRunner().invoke(app, ["sweep", str(file), "--results", str(tmp_path), "--tracking-uri", uri])
    assert shown.exit_code == EXIT_FAILED
    # It may be tried again five times; once is enough to see that the error comes back.
    assert shown.output.count(", retrying") == 1
    failed, other = plan_of(FAILING).trials
    assert f"failed: {failed.label}: RuntimeError: the machine is on fire\n" in shown.output
    assert f"best trial: {other.label}\n" in shown.output
    folder = SweepFolder.newest(sweep, tmp_path)
    assert folder is not None
    table = pd.read_csv(folder.table, keep_default_na=False)
    assert table["status"].tolist() == ["failed", "finished"]
    assert table["reason"].tolist() == ["RuntimeError: the machine is on fire", ""]
    parent, children = parent_and_children(MlflowClient(uri), "failing")
    assert parent.info.status == "FAILED"
    assert sorted(child.info.status for child in children) == ["FAILED", "FINISHED"]

    # The fire is out: the failed trial is tried again, the finished one stays, both in the runs that they had.
    monkeypatch.undo()
    again = run_sweep(sweep, tmp_path, uri, said.append, resumed=folder)
    assert again.table["status"].tolist() == ["finished", "finished"]
    assert any(line.startswith("1 of 2 trials") for line in said)
    assert again.table["true_return"][1] == float(table["true_return"][1])
    parent_again, children_again = parent_and_children(MlflowClient(uri), "failing")
    assert parent_again.info.run_id == parent.info.run_id
    assert {child.info.run_id for child in children_again} == {child.info.run_id for child in children}
    assert {run.info.status for run in (parent_again, *children_again)} == {"FINISHED"}
    assert not any("reason" in child.data.tags for child in children_again)

    # There is nothing left to do: the table is there at once.
    entries = read_entries(folder.journal)
    last = run_sweep(sweep, tmp_path, uri, said.append, resumed=folder)
    assert read_entries(folder.journal) == entries
    pd.testing.assert_frame_equal(last.table, again.table)


@pytest.mark.slow
def test_an_env_runner_that_keeps_dying_is_started_a_few_times_and_then_given_up(
    ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mlflow_database: Path
) -> None:
    """The environments live in the trial's process."""

    class Dies(TrainableTrial):
        def _train(self) -> dict[str, Any]:
            os._exit(1)

    monkeypatch.setattr("vlm_rm_sweeps.sweeping.execution.sweep_run.TrainableTrial", Dies)
    said: list[str] = []
    sweep = Sweep.model_validate(FAILING | {"name": "dying", "true_reward": False, "trial": {"cpus": 2, "retries": 2}})
    outcome = run_sweep(sweep, tmp_path, f"sqlite:///{mlflow_database}", said.append)
    assert sum(", retrying" in line for line in said) == 2
    assert outcome.table["status"].tolist() == ["failed"]
    assert "died" in outcome.table["reason"][0]


@pytest.mark.sweeps
def test_a_reward_that_is_not_finite_is_told_everywhere_also_when_a_moved_folder_is_resumed(
    ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = FAILING | {"name": "late-nan", "true_reward": False, "untrained": True, "evaluation_episodes": 2, "steps": 640}
    del keys["task"]
    keys["env"] = {"id": "odd_envs:LateNan-v0", "episode_steps": 25}
    keys["prompts"] = [{"id": "a", "goal": "a red block", "baseline": "a block"}]
    file, results, moved = tmp_path / "late.yaml", tmp_path / "results", tmp_path / "moved"
    file.write_text(yaml.safe_dump(keys))
    cause = r"environment odd_envs:LateNan-v0, step 20 of an episode, action \d: its reward is nan: expected a finite number"

    def check_all_say_why(shown: Result, results: Path) -> SweepFolder:
        assert shown.exit_code == EXIT_FAILED, shown.output
        assert re.search(rf"failed: own_rewards:Brightness.*: EnvironmentFault: {cause}\n", shown.output)
        folder = SweepFolder.newest(Sweep.model_validate(keys), results)
        assert folder is not None
        table = pd.read_csv(folder.table, keep_default_na=False)
        assert table["status"].tolist() == ["finished", "failed"]
        ended = [entry for entry in read_entries(folder.journal) if isinstance(entry, TrialEnded)]
        _, children = parent_and_children(MlflowClient(f"sqlite:///{results}/mlflow.db"), "late-nan")
        in_mlflow = [child.data.tags["reason"] for child in children if child.info.status == "FAILED"]
        page = write_report(folder.path).read_text()
        for reason in (table["reason"][1], ended[-1].tags["reason"], *in_mlflow, page):
            assert re.search(cause, reason)
        assert len(in_mlflow) == 1
        return folder

    check_all_say_why(CliRunner().invoke(app, ["sweep", str(file), "--results", str(results)]), results)
    results.rename(moved)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    resumed = CliRunner().invoke(app, ["sweep", str(file), "--results", str(moved), "--resume"])
    folder = check_all_say_why(resumed, moved)
    untrained = folder.trial(plan_of(keys).trials[0].trial_id)
    evaluated = CliRunner().invoke(app, ["evaluate", str(untrained), "--episodes", "2"])
    assert evaluated.exit_code == 0, evaluated.output
    assert {each.name for each in tmp_path.iterdir()} == {"late.yaml", "moved", "elsewhere"}
    assert not list((tmp_path / "elsewhere").iterdir())
