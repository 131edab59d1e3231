"""Finds the MLflow runs of a finished sweep or screening, for figures and reports."""

from dataclasses import dataclass
from pathlib import Path

from mlflow.tracking import MlflowClient

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.sweeping.tracking.mlflow_store import read_runs_file, set_up_store


@dataclass(frozen=True)
class FinishedRuns:
    """The runs of one folder: `run_id` is that of the sweep or screening; its children are in the same experiment."""

    client: MlflowClient
    run_id: str
    experiment_id: str


def find_runs(folder: Path) -> FinishedRuns:
    """Find the runs that a folder's mlflow.json names, without creating a database.

    Args:
        folder: The folder of a sweep or screening.

    Returns:
        The folder's runs and a client of their MLflow store.

    Raises:
        UserError: The file is missing, damaged or names no run yet, its database is missing (results may have moved since), or
            MLflow does not respond.
    """
    file = folder / "mlflow.json"
    try:
        named = read_runs_file(file)
    except OSError as error:
        raise UserError(
            f"{folder} is not the folder of a sweep (it has no {file.name}): expected one such as results/quickstart-..."
        ) from error
    if named.run_id is None or named.experiment_id is None:
        raise UserError(f"{file} names no run yet, because MLflow was not reachable: resume the sweep")
    scheme, _, path = named.tracking_uri.partition(":///")
    database = Path(path) if scheme == "sqlite" else None
    if database and not database.is_file():
        raise UserError(
            f"MLflow's database {database}, which {file} names, does not exist: restore it or, if the results have moved, write its "
            "new place into that file, under tracking_uri"
        )
    set_up_store(named.tracking_uri)
    return FinishedRuns(MlflowClient(named.tracking_uri), named.run_id, named.experiment_id)
