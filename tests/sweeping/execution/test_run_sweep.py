"""A whole small sweep: real Ray, real MLflow on sqlite, the real embedded model."""

import math
import threading
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import ray
import yaml
from mlflow.tracking import MlflowClient
from prometheus_client.samples import Sample
from small_sweeps import SWEEP, parent_and_children

from vlm_rm_sweeps.evaluation.label_jobs import label_job
from vlm_rm_sweeps.rewards.registry import find_reward_model
from vlm_rm_sweeps.sweeping.config.plan import make_plan, plan_of
from vlm_rm_sweeps.sweeping.config.sweep import Sweep, load_sweep
from vlm_rm_sweeps.sweeping.config.trial import TRUE_REWARD
from vlm_rm_sweeps.sweeping.execution.run_sweep import run_sweep
from vlm_rm_sweeps.sweeping.tracking.results import SweepOutcome
from vlm_rm_sweeps.training.checkpoints import TrialFolder
from vlm_rm_sweeps.videos import read_episode

pytestmark = pytest.mark.sweeps

WATCHED = SWEEP | {
    "seeds": [11],  # that no other test has, whose trials would have the same ids, and so the same series of metrics
    "epic_states": 20,
    "audit": {"alphas": [0.0], "models": ["embedded/small"], "every": 128, "frames": 20},
}


@pytest.fixture(scope="module")
def scraped() -> dict[tuple[str, str], float]:
    """The largest value of each series of this package, by name and by model or trial, seen while the sweep of `ran` ran."""
    return {}


@pytest.fixture(scope="module")
def scraped_before() -> dict[tuple[str, str], float]:
    """The same of what ran on this cluster before: other tests."""
    return {}


@pytest.fixture(scope="module")
def ran(
    tmp_path_factory: pytest.TempPathFactory,
    scrape: Callable[[], list[Sample]],
    scraped: dict[tuple[str, str], float],
    scraped_before: dict[tuple[str, str], float],
    mlflow_database: Path,
) -> tuple[SweepOutcome, list[str], MlflowClient]:
    """One sweep of a reward model's trial and its reference, what it said, and its MLflow."""
    results = tmp_path_factory.mktemp("results")
    said: list[str] = []
    done = threading.Event()

    def series() -> dict[tuple[str, str], float]:
        values: dict[tuple[str, str], float] = {}
        for sample in scrape():
            key = (sample.name, sample.labels.get("model", sample.labels.get("trial", "")))
            values[key] = max(sample.value, values.get(key, sample.value))
        return values

    scraped_before.update(series())

    def watch() -> None:
        while not done.wait(0.5):
            for key, value in series().items():
                scraped[key] = max(value, scraped.get(key, value))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        sweep = Sweep.model_validate(WATCHED)
        outcome = run_sweep(sweep, results, f"sqlite:///{mlflow_database}", said.append)
    finally:
        done.set()
        watcher.join()
    return outcome, said, MlflowClient(outcome.tracking_uri)


def test_the_sweep_could_be_watched_while_it_ran(
    ran: tuple[SweepOutcome, list[str], MlflowClient],
    scraped: dict[tuple[str, str], float],
    scraped_before: dict[tuple[str, str], float],
) -> None:
    reference, scored = (outcome.trial.trial_id for outcome in ran[0].outcomes)
    assert scraped["ray_vlm_rm_env_steps_total", reference] in (128, 256)
    assert scraped["ray_vlm_rm_env_steps_total", scored] in (128, 256)
    assert scraped["ray_vlm_rm_transitions_total", "embedded/tiny"] >= 128
    assert scraped["ray_vlm_rm_frames_total", "embedded/tiny"] >= 128
    for name in ("encode_seconds_total", "render_seconds_total", "wait_seconds_total", "reward_std", "request_seconds_count"):
        assert scraped[f"ray_vlm_rm_{name}", "embedded/tiny"] > 0, name
    new = scraped.keys() - scraped_before.keys()
    # What went well is not reported as trouble.
    assert not [name for name, _ in new if "retries" in name or "restarts" in name or "hung" in name]
    # Tags name models and trials, nothing else.
    assert {reference, scored} <= {tag for _, tag in new} <= {"embedded/tiny", "embedded/small", reference, scored}


def test_every_trial_finishes_and_is_in_the_table(ran: tuple[SweepOutcome, list[str], MlflowClient]) -> None:
    outcome, said, _ = ran
    assert outcome.all_finished
    assert not outcome.interrupted
    table = outcome.table
    assert table["model"].tolist() == [TRUE_REWARD, "embedded/tiny"]
    assert table["clip_return"].isna().tolist() == [True, False]
    assert table["true_return"].between(0, 200).all()
    assert table["success"].between(0, 1).all()
    assert outcome.best is not None
    assert outcome.best.outcomes[0].trial.model_id == "embedded/tiny"
    assert sum("true return" in line for line in said) == 2


def test_the_folder_is_complete_in_itself(ran: tuple[SweepOutcome, list[str], MlflowClient]) -> None:
    folder = ran[0].folder
    resolved = load_sweep(folder / "sweep.yaml")
    assert make_plan(resolved).sweep == plan_of(WATCHED).sweep
    assert yaml.safe_load((folder / "sweep.yaml").read_text())["settings"]["gamma"] == resolved.settings["gamma"]
    assert len(pd.read_csv(folder / "trials.csv")) == 2


def test_mlflow_has_a_parent_and_one_child_for_each_trial(ran: tuple[SweepOutcome, list[str], MlflowClient]) -> None:
    outcome, _, client = ran
    parent, children = parent_and_children(client, "small")
    assert parent.info.status == "FINISHED"
    assert {child.info.status for child in children} == {"FINISHED"}
    assert parent.data.metrics["best_evaluation_success"] == outcome.table["success"][1]
    artifacts = {item.path for item in client.list_artifacts(parent.info.run_id)}
    assert artifacts == {"sweep.yaml", "trials.csv", "cells.csv", "epic.csv"}
    assert str(outcome.folder.parent) in parent.info.artifact_uri

    child = next(run for run in children if run.data.tags["model"] == "embedded/tiny")
    expected = {
        "task": "cartpole-upright",
        "goal": "pole vertically upright on top of the cart",
        "baseline": "pole and cart",
        "model": "embedded/tiny",
        "alpha": "0.5",
        "algorithm": "dqn",
        "seed": "11",
        "version_ray": ray.__version__,
    }
    assert expected.items() <= child.data.params.items()
    assert child.data.params["git_commit"]
    assert {"sweep", "task", "model", "alpha", "prompt", "seed", "trial_id"} <= child.data.tags.keys()
    millions = find_reward_model("embedded/tiny").parameters / 1e6
    assert child.data.metrics["parameters_millions"] == float(child.data.params["parameters_millions"])
    assert child.data.metrics["parameters_millions"] == pytest.approx(millions, rel=0.01)


def test_metrics_are_logged_once_for_each_result_by_environment_steps(
    ran: tuple[SweepOutcome, list[str], MlflowClient],
) -> None:
    client = ran[2]
    _, children = parent_and_children(client, "small")
    for child in children:
        history = client.get_metric_history(child.info.run_id, "env_steps")
        assert [metric.step for metric in history] == [128, 256]
        evaluated = client.get_metric_history(child.info.run_id, "evaluation_true_return")
        assert [metric.step for metric in evaluated] == [256]
        reference = child.data.tags["model"] == TRUE_REWARD
        assert ("evaluation_clip_return" in child.data.metrics) is not reference
        assert all(math.isfinite(value) for value in child.data.metrics.values())


def test_epic_and_the_audit_are_logged_for_trials_of_reward_models_alone(
    ran: tuple[SweepOutcome, list[str], MlflowClient],
) -> None:
    outcome, _, client = ran
    for child in parent_and_children(client, "small")[1]:
        run_id, watched = child.info.run_id, child.data.tags["model"] != TRUE_REWARD
        distances = client.get_metric_history(run_id, "epic_distance")
        assert [metric.step for metric in distances] == ([0] if watched else [])
        audited = {name for name in child.data.metrics if name.startswith("audit_")}
        if watched:
            assert child.data.metrics["epic_low"] < distances[0].value < child.data.metrics["epic_high"]
            assert {"audit_proxy_reward", "audit_spec/alpha_0_task", "audit_gold/embedded_small"} <= audited
            assert [metric.step for metric in client.get_metric_history(run_id, "audit_goal_fraction")] == [128, 256]
        else:
            assert not audited
    assert outcome.table["epic_distance"].notna().tolist() == [False, True]


def test_last_and_best_checkpoints_are_kept_and_linked(ran: tuple[SweepOutcome, list[str], MlflowClient]) -> None:
    outcome, _, client = ran
    for child in parent_and_children(client, "small")[1]:
        checkpoints = TrialFolder(outcome.folder / child.data.tags["checkpoints"])
        last, problems = checkpoints.last()
        assert not problems
        assert last is not None
        assert last.env_steps == 256
        assert last.content["done"]
        assert {item.path for item in client.list_artifacts(child.info.run_id, "video")} == {"video/episode.mp4"}
    job = label_job(outcome.folder, None, None)
    assert [item.file.name for item in job.items] == ["plain.mp4"] * len(outcome.outcomes)
    episodes = [read_episode(item.file) for item in job.items]
    assert all(episode and episode["env_steps"] in (128, 256) for episode in episodes)
