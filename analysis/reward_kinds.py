"""Which kind of reward is best? Of every reward of several sweeps its measures, and the success of what it taught.

Run `python analysis/reward_kinds.py results/reward_kinds_*`, or with the folders of any sweeps that compare rewards. The rewards of a
sweep file, such as `sweeps/reward_kinds_humanoid.yaml`, are measured, too, without success: nothing was trained. Each reward is
measured against the task's success test on

- `random` states of the task;
- `visited` states of a data set along episodes, `--states FOLDER` for each task, made by `vlm-rm states rollouts`: value-order
  correlation (VOC) is known there alone.

Intervals (95 %) of measures are a bootstrap over states, or over episodes; those of success, an interquartile
mean, are over seeds.
"""

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path

import pandas as pd
from offline import on_data_set, on_random_states
from runs import SweepRuns, over_seeds, refusals_in_words, reward_model_trials, whole_number

from vlm_rm_sweeps.cli.options import write_table
from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.evaluation.compare import load_for_measuring
from vlm_rm_sweeps.evaluation.states import StateDataset, load_states
from vlm_rm_sweeps.metrics import EVALUATION, HEADINGS, INTERVALS, REWARD, SUCCESS, RewardMeasure
from vlm_rm_sweeps.sweeping.config.plan import Plan, make_plan
from vlm_rm_sweeps.sweeping.config.screening import load_plan
from vlm_rm_sweeps.sweeping.tracking.folder import SweepFolder

SHOWN: tuple[RewardMeasure, ...] = (
    "roc_auc",
    "false_positive_rate",
    "epic_distance",
    "starc_distance",
    "value_order_correlation",
)
"""The measures of the table."""
_ROW = ["model", REWARD, "prompt"]
_SUCCESS = EVALUATION + SUCCESS


def plan_of(source: Path) -> Plan:
    """Read what a sweep compares.

    Args:
        source: The folder of its results, or its file.

    Returns:
        Its plan.

    Raises:
        UserError: It is neither, or a screening.
    """
    if source.is_dir():
        return make_plan(SweepFolder(source).stored_sweep())
    plan = load_plan(source)
    if not isinstance(plan, Plan):
        raise UserError(f"{source} is a screening: expected the file of a sweep")
    return plan


def measured(plan: Plan, count: int, visited: StateDataset | None) -> Iterator[pd.DataFrame]:
    """Measure all rewards of a plan.

    Args:
        plan: The plan.
        count: Number of random states.
        visited: A data set of the same task, if there is one.

    Yields:
        Rows of `model`, `reward`, `prompt`, `states` and the measures with the ends of their intervals.

    Raises:
        UserError: See `measure_rewards`.
    """
    for model_id in plan.trained_models:
        model, specs = load_for_measuring(plan.models[model_id].model_id), plan.specs_of(model_id)
        tables = {"random": on_random_states(plan, model, specs, count)}
        if visited is not None:
            tables["visited"] = on_data_set(visited, model, specs)
        for states, table in tables.items():
            told = table if REWARD in table else table.assign(reward=table["alpha"])
            yield told.assign(model=model_id, states=states)


def success_of(runs: SweepRuns) -> pd.DataFrame:
    """Tabulate the greedy policies' success: a row for each `model`, `reward` and `prompt`, over seeds."""
    trials = reward_model_trials(runs).assign(**{REWARD: lambda table: table["alpha"]})
    found = trials.groupby(_ROW, sort=False)[_SUCCESS].apply(over_seeds).unstack()
    return found.rename(columns={"value": SUCCESS, "low": "success_low", "high": "success_high"}).reset_index()


def rows_of(source: Path, count: int, datasets: Mapping[str, StateDataset], tracking_uri: str | None = None) -> pd.DataFrame:
    """Make the rows of one sweep.

    Args:
        source: The folder of its results, or its file.
        count: Number of random states.
        datasets: Data sets of visited states by the name of their task.
        tracking_uri: Where its runs are; by default in the results folder.

    Returns:
        A row for each reward and kind of states: the columns of `measured`, `task` and those of `success_of`.

    Raises:
        UserError: The sweep, a model or a data set cannot be used.
    """
    plan = plan_of(source)
    table = pd.concat(measured(plan, count, datasets.get(plan.task.name)), ignore_index=True)
    ends = [end for name in SHOWN for end in INTERVALS[name]]
    table = table[[*_ROW, "states", *SHOWN, *ends]].assign(task=plan.task.name)
    return table.merge(success_of(SweepRuns(source, tracking_uri)), on=_ROW, how="left") if source.is_dir() else table


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """Put each value and its interval into one cell, for people."""

    def cells(name: str, ends: tuple[str, str]) -> list[str]:
        columns = zip(table[name], table[ends[0]], table[ends[1]], strict=True)
        return [_cell(*each) for each in columns]

    found = table[["task", *_ROW, "states"]].assign(**{HEADINGS[name]: cells(name, INTERVALS[name]) for name in SHOWN})
    return found.assign(success=cells(SUCCESS, ("success_low", "success_high"))) if SUCCESS in table else found


def _cell(value: float, low: float, high: float) -> str:
    if pd.isna(value):
        return ""
    return f"{value:.2f}" if pd.isna(low) else f"{value:.2f} ({low:.2f} to {high:.2f})"


def main() -> None:
    """Print the table, and write it as CSV if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweeps", type=Path, nargs="+", help="Folders of sweeps, or sweep files.")
    parser.add_argument("--states", type=Path, action="append", default=[], help="Data set of visited states; may be repeated.")
    parser.add_argument(
        "--count", type=whole_number(50, 1_000_000), default=1_000, help="Number of random states of each task."
    )
    parser.add_argument("--csv", type=Path, help="Also write the table, with more digits, to this file.")
    parser.add_argument(
        "--tracking-uri", help="MLflow server or database with their runs. Default: that in the results folder."
    )
    given = parser.parse_args()
    with refusals_in_words():
        datasets = {dataset.task.name: dataset for dataset in map(load_states, given.states)}
        tables = [rows_of(source, given.count, datasets, given.tracking_uri) for source in given.sweeps]
        table = pd.concat(tables, ignore_index=True)
        print(readable(table).to_string(index=False))
        if given.csv:
            write_table(given.csv, table)


if __name__ == "__main__":
    main()
