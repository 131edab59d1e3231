"""Shared by the scripts in this folder: a sweep's MLflow runs as pandas tables, and the saving of its figures."""

import argparse
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from mlflow.entities import Run

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.evaluation.over_seeds import iqm
from vlm_rm_sweeps.files import file_inside, new_output
from vlm_rm_sweeps.metrics import ENV_STEPS, EVALUATION, PARAMETERS_MILLIONS, REWARD, SAMPLE, SUCCESS, TRUE_RETURN, RunStatus
from vlm_rm_sweeps.palette import model_colours
from vlm_rm_sweeps.sweeping.config.trial import REFERENCE_PROMPT
from vlm_rm_sweeps.sweeping.tracking.folder import SweepFolder
from vlm_rm_sweeps.sweeping.tracking.mlflow_runs import find_runs

_PAGE = 1_000
_RENDERING = ["textures", "camera"]
TRIAL_TAGS = ["model", "alpha", "prompt", *_RENDERING, "seed"]
"""The tags that identify a trial. References, which use no frames, have neither textures nor camera."""

_DASHES: tuple[Any, ...] = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)))
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")


class DoesNotApplyError(Exception):
    """The figure does not apply to this sweep; the message says why."""


class SweepRuns:
    """The MLflow runs of the sweep or screening in a results folder.

    Attributes:
        folder: The results folder.
        children: Runs of the trials that have finished, oldest first.
    """

    def __init__(self, folder: Path, tracking_uri: str | None = None) -> None:
        """Find the runs of a results folder.

        Args:
            folder: As `vlm-rm sweep` wrote it.
            tracking_uri: The MLflow server or database with its runs; by default what MLFLOW_TRACKING_URI says, then the
                database in the results folder.

        Raises:
            UserError: It is not a results folder, its runs cannot be read, or none has finished yet.
        """
        runs = find_runs(folder, tracking_uri or os.environ.get("MLFLOW_TRACKING_URI"))
        self.folder = folder
        self._client, self._run_id, self._attachable = runs.client, runs.run_id, runs.attachable
        self.children = [child for child in self._all_children(runs.experiment_id) if child.info.status == RunStatus.FINISHED]
        if not self.children:
            raise UserError(f"{folder} has no finished trial yet: run this script again later")

    def _all_children(self, experiment_id: str) -> Iterator[Run]:
        """Yield all child runs, which MLflow returns in pages."""
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
        """Whether the folder is that of a screening."""
        return (self.folder / "screening.yaml").is_file()

    @cached_property
    def colours(self) -> dict[str, str]:
        """The colour of each model, references excepted: the report's, so that it does not depend on what has finished."""
        named = [] if self.is_screening else SweepFolder(self.folder).stored_sweep().all_models
        return model_colours([*named, *(child.data.tags["model"] for child in self.children if not _is_reference(child))])

    def trials(self) -> pd.DataFrame:
        """Make a table with one row for each finished trial.

        Returns:
            Columns `run_id`, the tags (strings), and the last value of each metric.
        """
        rows: list[dict[str, Any]] = [
            {"run_id": child.info.run_id} | child.data.tags | _reward(child) | _rendering(child) | child.data.metrics
            for child in self.children
        ]
        return pd.DataFrame(rows)

    def history(self, metric: str) -> pd.DataFrame:
        """Read all values of a metric.

        Args:
            metric: Its name.

        Returns:
            A row for each value: `run_id`, `TRIAL_TAGS`, `env_steps` and `value`. Empty if no trial has the metric.
        """
        columns = ["run_id", *TRIAL_TAGS, ENV_STEPS, "value"]
        rows = [
            {"run_id": child.info.run_id} | _tags(child) | {ENV_STEPS: point.step, "value": point.value}
            for child in self.children
            if metric in child.data.metrics
            for point in self._client.get_metric_history(child.info.run_id, metric)
        ]
        return pd.DataFrame(rows, columns=columns)

    def seeds_note(self) -> str:
        """Say how many seeds the combinations have, such as `1 seed` or `2 to 3 seeds`; empty for a screening."""
        if self.is_screening:
            return ""
        trained = [child for child in self.children if not _is_reference(child)] or self.children
        counts = Counter(tuple((_tags(child) | {"seed": ""}).values()) for child in trained).values()
        fewest, most = min(counts), max(counts)
        if fewest < most:
            return f"{fewest} to {most} seeds"
        return "1 seed" if most == 1 else f"{most} seeds"

    def save(self, figure: Figure, data: pd.DataFrame, name: str, seeds: str | None = None) -> None:
        """Write a figure and its data into the sweep's `figures` folder, and attach them to its MLflow run.

        A figure can be shown apart from its sweep, so it says itself over how many seeds it is.

        Args:
            figure: Saved as PNG and SVG, then closed.
            data: Saved as CSV.
            name: Name of the files, which are replaced if they exist.
            seeds: What it says of seeds, such as `1 seed`; by default how many the sweep's combinations have; empty if it shows
                nothing that was trained.
        """
        if note := self.seeds_note() if seeds is None else seeds:
            # Below the figure: saving it extends the picture to all that is drawn.
            figure.text(1, 0, note, ha="right", va="top", fontsize="small", color="0.35")
        for suffix in ("png", "svg"):
            file = file_inside(self.folder, f"figures/{name}.{suffix}")
            with new_output(file) as unfinished:
                figure.savefig(unfinished, dpi=150, bbox_inches="tight")
            self._log(file)
        plt.close(figure)
        self.save_table(data, name)

    def save_table(self, data: pd.DataFrame, name: str) -> None:
        """Write a table into the sweep's `figures` folder as CSV, and attach it to its MLflow run.

        Args:
            data: The table.
            name: Name of the file, which is replaced if it exists.
        """
        file = file_inside(self.folder, f"figures/{name}.csv")
        with new_output(file) as unfinished:
            data.to_csv(unfinished, index=False)
        self._log(file)

    def _log(self, file: Path) -> None:
        if self._attachable:
            self._client.log_artifact(self._run_id, str(file), "figures")
        print(
            f"{file}{'' if self._attachable else ' (not attached to its MLflow run, whose files lie outside of the results)'}"
        )


def _tags(child: Run) -> dict[str, str]:
    """Read the tags that identify a trial."""
    return {key: child.data.tags.get(key, "") for key in TRIAL_TAGS} | _reward(child) | _rendering(child)


def _reward(child: Run) -> dict[str, str]:
    """Return what tells a trial's reward, as `alpha`: the label of a reward that has one; of a search, the sample."""
    if SAMPLE in child.data.tags:
        return {"alpha": f"{SAMPLE} {child.data.tags[SAMPLE]}"}
    return {"alpha": child.data.tags[REWARD]} if REWARD in child.data.tags else {}


def reward_told(tag: str) -> float | str:
    """Read what tells a trial's reward: an alpha, or the label of another reward."""
    return float(tag) if tag[:1].isdigit() else tag  # labels begin with a letter


def _is_reference(child: Run) -> bool:
    return child.data.tags["prompt"] == REFERENCE_PROMPT


def _rendering(child: Run) -> dict[str, str]:
    """Read how a trial's frames were rendered; empty values for references, and where nothing was trained."""
    return {key: "" if _is_reference(child) else child.data.tags.get(key, "") for key in _RENDERING}


def reward_model_trials(runs: SweepRuns) -> pd.DataFrame:
    """Select the trials that learned from a reward model.

    Args:
        runs: Runs of a sweep.

    Returns:
        As `SweepRuns.trials`, with alpha as a number (or the label of another reward); at least one row.

    Raises:
        DoesNotApplyError: There is no such trial.
    """
    if runs.is_screening:
        raise DoesNotApplyError("it is a screening, which trains nothing; the figure `prompts` shows its measurements")
    table = runs.trials()
    table = table[table["prompt"] != REFERENCE_PROMPT].assign(alpha=lambda trials: trials["alpha"].map(reward_told))
    if table.empty:
        raise DoesNotApplyError("no trial that learned from a reward model has finished")
    return table


@dataclass(frozen=True)
class Scores:
    """How good the trained policies are.

    Attributes:
        metric: What measures it: success, or the true return where success is unknown.
        by_model: For each model, smallest first, the values of the seeds of each combination (reward, prompt, rendering): float
            (seeds,). Trials without a value are left out.
    """

    metric: str
    by_model: dict[str, dict[tuple[Any, ...], np.ndarray]]


def scores(runs: SweepRuns) -> Scores:
    """Read how good the trained policies of each model are.

    Args:
        runs: Runs of a sweep.

    Returns:
        The scores of all models that have some.

    Raises:
        DoesNotApplyError: There are none.
    """
    trials = reward_model_trials(runs)
    metric = next((name for name in (SUCCESS, TRUE_RETURN) if EVALUATION + name in trials), None)
    if metric is None:
        raise DoesNotApplyError("its trials have neither success nor a true return")
    known = trials.dropna(subset=[EVALUATION + metric])
    if PARAMETERS_MILLIONS in known:
        known = known.sort_values(PARAMETERS_MILLIONS, kind="stable")
    by_model: dict[str, dict[tuple[Any, ...], np.ndarray]] = {}
    for (model, *cell), of_seeds in known.groupby(["model", "alpha", "prompt", *_RENDERING], sort=False)[EVALUATION + metric]:
        by_model.setdefault(str(model), {})[tuple(cell)] = of_seeds.to_numpy(dtype=float)
    return Scores(metric.replace("_", " "), by_model)


def over_seeds(values: pd.Series) -> pd.Series:
    """Estimate the interquartile mean over seeds with its 95 % interval, as the sweep's tables do (`evaluation.over_seeds`).

    Args:
        values: The value of each seed; NaN is left out.

    Returns:
        `value`, `low`, `high` (both NaN for a single seed, and where all seeds are equal) and `seeds`, their number.
    """
    known = values.dropna().to_numpy(dtype=float)
    value, low, high = (float(each) for each in iqm([known]))
    return pd.Series({"value": value, "low": low, "high": high, "seeds": len(known)})


def seed_dots(axis: Axes, at: pd.Series, values: pd.Series, colour: Any) -> None:
    """Draw the value of each seed as a dot: the interquartile mean of five seeds does not show that one of them failed."""
    axis.plot(at, values, ".", color=colour, alpha=0.35, markersize=7, zorder=1)


def line_look(place: int) -> dict[str, Any]:
    """Choose dashes and marker of a line, which tell lines of one model apart: their colour is the model's.

    Args:
        place: Its place among the lines.

    Returns:
        `linestyle` and `marker`. Six kinds of dashes and seven markers take turns, so they repeat after 42 lines.
    """
    return {"linestyle": _DASHES[place % len(_DASHES)], "marker": _MARKERS[place % len(_MARKERS)]}


def line_name(line: Mapping[str, Any], compared: pd.DataFrame) -> str:
    """Compose the label of a line in a figure.

    Args:
        line: Tags of the line; alpha is a number, or the label of another reward.
        compared: All lines of the figure. Prompt, textures and camera are left out if they are the same for all.

    Returns:
        For example `embedded/tiny, alpha 0.5`.
    """
    parts = {name: value for name, value in line.items() if name not in ("prompt", *_RENDERING) or compared[name].nunique() > 1}
    formats = {
        "alpha": "{}" if isinstance(line.get("alpha"), str) else "alpha {:g}",
        "textures": "{} textures",
        "camera": "{} camera",
        "seed": "seed {}",
    }
    return ", ".join(formats.get(name, "{}").format(value) for name, value in parts.items())


def draw_alone(draw: Callable[[SweepRuns], None]) -> None:
    """Run a script by itself: draw the figure for the folder that is its first argument.

    Args:
        draw: Draws and saves the figure.

    Raises:
        SystemExit: The arguments are wrong or the figure does not apply; with exit status 2, after a message.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, help="Folder of a sweep, such as results/quickstart-...")
    parser.add_argument("--tracking-uri", help="MLflow server or database with its runs. Default: that in the results folder.")
    given = parser.parse_args()
    with refusals_in_words():
        draw(SweepRuns(given.folder, given.tracking_uri))


@contextmanager
def refusals_in_words() -> Iterator[None]:
    """End a script with exit status 2 and one message if its input cannot be right, or its figure does not apply."""
    try:
        yield
    except (DoesNotApplyError, UserError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)


def whole_number(least: int, most: int) -> Callable[[str], int]:
    """Return a reader of an option that is a whole number.

    Args:
        least: The least number.
        most: The largest.

    Returns:
        The `type` of an argument of `argparse`.
    """

    def read(text: str) -> int:
        if not text.isascii() or not text.isdecimal() or not least <= int(text[:20]) <= most:
            raise argparse.ArgumentTypeError(f"{text[:80]!r}: expected a whole number from {least:,} to {most:,}")
        return int(text)

    return read
