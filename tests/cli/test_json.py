"""What commands print with `--json`: one JSON document on standard output, the same facts as their text."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from small_sweeps import SWEEP

from vlm_rm_sweeps.cli.terminal import print_json, records
from vlm_rm_sweeps.evaluation.states import load_states
from vlm_rm_sweeps.labelling.scales import YES_NO
from vlm_rm_sweeps.labelling.store import LabelStore
from vlm_rm_sweeps.sweeping.tracking.folder import SweepFolder
from vlm_rm_sweeps.sweeping.tracking.results import read_results

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


def test_labels_and_how_far_raters_agree(json_of: JsonOf, dataset: Path) -> None:
    states = load_states(dataset)
    store = LabelStore(states.labels_file, YES_NO)
    for index, item in enumerate(states.ids[:10]):
        store.add("anna", item, float(index < 4))
        store.add("bert", item, float(index < 5) if index else None)
    told = json_of("labels", dataset)
    assert [(label["rater"], label["item"]) for label in told["labels"][:2]] == [
        ("anna", states.ids[0]),
        ("bert", states.ids[0]),
    ]
    assert [label["value"] for label in told["labels"][:2]] == [1.0, None]
    assert len(told["labels"]) == 20
    (pair,) = told["agreement"]
    assert (pair["first"], pair["second"], pair["items"]) == ("anna", "bert", 9)
    assert pair["equal"] == pytest.approx(8 / 9)
    assert not told["elsewhere"]


@pytest.mark.sweeps
def test_a_finished_sweep(ray_cluster: None, json_of: JsonOf, mlflow_database: Path, tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump(SWEEP | {"name": "told", "videos": False, "steps": 128, "true_reward": False}))
    told = json_of("sweep", file, "--results", tmp_path / "results", "--tracking-uri", f"sqlite:///{mlflow_database}")
    assert Path(told["folder"]).parent == tmp_path / "results"
    assert told["tracking_uri"] == f"sqlite:///{mlflow_database}"
    assert told["interrupted"] is False
    assert {trial["status"] for trial in told["trials"]} == {"finished"}
    assert set(told["best"]) <= {trial["trial_id"] for trial in told["trials"]}
    table = records(read_results(SweepFolder(Path(told["folder"])).table))
    assert [trial["trial_id"] for trial in told["trials"]] == [trial["trial_id"] for trial in table]
    assert [trial["true_return"] for trial in told["trials"]] == pytest.approx([trial["true_return"] for trial in table])
    assert len(told["cells"]) == len(told["trials"])
    assert told["seconds"] > 0
