"""What all MLflow runs of this project have in common: the store, experiments, tags and parameters.

A sweep is one run with a child run for each trial; a screening, one with a child for each combination.
"""

import logging
import shlex
import sqlite3
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from mlflow.entities import LifecycleStage, Param
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.tracking.request_header import registry
from mlflow.tracking.request_header.abstract_request_header_provider import RequestHeaderProvider
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from vlm_rm_sweeps.errors import UserError, reason_of
from vlm_rm_sweeps.files import folder_locked
from vlm_rm_sweeps.metrics import REWARD
from vlm_rm_sweeps.process_defaults import prepare_mlflow
from vlm_rm_sweeps.sweeping.config.sections import Prompt
from vlm_rm_sweeps.sweeping.tracking.tracking_uri import hide_secrets, sqlite_file, without_secrets

_MAX_PARAM = 6000
_DRIVERS = {"psycopg": "'psycopg[binary]'", "psycopg2": "psycopg2-binary", "MySQLdb": "mysqlclient"}
"""What is installed for a module that opens a database, where the names differ."""


class OneRequestAConnection(RequestHeaderProvider):
    """Asks a server to close the connection after each answer.

    An MLflow server with several worker processes, which is the default, sends an answer in two packets, and the second one only when
    the first is acknowledged: uvicorn sets no TCP_NODELAY on the socket that its workers share. Linux puts that off by 40 ms on a
    connection that is kept, and does it at once on a new one.
    """

    def in_context(self) -> bool:
        """Return whether the header is sent: always."""
        return True

    def request_headers(self) -> dict[str, str]:
        """Return the header."""
        return {"Connection": "close"}


def _answer_at_once(tracking_uri: str) -> None:
    """Keep no connections to a server over plain HTTP; over https, a new one costs more than the wait."""
    # The list of MLflow's plugins: an installed one would act in the user's own processes, too.
    providers = registry._request_header_provider_registry
    if tracking_uri.startswith("http://") and not any(isinstance(each, OneRequestAConnection) for each in providers):
        providers.register(OneRequestAConnection)


def set_up_store(tracking_uri: str) -> None:
    """Create the tables of the MLflow database if they are missing.

    One process must do so before any other opens the database. So of several sweeps that start at once in a new results folder,
    the first one does it, and the others wait.

    Args:
        tracking_uri: The MLflow server or database.

    Raises:
        UserError: The server or database cannot be reached, or a package is missing for that kind of database.
    """
    prepare_mlflow()
    _answer_at_once(tracking_uri)
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    database = sqlite_file(tracking_uri)
    try:
        with _alone_in(database):
            if database is not None:
                _check_opens(database)
            MlflowClient(tracking_uri).search_experiments(max_results=1)
    except ModuleNotFoundError as error:  # SQLAlchemy looks for its driver when a database is opened
        raise UserError(
            f"MLflow at {without_secrets(tracking_uri)} needs the Python module {error.name}, which is not installed: `pip install "
            f"{_DRIVERS.get(error.name or '', error.name)}`, or name a server (http://...) with --tracking-uri, which needs none here"
        ) from error
    except Exception as error:  # whatever a database or a server may raise
        reason = hide_secrets(reason_of(error), tracking_uri)
        if database is not None:
            raise UserError(
                f"MLflow's database {database} cannot be used: {reason}. Make room on its disk if it is full, or name another one with "
                "--tracking-uri"
            ) from error
        raise UserError(
            f"MLflow at {without_secrets(tracking_uri)} does not answer: {reason}. Start its server, or name another with "
            "--tracking-uri"
        ) from error


def _check_opens(database: Path) -> None:
    """Raise SQLite's error for a file that it cannot open or write, which MLflow would try for minutes.

    Raises:
        sqlite3.Error: The file is a folder, no database, or cannot be written. A database that is only locked is left to MLflow.
    """
    with closing(sqlite3.connect(database)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise
        connection.rollback()


@contextmanager
def _alone_in(database: Path | None) -> Iterator[None]:
    """Let one process at a time open the databases of a folder; the system releases the lock however the process ends."""
    if database is None:
        yield
        return
    made = [each for each in (database.parent, *database.parent.parents) if not each.exists()]
    database.parent.mkdir(parents=True, exist_ok=True)
    try:
        with folder_locked(database.parent, wait=True):
            yield
    except BaseException:
        with suppress(OSError):  # somebody has put something in it
            for each in made:
                each.rmdir()
        raise


def has_run(tracking_uri: str, run_id: str) -> bool:
    """Whether an MLflow store has a run; not if it does not answer, or is no store."""
    try:
        return bool(MlflowClient(tracking_uri).get_run(run_id))
    except Exception:  # various: the file is not a database, or the server is not MLflow
        return False


def experiment_id(client: MlflowClient, tracking_uri: str, name: str, folder: Path) -> str:
    """Find or create an experiment.

    A server keeps its artifacts, which it takes over HTTP. Those of a database are kept beside the folder of the sweep or screening.

    Args:
        client: Client of the MLflow store.
        tracking_uri: The MLflow server or database.
        name: Name of the experiment.
        folder: The folder of the sweep or screening.

    Returns:
        Id of the experiment.

    Raises:
        UserError: An experiment of this name was deleted.
    """
    experiment = client.get_experiment_by_name(name)
    if experiment is not None and experiment.lifecycle_stage == LifecycleStage.DELETED:
        raise UserError(
            f"the MLflow experiment {name!r} was deleted: restore it (`mlflow experiments restore --experiment-id "
            f"{experiment.experiment_id}`), or delete it for good (`mlflow gc`)"
        )
    if experiment is not None:
        return str(experiment.experiment_id)
    # Of a database, artifacts would otherwise land in the working directory.
    location = None if is_server(tracking_uri) else (folder.parent / "mlartifacts").resolve().as_uri()
    try:
        return str(client.create_experiment(name, artifact_location=location))
    except MlflowException:
        made = client.get_experiment_by_name(name)  # by another sweep, in the meantime
        if made is None:
            raise
        return str(made.experiment_id)


def keeps_files_in(results: Path, artifact_uri: str) -> bool:
    """Whether a run keeps its files in a results folder: not if that has been moved, or is somebody else's.

    Args:
        results: The results folder, without links in its path.
        artifact_uri: Where the run keeps its files.

    Returns:
        Whether that is in the folder.
    """
    place = urlsplit(artifact_uri)
    return place.scheme in ("", "file") and Path(unquote(place.path)).resolve().is_relative_to(results)


def parent_tags(folder: Path, task: str) -> dict[str, str]:
    """Return the tags of the run of a sweep or screening, which its child runs have too."""
    return {"sweep": folder.name, "task": task}


def child_tags(
    parent_run_id: str, model_id: str, alpha: float | None, prompt_id: str, reward: str | None = None
) -> dict[str, str]:
    """Return the tags that identify a child run.

    Args:
        parent_run_id: The run of the sweep or screening.
        model_id: The model.
        alpha: Alpha of goal-baseline regularisation; None for a reference, and for another reward.
        prompt_id: The prompt.
        reward: The reward's label, if the file names rewards.

    Returns:
        Tags by name.
    """
    written = "-" if alpha is None else f"{alpha:g}"
    named = {} if reward is None else {REWARD: reward}
    return {MLFLOW_PARENT_RUN_ID: parent_run_id, "model": model_id, "alpha": written, "prompt": prompt_id} | named


def prompt_params(prompt: Prompt) -> dict[str, str]:
    """Return a prompt's id and all of its sentences."""
    return {"prompt": prompt.id, "goal": " | ".join(prompt.goal), "baseline": " | ".join(prompt.baseline)}


def as_params(params: Mapping[str, Any]) -> list[Param]:
    """Convert parameters for MLflow, cut to the length that it accepts."""
    return [Param(key, str(value)[:_MAX_PARAM]) for key, value in params.items()]


def is_server(tracking_uri: str) -> bool:
    """Whether an address is that of an MLflow server, and not of its database."""
    return urlsplit(without_secrets(tracking_uri)).scheme in ("http", "https")


def mlflow_ui_command(tracking_uri: str) -> str:
    """Compose the instruction for opening runs in a browser.

    Args:
        tracking_uri: The MLflow server or database.

    Returns:
        A shell command that serves a database on the loopback address without telemetry, or the server's address in words.
    """
    shown = without_secrets(tracking_uri)
    if is_server(tracking_uri):
        return f"a browser at {shown}"
    program = Path(sys.executable).parent / "mlflow"
    # The defaults of this package do not apply in a shell.
    quiet = ["env", "MLFLOW_DISABLE_TELEMETRY=true", "DO_NOT_TRACK=true"]
    return shlex.join([*quiet, str(program), "ui", "--host", "127.0.0.1", "--backend-store-uri", shown])
