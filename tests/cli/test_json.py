"""What commands print with `--json`: one JSON document on standard output, the same facts as their text."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from vlm_rm_sweeps.cli.terminal import print_json, records

JsonOf = Callable[..., Any]
QUICKSTART = Path(__file__).parents[2] / "sweeps" / "quickstart.yaml"


def test_numbers_that_json_lacks_are_null(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"a": math.nan, "b": [1.5, math.inf], "c": "NaN"})
    assert capsys.readouterr().out.split() == ["{", '"a":', "null,", '"b":', "[", "1.5,", "null", "],", '"c":', '"NaN"', "}"]
    assert records(pd.DataFrame({"x": [0.1, math.nan], "y": ["a", "-"]})) == [{"x": 0.1, "y": "a"}, {"x": None, "y": "-"}]


def test_tasks_and_models(json_of: JsonOf) -> None:
    tasks = {task["name"]: task for task in json_of("tasks")}
    assert tasks["cartpole-upright"]["goal"] == "pole vertically upright on top of the cart"
    assert tasks["cartpole-upright"]["episode_steps"] == 200
    listed = json_of("models")
    models = {model["id"]: model["kind"] for model in listed}
    needs = {model["id"]: model["needs"] for model in listed}
    assert needs["embedded/tiny"] is None
    assert "OPENAI_API_KEY" in needs["openai"]
    assert needs["distilled"] == "its teacher, for the texts"
    assert models["embedded/tiny"] == "embedded"
    assert models["ViT-B-32/laion2b_s34b_b79k"] == "open_clip"
    assert [model["id"] for model in json_of("models", "embedded/tiny")] == ["embedded/tiny"]


def test_a_plan(json_of: JsonOf) -> None:
    planned = json_of("sweep", QUICKSTART, "--dry-run")
    assert len(planned["trials"]) == 10
    assert planned["trials"][1] == {"trial_id": planned["trials"][1]["trial_id"], "label": "untrained, seed 0", "steps": 0}


def test_states_labels_and_measures(json_of: JsonOf, vlm_rm: Callable[..., str], dataset: Path, tmp_path: Path) -> None:
    shown = json_of("states", "show", dataset)
    assert (shown["task"], shown["states"], shown["sources"]) == ("cartpole-upright", 40, {"uniform": 40})
    measures = json_of("epic", dataset, "--model", "embedded/tiny", "--alpha", "0,1", "--truth", "-abs(theta)")
    assert [row["alpha"] for row in measures] == [0.0, 1.0]
    assert all(0 <= row["epic_distance"] <= 1 for row in measures)
    options = ("--task", "cartpole-upright", "--model", "embedded/tiny", "--points", 9, "-o", tmp_path / "landscape")
    assert {row["model"] for row in json_of("landscape", *options)} == {"embedded/tiny"}
