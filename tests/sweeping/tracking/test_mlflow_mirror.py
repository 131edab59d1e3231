"""The mirror in MLflow: each entry once and in order, whatever happens on the way. Real MLflow, on sqlite."""

import base64
import fcntl
import json
import os
import shlex
import shutil
import signal
import socket
import sqlite3
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import closing, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST, TEMPORARILY_UNAVAILABLE
from mlflow.tracking import MlflowClient
from mlflow_server import MlflowServer
from postgresql_server import PASSWORD, postgresql, programs

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.metrics import RunStatus
from vlm_rm_sweeps.sweeping.config.plan import plan_of
from vlm_rm_sweeps.sweeping.config.searching import Drawn
from vlm_rm_sweeps.sweeping.tracking import environment, mlflow_mirror, mlflow_store
from vlm_rm_sweeps.sweeping.tracking.folder import SweepFolder
from vlm_rm_sweeps.sweeping.tracking.journal import (
    FileWritten,
    Journal,
    ResultLogged,
    RewardMeasured,
    SampleDrawn,
    SweepEnded,
    SweepStarted,
    TakenOver,
    TrialEnded,
    TrialStarted,
)
from vlm_rm_sweeps.sweeping.tracking.mlflow_mirror import MlflowMirror
from vlm_rm_sweeps.sweeping.tracking.mlflow_store import mlflow_ui_command, set_up_store
from vlm_rm_sweeps.sweeping.tracking.report import write_report
from vlm_rm_sweeps.sweeping.tracking.runs_file import RunsFile, read_runs_file


class Mirrored:
    """A sweep of two trials with its journal, and what MLflow has of it."""

    def __init__(self, folder: Path, store: Path, name: str, sweep_id: str = "", **keys: Any) -> None:
        self.plan = plan_of(
            {"name": name, "task": "cartpole-upright", "models": ["embedded/tiny"], "alphas": [0.5], "steps": 100} | keys
        )
        self.folder = SweepFolder(folder / name)
        self.folder.create(self.plan.sweep)
        self.uri = f"sqlite:///{store}"
        self.trials = [trial.trial_id for trial in self.plan.trials]
        self.journal = Journal(self.folder.journal)
        self.journal.append(SweepStarted(time=1, id=sweep_id or f"id of {name}"))
        self.said: list[str] = []

    def mirror(self, patience_s: float = 20) -> int:
        """Bring what the journal on disk has to MLflow, as a new process would; returns how many entries are left."""
        mirror = MlflowMirror(Journal(self.folder.journal), self.plan, self.folder, self.uri, self.said.append)
        mirror.start()
        return mirror.close(patience_s)

    def start_all(self) -> None:
        for trial in self.trials:
            self.journal.append(TrialStarted(time=2, trial=trial))

    def result(self, step: int) -> None:
        for trial in self.trials:
            self.journal.append(ResultLogged(time=1000 + step, trial=trial, step=step, metrics={"true_return": step / 2}))

    def runs(self) -> tuple[Run, list[Run]]:
        client = MlflowClient(self.uri)
        experiment = client.get_experiment_by_name(self.plan.sweep.name)
        assert experiment is not None
        found = list(client.search_runs([experiment.experiment_id]))
        children = [run for run in found if "mlflow.parentRunId" in run.data.tags]
        (parent,) = [run for run in found if "mlflow.parentRunId" not in run.data.tags]
        assert sorted(run.data.tags["trial_id"] for run in children) == sorted(self.trials)
        return parent, children

    def history(self, run: Run, metric: str) -> list[tuple[int, float]]:
        found = MlflowClient(self.uri).get_metric_history(run.info.run_id, metric)
        return [(each.step, each.value) for each in found]

    def steps(self) -> list[list[int]]:
        client = MlflowClient(self.uri)
        return [[metric.step for metric in client.get_metric_history(run.info.run_id, "true_return")] for run in self.runs()[1]]


@pytest.fixture
def mirrored(mlflow_database: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Mirrored:
    return Mirrored(tmp_path, mlflow_database, request.node.name[-50:].replace("[", "-").replace("]", ""))


def test_goes_on_in_the_same_runs(mirrored: Mirrored) -> None:
    mirrored.start_all()
    mirrored.result(10)
    assert mirrored.mirror() == 0
    mirrored.start_all()
    mirrored.result(20)
    for trial in mirrored.trials:
        mirrored.journal.append(
            TrialEnded(time=5000, trial=trial, status=RunStatus.FAILED, tags={"reason": "the machine was on fire"})
        )
    assert mirrored.mirror() == 0
    assert mirrored.steps() == [[10, 20], [10, 20]]
    assert {run.info.status for run in mirrored.runs()[1]} == {"FAILED"}
    mirrored.start_all()
    for trial in mirrored.trials:
        mirrored.journal.append(TrialEnded(time=6000, trial=trial, status=RunStatus.FINISHED, tags={"checkpoints": "trials/x"}))
    mirrored.journal.append(SweepEnded(time=7000, status=RunStatus.FINISHED, step=2, metrics={"best_evaluation_success": 0.5}))
    assert mirrored.mirror() == 0
    parent, children = mirrored.runs()
    assert {run.info.status for run in (parent, *children)} == {"FINISHED"}
    assert all("reason" not in run.data.tags and run.info.status == "FINISHED" for run in children)
    links = {run.data.tags["trial_id"]: Path(run.data.tags["checkpoints"]) for run in children}
    assert links == {trial: (mirrored.folder.path / "trials" / trial).resolve() for trial in mirrored.trials}
    assert parent.data.metrics == {"best_evaluation_success": 0.5}


@pytest.mark.parametrize("store", ["database", "server"])
def test_mlflows_password_stays_in_the_environment(
    mirrored: Mirrored, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Whatever is written, said, or sent on: to a store that takes all, and to one that refuses the login."""
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "anna")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "s3cret-of-anna")
    asked: list[str] = []

    class Refuses(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.headers["Authorization"])
            self.send_error(401, f"no access with {self.headers['Authorization']}")

        do_POST = do_GET  # noqa: N815

        def log_message(self, *parts: object) -> None:
            pass

    mirrored.start_all()
    mirrored.result(10)
    mirrored.journal.append(SweepEnded(time=7000, status=RunStatus.FINISHED, step=2, metrics={}))
    with HTTPServer(("127.0.0.1", 0), Refuses) as refusing:
        threading.Thread(target=refusing.serve_forever, daemon=True).start()
        if store == "server":
            mirrored.uri = f"http://127.0.0.1:{refusing.server_port}"
        left = mirrored.mirror(patience_s=1)
        refusing.shutdown()
    assert bool(left) == bool(asked) == (store == "server")
    mirrored.folder.table.write_text("trial_id,model,alpha,prompt,seed,true_return,success,status\n")
    write_report(mirrored.folder.path)
    if store == "database":
        parent, children = mirrored.runs()
        shown = [str(run.to_dictionary()) for run in (parent, *children)]
    else:
        shown = [str(RunsFile(tracking_uri=mirrored.uri))]
    written = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert {"journal.jsonl", "sweep.yaml", "report.html"} <= {file.name for file in written}
    shown += [file.read_bytes().decode(errors="replace") for file in written]
    shown += [*mirrored.said, *capfd.readouterr()]
    encoded = base64.b64encode(b"anna:s3cret-of-anna").decode()
    assert [text for text in shown if "s3cret-of-anna" in text or encoded in text] == []


def test_takeovers_are_tags_and_what_they_change_is_a_metric_over_steps(mlflow_database: Path, tmp_path: Path) -> None:
    """Also if the journal is delivered again, and if a later execution finds the first takeover delivered."""
    space = {"settings.learning_rate": {"low": 1e-4, "high": 1e-2}, "settings.double_q": [True, False]}
    mirrored = Mirrored(
        tmp_path,
        mlflow_database,
        "population",
        true_reward=False,
        steps=1_000,
        trial={"evaluation_interval": 100},
        steps_per_result=100,
        search={"space": space, "samples": 2},
        scheduler={"kind": "pbt", "quantile": 0.5},
    )

    def take_over(step: int, rate: float) -> None:
        values: dict[str, Drawn] = {"settings.learning_rate": rate, "settings.double_q": False}
        first, second = mirrored.trials
        mirrored.journal.append(TakenOver(time=3, trial=second, step=step, source=first, source_step=step, values=values))

    for sample in (1, 2):
        drawn: dict[str, Drawn] = {"settings.learning_rate": sample / 1000, "settings.double_q": True}
        mirrored.journal.append(SampleDrawn(sample=sample, values=drawn))
    mirrored.start_all()
    take_over(200, 0.003)
    assert mirrored.mirror() == 0
    take_over(300, 0.004)
    assert mirrored.mirror() == 0
    mirrored.folder.mlflow.unlink()
    assert mirrored.mirror() == 0
    first, second = sorted(mirrored.runs()[1], key=lambda run: mirrored.trials.index(run.data.tags["trial_id"]))
    assert second.data.tags["takeovers"] == "2"
    source = mirrored.trials[0]
    assert second.data.tags["taken_over"] == f"at step 200 trial {source} at step 200; at step 300 trial {source} at step 300"
    assert second.data.params["settings_learning_rate"] == "0.002", "what it is named by"
    assert mirrored.history(second, "setting/learning_rate") == [(0, 0.002), (200, 0.003), (300, 0.004)]
    assert mirrored.history(second, "setting/double_q") == [(0, 1), (200, 0), (300, 0)]
    assert "takeovers" not in first.data.tags
    assert mirrored.history(first, "setting/learning_rate") == [(0, 0.001)]


def test_what_is_new_is_not_asked_for_and_the_file_of_runs_is_not_written_for_each_entry(
    mirrored: Mirrored, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server answers one request after another, and the file grows with the trials."""
    asked, written = list[str](), list[RunsFile]()
    write = RunsFile.write

    def write_and_count(runs: RunsFile, file: Path) -> None:
        written.append(runs)
        write(runs, file)

    monkeypatch.setattr(MlflowClient, "get_metric_history", lambda *arguments: asked.append(arguments[-1]))
    monkeypatch.setattr(RunsFile, "write", write_and_count)
    monkeypatch.setattr(mlflow_mirror, "_WRITE_S", float("inf"))
    mirrored.start_all()
    for step in range(10, 60, 10):
        mirrored.result(step)
        mirrored.journal.append(RewardMeasured(time=3, trial=mirrored.trials[0], metrics={f"measured_{step}": 0.5}))
    assert mirrored.mirror() == 0
    assert not asked
    assert len(written) == 2, "when there is an experiment, and at the end"
    assert written[-1].delivered == mirrored.journal.entries[-1].uid
    monkeypatch.undo()
    assert mirrored.steps() == [[10, 20, 30, 40, 50]] * 2


def forgets_all(folder: SweepFolder) -> None:
    folder.mlflow.unlink()


def was_cut_short(folder: SweepFolder) -> None:
    folder.mlflow.write_text(folder.mlflow.read_text()[:-10])


def forgets_the_last(folder: SweepFolder) -> None:
    known = json.loads(folder.mlflow.read_text())
    folder.mlflow.write_text(json.dumps(known | {"delivered": Journal(folder.journal).entries[-4].uid}))


def says_nothing(folder: SweepFolder) -> None:
    folder.mlflow.write_text("{}")


def has_lost_what_it_named(folder: SweepFolder) -> None:
    lines = folder.journal.read_bytes().splitlines(keepends=True)
    folder.journal.write_bytes(b"".join([*lines[:-1], b"damaged\n"]))


@pytest.mark.parametrize("happens", [forgets_all, was_cut_short, forgets_the_last, says_nothing, has_lost_what_it_named])
def test_what_is_delivered_again_is_there_once(mirrored: Mirrored, happens: Callable[[SweepFolder], None]) -> None:
    """A process that was killed does not know what of its last calls arrived."""
    mirrored.start_all()
    mirrored.journal.append(RewardMeasured(time=3, trial=mirrored.trials[0], metrics={"epic_distance": 0.5}))
    mirrored.result(10)
    mirrored.result(20)
    mirrored.journal.append(SweepEnded(time=4, status=RunStatus.FAILED, step=1, metrics={"best_evaluation_success": 0.5}))
    assert mirrored.mirror() == 0
    happens(mirrored.folder)
    mirrored.journal = Journal(mirrored.folder.journal)
    mirrored.result(30)
    assert mirrored.mirror() == 0
    # Written down anew, because the lines were lost: the time is another.
    mirrored.journal.append(RewardMeasured(time=30, trial=mirrored.trials[0], metrics={"epic_distance": 0.5}))
    mirrored.journal.append(SweepEnded(time=40, status=RunStatus.FAILED, step=1, metrics={"best_evaluation_success": 0.5}))
    assert mirrored.mirror() == 0
    assert mirrored.steps() == [[10, 20, 30], [10, 20, 30]]
    parent, children = mirrored.runs()
    measured = next(run for run in children if run.data.tags["trial_id"] == mirrored.trials[0])
    assert mirrored.history(measured, "epic_distance") == [(0, 0.5)]
    assert mirrored.history(parent, "best_evaluation_success") == [(1, 0.5)]
    assert mirrored.said == []


def test_a_journal_that_lost_its_end_doubles_nothing(mirrored: Mirrored) -> None:
    mirrored.start_all()
    mirrored.result(10)
    mirrored.result(20)
    assert mirrored.mirror() == 0
    file = mirrored.folder.journal
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:-2]) + b'{"kind": "resu')
    mirrored.journal = Journal(file)
    mirrored.result(20)  # trained again, from the checkpoint before
    mirrored.result(30)
    assert mirrored.mirror() == 0
    assert mirrored.steps() == [[10, 20, 30], [10, 20, 30]]


def in_order_after(mirrored: Mirrored, store: Path, breaks: str, mends: str) -> None:
    """Results while the database does not work arrive once it does."""
    mirrored.start_all()
    assert mirrored.mirror() == 0
    mirror = MlflowMirror(mirrored.journal, mirrored.plan, mirrored.folder, mirrored.uri, mirrored.said.append)
    with closing(sqlite3.connect(store, isolation_level=None)) as other:
        other.execute(breaks)
        try:
            mirror.start()
            for step in (10, 20, 30):
                mirrored.result(step)
            while not mirrored.said:
                time.sleep(0.05)
        finally:
            other.execute(mends)
    assert mirror.close(patience_s=60) == 0
    assert mirrored.steps() == [[10, 20, 30], [10, 20, 30]]
    assert "does not answer" in mirrored.said[0]
    assert "answers again" in mirrored.said[1]


def test_waits_for_a_database_that_fails(mirrored: Mirrored, mlflow_database: Path) -> None:
    in_order_after(mirrored, mlflow_database, "ALTER TABLE metrics RENAME TO gone", "ALTER TABLE gone RENAME TO metrics")


@pytest.mark.slow
def test_waits_for_a_locked_database(mirrored: Mirrored, mlflow_database: Path) -> None:
    """MLflow itself waits for 20 s, each time."""
    in_order_after(mirrored, mlflow_database, "BEGIN EXCLUSIVE", "ROLLBACK")


def test_a_reference_is_not_found_among_the_trials_of_an_alpha(mirrored: Mirrored) -> None:
    mirrored.start_all()
    assert mirrored.mirror() == 0
    tags = [child.data.tags for child in mirrored.runs()[1]]
    assert sorted((each["model"], each["alpha"], each["prompt"]) for each in tags) == [
        ("embedded/tiny", "0.5", "task"),
        ("true reward", "-", "-"),
    ]


def test_what_mlflow_refuses_does_not_hold_up_the_rest(mirrored: Mirrored) -> None:
    mirrored.start_all()
    mirrored.journal.append(ResultLogged(time=5, trial=mirrored.trials[0], step=10, metrics={"n" * 300: 1.0}))
    mirrored.result(20)
    assert mirrored.mirror() == 1
    assert mirrored.steps() == [[20], [20]]
    assert "MLflow does not get an entry" in mirrored.said[0]
    # It is not forgotten.
    assert mirrored.mirror() == 1
    assert mirrored.steps() == [[20], [20]]


def test_results_that_wait_are_delivered_together(mirrored: Mirrored, monkeypatch: pytest.MonkeyPatch) -> None:
    requests: list[int] = []
    log_batch = MlflowClient.log_batch

    def counted(client: MlflowClient, run_id: str, metrics: Any = (), **named: Any) -> Any:
        if metrics:
            requests.append(len({metric.step for metric in metrics}))
        return log_batch(client, run_id, metrics=metrics, **named)

    monkeypatch.setattr(MlflowClient, "log_batch", counted)
    mirrored.start_all()
    steps = list(range(10, 12_010, 10))
    for step in steps:
        mirrored.journal.entries += [
            ResultLogged(time=step, trial=trial, step=step, metrics={"true_return": step / 2}) for trial in mirrored.trials
        ]
    mirror = MlflowMirror(mirrored.journal, mirrored.plan, mirrored.folder, mirrored.uri, mirrored.said.append)
    mirror.start()
    assert mirror.close(60) == 0
    assert sum(requests) == len(steps) * len(mirrored.trials) + len(mirrored.trials) - 1  # and the size of one model
    assert len(requests) < 12
    assert mirrored.steps() == [steps, steps]


def test_a_new_trial_takes_few_requests_and_what_all_have_in_common_is_found_once(
    mirrored: Mirrored, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request may cost a server a password's hash."""
    asked: list[str] = []

    def counted(name: str) -> Callable[..., Any]:
        original = getattr(MlflowClient, name)

        def call(*given: Any, **named: Any) -> Any:
            asked.append(name)
            return original(*given, **named)

        return call

    for name in ("create_run", "get_run", "log_batch", "search_runs", "set_terminated", "update_run", "get_metric_history"):
        monkeypatch.setattr(MlflowClient, name, counted(name))
    found: list[str] = []

    def commit() -> str:
        found.append(f"commit {len(found)}")
        return found[-1]

    monkeypatch.setattr(environment, "git_commit", commit)
    mirrored.start_all()
    mirrored.result(10)
    for trial in mirrored.trials:
        mirrored.journal.append(TrialEnded(time=5, trial=trial, status=RunStatus.FINISHED, tags={}))
    assert mirrored.mirror() == 0
    assert found == ["commit 0"]
    of_sweep = asked.index("create_run", asked.index("create_run") + 1)
    in_turn = ["create_run", "log_batch"] * len(mirrored.trials)
    ends = ["set_terminated"] * len(mirrored.trials)
    # Ending a run updates it.
    asked = [name for name in asked[of_sweep:] if name != "update_run"]
    assert asked == [*in_turn, *["log_batch"] * len(mirrored.trials), *ends]
    _, children = mirrored.runs()
    assert all(run.data.params["git_commit"] == "commit 0" for run in children)


def test_results_do_not_wait_for_other_trials_that_begin_and_end(mirrored: Mirrored, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a trial go together, whatever is written between them, but none before its start or after its end."""
    first, second = mirrored.trials[:2]
    told: list[tuple[str, list[int]]] = []
    log_batch, terminate = MlflowClient.log_batch, MlflowClient.set_terminated

    def logged(client: MlflowClient, run_id: str, metrics: Any = (), **named: Any) -> Any:
        if steps := [metric.step for metric in metrics if metric.key == "env_steps"]:
            told.append((run_id, steps))
        return log_batch(client, run_id, metrics=metrics, **named)

    def terminated(client: MlflowClient, run_id: str, *given: Any) -> Any:
        told.append((run_id, []))
        return terminate(client, run_id, *given)

    monkeypatch.setattr(MlflowClient, "log_batch", logged)
    monkeypatch.setattr(MlflowClient, "set_terminated", terminated)

    def result(trial: str, step: int) -> None:
        mirrored.journal.append(ResultLogged(time=step, trial=trial, step=step, metrics={"true_return": step / 2}))

    mirrored.journal.append(TrialStarted(time=2, trial=first))
    for step in (10, 20, 30):
        result(first, step)
    mirrored.journal.append(TrialStarted(time=2, trial=second))
    result(first, 40)
    result(second, 10)
    result(first, 50)
    mirrored.journal.append(TrialEnded(time=60, trial=first, status=RunStatus.FINISHED, tags={}))
    result(second, 20)
    mirrored.journal.append(TrialEnded(time=60, trial=second, status=RunStatus.FINISHED, tags={}))
    last = mirrored.journal.entries[-1].uid
    assert mirrored.mirror() == 0
    runs = [run_id for run_id, _ in told]
    (of_first, of_second) = dict.fromkeys(runs)
    assert told == [(of_first, [10, 20, 30, 40, 50]), (of_second, [10, 20]), (of_first, []), (of_second, [])]
    assert read_runs_file(mirrored.folder.mlflow).delivered == last


def is_mirrored(mirrored: Mirrored) -> None:
    """Bring two results and the end of each trial to MLflow, by two executions; nothing of the password is left behind."""
    set_up_store(mirrored.uri)
    mirrored.start_all()
    mirrored.result(10)
    assert mirrored.mirror(patience_s=120) == 0, mirrored.said
    mirrored.result(20)
    for trial in mirrored.trials:
        mirrored.journal.append(TrialEnded(time=60, trial=trial, status=RunStatus.FINISHED, tags={}))
    assert mirrored.mirror(patience_s=120) == 0, mirrored.said
    assert mirrored.steps() == [[10, 20], [10, 20]]
    assert {run.info.status for run in mirrored.runs()[1]} == {"FINISHED"}
    assert PASSWORD not in mirrored.folder.mlflow.read_text()
    assert not any(PASSWORD in line for line in mirrored.said)


@pytest.mark.slow
@pytest.mark.skipif(programs() is None, reason="PostgreSQL is not installed (apt-get install postgresql)")
@pytest.mark.skipif(find_spec("psycopg2") is None, reason="psycopg2 is not installed (pip install psycopg2-binary)")
def test_in_postgresql(mirrored: Mirrored) -> None:
    with postgresql() as database:
        mirrored.uri = f"postgresql+psycopg2://{database}"
        is_mirrored(mirrored)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("flask_wtf") is None, reason="MLflow's basic auth needs Flask-WTF (pip install 'mlflow[auth]')")
def test_by_a_server_with_basic_auth(mirrored: Mirrored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = tmp_path / "auth.ini"
    settings.write_text(
        f"[mlflow]\ndefault_permission = NO_PERMISSIONS\ndatabase_uri = sqlite:///{tmp_path / 'auth.db'}\nadmin_username = anna\n"
        f"admin_password = {PASSWORD}\nauthorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
        "grant_default_workspace_access = false\n"
    )
    environment = {"MLFLOW_AUTH_CONFIG_PATH": str(settings), "MLFLOW_FLASK_SERVER_SECRET_KEY": "secret"}
    server = MlflowServer(tmp_path / "served.db", "--app-name", "basic-auth", environment=environment)
    server.start()
    try:
        mirrored.uri = server.url
        with pytest.raises(UserError, match="does not answer"):
            set_up_store(server.url)
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "anna")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
        is_mirrored(mirrored)
    finally:
        server.stop()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl, which makes a certificate, is not installed")
def test_by_a_server_with_a_certificate_of_its_own(mirrored: Mirrored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = tmp_path / "server.pem"
    names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    made = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        *names,
        "-keyout",
        "key.pem",
        "-out",
        "cert.pem",
    ]
    subprocess.run(made, cwd=tmp_path, check=True, capture_output=True)
    certificate.write_text((tmp_path / "key.pem").read_text() + (tmp_path / "cert.pem").read_text())
    server = MlflowServer(tmp_path / "served.db", certificate=certificate)
    server.start()
    try:
        mirrored.uri = server.url
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        with pytest.raises(UserError, match="does not answer"):
            set_up_store(server.url)
        monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(tmp_path / "cert.pem"))
        is_mirrored(mirrored)
    finally:
        server.stop()


def test_the_reason_of_a_failure_goes_when_the_trial_finishes_also_if_both_waited(mirrored: Mirrored) -> None:
    for status, tags in ((RunStatus.FAILED, {"reason": "the machine was on fire"}), (RunStatus.FINISHED, {})):
        mirrored.start_all()
        for trial in mirrored.trials:
            mirrored.journal.append(TrialEnded(time=5, trial=trial, status=status, tags=tags))
    assert mirrored.mirror() == 0
    assert all("reason" not in run.data.tags and run.info.status == "FINISHED" for run in mirrored.runs()[1])


def test_of_results_that_wait_mlflow_misses_only_the_one_that_it_refuses(mirrored: Mirrored) -> None:
    mirrored.start_all()
    mirrored.result(10)
    mirrored.journal.append(ResultLogged(time=5, trial=mirrored.trials[0], step=15, metrics={"n" * 300: 1.0}))
    mirrored.result(20)
    mirrored.result(10)  # again, as after a resumption
    assert mirrored.mirror() == 1
    assert mirrored.steps() == [[10, 20], [10, 20]]


def test_artifacts_that_cannot_be_written_hold_up_nothing_else(mirrored: Mirrored, tmp_path: Path) -> None:
    """Another user has made the experiment: its artifacts are kept on that user's machine."""
    (tmp_path / "elsewhere").write_text("no folder")
    client = MlflowClient(mirrored.uri)
    place = (tmp_path / "elsewhere" / "mlartifacts").as_uri()
    client.create_experiment(mirrored.plan.sweep.name, artifact_location=place)
    mirrored.start_all()
    mirrored.result(10)
    mirrored.journal.append(FileWritten(time=5, trial=mirrored.trials[0], file="sweep.yaml", to=None))
    mirrored.result(20)
    assert mirrored.mirror() == 2  # the sweep file, and the trial's copy of it
    assert mirrored.steps() == [[10, 20], [10, 20]]
    assert "no artifact can be written to file://" in mirrored.said[0]
    (tmp_path / "elsewhere").unlink()
    assert mirrored.mirror() == 0
    parent, _ = mirrored.runs()
    assert [item.path for item in client.list_artifacts(parent.info.run_id)] == ["sweep.yaml"]


@pytest.mark.slow
def test_a_server_keeps_the_artifacts_of_all_its_users(tmp_path: Path) -> None:
    server = MlflowServer(tmp_path / "mlflow.db")
    server.start()
    try:
        for user in ("one", "two"):
            mirrored = Mirrored(tmp_path / user, tmp_path / "unused.db", "shared", sweep_id=user)
            mirrored.uri = server.url
            mirrored.start_all()
            mirrored.journal.append(FileWritten(time=5, trial=mirrored.trials[0], file="sweep.yaml", to="files"))
            assert mirrored.mirror(60) == 0
        client = MlflowClient(server.url)
        experiment = client.get_experiment_by_name("shared")
        assert experiment is not None
        assert experiment.artifact_location.startswith("mlflow-artifacts:/")
        runs = client.search_runs([experiment.experiment_id])
        kept = [item.path for run in runs for item in client.list_artifacts(run.info.run_id)]
        assert sorted(kept) == ["files", "files", "sweep.yaml", "sweep.yaml"]
    finally:
        server.stop()


def test_a_deleted_experiment_loses_nothing(mirrored: Mirrored) -> None:
    """In MLflow's pages one click deletes it, and another restores it."""
    mirrored.start_all()
    mirrored.result(10)
    assert mirrored.mirror() == 0
    client = MlflowClient(mirrored.uri)
    experiment = client.get_experiment_by_name(mirrored.plan.sweep.name)
    assert experiment is not None
    client.delete_experiment(experiment.experiment_id)
    mirrored.journal.append(SweepStarted(time=1100, id=f"id of {mirrored.plan.sweep.name}"))
    mirrored.result(20)
    assert mirrored.mirror() == 3
    assert "was deleted: restore it" in mirrored.said[0]
    client.restore_experiment(experiment.experiment_id)
    assert mirrored.mirror() == 0
    assert mirrored.steps() == [[10, 20], [10, 20]]


def test_a_fault_that_mlflow_reports_as_a_bad_request_passes(mirrored: Mirrored, monkeypatch: pytest.MonkeyPatch) -> None:
    """So it reports whatever its database does not call operational: a lost connection, a pool without a free one."""
    faults = [MlflowException("QueuePool limit", error_code=BAD_REQUEST)] * 2
    log_batch = MlflowClient.log_batch

    def faulty(client: MlflowClient, *arguments: Any, **named: Any) -> Any:
        if faults and "metrics" in named:
            raise faults.pop()
        return log_batch(client, *arguments, **named)

    monkeypatch.setattr(MlflowClient, "log_batch", faulty)
    mirrored.start_all()
    mirrored.result(10)
    assert mirrored.mirror() == 0
    assert not faults
    assert mirrored.steps() == [[10], [10]]


@pytest.mark.parametrize("step", ["log_batch", "log_artifact"])
def test_a_run_that_was_made_and_not_described_is_described_later(
    mirrored: Mirrored, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """The process ended, or MLflow went away, in between; meanwhile there was another commit."""
    with monkeypatch.context() as broken:

        def away(*arguments: Any, **named: Any) -> None:
            raise MlflowException("away", error_code=TEMPORARILY_UNAVAILABLE)

        broken.setattr(MlflowClient, step, away)
        mirror = MlflowMirror(mirrored.journal, mirrored.plan, mirrored.folder, mirrored.uri, mirrored.said.append)
        mirror.start()
        while not mirrored.said:
            time.sleep(0.05)
        assert mirror.close(patience_s=0) == 1
        mirror.join()
    monkeypatch.setattr("vlm_rm_sweeps.sweeping.tracking.environment.git_commit", lambda: "another commit")
    mirrored.start_all()
    assert mirrored.mirror() == 0
    parent, children = mirrored.runs()
    assert [item.path for item in MlflowClient(mirrored.uri).list_artifacts(parent.info.run_id)] == ["sweep.yaml"]
    assert all(run.data.params["task"] == "cartpole-upright" for run in (parent, *children))
    assert (parent.data.params["git_commit"] == "another commit") is (step == "log_batch")


def test_a_sweep_that_goes_on_is_running_in_mlflow(mirrored: Mirrored) -> None:
    mirrored.start_all()
    mirrored.journal.append(SweepEnded(time=10, status=RunStatus.KILLED, step=0, metrics={}))
    assert mirrored.mirror() == 0
    assert mirrored.runs()[0].info.status == "KILLED"
    mirrored.journal.append(SweepStarted(time=20, id=f"id of {mirrored.plan.sweep.name}"))
    assert mirrored.mirror() == 0
    assert mirrored.runs()[0].info.status == "RUNNING"


@pytest.mark.parametrize("file", ["../secret", "/etc/passwd", "link"], ids=["up", "absolute", "link"])
def test_no_file_from_elsewhere_becomes_an_artifact(mirrored: Mirrored, file: str) -> None:
    (mirrored.folder.path.parent / "secret").write_text("secret")
    (mirrored.folder.path / "link").symlink_to(mirrored.folder.path.parent / "secret")
    mirrored.journal.append(FileWritten(time=2, trial="", file=file, to="video"))
    mirrored.start_all()
    assert mirrored.mirror() == 1
    parent, _ = mirrored.runs()
    client = MlflowClient(mirrored.uri)
    assert [item.path for item in client.list_artifacts(parent.info.run_id)] == ["sweep.yaml"]
    assert f"the file '{file}' is refused" in mirrored.said[0]


def test_another_mlflow_than_before_is_refused(mirrored: Mirrored) -> None:
    assert mirrored.mirror() == 0
    mirrored.uri = "sqlite:////elsewhere/mlflow.db"
    with pytest.raises(UserError, match="name that with --tracking-uri"):
        mirrored.mirror()


def test_the_same_mlflow_at_another_address_is_recognised(mirrored: Mirrored, mlflow_database: Path) -> None:
    """A results folder that was moved."""
    mirrored.start_all()
    assert mirrored.mirror() == 0
    moved = mlflow_database.parent / f"{mirrored.plan.sweep.name}.db"
    shutil.copy(mlflow_database, moved)
    mirrored.uri = f"sqlite:///{moved}"
    mirrored.result(10)
    assert mirrored.mirror() == 0
    assert mirrored.steps() == [[10], [10]]


def test_a_server_that_does_not_answer_is_said_before_anything_starts() -> None:
    with pytest.raises(UserError, match=r"MLflow at http://127\.0\.0\.1:9 does not answer"):
        set_up_store("http://127.0.0.1:9")


def test_the_command_that_opens_the_runs_keeps_to_itself() -> None:
    command = shlex.split(mlflow_ui_command("sqlite:////my results/mlflow.db"))
    assert command[0] == "env"
    assert {"MLFLOW_DISABLE_TELEMETRY=true", "DO_NOT_TRACK=true"} <= set(command)
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert command[-1] == "sqlite:////my results/mlflow.db"
    assert mlflow_ui_command("http://127.0.0.1:5000") == "a browser at http://127.0.0.1:5000"


@pytest.mark.slow
def test_the_server_that_it_starts_asks_nobody_and_listens_here_alone(mlflow_database: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [*shlex.split(mlflow_ui_command(f"sqlite:///{mlflow_database}")), "--port", str(port)]
    unset = {name: value for name, value in os.environ.items() if name not in ("MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK")}
    server = subprocess.Popen(command, env=unset, start_new_session=True)
    try:
        address = f"http://127.0.0.1:{port}/ajax-api/3.0/mlflow/ui-telemetry"
        until = time.monotonic() + 120
        while True:
            try:
                answer = json.load(urllib.request.urlopen(address, timeout=5))
                break
            except urllib.error.HTTPError:
                raise
            except OSError:
                assert time.monotonic() < until
                time.sleep(0.5)
        assert answer["disable_ui_telemetry"] is True
        process = psutil.Process(server.pid)
        connections = []
        for child in [process, *process.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                connections += child.net_connections("inet")
        assert {each.laddr.ip for each in connections if each.status == psutil.CONN_LISTEN} == {"127.0.0.1"}
        assert not [each for each in connections if each.raddr and each.raddr.ip != "127.0.0.1"]
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def test_the_first_of_several_sweeps_makes_the_tables_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    locked: list[bool] = []

    class Client:
        def __init__(self, uri: str) -> None: ...

        def search_experiments(self, max_results: int) -> None:
            handle = os.open(tmp_path / "new", os.O_RDONLY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                locked.append(True)
            finally:
                os.close(handle)

    monkeypatch.setattr(mlflow_store, "MlflowClient", Client)
    set_up_store(f"sqlite:///{tmp_path}/new/mlflow.db")
    set_up_store(f"sqlite:///{tmp_path}/new/mlflow.db")
    assert locked == [True, True]


def test_an_entry_of_no_trial_of_the_sweep_is_refused_and_blocks_nothing(mirrored: Mirrored) -> None:
    mirrored.journal.append(TrialStarted(time=1, trial="../x' or 1"))
    mirrored.start_all()
    mirrored.mirror()
    assert any("has no trial" in line for line in mirrored.said)
    mirrored.result(10)
    mirrored.mirror()
    assert mirrored.steps() == [[10], [10]]
