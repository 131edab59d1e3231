"""Every measure of a reward, with its interval, everywhere that measures are shown: terminal, CSV, JSON, screening, MLflow, report."""

import json
import math
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pandas as pd
import pytest
import ray
import yaml
from mlflow.tracking import MlflowClient
from small_sweeps import SWEEP, parent_and_children
from typer.testing import CliRunner

from vlm_rm_sweeps.cli import app
from vlm_rm_sweeps.evaluation.measures import MEASURED
from vlm_rm_sweeps.evaluation.rollouts import run_episode
from vlm_rm_sweeps.evaluation.states import ROLLOUT, Provenance, State, StateDataset, write_states
from vlm_rm_sweeps.metrics import HEADINGS, INTERVALS
from vlm_rm_sweeps.serving.pool import start_pool
from vlm_rm_sweeps.sweeping.config.plan import plan_of
from vlm_rm_sweeps.sweeping.config.screening import Screening, load_plan
from vlm_rm_sweeps.sweeping.execution.pools import pool_configs
from vlm_rm_sweeps.sweeping.execution.reward_metrics import measure_sweep, metrics_of
from vlm_rm_sweeps.sweeping.execution.run_screening import run_screening
from vlm_rm_sweeps.sweeping.execution.run_sweep import run_sweep
from vlm_rm_sweeps.sweeping.tracking.folder import SweepFolder
from vlm_rm_sweeps.sweeping.tracking.report import write_report
from vlm_rm_sweeps.sweeping.tracking.results import read_results
from vlm_rm_sweeps.tasks.registry import find_task
from vlm_rm_sweeps.tasks.state_space import read_state

TASK = find_task("cartpole-upright")
RENDERING = TASK.rendering(profile="fast")
EVERY = 10
OF_EPISODES = ("value_order_correlation", "voc_low", "voc_high", "kendall_tau", "kendall_low", "kendall_high")
"""What only states along episodes have."""


def balancing(observation: np.ndarray) -> int:
    x, x_dot, theta, theta_dot = map(float, observation)
    return int(theta + 0.3 * theta_dot + 0.05 * x + 0.1 * x_dot > 0)


def pushing(observation: np.ndarray) -> int:
    return 1


def visited(name: str, policy: Callable[[np.ndarray], Any], seed: int) -> Iterable[State]:
    """Every tenth state of an episode, with the provenance that `vlm-rm states rollouts` gives it."""
    steps = count(1)

    def visit(env: gym.Env) -> State | None:
        step = next(steps)
        if step % EVERY:
            return None
        origin = Provenance(ROLLOUT, "a-sweep", name, "best-000000500", step=step, seed=seed, **asdict(RENDERING))
        return State(np.asarray(env.render()), origin, *read_state(TASK.require_states(), env))

    return (state for state in run_episode(TASK, policy, seed, rendering=RENDERING, visit=visit).visited if state is not None)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> StateDataset:
    """Three episodes of a policy that balances the pole, and three of one that lets it fall."""

    def states() -> Iterator[State]:
        for name, policy in (("balancing", balancing), ("pushing", pushing)):
            for seed in range(3):
                yield from visited(name, policy, seed)

    written = write_states(tmp_path_factory.mktemp("measures") / "states", TASK, states())
    assert len(written.trajectories.successful()) == 3
    return written


def undefined_in(row: Any) -> list[str]:
    return [name for name in MEASURED if row.get(name) is None or not math.isfinite(row[name])]


def invoke(*arguments: str | Path) -> str:
    shown = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert shown.exit_code == 0, shown.output
    return shown.stdout


def test_epic_has_them_in_its_table_its_csv_and_its_json(dataset: StateDataset, tmp_path: Path) -> None:
    options = ("epic", dataset.folder, "--model", "embedded/tiny", "--alpha", "0,0.5", "--prompt", "an upright pole")
    printed = invoke(*options)
    (headings,) = [line for line in printed.splitlines() if line.split()[:1] == ["model"]]
    assert headings.split()[3:] == list(HEADINGS.values())
    as_json = json.loads(invoke(*options, "--json", "-o", tmp_path / "epic.csv"))
    assert "undefined" not in printed
    # Whole, though there are as many columns as there can be.
    for row in as_json:
        (values,) = [line.split()[-len(HEADINGS) :] for line in printed.splitlines() if f"{row['epic_distance']:.3f}" in line]
        assert values == [f"{row[name]:.3f}" for name in HEADINGS]
        assert [end for ends in INTERVALS.values() for end in ends if f"{row[end]:.2f}" not in printed] == []
    table = pd.read_csv(tmp_path / "epic.csv").to_dict("records")
    assert len(as_json) == len(table) == 2
    for row, of_csv in zip(as_json, table, strict=True):
        assert (undefined_in(row), undefined_in(of_csv)) == ([], [])
        assert row["undefined"] == ""
        assert {name: row[name] for name in MEASURED} == pytest.approx({name: of_csv[name] for name in MEASURED})


def test_a_screening_has_them_in_its_table_and_its_runs(dataset: StateDataset, tmp_path: Path, mlflow_database: Path) -> None:
    keys = {
        "name": "screened-everywhere",
        "task": TASK.name,
        "models": ["embedded/tiny"],
        "alphas": [0.0, 0.5],
        "steps": 500,
        "profile": "fast",
        "screen": {"states": str(dataset.folder), "truth": "success", "keep": 1, "rank_by": "kendall_tau"},
    }
    file = tmp_path / "screen.yaml"
    file.write_text(yaml.safe_dump(keys))
    screening = load_plan(file)
    assert isinstance(screening, Screening)
    uri = f"sqlite:///{mlflow_database}"
    outcome = run_screening(screening, tmp_path, uri, lambda line: None)
    rows = {row["alpha"]: row for row in pd.read_csv(outcome.folder / "combinations.csv").to_dict("records")}
    assert [undefined_in(row) for row in rows.values()] == [[], []]
    _, children = parent_and_children(MlflowClient(uri), "screened-everywhere")
    assert len(children) == 2
    for child in children:
        row = rows[float(child.data.tags["alpha"])]
        assert {name: child.data.metrics[name] for name in MEASURED} == pytest.approx({name: row[name] for name in MEASURED})


@pytest.mark.sweeps
def test_a_sweep_on_episodes_has_them_in_its_tables_its_runs_and_its_report(
    ray_cluster: None, dataset: StateDataset, tmp_path: Path, mlflow_database: Path
) -> None:
    keys = SWEEP | {"name": "measured-everywhere", "profile": "fast", "true_reward": False, "steps": 128}
    keys |= {"evaluation_episodes": 1, "videos": False, "epic_states": {"states": str(dataset.folder), "truth": "success"}}
    uri = f"sqlite:///{mlflow_database}"
    outcome = run_sweep(plan_of(keys), tmp_path, uri, lambda line: None)
    assert outcome.all_finished, outcome.table
    folder = SweepFolder(outcome.folder)
    (measured,) = pd.read_csv(folder.epic).to_dict("records")
    assert undefined_in(measured) == []
    _, (trial,) = parent_and_children(MlflowClient(uri), "measured-everywhere")
    assert {name: trial.data.metrics[name] for name in MEASURED} == pytest.approx({name: measured[name] for name in MEASURED})
    assert read_results(folder.table)["epic_distance"].tolist() == pytest.approx([measured["epic_distance"]])
    page = write_report(folder.path, tracking_uri=uri).read_text(encoding="utf-8")
    table = page.partition("Rewards before training")[2].partition("</table>")[0]
    assert [name for name in MEASURED if shown(name) not in table] == []
    assert [name for name in MEASURED if f"{measured[name]:.4g}" not in table] == []


def shown(name: str) -> str:
    """The heading of a column in the report."""
    words = name.replace("_", " ")
    return words.replace("epic", "EPIC").replace("starc", "STARC").replace("roc auc", "ROC AUC")


def test_random_states_have_all_but_those_of_episodes_and_say_so(ray_cluster: None) -> None:
    plan = plan_of(SWEEP | {"name": "measured-at-random", "profile": "fast", "true_reward": False, "epic_states": 60})
    (config,) = pool_configs(plan, "test-everywhere").values()
    handles = start_pool(config, plan.models["embedded/tiny"])
    ray.get([handle.ready.remote() for handle in handles])
    table = measure_sweep(plan, {"embedded/tiny": config})
    for handle in handles:
        ray.kill(handle)
    (row,) = table.to_dict("records")
    assert row["truth"] == "closeness of theta to 0"
    of_yes_or_no = tuple(name for name in MEASURED if name.startswith(("roc_auc", "false_positive_rate")))
    assert set(undefined_in(row)) == {*OF_EPISODES, *of_yes_or_no}
    assert row["undefined"] == (
        "roc_auc, false_positive_rate: the truth is not yes or no; "
        "value_order_correlation, kendall_tau: the states are of no episodes"
    )
    assert set(metrics_of(table, plan.trials[0])) == set(MEASURED).difference(OF_EPISODES, of_yes_or_no)


def test_states_that_policies_reached_have_them_in_the_analysis_of_which_measure_predicts(
    dataset: StateDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "analysis")
    from predictive import VISITED, correlations, measured

    keys = {"name": "reached", "task": TASK.name, "models": ["embedded/tiny", "embedded/small"], "alphas": [0.0, 0.5]}
    folder = tmp_path / "reached"
    folder.mkdir()
    (folder / "sweep.yaml").write_text(yaml.safe_dump(keys | {"steps": 500, "profile": "fast"}))
    shutil.copytree(dataset.folder, folder / "states")
    cells = measured(folder, 100)
    reached = cells[cells["states"] == VISITED]
    assert len(reached) == 4
    assert np.isfinite(reached[list(HEADINGS)].to_numpy(dtype=float)).all()
    # Whichever cell orders its states in time best has taught best: so says the value order, and nothing else has to.
    trials = reached[["task", "model", "alpha", "prompt"]].assign(seed=0, success=reached["value_order_correlation"] / 2 + 0.5)
    found = correlations(cells, trials).set_index(["states", "measure"])["value"]
    assert found[VISITED, "value_order_correlation"] == pytest.approx(1)
    assert "value_order_correlation" not in found["random, success"].index
