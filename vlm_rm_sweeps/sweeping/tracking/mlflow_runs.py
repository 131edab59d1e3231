"""Finds the MLflow runs of a finished sweep or screening, for figures and reports.

A folder may be somebody else's. So its mlflow.json does not decide where this process connects, and the database beside it does
not decide where files are written.
"""

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from mlflow.tracking import MlflowClient

from vlm_rm_sweeps.errors import UserError, shown
from vlm_rm_sweeps.files import SQLITE_ERRORS, file_inside
from vlm_rm_sweeps.sweeping.tracking.folder import DATABASE, default_tracking_uri
from vlm_rm_sweeps.sweeping.tracking.mlflow_store import has_run, keeps_files_in, set_up_store
from vlm_rm_sweeps.sweeping.tracking.runs_file import RunsFile, read_runs_file
from vlm_rm_sweeps.sweeping.tracking.tracking_uri import sqlite_file, without_secrets


@dataclass(frozen=True)
class FinishedRuns:
    """The runs of one folder.

    Attributes:
        client: Client of their MLflow store.
        run_id: The run of the sweep or screening.
        experiment_id: The experiment of that run and its children.
        attachable: Whether files may be attached to the run: it keeps them in a store that the user named, or in the results
            folder.
    """

    client: MlflowClient
    run_id: str
    experiment_id: str
    attachable: bool


def find_runs(folder: Path, tracking_uri: str | None = None) -> FinishedRuns:
    """Find the runs of a folder, without creating a database.

    They are looked for in the store that the user names, then in the database of the results folder that the folder lies in.

    Args:
        folder: The folder of a sweep or screening.
        tracking_uri: The MLflow server or database that the user named on the command line or in the environment, if any.

    Returns:
        The folder's runs and a client of their MLflow store.

    Raises:
        UserError: The folder's mlflow.json is missing, damaged or names no run yet, the runs are in none of the two stores, or
            MLflow does not respond.
    """
    file = file_inside(folder, "mlflow.json")
    if not file.exists():
        raise UserError(
            f"{folder} is not the folder of a sweep (it has no {file.name}): expected one such as results/quickstart-..."
        )
    named = read_runs_file(file)
    if named.run_id is None or named.experiment_id is None:
        raise UserError(f"{file} names no run yet, because MLflow was not reachable: resume the sweep")
    results = folder.resolve().parent
    for uri, trusted in ((tracking_uri, True), (_database_in(results), False)):
        if uri is None:
            continue
        _check_database(sqlite_file(uri), trusted)
        set_up_store(uri)
        if has_run(uri, named.run_id):
            client = MlflowClient(uri)
            attachable = trusted or keeps_files_in(results, client.get_run(named.run_id).info.artifact_uri)
            return FinishedRuns(client, named.run_id, named.experiment_id, attachable)
    raise UserError(_not_found(folder, results, named, tracking_uri))


def _database_in(results: Path) -> str | None:
    """Return the address of a results folder's own database; None if it has none."""
    return default_tracking_uri(results) if file_inside(results, DATABASE).is_file() else None


def _check_database(file: Path | None, trusted: bool) -> None:
    """Refuse a database that is not there or not MLflow's: MLflow would make its tables in it.

    Args:
        file: The file of an SQLite database; None for any other store.
        trusted: Whether the user has named it. Another one must have no views: they compute what is read, perhaps without end.

    Raises:
        UserError: It is refused.
    """
    if file is None:
        return
    if not file.is_file():
        raise UserError(f"MLflow's database {file} does not exist: restore it, or name another with --tracking-uri")
    try:
        with closing(sqlite3.connect(f"file:{quote(str(file.absolute()))}?mode=ro", uri=True)) as connection:
            found = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone()
            view = connection.execute("SELECT name FROM sqlite_master WHERE type = 'view'").fetchone()
    except SQLITE_ERRORS as error:
        raise UserError(f"{file} is not MLflow's database ({error}): name another with --tracking-uri") from error
    if found is None:
        raise UserError(f"{file} is not MLflow's database: name another with --tracking-uri")
    if view is not None and not trusted:
        raise UserError(
            f"{file} has a view, {shown(view[0])}, and MLflow makes none: if you trust that database, name it with --tracking-uri"
        )


def _not_found(folder: Path, results: Path, named: RunsFile, tracking_uri: str | None) -> str:
    looked = [without_secrets(tracking_uri)] if tracking_uri else []
    looked += [str(results / DATABASE)]
    return (
        f"the runs of {folder} are not in {' or '.join(looked)}. Its mlflow.json says that they are in {named.tracking_uri}, but a "
        "folder does not decide where to connect: if you trust that address, name it with --tracking-uri or MLFLOW_TRACKING_URI"
    )
