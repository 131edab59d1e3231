"""Runs a screening: ranks every combination by EPIC distance, logs each to MLflow as a trial is, writes a sweep of the best.

The folder holds `screening.yaml` (the resolved file), `mlflow.json` (where its runs are), `combinations.csv` (the ranking, after
each model of all models so far) and `best.yaml` (a sweep file for training). Neither waits for MLflow.
"""

import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from mlflow.entities import Metric, RunTag
from mlflow.tracking import MlflowClient

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.evaluation.compare import Specs, compare_models, load_for_measuring
from vlm_rm_sweeps.evaluation.ground_truth import Truth
from vlm_rm_sweeps.evaluation.states import StateDataset
from vlm_rm_sweeps.sweeping.config.labelled_states import read_labelled
from vlm_rm_sweeps.sweeping.config.screening import Screening
from vlm_rm_sweeps.sweeping.config.sweep import Combination, Sweep, check_keys
from vlm_rm_sweeps.sweeping.tracking.folder import make_folder, new_path, to_yaml
from vlm_rm_sweeps.sweeping.tracking.mlflow_mirror import (
    as_params,
    child_tags,
    environment_params,
    experiment_id,
    keep_runs,
    parent_tags,
    prompt_params,
    set_up_store,
)

MEASURES = (
    "states",
    "epic_distance",
    "epic_low",
    "epic_high",
    "pearson",
    "spearman",
    "roc_auc",
    "false_positive_rate",
    "parameters_millions",
)
"""The metrics of a combination's run."""


@dataclass(frozen=True)
class ScreeningOutcome:
    """What `run_screening` leaves: `ranking` has a row for each combination, best first; `best_file` is a sweep file."""

    folder: Path
    ranking: pd.DataFrame
    best_file: Path
    states: int
    images_encoded: int
    seconds: float


def run_screening(screening: Screening, results: Path, tracking_uri: str, say: Callable[[str], None]) -> ScreeningOutcome:
    """Rank all combinations of a checked screening file and write them to a new folder below `results`.

    Raises UserError, before any model is loaded, if the data set or its labels cannot be used; when all is measured and written, if
    MLflow did not take it.
    """
    started = time.monotonic()
    dataset, truth = read_labelled(screening.settings, screening.sweep, "screen")
    folder = new_path(results, screening.sweep.name)
    resolved = screening.sweep.model_dump(mode="json") | {"screen": screening.settings.model_dump(mode="json")}
    make_folder(folder / "screening.yaml", resolved)
    set_up_store(tracking_uri)
    try:
        tracker = _Tracker(screening, folder, tracking_uri)
    except Exception as error:  # whatever a database or a server may raise
        raise UserError(f"MLflow at {tracking_uri} takes no runs ({_first_line(error)}); nothing was measured") from error
    ranking_file = folder / "combinations.csv"
    tables, written, encoded = [], [], 0
    try:
        # One thread writes to MLflow, which takes about as long as a small model takes, while the next model is measured.
        with ThreadPoolExecutor(max_workers=1) as writer:
            for table, images in _measured(screening, dataset, truth, say):
                tables.append(table)
                ranking = pd.concat(tables, ignore_index=True).sort_values("epic_distance", kind="stable", ignore_index=True)
                ranking.to_csv(ranking_file, index=False)
                written.append(writer.submit(tracker.log, table))
                encoded += images
            best_file = _write_best(screening, ranking, folder)
            say(f"writing {len(ranking):,} runs to MLflow")
    except BaseException:
        if tables:
            say(f"what was measured before is in {ranking_file}")
        with suppress(Exception):  # MLflow may be away, too
            tracker.end("FAILED", {})
        raise
    seconds = time.monotonic() - started
    best_distance = float(ranking["epic_distance"].iloc[0])
    measured = {
        "images_encoded": encoded,
        "combinations": len(ranking),
        "screening_seconds": seconds,
        "best_epic_distance": best_distance,
    }
    try:
        for each in written:
            each.result()
        tracker.end("FINISHED", measured)
    except Exception as error:  # as above
        raise UserError(
            f"MLflow at {tracking_uri} did not take all runs ({_first_line(error)}), and they are "
            f"incomplete there. Everything is measured: the ranking is {ranking_file}, and the best are {best_file}"
        ) from error
    return ScreeningOutcome(folder, ranking, best_file, len(dataset), encoded, seconds)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _measured(
    screening: Screening, dataset: StateDataset, truth: Truth, say: Callable[[str], None]
) -> Iterator[tuple[pd.DataFrame, int]]:
    """One model's table, and how many images it encoded, after the other."""
    sweep = screening.sweep
    for model_id in sweep.models:
        started = time.monotonic()
        specs: Specs = {
            (alpha, prompt.id): prompt.spec(alpha) for model, alpha, prompt in sweep.combinations() if model == model_id
        }
        for part in compare_models(
            dataset, truth, [model_id], specs, lambda name: load_for_measuring(name, sweep.pool.precision)
        ):
            best = part.table["epic_distance"].min()
            say(
                f"{model_id}: {part.images_encoded:,} images encoded and {len(part.table):,} combinations measured in "
                f"{time.monotonic() - started:.1f} s, best EPIC distance {best:.3f}"
            )
            yield part.table, part.images_encoded


def _write_best(screening: Screening, ranking: pd.DataFrame, folder: Path) -> Path:
    rows = ranking.dropna(subset=["epic_distance"]).head(screening.settings.keep).to_dict("records")
    best = [Combination(model=row["model"], alpha=row["alpha"], prompt=row["prompt"]) for row in rows]
    file, keys = folder / "best.yaml", screening.best_sweep(best)
    check_keys(Sweep, keys, file)  # what this command recommends must be accepted by the next
    file.write_text(to_yaml(keys), encoding="utf-8")
    return file


class _Tracker:
    """The MLflow runs of a screening, in the form of a sweep's: one for the screening, a child for each combination."""

    def __init__(self, screening: Screening, folder: Path, tracking_uri: str) -> None:
        self._screening, self._folder = screening, folder
        self._client = MlflowClient(tracking_uri)
        task = str(screening.sweep.task)
        self._experiment_id = experiment_id(self._client, screening.sweep.name, folder)
        self._tags = parent_tags(folder, task)
        self._run_id = self._create_run(folder.name, {})
        environment = environment_params()
        self._common = {
            "task": task,
            "states": str(screening.settings.states),
            "truth": screening.settings.truth,
            "git_commit": environment["git_commit"],
        }
        self._client.log_batch(self._run_id, params=as_params(self._common | environment))
        runs = {"tracking_uri": tracking_uri, "experiment_id": self._experiment_id, "run_id": self._run_id}
        keep_runs(folder / "mlflow.json", runs)

    def log(self, table: pd.DataFrame) -> None:
        """A finished child run for each row."""
        prompts = {prompt.id: prompt for prompt in self._screening.sweep.wordings()}
        for row in table.to_dict("records"):
            prompt, alpha = prompts[row["prompt"]], f"{row['alpha']:g}"
            run_id = self._create_run(
                f"{row['model']}, alpha {alpha}, prompt {prompt.id}",
                child_tags(self._run_id, row["model"], row["alpha"], prompt.id),
            )
            described = {"model": row["model"], "alpha": alpha, "parameters_millions": f"{row['parameters_millions']:g}"}
            # One call for both: a large screening waits for MLflow.
            self._client.log_batch(
                run_id,
                metrics=_as_metrics({name: float(row[name]) for name in MEASURES if math.isfinite(row[name])}),
                params=as_params(self._common | prompt_params(prompt) | described),
            )
            self._client.set_terminated(run_id)

    def end(self, status: str, metrics: dict[str, float]) -> None:
        """Close the screening's run, with its files."""
        self._client.log_batch(self._run_id, metrics=_as_metrics(metrics), tags=[RunTag("kind", "screening")])
        for file in sorted(self._folder.glob("*.*")):
            self._client.log_artifact(self._run_id, str(file))
        self._client.set_terminated(self._run_id, status)

    def _create_run(self, name: str, tags: dict[str, str]) -> str:
        run_id: str = self._client.create_run(self._experiment_id, tags=self._tags | tags, run_name=name).info.run_id
        return run_id


def _as_metrics(values: dict[str, float]) -> list[Metric]:
    now = int(time.time() * 1000)
    return [Metric(name, value, now, 0) for name, value in values.items()]
