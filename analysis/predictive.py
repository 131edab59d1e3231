"""Which offline measure predicts success? Rank correlations of measures of rewards with what trained policies reach.

Run `python analysis/predictive.py results/which_measure_*`, with a folder for each task of `sweeps/which_measure_*.yaml`, or of any
sweeps with many cells. A cell is one model, reward and prompt. Each cell's reward is measured offline on

- `before training`: what the sweep itself measured on its `epic_states`, if it has them;
- `random, success`: random states of the task, against its success test;
- `visited, success`: states that trained policies reached, if `vlm-rm states rollouts FOLDER -o FOLDER/states` has collected them. This
  is no forecast, because they are known only after training; VOC and Kendall's tau need them.

Figure and CSV show the rank correlation (Spearman) of each measure with the greedy policies' mean success, and with their true return,
over the cells. Measures are turned so that more is better: a correlation of 1 means that the better reward by the measure is always the
better one to learn from. Over several tasks, ranks are taken within each task, so that no difference between tasks counts, and a task
in which all cells reach the same is left out. With `--within-prompts` ranks are taken within each prompt of a task, too: then it counts
only whether a measure tells models and rewards apart, and not good sentences from bad ones.

Intervals (95 %) are a bootstrap of two levels: cells are drawn, then the seeds of each. The noise of seeds is in the correlation and
once more in the draw, so where seeds differ much, intervals lie nearer to 0 than the correlation. They take cells for independent,
although cells share models, rewards and prompts, and measures for exact.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from offline import on_data_set, on_random_states
from runs import DoesNotApplyError, SweepRuns, refusals_in_words, reward_model_trials, whole_number
from scipy.stats import rankdata

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.evaluation.compare import load_for_measuring
from vlm_rm_sweeps.evaluation.states import load_states
from vlm_rm_sweeps.files import file_inside
from vlm_rm_sweeps.metrics import EVALUATION, HEADINGS, REWARD, SMALLER_IS_BETTER, SUCCESS, TRUE_RETURN
from vlm_rm_sweeps.sweeping.config.plan import make_plan
from vlm_rm_sweeps.sweeping.execution.reward_metrics import known_measures
from vlm_rm_sweeps.sweeping.tracking.folder import SweepFolder

BEFORE, RANDOM, VISITED = "before training", "random, success", "visited, success"
"""What measures were taken on, and against which truth."""
OUTCOMES = (SUCCESS, TRUE_RETURN)
ALL_TASKS = "all together, ranks within each"
STATES = "states"
"""Folder of a data set inside of a sweep's, with states that its policies reached."""
_CELL = ["model", "alpha", "prompt"]
_SEED, _SAMPLES = 0, 2_000
_FEWEST_CELLS = 4
"""Of fewer, a rank correlation says nothing."""


@dataclass(frozen=True)
class TaskCells:
    """One measure and one outcome of the C cells of one task.

    Attributes:
        measured: The measure, more is better, float (C,).
        outcomes: The outcome of each seed, float (C, S), NaN where there is no such seed; each cell has at least one.
    """

    measured: np.ndarray
    outcomes: np.ndarray

    @property
    def says_something(self) -> bool:
        """Whether there are at least four cells, which differ in the measure and in the mean outcome."""
        means = np.nanmean(self.outcomes, axis=1)
        return len(means) >= _FEWEST_CELLS and bool(np.ptp(self.measured) > 0 and np.ptp(means) > 0)


def rank_correlation(tasks: Sequence[TaskCells]) -> tuple[float, float, float]:
    """Estimate the rank correlation of a measure with the mean outcome over seeds, ranks taken within each task.

    Args:
        tasks: The cells of each task.

    Returns:
        The correlation, of one task Spearman's, and the ends of its 95 % interval. All are NaN unless each task says something. The
        interval is NaN, too, if measure or outcome are the same for all cells in most samples of the bootstrap.
    """
    undefined = float("nan")
    if not tasks or not all(each.says_something for each in tasks):
        return undefined, undefined, undefined
    rng = np.random.default_rng(_SEED)
    pairs = [_with_samples(each, rng) for each in tasks]
    measured, outcomes = (np.concatenate([_centred_ranks(pair[side]) for pair in pairs], axis=1) for side in (0, 1))
    scale = np.sqrt((measured**2).sum(axis=1) * (outcomes**2).sum(axis=1))
    found = np.divide((measured * outcomes).sum(axis=1), scale, out=np.full_like(scale, np.nan), where=scale > 0)
    value, samples = float(found[0]), found[1:][np.isfinite(found[1:])]
    if len(samples) < _SAMPLES / 2:
        return value, undefined, undefined
    low, high = np.quantile(samples, (0.025, 0.975))
    return value, float(low), float(high)


def _with_samples(cells: TaskCells, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return measure and mean outcome, float (1 + samples, C) each: first as they are, then of drawn cells with drawn seeds."""
    ordered = np.sort(cells.outcomes, axis=1)  # NaN comes last
    known = np.isfinite(ordered).sum(axis=1)
    count, seeds = ordered.shape
    drawn = rng.integers(count, size=(_SAMPLES, count))
    of_cell = known[drawn][..., None]
    chosen = (rng.random((_SAMPLES, count, seeds)) * of_cell).astype(int)
    values = np.where(np.arange(seeds) < of_cell, ordered[drawn[..., None], chosen], np.nan)
    measured = np.concatenate([cells.measured[None], cells.measured[drawn]])
    means = np.concatenate([np.nanmean(ordered, axis=1)[None], np.nanmean(values, axis=2)])
    return measured, means.round(9)  # the order of equal seeds must not part equal means


def _centred_ranks(values: np.ndarray) -> np.ndarray:
    """Rank each row, as a share of its length and with mean 0: then tasks with more cells weigh more in proportion, not in square."""
    ranks: np.ndarray = rankdata(values, axis=1)
    return (ranks - ranks.mean(axis=1, keepdims=True)) / values.shape[1]


def correlations(cells: pd.DataFrame, trials: pd.DataFrame) -> pd.DataFrame:
    """Correlate every measure with every outcome, for each task and for all of them together.

    Args:
        cells: A row for each `task`, `model`, `alpha`, `prompt` and `states`, with the measures of `HEADINGS` as columns, NaN where
            undefined.
        trials: A row for each trial: `task`, `model`, `alpha`, `prompt`, and the outcomes as columns, as far as they are known.

    Returns:
        A row for each `states`, `measure`, `outcome` and `task`: `cells`, `seeds` (the most of a cell), `value`, `low`, `high`. What is
        undefined is left out.
    """
    rows: list[dict[str, Any]] = []
    for (states, measure, outcome), compared in _compared(cells, trials):
        # A task in which nothing succeeds would only dilute the others.
        tasks = {task: part for task, part in compared.items() if part.says_something}
        together = {ALL_TASKS: list(tasks.values())} if len(tasks) > 1 else {}
        for name, parts in ({task: [part] for task, part in tasks.items()} | together).items():
            value, low, high = rank_correlation(parts)
            row = {"states": states, "measure": measure, "outcome": outcome, "task": name}
            counts = {
                "cells": sum(len(part.measured) for part in parts),
                "seeds": max(part.outcomes.shape[1] for part in parts),
            }
            rows.append(row | counts | {"value": value, "low": low, "high": high})
    columns = ["states", "measure", "outcome", "task", "cells", "seeds", "value", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def _compared(cells: pd.DataFrame, trials: pd.DataFrame) -> Iterator[tuple[tuple[str, str, str], dict[str, TaskCells]]]:
    """Yield states, measure and outcome with the cells of each task for which both are known."""
    for outcome in (name for name in OUTCOMES if name in trials):
        finished = trials.dropna(subset=[outcome])
        if finished.empty:
            continue
        of_cells = finished.groupby(["task", *_CELL], sort=False)[outcome].apply(list)
        for states, of_states in cells.groupby("states", sort=False):
            for measure in HEADINGS:
                known = of_states.dropna(subset=[measure]).set_index(["task", *_CELL])[measure]
                joined = pd.concat([known.rename("measured"), of_cells.rename("outcomes")], axis=1, join="inner")
                sign = -1.0 if measure in SMALLER_IS_BETTER else 1.0
                tasks = {
                    str(task): TaskCells(sign * own["measured"].to_numpy(dtype=float), _padded(own["outcomes"]))
                    for task, own in joined.groupby(level="task", sort=False)
                }
                if tasks:
                    yield (str(states), measure, outcome), tasks


def _padded(lists: pd.Series) -> np.ndarray:
    """Return lists as the rows of an array, NaN behind the shorter ones."""
    longest = max(map(len, lists))
    return np.array([each + [np.nan] * (longest - len(each)) for each in lists], dtype=float)


def outcomes_of(runs: SweepRuns) -> pd.DataFrame:
    """Tabulate what the greedy policies of a sweep reached.

    Args:
        runs: Runs of the sweep.

    Returns:
        A row for each trial: `task`, `model`, `alpha` (or the label of another reward), `prompt`, `seed`, and the outcomes.

    Raises:
        DoesNotApplyError: No trial learned from a reward model, or the sweep compares renderings, so that its cells are others.
    """
    trials = reward_model_trials(runs)
    for name in ("textures", "camera"):
        if trials[name].nunique() > 1:
            raise DoesNotApplyError(f"it compares {name}, and measures are of one rendering: run a sweep for each")
    task = SweepFolder(runs.folder).stored_sweep().task_name
    known = {EVALUATION + name: name for name in OUTCOMES if EVALUATION + name in trials}
    return trials[[*_CELL, "seed", *known]].rename(columns=known).assign(task=task)


def of_several_tasks(sweeps: Sequence[SweepRuns]) -> pd.DataFrame:
    """Tabulate what the greedy policies of several sweeps reached.

    Args:
        sweeps: Runs of the sweeps.

    Returns:
        As `outcomes_of`.

    Raises:
        DoesNotApplyError: See `outcomes_of`.
        UserError: Two sweeps are of one task: their settings may differ, so that their cells cannot be compared.
    """
    parts: dict[str, pd.DataFrame] = {}
    for runs in sweeps:
        table = outcomes_of(runs)
        task = str(table["task"].iloc[0])
        if task in parts:
            raise UserError(f"{runs.folder} is another sweep of {task}: expected one folder for each task")
        parts[task] = table
    return pd.concat(parts.values(), ignore_index=True)


def measured(folder: Path, count: int) -> pd.DataFrame:
    """Measure the rewards of a sweep, as the head of this file says.

    Args:
        folder: The sweep's folder.
        count: Number of random states.

    Returns:
        As `correlations` takes it.

    Raises:
        UserError: The task, a model or a data set cannot be used.
    """
    plan = make_plan(SweepFolder(folder).stored_sweep())
    visited = load_states(file_inside(folder, STATES)) if (folder / STATES).is_dir() else None
    before = known_measures(SweepFolder(folder).epic)
    parts = [] if before is None else [_told(before, BEFORE)]
    for model_id in plan.trained_models:
        model, specs = load_for_measuring(plan.models[model_id].model_id), plan.specs_of(model_id)
        parts.append(_told(on_random_states(plan, model, specs, count), RANDOM).assign(model=model_id))
        if visited is not None:
            parts.append(_told(on_data_set(visited, model, specs), VISITED).assign(model=model_id))
    return pd.concat(parts, ignore_index=True).assign(task=plan.task.name)


def _told(table: pd.DataFrame, states: str) -> pd.DataFrame:
    """Select cell and measures; a reward with a label is told by it, as in the runs. What is not in the table is undefined."""
    named = table.assign(alpha=table[REWARD]) if REWARD in table else table
    return named.reindex(columns=[*_CELL, *HEADINGS]).assign(states=states)


def within_prompts(table: pd.DataFrame) -> pd.DataFrame:
    """Take each prompt of a task for a task of its own, in a table of cells or of trials."""
    return table.assign(task=table["task"] + ", prompt " + table["prompt"])


def draw(sweeps: Sequence[SweepRuns], cells: pd.DataFrame, trials: pd.DataFrame, name: str = "predictive") -> pd.DataFrame:
    """Draw and save the figure of several sweeps, into the folder of the first one.

    Args:
        sweeps: Runs of the sweeps.
        cells: Their measures, see `correlations`.
        trials: What their policies reached, see `correlations`.
        name: Name of the files.

    Returns:
        The table that is saved beside the figure.

    Raises:
        DoesNotApplyError: No measure or no outcome differs between cells.
    """
    table = correlations(cells, trials)
    if table.empty:
        raise DoesNotApplyError(
            f"no rank correlation is defined: expected at least {_FEWEST_CELLS} cells that differ in a measure and in their outcome"
        )
    outcomes = [outcome for outcome in OUTCOMES if outcome in set(table["outcome"])]
    lines = table[["measure", "states"]].drop_duplicates()
    size = (5.5 * len(outcomes), 1.2 + 0.4 * len(lines))
    figure, axes = plt.subplots(1, len(outcomes), figsize=size, sharey=True, squeeze=False, layout="constrained")
    for axis, outcome in zip(axes[0], outcomes, strict=True):
        _panel(axis, table[table["outcome"] == outcome], lines)
        axis.set_title(f"with {outcome.replace('_', ' ')}", fontsize="medium")
    axes[0, 0].legend(frameon=False, fontsize="small", loc="best")
    sweeps[0].save(figure, table, name)
    sweeps[0].save_table(cells, f"{name}_cells")
    return table


def _panel(axis: Axes, table: pd.DataFrame, lines: pd.DataFrame) -> None:
    places = {tuple(line): len(lines) - 1 - place for place, line in enumerate(lines.itertuples(index=False))}
    tasks = list(dict.fromkeys(table["task"]))
    for index, task in enumerate(tasks):
        own = table[table["task"] == task]
        # Shifted, so that bars do not hide each other.
        shift = 0.22 * (index - (len(tasks) - 1) / 2)
        at = [places[tuple(line)] - shift for line in own[["measure", "states"]].itertuples(index=False)]
        colour = "black" if task == ALL_TASKS else f"C{index}"
        axis.plot(own["value"], at, "o", markersize=4, color=colour, label=task)
        axis.hlines(at, own["low"], own["high"], color=colour, linewidth=1.2)
    labels = [f"{HEADINGS[measure]} ({states})" for measure, states in lines.itertuples(index=False)]
    axis.set_yticks(list(places.values()), labels, fontsize="small")
    axis.axvline(0, color="0.6", linewidth=1)
    axis.set(xlim=(-1.05, 1.05), xlabel="rank correlation over cells")
    axis.grid(alpha=0.3)


def main() -> None:
    """Measure, draw and print for the folders that the command line names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folders", type=Path, nargs="+", help="Folders of sweeps, usually one for each task.")
    parser.add_argument(
        "--count", type=whole_number(50, 1_000_000), default=1_000, help="Number of random states of each task."
    )
    parser.add_argument(
        "--tracking-uri", help="MLflow server or database with their runs. Default: that in the results folder."
    )
    parser.add_argument("--within-prompts", action="store_true", help="Take ranks within each prompt of a task, too.")
    given = parser.parse_args()
    with refusals_in_words():
        sweeps = [SweepRuns(folder, given.tracking_uri) for folder in given.folders]
        trials = of_several_tasks(sweeps)
        cells = pd.concat([measured(folder, given.count) for folder in given.folders], ignore_index=True)
        if given.within_prompts:
            table = draw(sweeps, within_prompts(cells), within_prompts(trials), "predictive_within_prompts")
        else:
            table = draw(sweeps, cells, trials)
    print(table.to_string(index=False, float_format="%.2f"))


if __name__ == "__main__":
    main()
