"""How many frames have to be encoded? Success after training against the frames that were encoded for it.

Run `python analysis/score_every.py results/score_every-*`, with a folder for each `score_every` of `sweeps/score_every.yaml`. Points
are interquartile means over seeds, the dots, with 95 % intervals, labelled by `score_every`; there is a line for each model, reward
and prompt. Figure and CSV are written into the first folder. Expect success to hold for small steps between frames, because
neighbouring frames look alike.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator
from runs import (
    DoesNotApplyError,
    SweepRuns,
    line_look,
    line_name,
    over_seeds,
    refusals_in_words,
    reward_model_trials,
    seed_dots,
)

from vlm_rm_sweeps.metrics import EVALUATION, FRAMES_SCORED, SUCCESS
from vlm_rm_sweeps.palette import model_colours

_EVERY, _BETWEEN = "score_every", "score_between"
_LINE = ["model", "alpha", "prompt", _BETWEEN]
_SUCCESS = EVALUATION + SUCCESS


def encoded(runs: SweepRuns) -> pd.DataFrame:
    """Make a table of the trials of one sweep that learned from a reward model.

    Args:
        runs: Runs of the sweep.

    Returns:
        As `reward_model_trials`, with `score_every`, `score_between` and `frames`, all that were encoded in training.

    Raises:
        DoesNotApplyError: There is no such trial, or an earlier version recorded no frames.
    """
    trials, frames = reward_model_trials(runs), runs.history(FRAMES_SCORED)
    if frames.empty or _SUCCESS not in trials:
        raise DoesNotApplyError(f"its trials have no {FRAMES_SCORED} or no {_SUCCESS}")
    params = {child.info.run_id: child.data.params for child in runs.children}
    return trials.assign(
        frames=trials["run_id"].map(frames.groupby("run_id")["value"].sum()),
        score_every=[int(params[run_id].get(_EVERY, 1)) for run_id in trials["run_id"]],
        score_between=[params[run_id].get(_BETWEEN, "hold") for run_id in trials["run_id"]],
    )


def summary(trials: pd.DataFrame) -> pd.DataFrame:
    """Summarise over seeds: mean frames and, with its interval, success for each line and `score_every`."""
    groups = trials.groupby([*_LINE, _EVERY])
    return groups[_SUCCESS].apply(over_seeds).unstack().join(groups["frames"].mean()).reset_index()


def draw(sweeps: list[SweepRuns]) -> None:
    """Draw and save the figure of several sweeps."""
    trials = pd.concat([encoded(runs) for runs in sweeps])
    table = summary(trials)
    figure, axis = plt.subplots(figsize=(6, 4), layout="constrained")
    colours = model_colours(model for runs in sweeps for model in runs.colours)
    for place, (key, line) in enumerate(table.groupby(_LINE)):
        of = dict(zip(_LINE, key, strict=True))
        _line(axis, line.sort_values("frames"), line_name(of, table), {"color": colours[str(of["model"])], **line_look(place)})
    for model, own in trials.groupby("model"):
        seed_dots(axis, own["frames"], own[_SUCCESS], colours[str(model)])
    axis.set(xscale="log", xlabel="frames encoded in training", ylabel="success after training", ylim=(-0.05, 1.12))
    _ticks_at(axis, table.groupby(_EVERY)["frames"].median())
    axis.grid(alpha=0.3)
    axis.legend(frameon=False, fontsize="small", loc="lower right")
    sweeps[0].save(figure, table, "score_every")


def _ticks_at(axis: Axes, frames: pd.Series) -> None:
    """Name the numbers of frames that were encoded, and leave room for the last label: powers of ten say little of so few."""
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xticks(frames, [f"{each:,.0f}" for each in frames])
    axis.margins(x=0.12)


def _line(axis: Axes, line: pd.DataFrame, label: str, look: Mapping[str, Any]) -> None:
    bars = np.nan_to_num([line["value"] - line["low"], line["high"] - line["value"]]).clip(0)
    axis.errorbar(line["frames"], line["value"], yerr=bars, capsize=3, label=label, **look)
    for each in line.itertuples():
        at = (each.frames, each.value)
        axis.annotate(f"every {each.score_every}", at, (6, 5), textcoords="offset points", fontsize="small")


def main() -> None:
    """Draw the figure of the folders that the command line names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folders", type=Path, nargs="+", help="Folders of sweeps that differ in `score_every`.")
    parser.add_argument(
        "--tracking-uri", help="MLflow server or database with their runs. Default: that in the results folder."
    )
    given = parser.parse_args()
    with refusals_in_words():
        draw([SweepRuns(folder, given.tracking_uri) for folder in given.folders])


if __name__ == "__main__":
    main()
