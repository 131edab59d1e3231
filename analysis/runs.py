"""A sweep's runs out of MLflow, as pandas tables, and where its figures go. Shared by the scripts beside it."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from mlflow.tracking import MlflowClient


class SweepRuns:
    """The MLflow runs of the sweep in a results folder. Raises SystemExit, with a message, if the folder is not a sweep's."""

    def __init__(self, folder: Path) -> None:
        try:
            runs = json.loads((folder / "mlflow.json").read_text())
        except OSError as error:
            raise SystemExit(
                f"{folder} is no sweep's folder (it has no mlflow.json): expected one such as results/quickstart-..."
            ) from error
        self.folder = folder
        self._client = MlflowClient(runs["tracking_uri"])
        self._run_id = runs["run_id"]
        children = self._client.search_runs(
            [runs["experiment_id"]], filter_string=f"tags.mlflow.parentRunId = '{self._run_id}'", order_by=["start_time ASC"]
        )
        self.children = [child for child in children if child.info.status == "FINISHED"]
        if not self.children:
            raise SystemExit(f"{folder} has no finished trial yet")

    def trials(self) -> pd.DataFrame:
        """One row for each finished trial: `run_id`, its tags and its last metrics."""
        rows: list[dict[str, Any]] = [
            {"run_id": child.info.run_id} | child.data.tags | child.data.metrics for child in self.children
        ]
        return pd.DataFrame(rows)

    def history(self, metric: str) -> pd.DataFrame:
        """All values of a metric: `model`, `alpha`, `prompt`, `seed`, `env_steps`, `value`."""
        rows = [
            {key: child.data.tags[key] for key in ("model", "alpha", "prompt", "seed")}
            | {"env_steps": point.step, "value": point.value}
            for child in self.children
            for point in self._client.get_metric_history(child.info.run_id, metric)
        ]
        return pd.DataFrame(rows)

    def save(self, figure: Figure, data: pd.DataFrame, name: str) -> None:
        """Write `name`.png, .svg and .csv into the sweep's `figures` folder and attach them to its MLflow run."""
        target = self.folder / "figures"
        target.mkdir(exist_ok=True)
        for suffix in ("png", "svg"):
            figure.savefig(target / f"{name}.{suffix}", dpi=150, bbox_inches="tight")
        data.to_csv(target / f"{name}.csv", index=False)
        for file in sorted(target.glob(f"{name}.*")):
            self._client.log_artifact(self._run_id, str(file), "figures")
            print(file)
