"""A sweep's runs out of MLflow, as pandas tables, and where its figures go. Shared by the scripts beside it."""

import json
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from scipy import stats

_PAGE = 1_000


class DoesNotApplyError(Exception):
    """A figure cannot be drawn of this sweep; the message says why."""


class SweepRuns:
    """The MLflow runs of the sweep, or screening, in a results folder.

    Raises SystemExit, with a message, if the folder is neither's. `children` are the runs of the trials that have finished.
    """

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
        self.children = [child for child in self._all_children(runs["experiment_id"]) if child.info.status == "FINISHED"]
        if not self.children:
            raise SystemExit(f"{folder} has no finished trial yet")

    def _all_children(self, experiment_id: str) -> Iterator[Run]:
        """MLflow gives them page by page."""
        condition, token = f"tags.mlflow.parentRunId = '{self._run_id}'", None
        while True:
            page = self._client.search_runs(
                [experiment_id], filter_string=condition, order_by=["start_time ASC"], max_results=_PAGE, page_token=token
            )
            yield from page
            token = page.token
            if not token:
                return

    def trials(self) -> pd.DataFrame:
        """One row for each finished trial: `run_id`, its tags and its last metrics."""
        rows: list[dict[str, Any]] = [
            {"run_id": child.info.run_id} | child.data.tags | child.data.metrics for child in self.children
        ]
        return pd.DataFrame(rows)

    def history(self, metric: str) -> pd.DataFrame:
        """All values of a metric: `run_id`, `model`, `alpha`, `prompt`, `seed`, `env_steps`, `value`. Empty if no trial has it."""
        columns = ["run_id", "model", "alpha", "prompt", "seed", "env_steps", "value"]
        rows = [
            {"run_id": child.info.run_id}
            | {key: child.data.tags.get(key, "") for key in ("model", "alpha", "prompt", "seed")}
            | {"env_steps": point.step, "value": point.value}
            for child in self.children
            if metric in child.data.metrics
            for point in self._client.get_metric_history(child.info.run_id, metric)
        ]
        return pd.DataFrame(rows, columns=columns)

    def save(self, figure: Figure, data: pd.DataFrame, name: str) -> None:
        """Write `name`.png, .svg and .csv into the sweep's `figures` folder and attach them to its MLflow run.

        Figures that were drawn before are drawn anew.
        """
        target = self.folder / "figures"
        target.mkdir(exist_ok=True)
        for suffix in ("png", "svg"):
            figure.savefig(target / f"{name}.{suffix}", dpi=150, bbox_inches="tight")
            self._log(target / f"{name}.{suffix}")
        plt.close(figure)
        self.save_table(data, name)

    def save_table(self, data: pd.DataFrame, name: str) -> None:
        """Write `name`.csv into the `figures` folder and attach it."""
        file = self.folder / "figures" / f"{name}.csv"
        data.to_csv(file, index=False)
        self._log(file)

    def _log(self, file: Path) -> None:
        self._client.log_artifact(self._run_id, str(file), "figures")
        print(file)


def reward_model_trials(runs: SweepRuns) -> pd.DataFrame:
    """The trials that learned from a reward model, with alpha as a number. DoesNotApplyError if there are none."""
    table = runs.trials()
    table = table[table["prompt"] != "-"].assign(alpha=lambda trials: trials["alpha"].astype(float))
    if table.empty:
        raise DoesNotApplyError("no trial that learned from a reward model has finished")
    return table


def mean_and_interval(values: pd.Series) -> pd.Series:
    """Mean of the seeds' values and its 95 % interval (Student's t): `mean`, `low`, `high`; no interval for a single seed."""
    known = values.dropna()
    count, mean = len(known), known.mean()
    half = stats.t.ppf(0.975, count - 1) * known.std() / math.sqrt(count) if count > 1 else float("nan")
    return pd.Series({"mean": mean, "low": mean - half, "high": mean + half, "seeds": count})


def line_name(prompts: int, model: str = "", alpha: float | None = None, prompt: str = "") -> str:
    """The label of a line; the prompt is named only where several are compared."""
    parts = [model, f"alpha {alpha:g}" if alpha is not None else "", prompt if prompts > 1 else ""]
    return ", ".join(part for part in parts if part)


def draw_alone(draw: Callable[[SweepRuns], None]) -> None:
    """What a script does when it is run by itself: the figure of the folder that is its first argument."""
    if len(sys.argv) != 2:
        raise SystemExit(f"usage: python {sys.argv[0]} FOLDER, where FOLDER is a sweep's, such as results/quickstart-...")
    try:
        draw(SweepRuns(Path(sys.argv[1])))
    except DoesNotApplyError as error:
        raise SystemExit(f"{sys.argv[1]}: {error}") from error
