"""However an execution of a sweep is left, the sweep comes to its end. Real MLflow; no trial is run here."""

import errno
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from ray import tune
from ray.tune import TuneError
from ray.tune.search import Searcher

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.metrics import RunStatus
from vlm_rm_sweeps.sweeping.config.plan import Plan, plan_of
from vlm_rm_sweeps.sweeping.config.trial import Trial
from vlm_rm_sweeps.sweeping.execution import sweep_run
from vlm_rm_sweeps.sweeping.execution.pools import pool_configs
from vlm_rm_sweeps.sweeping.execution.remaining import Remaining
from vlm_rm_sweeps.sweeping.execution.run_sweep import run_sweep
from vlm_rm_sweeps.sweeping.execution.sweep_run import SweepRun
from vlm_rm_sweeps.sweeping.execution.trial_jobs import training_job
from vlm_rm_sweeps.sweeping.tracking.folder import SweepFolder
from vlm_rm_sweeps.sweeping.tracking.journal import (
    FileWritten,
    Journal,
    ResultLogged,
    SweepEnded,
    SweepStarted,
    TrialEnded,
    TrialStarted,
    ended_in_order,
    read_entries,
)
from vlm_rm_sweeps.training.checkpoints import Checkpoint, TrialFolder
from vlm_rm_sweeps.training.trial import TrainingJob


class Begun:
    """A sweep of two trials whose driver was killed: the first trial had finished, the second was running."""

    def __init__(self, results: Path, database: Path, name: str, **changes: Any) -> None:
        described = {"name": name, "task": "cartpole-upright", "models": ["embedded/tiny"], "alphas": [0.5], "steps": 100}
        self.plan = plan_of(described | {"videos": False} | changes)
        self.folder = SweepFolder(results / name)
        self.folder.create(self.plan.sweep)
        self.uri = f"sqlite:///{database}"
        self.trials = [trial.trial_id for trial in self.plan.trials]
        self.journal = Journal(self.folder.journal)
        self.journal.append(SweepStarted(time=1, id=f"id of {name}"))
        for trial in self.trials:
            self.journal.append(TrialStarted(time=2, trial=trial))
        self.finish(self.trials[0])
        self.said: list[str] = []

    def finish(self, trial: str) -> None:
        metrics = {"evaluation_true_return": 7.0, "evaluation_success": 0.25}
        self.journal.append(ResultLogged(time=3, trial=trial, step=100, metrics=metrics))
        self.journal.append(TrialEnded(time=4, trial=trial, status=RunStatus.FINISHED, tags={}))

    def execution(self) -> SweepRun:
        return SweepRun(self.plan, self.folder, self.uri, self.said.append)

    def resume(self) -> Any:
        return run_sweep(self.plan, self.folder.path.parent, self.uri, self.said.append, resumed=self.folder)

    def statuses(self) -> tuple[str, list[str]]:
        """Of the sweep's run, and of its trials' in their order."""
        client = MlflowClient(self.uri)
        experiment = client.get_experiment_by_name(self.plan.sweep.name)
        assert experiment is not None
        runs = {run.data.tags.get("trial_id", ""): run for run in client.search_runs([experiment.experiment_id])}
        self.parent: Run = runs[""]
        return runs[""].info.status, [runs[trial].info.status for trial in self.trials]


@pytest.fixture
def begun(tmp_path: Path, mlflow_database: Path, request: pytest.FixtureRequest) -> Begun:
    return Begun(tmp_path, mlflow_database, request.node.name[-50:])


def test_a_sweep_that_was_killed_after_its_last_trial_is_finished_by_resuming_it(begun: Begun) -> None:
    begun.finish(begun.trials[1])
    outcome = begun.resume()
    assert outcome.all_finished
    assert pd.read_csv(begun.folder.table)["status"].tolist() == ["finished", "finished"]
    assert ended_in_order(read_entries(begun.folder.journal))
    assert begun.statuses() == ("FINISHED", ["FINISHED", "FINISHED"])
    assert begun.parent.data.metrics["best_evaluation_success"] == 0.25
    # And then it has ended: nothing is written once more.
    entries = read_entries(begun.folder.journal)
    begun.resume()
    assert read_entries(begun.folder.journal) == entries


def test_ctrl_c_marks_runs_as_killed_also_those_of_an_attempt_before(begun: Begun) -> None:
    """While the servers of a resumed sweep load, a second time while trials run, or while videos are recorded."""
    with pytest.raises(KeyboardInterrupt), begun.execution():
        raise KeyboardInterrupt
    assert begun.statuses() == ("KILLED", ["FINISHED", "KILLED"])
    # The best of a sweep that has not ended is not known.
    assert not begun.parent.data.metrics
    assert pd.read_csv(begun.folder.table)["status"].tolist() == ["finished", "unfinished"]
    assert not ended_in_order(read_entries(begun.folder.journal))


def test_the_best_is_logged_once_for_as_many_trials_as_have_finished(begun: Begun) -> None:
    begun.journal.append(TrialEnded(time=5, trial=begun.trials[1], status=RunStatus.FAILED, tags={"reason": "fire"}))
    begun.journal.append(SweepEnded(time=6, status=RunStatus.FAILED, step=1, metrics={"best_evaluation_success": 0.125}))
    begun.finish(begun.trials[1])
    for _ in range(2):
        begun.journal.append(SweepStarted(time=7, id="x"))
        begun.journal = Journal(begun.folder.journal)
        begun.resume()
    assert begun.statuses()[0] == "FINISHED"
    history = MlflowClient(begun.uri).get_metric_history(begun.parent.info.run_id, "best_evaluation_success")
    assert [(metric.step, metric.value) for metric in history] == [(1, 0.125), (2, 0.25)]


def test_a_video_that_was_not_recorded_is_recorded_by_whoever_goes_on(
    tmp_path: Path, mlflow_database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Recorded:
        def __init__(self, say: Any) -> None:
            self.files: dict[str, Path] = {}

        def record(self, trial_id: str, job: TrainingJob) -> None:
            self.files[trial_id] = TrialFolder(job.folder).folder / "video" / "episode.mp4"

        def finish(self) -> dict[str, Path]:
            return self.files

    monkeypatch.setattr(sweep_run, "TrialVideos", Recorded)
    begun = Begun(tmp_path, mlflow_database, "unrecorded", videos=True)
    begun.finish(begun.trials[1])
    file = f"trials/{begun.trials[1]}/video/episode.mp4"
    begun.journal.append(FileWritten(time=5, trial=begun.trials[1], file=file, to="video"))
    assert Remaining.of(begun.plan, begun.folder)
    with begun.execution() as resumed:
        resumed.run(pool_configs(begun.plan, "unused"), None, {})
    recorded = [each for each in read_entries(begun.folder.journal) if isinstance(each, FileWritten) and each.to == "video"]
    assert [entry.trial for entry in recorded] == begun.trials[::-1]
    assert not Remaining.of(begun.plan, begun.folder)


def test_the_best_policy_of_each_finished_trial_goes_to_mlflow_once_if_it_is_wanted(
    tmp_path: Path, mlflow_database: Path, saved_policy: Callable[..., Checkpoint]
) -> None:
    """Also of one that finished in an execution that was killed."""
    begun = Begun(tmp_path, mlflow_database, "with-policies", log_checkpoints="best")
    for trial in begun.trials:
        saved_policy(begun.folder.trial(trial))
    begun.finish(begun.trials[1])
    for _ in range(2):
        begun.resume()
    found = [each for each in read_entries(begun.folder.journal) if isinstance(each, FileWritten) and each.to == "best"]
    assert [entry.trial for entry in found] == [trial for trial in begun.trials for _ in range(2)]
    assert begun.statuses()[0] == "FINISHED"
    client = MlflowClient(begun.uri)
    children = [
        run for run in client.search_runs([begun.parent.info.experiment_id]) if run.data.tags.get("trial_id") in begun.trials
    ]
    for run in children:
        names = [item.path for item in client.list_artifacts(run.info.run_id, "best")]
        assert names == ["best/checkpoint.json", "best/policy.safetensors"]
    assert len(children) == 2


def test_a_full_disk_ends_a_sweep_in_order(ray_cluster: None, begun: Begun, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tune writes files of its own, into Ray's folder, and does not survive it when it cannot."""
    full = OSError(errno.ENOSPC, "No space left on device")

    def fit(tuner: tune.Tuner) -> None:
        raise TuneError("The Ray Tune run failed.") from full

    def write(file: Path, text: str) -> None:
        raise full

    monkeypatch.setattr(tune.Tuner, "fit", fit)
    monkeypatch.setattr(sweep_run, "write_whole", write)
    with (
        pytest.raises(UserError, match=r"the sweep stopped \(.*No space left on device\): free some disk space"),
        begun.execution() as resumed,
    ):
        resumed.run(pool_configs(begun.plan, "unused"), None, {})
    assert begun.statuses() == ("KILLED", ["FINISHED", "KILLED"])
    assert any("trials.csv could not be written (No space left on device)" in line for line in begun.said)


def test_an_mlflow_that_is_away_does_not_keep_a_sweep_from_going_on(begun: Begun, monkeypatch: pytest.MonkeyPatch) -> None:
    begun.finish(begun.trials[1])
    there, begun.uri = begun.uri, "http://127.0.0.1:9"
    with monkeypatch.context() as impatient:
        impatient.setattr(sweep_run, "_MLFLOW_PATIENCE_S", 0.0)
        assert begun.resume().all_finished
    assert any("The sweep continues without it" in line for line in begun.said)
    assert any("entries have not reached MLflow" in line for line in begun.said)
    begun.uri = there
    begun.resume()
    assert begun.statuses() == ("FINISHED", ["FINISHED", "FINISHED"])


@pytest.mark.parametrize("search", [None, {"space": {"settings.learning_rate": {"low": 1e-4, "high": 1e-2}}, "samples": 2}])
def test_tune_is_given_trials_one_by_one_and_asks_for_room_ahead_unless_they_are_drawn(
    tmp_path: Path, mlflow_database: Path, monkeypatch: pytest.MonkeyPatch, search: dict[str, Any] | None
) -> None:
    begun = Begun(tmp_path, mlflow_database, f"given-{search is None}", **({} if search is None else {"search": search}))
    configured: list[str] = []

    def job(plan: Plan, folder: SweepFolder, trial: Trial, *other: Any) -> TrainingJob:
        configured.append(trial.trial_id)
        return training_job(plan, folder, trial, *other)

    monkeypatch.setattr(sweep_run, "training_job", job)

    def fit(tuner: Any) -> None:
        assert os.environ.get("TUNE_MAX_PENDING_TRIALS_PG") == ("200" if search is None else None)
        given = tuner._local_tuner._tune_config.search_alg
        for number, trial in enumerate(begun.trials[1:], start=1):
            assert given.suggest("tune's id")["run"]["trial"]["trial_id"] == trial
            assert configured == begun.trials[1 : 1 + number]
        assert given.suggest("tune's id") == Searcher.FINISHED

    monkeypatch.setattr(tune.Tuner, "fit", fit)
    execution = begun.execution()
    execution._tune(begun.plan.trials[1:], pool_configs(begun.plan, "none"))
    assert configured == begun.trials[1:]
    assert "TUNE_MAX_PENDING_TRIALS_PG" not in os.environ


def test_ctrl_c_works_again_once_trials_have_ended() -> None:
    before = signal.getsignal(signal.SIGINT)
    with sweep_run._ctrl_c_as_before():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    assert signal.getsignal(signal.SIGINT) is before
