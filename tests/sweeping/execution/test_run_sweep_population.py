"""Whole population-based trainings: takeovers happen, are told, and are the same if the sweep is killed where it hurts."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from mlflow.tracking import MlflowClient
from small_sweeps import SWEEP, parent_and_children

from vlm_rm_sweeps.sweeping.config.plan import plan_of
from vlm_rm_sweeps.sweeping.execution.run_sweep import run_sweep
from vlm_rm_sweeps.sweeping.tracking.folder import SweepFolder
from vlm_rm_sweeps.sweeping.tracking.journal import TakenOver, read_entries
from vlm_rm_sweeps.sweeping.tracking.report import write_report
from vlm_rm_sweeps.sweeping.tracking.results import SweepOutcome, read_results
from vlm_rm_sweeps.sweeping.tracking.status import lines_of, standing_of
from vlm_rm_sweeps.training.checkpoints import TrialFolder

pytestmark = pytest.mark.sweeps

POPULATION: dict[str, Any] = SWEEP | {
    "name": "population",
    "steps": 384,
    "settings": {"learning_starts": 100, "updates_per_step": 0.1},
    "checkpoint_every": 64,
    "trial": {"cpus": 1, "retries": 0, "evaluation_interval": 128},
    "true_reward": False,
    "videos": False,
    "search": {
        "space": {
            "settings.learning_rate": {"low": 1e-5, "high": 1e-1, "log": True},
            "settings.target_update_every": {"low": 10, "high": 200},
        },
        "samples": 4,
    },
    "scheduler": {"kind": "pbt", "by": "true_return", "interval_steps": 128, "quantile": 0.5},
}
KILLED = """
import json, os, signal, sys
from pathlib import Path
from vlm_rm_sweeps.sweeping.config.plan import plan_of
from vlm_rm_sweeps.sweeping.execution.run_sweep import run_sweep

keys, results, uri = sys.argv[1:]

def say(line):
    print(line, flush=True)
    if "takes over" in line:
        os.kill(os.getpid(), signal.SIGKILL)

run_sweep(plan_of(json.loads(keys)), Path(results), uri, say)
"""
"""An execution that is killed between a decision and the next checkpoint."""


def kill(keys: dict[str, Any], results: Path, uri: str) -> None:
    command = [sys.executable, "-c", KILLED, json.dumps(keys), str(results), uri]
    log = results.parent / "log"
    with log.open("ab") as output:  # a pipe would be held open by Ray's processes
        ended = subprocess.Popen(command, env=os.environ | {"RAY_ADDRESS": ""}, stdout=output, stderr=output)
        assert ended.wait(timeout=280) == -signal.SIGKILL, log.read_text()[-3000:]


def takeovers(folder: Path) -> list[TakenOver]:
    return [entry for entry in read_entries(SweepFolder(folder).journal) if isinstance(entry, TakenOver)]


def told(folder: Path) -> list[tuple[Any, ...]]:
    return [(each.trial, each.step, each.source, each.source_step, each.values) for each in takeovers(folder)]


def table(outcome: SweepOutcome) -> pd.DataFrame:
    return read_results(outcome.folder / "trials.csv").drop(columns="steps_per_second")


def test_takeovers_are_told_and_a_killed_sweep_makes_the_same(ray_cluster: None, tmp_path: Path, mlflow_database: Path) -> None:
    uri, said = f"sqlite:///{mlflow_database}", list[str]()
    plan = plan_of(POPULATION)
    whole = run_sweep(plan, tmp_path / "whole", uri, said.append)
    assert whole.all_finished
    made = takeovers(whole.folder)
    assert {each.step for each in made} <= {128, 256}
    assert len(made) >= 2
    assert sum("takes over the training of trial" in line for line in said) == len(made)
    assert not any("resumed from step" in line for line in said)

    # What each trial is named by is what was drawn, and beside it is what became of it.
    found = table(whole)
    assert found["sample"].tolist() == [1, 2, 3, 4]
    for row in found.to_dict("records"):
        own = [each for each in made if each.trial == row["trial_id"]]
        assert row["takeovers"] == len(own)
        last = own[-1].values["settings.learning_rate"] if own else row["settings.learning_rate"]
        assert row["at_end.learning_rate"] == last
        checkpoint, _ = TrialFolder(whole.folder / "trials" / row["trial_id"]).last()
        assert checkpoint is not None
        assert checkpoint.content["settings"]["learning_rate"] == last
        assert [each["env_steps"] for each in checkpoint.content["results"]] == [128, 256, 384]
    _, children = parent_and_children(MlflowClient(uri), "population")
    runs = {run.data.tags["trial_id"]: run for run in children}
    for each in {each.trial: each for each in made}.values():
        assert f"at step {each.step} trial {each.source} at step {each.step}" in runs[each.trial].data.tags["taken_over"]
        assert runs[each.trial].data.metrics["setting/learning_rate"] == each.values["settings.learning_rate"]
    assert any("the last one of trial" in line for line in lines_of(standing_of(whole.folder)))
    assert "at end.learning rate" in write_report(whole.folder, tracking_uri=uri).read_text()

    # Killed, and with another number of trials at once.
    elsewhere = f"sqlite:///{tmp_path / 'killed.db'}"
    kill(POPULATION | {"max_concurrent": 1}, tmp_path / "killed", elsewhere)
    cut = SweepFolder.newest(plan.sweep, tmp_path / "killed")
    assert cut is not None
    first = told(cut.path)
    assert first == told(whole.folder)[: len(first)]
    resumed = run_sweep(plan_of(POPULATION | {"max_concurrent": 1}), tmp_path / "killed", elsewhere, said.append, resumed=cut)
    assert resumed.all_finished
    assert told(cut.path) == told(whole.folder)
    pd.testing.assert_frame_equal(table(resumed), found)
    pd.testing.assert_frame_equal(pd.read_csv(cut.cells), pd.read_csv(SweepFolder(whole.folder).cells))
