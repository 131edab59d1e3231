"""Runs a screening: ranks every combination by `rank_by`, and writes a sweep file for the best.

Each combination is logged to MLflow as a trial is. The folder holds `screening.yaml` (the resolved file), `mlflow.json` (the
ids of its runs), `combinations.csv` (the ranking, rewritten after each model) and `best.yaml` (a sweep file for training).
Writing the last two does not wait for MLflow.
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

from vlm_rm_sweeps.errors import UserError, reason_of
from vlm_rm_sweeps.evaluation.compare import compare_models, load_for_measuring
from vlm_rm_sweeps.evaluation.ground_truth import Truth
from vlm_rm_sweeps.evaluation.measures import MEASURED, why_undefined
from vlm_rm_sweeps.evaluation.states import StateDataset
from vlm_rm_sweeps.files import write_whole
from vlm_rm_sweeps.metrics import (
    EPIC_DISTANCE,
    HEADINGS,
    PARAMETERS_MILLIONS,
    REWARD,
    SMALLER_IS_BETTER,
    RewardMeasure,
    RunStatus,
)
from vlm_rm_sweeps.sweeping.config.labelled_states import read_labelled
from vlm_rm_sweeps.sweeping.config.plan import plan_of
from vlm_rm_sweeps.sweeping.config.screening import Screening
from vlm_rm_sweeps.sweeping.config.sections import Combination
from vlm_rm_sweeps.sweeping.config.yaml_text import to_yaml
from vlm_rm_sweeps.sweeping.tracking.environment import COMMIT, environment_params
from vlm_rm_sweeps.sweeping.tracking.folder import make_folder, new_path
from vlm_rm_sweeps.sweeping.tracking.mlflow_store import (
    as_params,
    child_tags,
    experiment_id,
    parent_tags,
    prompt_params,
    set_up_store,
)
from vlm_rm_sweeps.sweeping.tracking.runs_file import RunsFile
from vlm_rm_sweeps.sweeping.tracking.tracking_uri import hide_secrets, without_secrets

MEASURES = ("states", *MEASURED, PARAMETERS_MILLIONS)
"""The metrics of a combination's run."""


@dataclass(frozen=True)
class ScreeningOutcome:
    """Results of a screening.

    Attributes:
        folder: The screening's folder.
        ranking: A row for each combination, best first.
        best_file: A sweep file that trains the best combinations.
        states: Number of states in the data set.
        images_encoded: Images that the models encoded.
        seconds: Wall time.
    """

    folder: Path
    ranking: pd.DataFrame
    best_file: Path
    states: int
    images_encoded: int
    seconds: float


def read_screened(screening: Screening) -> tuple[StateDataset, Truth]:
    """Read the states that a screening ranks rewards on, before any model is loaded.

    Args:
        screening: The screening.

    Returns:
        The data set and the ground truth of its states.

    Raises:
        UserError: The data set or its labels cannot be used, or the measure to rank by is undefined on it.
    """
    dataset, truth = read_labelled(screening.settings, screening.plan, "screen")
    rank_by = screening.settings.rank_by
    _refuse_undefined(rank_by, why_undefined(truth, dataset.trajectories).get(rank_by))
    return dataset, truth


def run_screening(screening: Screening, results: Path, tracking_uri: str, say: Callable[[str], None]) -> ScreeningOutcome:
    """Rank all combinations of a screening file.

    Args:
        screening: The screening.
        results: The folder below which the screening gets a folder of its own.
        tracking_uri: The MLflow server or database.
        say: Prints a line of progress.

    Returns:
        The ranking and the files that were written.

    Raises:
        UserError: The data set or its labels cannot be used, the measure to rank by is undefined on it, or MLflow does not
            respond, which is reported before any model is loaded; the measure is undefined for every reward; or MLflow did not
            accept all runs, which is reported after everything is measured and written.
    """
    started = time.monotonic()
    dataset, truth = read_screened(screening)
    rank_by = screening.settings.rank_by
    folder = new_path(results, screening.plan.sweep.name)
    resolved = screening.plan.sweep.model_dump(mode="json") | {"screen": screening.settings.model_dump(mode="json")}
    set_up_store(tracking_uri)
    make_folder(folder / "screening.yaml", resolved)
    try:
        tracker = _Tracker(screening, folder, tracking_uri)
    except Exception as error:  # whatever a database or a server may raise
        reason = hide_secrets(reason_of(error), tracking_uri)
        raise UserError(f"MLflow at {without_secrets(tracking_uri)} takes no runs ({reason}); nothing was measured") from error
    ranking_file = folder / "combinations.csv"
    tables, written, encoded = [], [], 0
    try:
        # One thread writes to MLflow while the next model is measured: both take about the same time for a small model.
        with ThreadPoolExecutor(max_workers=1) as writer:
            for table, images in _measured(screening, dataset, truth, say):
                tables.append(table)
                ranking = _ranked(pd.concat(tables, ignore_index=True), rank_by)
                write_whole(ranking_file, ranking.to_csv(index=False))
                written.append(writer.submit(tracker.log, table))
                encoded += images
            best_file = _write_best(screening, ranking, folder)
            say(f"writing {len(ranking):,} runs to MLflow")
    except BaseException:
        if tables:
            say(f"what was measured before is in {ranking_file}")
        with suppress(Exception):  # MLflow may be unavailable too
            tracker.end(RunStatus.FAILED, {})
        raise
    seconds = time.monotonic() - started
    measured = {
        "images_encoded": encoded,
        "combinations": len(ranking),
        "screening_seconds": seconds,
        f"best_{EPIC_DISTANCE}": float(ranking[EPIC_DISTANCE].min()),
        f"best_{rank_by}": float(ranking[rank_by].iloc[0]),
    }
    try:
        for each in written:
            each.result()
        tracker.end(RunStatus.FINISHED, measured)
    except Exception as error:  # as above
        reason = hide_secrets(reason_of(error), tracking_uri)
        raise UserError(
            f"MLflow at {without_secrets(tracking_uri)} did not take all runs ({reason}), and they are "
            f"incomplete there. Everything is measured: the ranking is {ranking_file}, and the best are {best_file}"
        ) from error
    return ScreeningOutcome(folder, ranking, best_file, len(dataset), encoded, seconds)


def _measured(
    screening: Screening, dataset: StateDataset, truth: Truth, say: Callable[[str], None]
) -> Iterator[tuple[pd.DataFrame, int]]:
    """Yield the table of each model, and the number of images that it encoded."""
    plan = screening.plan
    for model_id in plan.trained_models:
        started = time.monotonic()
        specs, with_version = plan.specs_of(model_id), plan.models[model_id].model_id
        for part in compare_models(
            dataset, truth, [with_version], specs, lambda name: load_for_measuring(name, plan.sweep.pool.precision), say
        ):
            rank_by, table = screening.settings.rank_by, part.table.assign(model=model_id)
            best = _ranked(table, rank_by)[rank_by].iloc[0]
            say(
                f"{model_id}: {part.images_encoded:,} images encoded and {len(table):,} combinations measured in "
                f"{time.monotonic() - started:.1f} s, best {HEADINGS[rank_by]} {best:.3f}"
            )
            yield table, part.images_encoded


def _ranked(table: pd.DataFrame, rank_by: RewardMeasure) -> pd.DataFrame:
    """Sort combinations, the best first and those without a value last."""
    return table.sort_values(rank_by, ascending=rank_by in SMALLER_IS_BETTER, kind="stable", ignore_index=True)


def _refuse_undefined(rank_by: RewardMeasure, reason: str | None) -> None:
    if reason:
        others = ", ".join(name for name in HEADINGS if name != rank_by)
        raise UserError(f"screen.rank_by = {rank_by!r} has no value here, because {reason}: choose another of {others}")


def _write_best(screening: Screening, ranking: pd.DataFrame, folder: Path) -> Path:
    rank_by = screening.settings.rank_by
    rows = ranking.dropna(subset=[rank_by]).head(screening.settings.keep).to_dict("records")
    if not rows:
        _refuse_undefined(rank_by, "it is undefined for every combination")
    best = [
        Combination(
            model=row["model"], alpha=None if REWARD in row else row["alpha"], reward=row.get(REWARD), prompt=row["prompt"]
        )
        for row in rows
    ]
    file, keys = folder / "best.yaml", screening.best_sweep(best)
    plan_of(keys)  # the sweep file that is recommended must be valid
    write_whole(file, to_yaml(keys))
    return file


class _Tracker:
    """The MLflow runs of a screening, structured as a sweep's: one run with a child run for each combination."""

    def __init__(self, screening: Screening, folder: Path, tracking_uri: str) -> None:
        self._screening, self._folder = screening, folder
        self._client = MlflowClient(tracking_uri)
        task = screening.plan.task.name
        self._experiment_id = experiment_id(self._client, tracking_uri, screening.plan.sweep.name, folder)
        self._tags = parent_tags(folder, task)
        self._run_id = self._create_run(folder.name, {})
        environment = environment_params()
        self._common = {
            "task": task,
            "states": str(screening.settings.states),
            "truth": screening.settings.truth,
            COMMIT: environment[COMMIT],
        }
        self._client.log_batch(self._run_id, params=as_params(self._common | environment))
        RunsFile(tracking_uri=tracking_uri, experiment_id=self._experiment_id, run_id=self._run_id).write(
            folder / "mlflow.json"
        )

    def log(self, table: pd.DataFrame) -> None:
        """Create a finished child run for each row."""
        prompts = {prompt.id: prompt for prompt in self._screening.plan.prompts}
        for row in table.to_dict("records"):
            prompt, label = prompts[row["prompt"]], row.get(REWARD)
            alpha = None if math.isnan(row["alpha"]) else row["alpha"]
            shown = f"alpha {alpha:g}" if label is None else f"reward {label}"
            run_id = self._create_run(
                f"{row['model']}, {shown}, prompt {prompt.id}",
                child_tags(self._run_id, row["model"], alpha, prompt.id, label),
            )
            named = ({} if alpha is None else {"alpha": f"{alpha:g}"}) | ({} if label is None else {REWARD: label})
            described = {"model": row["model"], **named, PARAMETERS_MILLIONS: f"{row[PARAMETERS_MILLIONS]:g}"}
            # One call for both, because large screenings wait for MLflow.
            self._client.log_batch(
                run_id,
                metrics=_as_metrics({name: float(row[name]) for name in MEASURES if math.isfinite(row[name])}),
                params=as_params(self._common | prompt_params(prompt) | described),
            )
            self._client.set_terminated(run_id)

    def end(self, status: RunStatus, metrics: dict[str, float]) -> None:
        """Log the final metrics and the folder's files, and end the screening's run."""
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
