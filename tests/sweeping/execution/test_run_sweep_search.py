"""A whole search: samples are drawn while it runs, kept in the journal, and not drawn again when it is resumed."""

from pathlib import Path

import pandas as pd
import pytest
from mlflow.tracking import MlflowClient
from small_sweeps import SWEEP, parent_and_children

from vlm_rm_sweeps.sweeping.config.plan import plan_of
from vlm_rm_sweeps.sweeping.execution.run_sweep import run_sweep
from vlm_rm_sweeps.sweeping.execution.searching import drawn_samples
from vlm_rm_sweeps.sweeping.tracking.findings import findings
from vlm_rm_sweeps.sweeping.tracking.folder import SweepFolder
from vlm_rm_sweeps.sweeping.tracking.journal import read_entries
from vlm_rm_sweeps.sweeping.tracking.results import read_results

pytestmark = pytest.mark.sweeps

SEARCH = SWEEP | {
    "name": "search",
    "alphas": [],
    "seeds": [0, 1],
    "true_reward": False,
    "videos": False,
    "max_concurrent": 1,
    "search": {
        "space": {"alpha": {"low": 0, "high": 1}, "settings.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}},
        "samples": 2,
    },
}


def test_a_search_draws_trains_and_records_its_samples(ray_cluster: None, tmp_path: Path, mlflow_database: Path) -> None:
    plan, uri = plan_of(SEARCH), f"sqlite:///{mlflow_database}"
    outcome = run_sweep(plan, tmp_path, uri, lambda line: None)
    assert outcome.all_finished
    folder = SweepFolder(outcome.folder)
    drawn = drawn_samples(read_entries(folder.journal))
    assert list(drawn) == [1, 2]
    assert drawn[1] != drawn[2]

    table = read_results(folder.table)
    assert table["sample"].tolist() == [1, 1, 2, 2]
    assert table["alpha"].tolist() == [drawn[sample]["alpha"] for sample in (1, 1, 2, 2)]
    assert table["settings.learning_rate"].tolist() == [drawn[sample]["settings.learning_rate"] for sample in (1, 1, 2, 2)]
    assert pd.read_csv(folder.cells)["seeds"].tolist() == [2, 2]
    assert "2 samples" in findings("cartpole-upright", table)[0]

    _, children = parent_and_children(MlflowClient(uri), "search")
    runs = {run.data.tags["trial_id"]: run for run in children}
    for row in table.to_dict("records"):
        run = runs[row["trial_id"]]
        assert run.data.tags["sample"] == str(int(row["sample"]))
        assert float(run.data.params["settings_learning_rate"]) == row["settings.learning_rate"]
        assert float(run.data.params["alpha"]) == row["alpha"]


def test_a_search_that_was_cut_off_goes_on_with_what_it_had_drawn(
    ray_cluster: None, tmp_path: Path, mlflow_database: Path
) -> None:
    uri, once = f"sqlite:///{mlflow_database}", SEARCH | {"seeds": [0]}
    undisturbed = run_sweep(plan_of(once), tmp_path / "whole", uri, lambda line: None)
    cut = run_sweep(plan_of(once | {"time_budget_s": 0.01}), tmp_path / "cut", uri, lambda line: None)
    assert cut.interrupted
    before = drawn_samples(read_entries(SweepFolder(cut.folder).journal))
    resumed = run_sweep(plan_of(once), tmp_path / "cut", uri, lambda line: None, resumed=SweepFolder(cut.folder))
    assert resumed.all_finished
    after = drawn_samples(read_entries(SweepFolder(cut.folder).journal))
    assert {number: after[number] for number in before} == before
    # One trial at a time: what is known at each drawing is the same.
    told = ["trial_id", "alpha", "settings.learning_rate", "true_return", "success"]
    assert resumed.table[told].equals(undisturbed.table[told])
