"""The commands that measure reward models without training, as a user strings them together."""

from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from vlm_rm_sweeps.cli import app
from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.evaluation.states import load_states
from vlm_rm_sweeps.labelling.scales import YES_NO
from vlm_rm_sweeps.labelling.store import LabelStore


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def shown(*arguments: str | Path) -> str:
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "states"
    printed = shown("states", "sample", "cartpole-upright", "--count", "40", "--output", folder)
    assert "40 states of cartpole-upright (40 uniform)" in printed
    return folder


def test_states_are_shown_and_never_overwritten(dataset: Path) -> None:
    assert "variables  x, x_dot, theta, theta_dot" in shown("states", "show", dataset)
    again = invoke("states", "sample", "cartpole-upright", "--output", dataset)
    assert isinstance(again.exception, UserError)
    assert "exists already and is not overwritten" in str(again.exception)
    unknown = invoke("states", "sample", "cartpole-upright", "--output", dataset.parent / "b", "--image-format", "gif")
    assert "unknown image format 'gif'" in str(unknown.exception)


def test_epic_prints_and_writes_a_table(dataset: Path, tmp_path: Path) -> None:
    file = tmp_path / "epic.csv"
    options = ("--models", "embedded/tiny", "--alphas", "0,1", "--prompts", "an upright pole", "--prompts", "a hanging pole")
    printed = shown("epic", dataset, *options, "--truth", "-abs(theta)", "--output", file)
    assert "images encoded: 40, for 160 rewards" in printed
    table = pd.read_csv(file)
    assert table["alpha"].tolist() == [0, 0, 1, 1]
    assert table["prompt"].tolist() == ["an-upright-pole", "a-hanging-pole"] * 2
    assert (table["epic_distance"][::2].to_numpy() < table["epic_distance"][1::2].to_numpy()).all()
    refused = invoke("epic", dataset, *options, "--output", file)
    assert "exists already" in str(refused.exception)


def test_alphas_that_are_none_are_explained(dataset: Path) -> None:
    assert "expected numbers from 0 to 1" in str(
        invoke("epic", dataset, "--model", "embedded/tiny", "--alpha", "0,x").exception
    )
    assert "alpha 1.5" in str(invoke("epic", dataset, "--model", "embedded/tiny", "--alpha", "1.5").exception)


def test_landscape_prints_where_the_peak_is(tmp_path: Path) -> None:
    printed = shown(
        *("landscape", "--task", "cartpole-upright", "--model", "embedded/tiny", "--alpha", "0,1"),
        *("--variable", "theta=-1:1", "--points", "9", "--output", tmp_path / "landscape"),
    )
    assert "distance (rad)" in printed
    assert "images encoded: 9, for 18 rewards" in printed
    assert (tmp_path / "landscape" / "landscape.svg").is_file()


def test_labels_are_counted_compared_and_exported(dataset: Path, tmp_path: Path) -> None:
    assert "has no labels" in str(invoke("labels", dataset).exception)
    states = load_states(dataset)
    store = LabelStore(states.labels_file, YES_NO)
    for index, item in enumerate(states.ids[:10]):
        store.add("anna", item, float(index < 4))
        store.add("bert", item, float(index < 5) if index else None)
    printed = shown("labels", dataset, "--output", tmp_path / "labels.csv")
    assert "anna: 4 yes, 6 no" in printed
    assert "bert: 4 yes, 5 no, 1 skipped" in printed
    assert "anna and bert: 9 items by both, 89 % equal" in printed
    assert len(pd.read_csv(tmp_path / "labels.csv")) == 20


def test_nothing_to_label_is_said(tmp_path: Path) -> None:
    assert "has nothing to label" in str(invoke("label", tmp_path).exception)
    (tmp_path / "a.mp4").write_bytes(b"x")
    assert "name their task with --task, or give a --criterion" in str(invoke("label", tmp_path).exception)
