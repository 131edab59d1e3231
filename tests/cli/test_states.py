"""Collecting data sets of states and labelling them."""

import json
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from vlm_rm_sweeps.evaluation.states import load_states
from vlm_rm_sweeps.labelling.scales import YES_NO
from vlm_rm_sweeps.labelling.store import LabelStore
from vlm_rm_sweeps.sweeping.config.sweep import load_sweep
from vlm_rm_sweeps.sweeping.tracking.folder import SweepFolder
from vlm_rm_sweeps.training.checkpoints import Checkpoint

Command = Callable[..., str]
QUICKSTART = Path(__file__).parents[2] / "sweeps" / "quickstart.yaml"


def test_states_are_shown_and_never_overwritten(vlm_rm: Command, refusal: Command, dataset: Path) -> None:
    assert "variables  x, x_dot, theta, theta_dot" in vlm_rm("states", "show", dataset)
    assert "exists already and is not overwritten" in refusal("states", "sample", "cartpole-upright", "-o", dataset)
    unknown = refusal("states", "sample", "cartpole-upright", "-o", dataset.parent / "b", "--image-format", "gif")
    assert "unknown image format 'gif'" in unknown


def test_a_sweeps_policies_become_a_data_set(
    vlm_rm: Command, refusal: Command, saved_policy: Callable[..., Checkpoint], tmp_path: Path
) -> None:
    folder = SweepFolder(tmp_path / "sweep")
    folder.create(load_sweep(QUICKSTART))
    assert "no trial has a checkpoint yet" in refusal("states", "rollouts", folder.path, "-o", tmp_path / "data")
    for trial in ("a", "b"):
        saved_policy(folder.trial(trial))
    options = ("--episodes", "1", "--every", "50", "--seed", "4")
    printed = vlm_rm("states", "rollouts", folder.path, "-o", tmp_path / "data", *options)
    assert "2 policies of 2 of 2 trials" in printed
    assert "8 states of cartpole-upright (8 rollout)" in printed
    assert set(load_states(tmp_path / "data").table["seed"]) == {4}
    assert "exists already" in refusal("states", "rollouts", folder.path, "-o", tmp_path / "data")


def test_the_label_page_is_served_until_it_is_interrupted(dataset: Path, tmp_path: Path) -> None:
    to_label = shutil.copytree(dataset, tmp_path / "states")
    command = [str(Path(sys.executable).parent / "vlm-rm"), "label", str(to_label), "--no-open"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:\d+", server.stdout.readline())
        assert found is not None
        with urllib.request.urlopen(f"{found[0]}/api/job", timeout=20) as answer:
            assert [each["text"] for each in json.load(answer)["answers"]] == ["yes", "no"]
        server.send_signal(signal.SIGINT)
        _, errors = server.communicate(timeout=60)
    assert (server.returncode, "Traceback" in errors) == (0, False)


def test_labels_are_counted_compared_and_exported(vlm_rm: Command, refusal: Command, dataset: Path, tmp_path: Path) -> None:
    assert "has no labels" in refusal("labels", dataset)
    states = load_states(dataset)
    store = LabelStore(states.labels_file, YES_NO)
    for index, item in enumerate(states.ids[:10]):
        store.add("anna", item, float(index < 4))
        store.add("bert", item, float(index < 5) if index else None)
    printed = vlm_rm("labels", dataset, "--output", tmp_path / "labels.csv")
    assert "anna: 4 yes, 6 no" in printed
    assert "bert: 4 yes, 5 no, 1 skipped" in printed
    assert "anna and bert: 9 items labelled by both, 89 % equal" in printed
    assert len(pd.read_csv(tmp_path / "labels.csv")) == 20


def test_labels_of_another_data_set_are_neither_extended_nor_counted(vlm_rm: Command, refusal: Command, tmp_path: Path) -> None:
    vlm_rm("states", "sample", "cartpole-upright", "--count", "3", "--output", tmp_path / "data")
    LabelStore(tmp_path / "data" / "labels.sqlite", YES_NO).add("anna", "f" * 16, 1.0)
    for command in ("label", "labels"):
        assert "belongs to another data set: 1 of its 1 labelled states are not in" in refusal(command, tmp_path / "data")


def test_a_folder_with_nothing_to_label_is_refused(refusal: Command, tmp_path: Path) -> None:
    assert "has nothing to label" in refusal("label", tmp_path)
    (tmp_path / "a.mp4").write_bytes(b"x")
    assert "name the task that they show with --task, or give one with --criterion" in refusal("label", tmp_path)


def test_an_address_that_is_another_machines_is_refused(refusal: Command, dataset: Path) -> None:
    said = refusal("label", str(dataset), "--no-open", "--host", "192.0.2.1")
    assert "--host '192.0.2.1': this machine cannot listen there" in said
    assert "name one of its own addresses" in said
