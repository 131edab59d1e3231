"""A sweep's runs out of MLflow, as pandas tables, and where its figures go. Shared by the scripts beside it."""

import math
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from mlflow.entities import Run
from scipy import stats

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.sweeping.tracking.mlflow_runs import find_runs

_PAGE = 1_000
_DRAWN = ["textures", "camera"]
TOLD_APART_BY = ["model", "alpha", "prompt", *_DRAWN, "seed"]
"""What trials differ in. A reference, which learns from no frame, has neither textures nor camera."""


class DoesNotApplyError(Exception):
    """A figure cannot be drawn of this sweep; the message says why."""


class SweepRuns:
    """The MLflow runs of the sweep, or screening, in a results folder.

    Raises SystemExit, with a message, if the folder is neither's, or its runs cannot be read. `children` are the runs of the trials
    that have finished.
    """

    def __init__(self, folder: Path) -> None:
        try:
            runs = find_runs(folder)
        except UserError as error:
            raise SystemExit(str(error)) from error
        self.folder = folder
        self._client, self._run_id = runs.client, runs.run_id
        self.children = [child for child in self._all_children(runs.experiment_id) if child.info.status == "FINISHED"]
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

    @property
    def is_screening(self) -> bool:
        return (self.folder / "screening.yaml").is_file()

    def trials(self) -> pd.DataFrame:
        """One row for each finished trial: `run_id`, its tags, and its last metrics."""
        rows: list[dict[str, Any]] = [
            {"run_id": child.info.run_id} | child.data.tags | _drawn(child) | child.data.metrics for child in self.children
        ]
        return pd.DataFrame(rows)

    def history(self, metric: str) -> pd.DataFrame:
        """All values of a metric: `run_id`, what trials are told apart by, `env_steps`, `value`. Empty if no trial has it."""
        columns = ["run_id", *TOLD_APART_BY, "env_steps", "value"]
        rows = [
            {"run_id": child.info.run_id}
            | {key: child.data.tags.get(key, "") for key in TOLD_APART_BY}
            | _drawn(child)
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


def _drawn(child: Run) -> dict[str, str]:
    """How a trial's states were drawn; empty for a reference, and where nothing was trained."""
    reference = child.data.tags["prompt"] == "-"
    return {key: "" if reference else child.data.tags.get(key, "") for key in _DRAWN}


def reward_model_trials(runs: SweepRuns) -> pd.DataFrame:
    """The trials that learned from a reward model, with alpha as a number. DoesNotApplyError if nothing did."""
    if runs.is_screening:
        raise DoesNotApplyError("it is a screening, which trains nothing: `prompts` shows all that it measured")
    table = runs.trials()
    table = table[table["prompt"] != "-"].assign(alpha=lambda trials: trials["alpha"].astype(float))
    if table.empty:
        raise DoesNotApplyError("no trial that learned from a reward model has finished")
    return table


def success_interval(values: pd.Series) -> pd.Series:
    """Mean of the seeds' success rates and its 95 % interval: `mean`, `low`, `high`; no interval for a single seed.

    Student's t, cut to [0, 1]. Where all seeds agree, that would be certain of everything: there it is Wilson's, with each seed as
    one trial, which no rates can exceed in variance.
    """
    known = values.dropna()
    count, mean = len(known), known.mean()
    if count < 2:
        low = high = float("nan")
    elif known.nunique() > 1:
        half = stats.t.ppf(0.975, count - 1) * known.std() / math.sqrt(count)
        low, high = max(0.0, mean - half), min(1.0, mean + half)
    else:
        low, high = _wilson(mean, count)
    return pd.Series({"mean": mean, "low": low, "high": high, "seeds": count})


def _wilson(share: float, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of `count` trials, which need not be a whole number of them."""
    z = stats.norm.ppf(0.975)
    centre = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def line_name(line: Mapping[str, Any], compared: pd.DataFrame) -> str:
    """The label of a line out of the values that it is for; prompt, textures and camera are named only where several are compared."""
    parts = {name: value for name, value in line.items() if name not in ("prompt", *_DRAWN) or compared[name].nunique() > 1}
    worded = {"alpha": "alpha {:g}", "textures": "{} textures", "camera": "{} camera", "seed": "seed {}"}
    return ", ".join(worded.get(name, "{}").format(value) for name, value in parts.items())


def draw_alone(draw: Callable[[SweepRuns], None]) -> None:
    """What a script does when it is run by itself: the figure of the folder that is its first argument."""
    if len(sys.argv) != 2:
        raise SystemExit(f"usage: python {sys.argv[0]} FOLDER, where FOLDER is a sweep's, such as results/quickstart-...")
    try:
        draw(SweepRuns(Path(sys.argv[1])))
    except DoesNotApplyError as error:
        raise SystemExit(f"{sys.argv[1]}: {error}") from error
