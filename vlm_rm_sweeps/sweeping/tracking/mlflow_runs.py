"""The MLflow runs of a sweep that was run, or screening, for whoever reads them: figures and reports."""

import json
from dataclasses import dataclass
from pathlib import Path

from mlflow.tracking import MlflowClient

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.sweeping.tracking.mlflow_mirror import set_up_store


@dataclass(frozen=True)
class FinishedRuns:
    """Where the runs of one folder are: its own, and in the same experiment those of its trials."""

    client: MlflowClient
    run_id: str
    experiment_id: str


def find_runs(folder: Path) -> FinishedRuns:
    """What mlflow.json in a folder leads to. Makes no database.

    Raises UserError if there is no such file or it is damaged, if its database is not there (results may have moved since), or if
    MLflow does not answer.
    """
    file = folder / "mlflow.json"
    try:
        named = json.loads(file.read_text(encoding="utf-8"))
        uri, run_id, experiment_id = (str(named[name]) for name in ("tracking_uri", "run_id", "experiment_id"))
    except OSError as error:
        raise UserError(
            f"{folder} is no sweep's folder (it has no {file.name}): expected one such as results/quickstart-..."
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} is damaged ({type(error).__name__}: {error}): bring it back, or resume the sweep") from error
    scheme, _, path = uri.partition(":///")
    database = Path(path) if scheme == "sqlite" else None
    if database and not database.is_file():
        raise UserError(
            f"{database} is not there, the MLflow database that {file} names: bring it back or, if the results have moved, put its new "
            "place into that file, under tracking_uri"
        )
    set_up_store(uri)
    return FinishedRuns(MlflowClient(uri), run_id, experiment_id)
