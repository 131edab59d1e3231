"""The rules of SECURITY.md: a folder from somebody else is data."""

import json
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import ray
from mlflow.tracking import MlflowClient

from vlm_rm_sweeps import registry
from vlm_rm_sweeps.dashboard import watch
from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.evaluation.label_jobs import label_job
from vlm_rm_sweeps.evaluation.rollouts import task_of
from vlm_rm_sweeps.registry import trust
from vlm_rm_sweeps.serving import cluster
from vlm_rm_sweeps.sweeping.config.sweep import Sweep
from vlm_rm_sweeps.sweeping.tracking.folder import SweepFolder
from vlm_rm_sweeps.sweeping.tracking.mlflow_runs import find_runs
from vlm_rm_sweeps.sweeping.tracking.mlflow_store import mlflow_ui_command, set_up_store
from vlm_rm_sweeps.sweeping.tracking.report import write_report
from vlm_rm_sweeps.sweeping.tracking.runs_file import RunsFile
from vlm_rm_sweeps.sweeping.tracking.tracking_uri import hide_secrets, without_secrets
from vlm_rm_sweeps.tasks.gym_task import GymEnv, make_task
from vlm_rm_sweeps.tasks.wrappers import WrapperSettings
from vlm_rm_sweeps.training.checkpoints import Checkpoint

SWEEP = {"name": "a", "task": "cartpole-upright", "models": ["embedded/tiny"], "alphas": [0.5], "steps": 100}


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    """The folder of a sweep that has ended, in a results folder of its own."""
    folder = SweepFolder(tmp_path / "results" / "sweep")
    folder.create(Sweep.model_validate(SWEEP))
    folder.table.write_text("trial_id,model,alpha,prompt,seed,true_return,success,status\n")
    return folder


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    """The address of a server, and the requests that it gets."""
    asked: list[str] = []

    class Listens(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *parts: object) -> None:
            pass

    listening = HTTPServer(("127.0.0.1", 0), Listens)
    thread = threading.Thread(target=listening.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listening.server_port}", asked
    listening.shutdown()
    listening.server_close()


def names_runs_in(folder: SweepFolder, uri: str, run_id: str = "a") -> None:
    folder.mlflow.write_text(json.dumps({"tracking_uri": uri, "experiment_id": "1", "run_id": run_id}))


# What a folder says does not decide where this process connects.


def test_a_folder_does_not_decide_where_to_connect(folder: SweepFolder, server: tuple[str, list[str]]) -> None:
    address, asked = server
    names_runs_in(folder, address)
    with pytest.raises(UserError, match="name it with --tracking-uri or MLFLOW_TRACKING_URI"):
        find_runs(folder.path)
    assert "--tracking-uri" in write_report(folder.path).read_text(encoding="utf-8")
    assert asked == []


def test_a_view_in_the_database_beside_it_is_never_read(folder: SweepFolder, mlflow_database: Path) -> None:
    names_runs_in(folder, "sqlite:///gone.db")
    beside = folder.path.parent / "mlflow.db"
    shutil.copy(mlflow_database, beside)
    with closing(sqlite3.connect(beside)) as connection:
        connection.execute("DROP TABLE params")
        endless = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT n AS key, n AS value FROM c"
        connection.execute(f"CREATE VIEW params AS {endless}")
    with pytest.raises(UserError, match="has a view, 'params', and MLflow makes none"):
        find_runs(folder.path)
    assert "has a view" in write_report(folder.path).read_text(encoding="utf-8")


def test_a_database_of_which_even_the_error_cannot_be_read_is_refused(folder: SweepFolder, mlflow_database: Path) -> None:
    names_runs_in(folder, "sqlite:///gone.db")
    beside = folder.path.parent / "mlflow.db"
    beside.write_bytes(
        mlflow_database.read_bytes().replace(b"CREATE TABLE alembic_version", b"CREATE TABLE \xff\xfelembic_version")
    )
    with pytest.raises(UserError, match="is not MLflow's database"):
        find_runs(folder.path)


def test_nor_which_database_mlflow_makes_its_tables_in(folder: SweepFolder, tmp_path: Path) -> None:
    other = tmp_path / "mine.db"
    other.touch()
    names_runs_in(folder, f"sqlite:///{other}")
    with pytest.raises(UserError, match="--tracking-uri"):
        find_runs(folder.path)
    with pytest.raises(UserError, match="is not MLflow's database"):
        find_runs(folder.path, f"sqlite:///{other}")
    beside = folder.path.parent / "mlflow.db"
    beside.symlink_to(other)
    with pytest.raises(UserError, match="is refused"):
        find_runs(folder.path)
    assert other.read_bytes() == b""


@pytest.mark.parametrize("inside", [True, False])
def test_the_results_folders_own_database_is_read_wherever_it_has_moved_to(
    folder: SweepFolder, mlflow_database: Path, tmp_path: Path, inside: bool
) -> None:
    """A database from somebody else also says where a run's files are kept: outside of the results, nothing is written."""
    own = folder.path.parent / "mlflow.db"
    shutil.copy(mlflow_database, own)
    client = MlflowClient(f"sqlite:///{own}")
    place = folder.path.parent / "mlartifacts" if inside else tmp_path / "home"
    experiment = client.create_experiment(f"moved-{inside}", artifact_location=place.as_uri())
    run_id = client.create_run(experiment).info.run_id
    names_runs_in(folder, "sqlite:////before/mlflow.db", run_id)
    assert find_runs(folder.path).attachable is inside
    assert find_runs(folder.path, f"sqlite:///{own}").attachable


@pytest.mark.parametrize("given", [None, "10.1.2.3:6379"])
def test_a_file_in_the_temporary_folder_does_not_name_rays_cluster(monkeypatch: pytest.MonkeyPatch, given: str | None) -> None:
    """Ray reads the address of a cluster that was started before from there, and would send it the user's token."""
    asked: dict[str, Any] = {}
    monkeypatch.setattr(ray, "init", lambda **arguments: asked.update(arguments))
    monkeypatch.setattr(cluster, "check_ray_address", lambda: None)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if given:
        monkeypatch.setenv("RAY_ADDRESS", given)
    cluster._start_ray(lambda line: None)
    assert asked["address"] == (given or "local")


@pytest.mark.parametrize("kind", ["written by anybody", "link", "elsewhere"])
def test_the_dashboard_follows_only_files_of_this_user_to_this_machine(tmp_path: Path, kind: str) -> None:
    session = tmp_path / "session_2026-01-02_00-00-00_000000_2"
    session.mkdir()
    file = session / "prom_metrics_service_discovery.json"
    file.write_text(json.dumps([{"targets": ["192.0.2.1:1" if kind == "elsewhere" else "127.0.0.1:1"]}]))
    if kind == "written by anybody":
        file.chmod(0o666)
    if kind == "link":
        file.rename(tmp_path / "moved")
        file.symlink_to(tmp_path / "moved")
    if kind == "elsewhere":
        assert not watch._is_here("192.0.2.1:1")
    else:
        with pytest.raises(OSError, match=r"another user's|symbolic links"):
            watch._read_own(file)
    with pytest.raises(UserError, match="no Ray cluster"):
        watch.find_cluster(tmp_path)


# It does not decide what is imported.


def test_a_checkpoint_imports_no_module_for_its_environment(
    saved_policy: Callable[..., Checkpoint], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "named_by_data.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    env = {"id": "named_by_data:Robot-v0", "episode_steps": 3}
    checkpoint = saved_policy(tmp_path / "trial", task="named_by_data:Robot-v0", env=env)
    with pytest.raises(UserError, match=r"imports no modules: if you trust named_by_data.*--module named_by_data\.py"):
        task_of(checkpoint)
    assert "named_by_data" not in sys.modules
    trust("named_by_data:Robot-v0")
    assert task_of(checkpoint).name == "named_by_data:Robot-v0"


# It does not decide what is read or written outside of it.


@pytest.mark.parametrize(
    "name", ["sweep.yaml", "trials.csv", "cells.csv", "journal.jsonl", "mlflow.json", "epic.csv", "tune", "lock"]
)
def test_a_link_out_of_a_folder_is_not_followed(folder: SweepFolder, tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside"
    outside.write_text("secret")
    (folder.path / name).unlink(missing_ok=True)
    (folder.path / name).symlink_to(outside)
    parts: dict[str, Callable[[], object]] = {
        "sweep.yaml": lambda: write_report(folder.path),
        "trials.csv": lambda: write_report(folder.path),
        "cells.csv": lambda: folder.cells,
        "journal.jsonl": lambda: folder.journal,
        "mlflow.json": lambda: find_runs(folder.path),
        "epic.csv": lambda: folder.epic,
        "tune": lambda: folder.tune,
        "lock": lambda: folder.locked().__enter__(),
    }
    with pytest.raises(UserError, match="is refused"):
        parts[name]()
    assert outside.read_text() == "secret"


def test_a_stored_sweep_file_has_no_base(folder: SweepFolder, tmp_path: Path) -> None:
    (tmp_path / "secret.yaml").write_text("name: secret")
    folder.sweep_file.write_text("base: ../../secret.yaml\n" + folder.sweep_file.read_text())
    with pytest.raises(UserError, match=r"base = .* is refused"):
        write_report(folder.path)


def test_labels_are_not_written_outside_of_the_folder(tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    (videos / "a.mp4").write_bytes(b"a video")
    (videos / "labels.sqlite").symlink_to(tmp_path / "outside.sqlite")
    with pytest.raises(UserError, match="is refused"):
        label_job(videos, None, "upright?")
    assert not (tmp_path / "outside.sqlite").exists()


# A password in an address is neither printed nor stored.


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("https://anna:s3cret@mlflow.example/a", "https://***@mlflow.example/a"),
        ("https://s3cret@mlflow.example", "https://***@mlflow.example"),
        ("https://anna:s3/cret@mlflow.example:5000", "https://***@mlflow.example:5000"),
        ("postgresql+psycopg2://anna:s3cret@[::1]:5432/db", "postgresql+psycopg2://***@[::1]:5432/db"),
        ("postgresql://host/db?user=anna&password=s3cret&x=1", "postgresql://host/db?user=anna&password=***&x=1"),
        ("--tracking-uri=https://anna:s3cret@mlflow.example", "--tracking-uri=https://***@mlflow.example"),
        ("sqlite:////home/anna@work/mlflow.db", "sqlite:////home/anna@work/mlflow.db"),
        ("http://127.0.0.1:5000/@x", "http://127.0.0.1:5000/@x"),
        ("results", "results"),
    ],
)
def test_an_address_is_shown_without_its_secrets(address: str, shown: str) -> None:
    assert without_secrets(address) == shown
    assert without_secrets(shown) == shown


def test_no_file_and_no_message_has_the_password(tmp_path: Path) -> None:
    address = "http://anna:s3cret%21@127.0.0.1:9"
    RunsFile(tracking_uri=address).write(tmp_path / "mlflow.json")
    with pytest.raises(UserError, match=r"http://\*\*\*@127\.0\.0\.1:9 does not answer") as caught:
        set_up_store(address)
    quoted = hide_secrets(f"could not log in at {address} as anna with s3cret! or s3cret%21", address)
    for text in ((tmp_path / "mlflow.json").read_text(), str(caught.value), quoted, mlflow_ui_command(address)):
        assert "s3cret" not in text


def test_a_file_in_the_working_folder_is_not_run_because_of_its_name(tmp_path: Path) -> None:
    """Pandas imports packages that may be installed, such as bottleneck. Modules that the user names are still found."""
    (tmp_path / "bottleneck.py").write_text("open('it-ran', 'w')")
    (tmp_path / "mine.py").write_text("open('mine-ran', 'w')")
    program = [sys.executable, "-P", "-c", "import sys; sys.argv[0] = 'vlm-rm'; from vlm_rm_sweeps.cli import main; main()"]
    ran = subprocess.run([*program, "labels", "."], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 2, ran.stderr
    assert not (tmp_path / "it-ran").exists()
    subprocess.run([*program, "--module", "mine", "rewards"], cwd=tmp_path, capture_output=True, check=True)
    assert (tmp_path / "mine-ran").exists()


def test_an_entry_of_this_package_makes_no_module_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_trusted_modules", set())
    known = GymEnv.model_validate(
        {
            "id": "Pendulum-v1",
            "episode_steps": 9,
            "wrappers": [{"name": "ClipAction"}, {"name": "gymnasium.wrappers:RecordVideo"}],
        }
    )
    with pytest.raises(UserError, match=r"'gymnasium.wrappers:RecordVideo' is named by data, which imports no modules"):
        known.task().make_env(None)
    for name in ("gymnasium.wrappers:NormalizeObservation", "gymnasium.wrappers.stateful_observation:NormalizeObservation"):
        mine = known.model_copy(update={"wrappers": (WrapperSettings(name=name),)})
        with pytest.raises(UserError, match="NormalizeObservation cannot be used"):
            make_task(mine)
