"""`mlflow.json` in a results folder: where the MLflow runs are. Reading it needs no MLflow, whose import takes seconds."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, TypeAdapter

from vlm_rm_sweeps.files import read_json, write_whole
from vlm_rm_sweeps.sweeping.tracking.tracking_uri import without_secrets


class RunsFile(BaseModel):
    """Content of `mlflow.json` in a results folder: where the MLflow runs are.

    Attributes:
        tracking_uri: The server or database, without secrets. Nothing connects to it because this file says so.
        experiment_id: The experiment of all runs; None before it is known.
        run_id: The run of the sweep or screening; None before it is known.
        trials: The run of each trial, by trial id.
        delivered: Id of the last journal entry up to which everything has reached MLflow.
    """

    model_config = ConfigDict(frozen=True)

    tracking_uri: Annotated[str, AfterValidator(without_secrets)]
    experiment_id: str | None = None
    run_id: str | None = None
    trials: dict[str, str] = {}
    delivered: str | None = None

    def write(self, file: Path) -> None:
        """Write the file atomically.

        Args:
            file: Path of `mlflow.json`; replaced if it exists.

        Raises:
            OSError: It cannot be written; the old content is still there.
        """
        write_whole(file, self.model_dump_json(indent=2) + "\n")


_RUNS_FILE = TypeAdapter(RunsFile)


def read_runs_file(file: Path) -> RunsFile:
    """Read `mlflow.json`.

    Args:
        file: Path of the file.

    Returns:
        Its content.

    Raises:
        DamagedFileError: The file is missing, cannot be read or is damaged.
    """
    return read_json(file, _RUNS_FILE, "restore it, or resume the sweep")
