"""A whole small sweep: real Ray, real MLflow on sqlite, the real embedded model."""

import math
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import ray
import yaml
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from prometheus_client.samples import Sample
from typer.testing import CliRunner

from vlm_rm_sweeps.cli import app
from vlm_rm_sweeps.cli.terminal import EXIT_FAILED
from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.evaluation.label_jobs import label_job
from vlm_rm_sweeps.metrics import TrialStatus
from vlm_rm_sweeps.rewards.registry import find_reward_model
from vlm_rm_sweeps.sweeping.config.plan import make_plan, plan_of
from vlm_rm_sweeps.sweeping.config.sections import Prompt
from vlm_rm_sweeps.sweeping.config.sweep import Sweep, load_sweep
from vlm_rm_sweeps.sweeping.config.trial import TRUE_REWARD, Trial
from vlm_rm_sweeps.sweeping.execution.run_sweep import run_sweep
from vlm_rm_sweeps.sweeping.tracking.folder import SweepFolder
from vlm_rm_sweeps.sweeping.tracking.journal import read_entries
from vlm_rm_sweeps.sweeping.tracking.mlflow_store import default_tracking_uri
from vlm_rm_sweeps.sweeping.tracking.results import SweepOutcome, TrialOutcome, best_trial, results_table
from vlm_rm_sweeps.tasks import opengl
from vlm_rm_sweeps.tasks.rendering import Rendering
from vlm_rm_sweeps.training.checkpoints import TrialFolder
from vlm_rm_sweeps.training.trial import TrainableTrial
from vlm_rm_sweeps.videos import read_episode

SWEEP: dict[str, Any] = {
    "name": "small",
    "task": "cartpole-upright",
    "models": ["embedded/tiny"],
    "alphas": [0.5],
    "seeds": [11],  # that no other test has, whose trials would have the same ids, and so the same series of metrics
    "steps": 256,
    "steps_per_result": 128,
    "evaluation_episodes": 2,
    "settings": {"learning_starts": 100, "updates_per_step": 0.02},
    "trial": {"retries": 0},
}
WATCHED = {"epic_states": 20, "audit": {"alphas": [0.0], "models": ["embedded/small"], "every": 128, "frames": 20}}
FAILING = SWEEP | {"name": "failing", "videos": False, "trial": {"retries": 5}}


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
            if sample.name.startswith("ray_vlm_rm_"):
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
        sweep = Sweep.model_validate(SWEEP | WATCHED)
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


def parent_and_children(client: MlflowClient, name: str = "small") -> tuple[Run, list[Run]]:
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    runs = list(client.search_runs([experiment.experiment_id]))
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert len(parents) == 1
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parents[0].info.run_id]
    assert len(runs) == 1 + len(children)
    return parents[0], children


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
    assert outcome.best.trial.model_id == "embedded/tiny"
    assert sum("true return" in line for line in said) == 2


def test_the_folder_is_complete_in_itself(ran: tuple[SweepOutcome, list[str], MlflowClient]) -> None:
    folder = ran[0].folder
    resolved = load_sweep(folder / "sweep.yaml")
    assert make_plan(resolved).sweep == plan_of(SWEEP | WATCHED).sweep
    assert yaml.safe_load((folder / "sweep.yaml").read_text())["settings"]["gamma"] == resolved.settings["gamma"]
    assert len(pd.read_csv(folder / "trials.csv")) == 2


def test_mlflow_has_a_parent_and_one_child_for_each_trial(ran: tuple[SweepOutcome, list[str], MlflowClient]) -> None:
    outcome, _, client = ran
    parent, children = parent_and_children(client)
    assert parent.info.status == "FINISHED"
    assert {child.info.status for child in children} == {"FINISHED"}
    assert parent.data.metrics["best_evaluation_success"] == outcome.table["success"][1]
    artifacts = {item.path for item in client.list_artifacts(parent.info.run_id)}
    assert artifacts == {"sweep.yaml", "trials.csv", "epic.csv"}
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
    _, children = parent_and_children(client)
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
    for child in parent_and_children(client)[1]:
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
    for child in parent_and_children(client)[1]:
        checkpoints = TrialFolder(outcome.folder / child.data.tags["checkpoints"])
        last, problems = checkpoints.last()
        assert not problems
        assert last is not None
        assert last.env_steps == 256
        assert last.content["done"]
        assert {item.path for item in client.list_artifacts(child.info.run_id, "video")} == {"video/episode.mp4"}
    job = label_job(outcome.folder, None, None)
    assert [item.file.name for item in job.items] == ["plain.mp4"] * len(outcome.outcomes)
    assert all(read_episode(item.file)["env_steps"] in (128, 256) for item in job.items)


def test_a_failing_trial_does_not_take_the_others_along(
    ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mlflow_database: Path
) -> None:
    class FailsOnModels(TrainableTrial):
        def _train(self) -> dict[str, Any]:
            if self._job.reward is not None:
                raise RuntimeError("the machine is on fire\nSome advice for whoever debugs it")
            return super()._train()

    monkeypatch.setattr("vlm_rm_sweeps.sweeping.execution.sweep_run.TrainableTrial", FailsOnModels)
    sweep, uri, said = Sweep.model_validate(FAILING), f"sqlite:///{mlflow_database}", list[str]()
    file = tmp_path / "failing.yaml"
    file.write_text(yaml.safe_dump(FAILING))
    shown = CliRunner().invoke(app, ["sweep", str(file), "--results", str(tmp_path), "--tracking-uri", uri])
    assert shown.exit_code == EXIT_FAILED
    # It may be tried again five times; once is enough to see that the error comes back.
    assert shown.output.count(", retrying") == 1
    failed = plan_of(FAILING).trials[1]
    assert f"failed: {failed.label}: RuntimeError: the machine is on fire\n" in shown.output
    assert "best trial" not in shown.output
    folder = SweepFolder.newest(sweep, tmp_path)
    assert folder is not None
    table = pd.read_csv(folder.table, keep_default_na=False)
    assert table["status"].tolist() == ["finished", "failed"]
    assert table["reason"].tolist() == ["", "RuntimeError: the machine is on fire"]
    parent, children = parent_and_children(MlflowClient(uri), "failing")
    assert parent.info.status == "FAILED"
    assert sorted(child.info.status for child in children) == ["FAILED", "FINISHED"]

    # The fire is out: the failed trial is tried again, the finished one stays, both in the runs that they had.
    monkeypatch.undo()
    again = run_sweep(sweep, tmp_path, uri, said.append, resumed=folder)
    assert again.table["status"].tolist() == ["finished", "finished"]
    assert any(line.startswith("1 of 2 trials") for line in said)
    assert again.table["true_return"][0] == float(table["true_return"][0])
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
    sweep = Sweep.model_validate(FAILING | {"name": "dying", "true_reward": False, "trial": {"retries": 2}})
    outcome = run_sweep(sweep, tmp_path, f"sqlite:///{mlflow_database}", said.append)
    assert sum(", retrying" in line for line in said) == 2
    assert outcome.table["status"].tolist() == ["failed"]
    assert "died" in outcome.table["reason"][0]


def test_what_cannot_be_placed_stops_the_sweep_before_its_first_trial(ray_cluster: None, tmp_path: Path) -> None:
    sweep = Sweep.model_validate(SWEEP | {"pool": {"gpus": 1}})
    with pytest.raises(UserError, match="needs 0 CPUs and 1 GPUs"):
        run_sweep(sweep, tmp_path, default_tracking_uri(tmp_path), lambda line: None)
    assert list(tmp_path.iterdir()) == []


def test_ray_is_given_more_than_one_chance_to_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine it does not always come up in the time that it gives itself."""

    def too_slow(**options: Any) -> None:
        raise Exception("The current node timed out during startup.")

    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.init", too_slow)
    monkeypatch.setattr("ray.shutdown", lambda: None)
    said: list[str] = []
    with pytest.raises(UserError, match=r"Ray does not start: The current node timed out during startup"):
        run_sweep(Sweep.model_validate(SWEEP), tmp_path, default_tracking_uri(tmp_path), said.append)
    assert sum("retrying" in line for line in said) == 2
    assert list(tmp_path.iterdir()) == []


def outcome_of(model_id: str, status: TrialStatus = TrialStatus.FINISHED, **metrics: float) -> TrialOutcome:
    prompt = Prompt(id="p", goal=("a",), baseline=("b",))
    trial = Trial.of(model_id, 0.5, None if model_id == TRUE_REWARD else prompt, Rendering(), 0)
    return TrialOutcome(trial, status, "", {f"evaluation_{name}": value for name, value in metrics.items()})


def test_the_best_trial_is_never_chosen_by_clip_return() -> None:
    """Scales differ between models; the reference does not compete, nor does a trial that did not finish."""
    outcomes = [
        outcome_of(TRUE_REWARD, success=1.0, true_return=200),
        outcome_of("a", success=0.5, true_return=120, clip_return=190),
        outcome_of("b", success=0.9, true_return=150, clip_return=20),
        outcome_of("c", success=0.9, true_return=170, clip_return=10),
        outcome_of("d", status=TrialStatus.FAILED, success=1.0, true_return=200),
    ]
    best = best_trial(outcomes)
    assert best is not None
    assert best.trial.model_id == "c"
    assert results_table(outcomes)["clip_return"].tolist()[1:4] == [190, 20, 10]


def test_where_success_is_unknown_the_best_trial_is_by_true_return() -> None:
    outcomes = [outcome_of("a", true_return=-900, clip_return=9), outcome_of("b", true_return=-300, clip_return=1)]
    best = best_trial(outcomes)
    assert best is not None
    assert best.trial.model_id == "b"
    assert results_table(outcomes)["success"].isna().all()


def test_the_table_names_renderings_only_where_they_are_compared() -> None:
    compared = plan_of(SWEEP | {"task": "mountaincar-summit", "textures": ["modified", "original"]})
    table = results_table([TrialOutcome(trial, TrialStatus.FINISHED, "", {}) for trial in compared.trials])
    assert table["textures"].tolist() == ["modified", "modified", "original"]
    assert not {"textures", "camera"} & set(results_table([outcome_of("a")]).columns)


def test_an_environment_of_gymnasium_needs_nothing_but_its_sweep_file(
    ray_cluster: None, tmp_path: Path, mlflow_database: Path
) -> None:
    written = {key: value for key, value in SWEEP.items() if key != "task"} | {
        "name": "acrobot",
        "env": {"id": "Acrobot-v1", "kwargs": {}, "episode_steps": 30, "success": "obs[0] < 0"},
        "prompts": [{"id": "up", "goal": "an acrobot standing upright", "baseline": "an acrobot"}],
        "true_reward": False,
    }
    file = tmp_path / "acrobot.yaml"
    file.write_text(yaml.safe_dump(written))
    outcome = run_sweep(load_sweep(file), tmp_path, f"sqlite:///{mlflow_database}", lambda line: None)
    assert outcome.table["status"].tolist() == ["finished"]
    assert np.isfinite(outcome.table[["clip_return", "true_return", "success"]].to_numpy(dtype=float)).all()
    (child,) = parent_and_children(MlflowClient(f"sqlite:///{mlflow_database}"), "acrobot")[1]
    # 256 steps of which 100 are before learning starts, with 0.02 updates for each of the others.
    assert child.data.metrics["updates"] == pytest.approx(156 * 0.02, abs=1)
    assert child.data.metrics["updates_per_step"] == pytest.approx(0.02, abs=0.005)


@pytest.mark.parametrize("cluster", [None, "10.0.0.1:6379"])
def test_a_missing_opengl_is_said_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cluster: str | None
) -> None:
    """But for a cluster, whose nodes draw."""

    def ray_cluster(say: object) -> None:
        raise UserError("Ray is started")

    monkeypatch.setattr("vlm_rm_sweeps.tasks.opengl.backend_works", lambda backend: False)
    for variable in (opengl.VARIABLE, opengl.DEVICE_VARIABLE, "RAY_ADDRESS"):
        monkeypatch.delenv(variable, raising=False)
    if cluster:
        monkeypatch.setenv("RAY_ADDRESS", cluster)
    monkeypatch.setattr("vlm_rm_sweeps.sweeping.execution.run_sweep.ray_cluster", ray_cluster)
    sweep = Sweep.model_validate(SWEEP | {"task": "humanoid-kneeling", "settings": {}})
    with pytest.raises(UserError, match="Ray is started" if cluster else "apt install libegl1 libegl-mesa0"):
        run_sweep(sweep, tmp_path / "results", "sqlite:///unused.db", lambda line: None)
    assert not (tmp_path / "results").exists()


def test_labelled_states_that_cannot_be_used_are_said_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlm_rm_sweeps.sweeping.execution.run_sweep.ray_cluster", lambda say: pytest.fail("Ray was started"))
    sweep = Sweep.model_validate(SWEEP | {"epic_states": {"states": str(tmp_path / "nowhere"), "truth": "raters"}})
    with pytest.raises(UserError, match="nowhere is not a data set of states"):
        run_sweep(sweep, tmp_path / "results", "sqlite:///unused.db", say=lambda line: None)
    assert not (tmp_path / "results").exists()
