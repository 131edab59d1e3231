"""Learning curves of a sweep: CLIP return, success and time in the goal by environment step.

Run `make analysis SWEEP_RUN=results/quickstart-...`, or `python analysis/learning_curves.py FOLDER`. Thick lines are means over
seeds; thin lines, where they can be told apart, single trials. A colour is a model, dashes and markers are a reward and prompt. Values
are from training episodes, with exploration; the success of the greedy policy is drawn, too, where it was evaluated during training
(`trial.evaluation_interval`). If a reward model can be trusted, expect success and time in the goal to rise together with the CLIP
return.
"""

import math
from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from runs import TRIAL_TAGS, DoesNotApplyError, SweepRuns, draw_alone, line_look, line_name, reward_told

from vlm_rm_sweeps.metrics import CLIP_RETURN, ENV_STEPS, EVALUATION, GOAL_FRACTION, SUCCESS, TRUE_RETURN
from vlm_rm_sweeps.palette import REFERENCE_COLOURS
from vlm_rm_sweeps.sweeping.config.trial import REFERENCE_PROMPT

_SERIES = [name for name in TRIAL_TAGS if name != "seed"]
_COLUMNS = 2
_APART = 6
"""The most series of which single trials are drawn: of more, thin lines hide the means."""
PANELS = {
    CLIP_RETURN: "CLIP return",
    SUCCESS: "success (share of episodes)",
    EVALUATION + SUCCESS: "greedy success (share of episodes)",
    GOAL_FRACTION: "fraction of the episode in the goal",
    TRUE_RETURN: "true return",
}


def draw(runs: SweepRuns) -> None:
    """Draw and save the figure."""
    histories = {metric: history for metric in PANELS if not (history := _history(runs, metric)).empty}
    if not histories:
        raise DoesNotApplyError("nothing was trained")
    figure, axes, spare = _panels(len(histories))
    trials = pd.concat(histories.values())
    learned = trials[trials["prompt"] != REFERENCE_PROMPT]
    styles = _styles(trials, runs.colours)
    for axis, metric in zip(axes, histories, strict=True):
        for key, series in histories[metric].groupby(_SERIES, sort=False):
            of = dict(zip(_SERIES, key, strict=True))
            reference = of["prompt"] == REFERENCE_PROMPT
            label = str(of["model"]) if reference else line_name(of | {"alpha": reward_told(str(of["alpha"]))}, learned)
            style = styles[key]
            if len(styles) <= _APART and series["run_id"].nunique() > 1:
                for _, line in series.groupby("run_id"):
                    axis.plot(line[ENV_STEPS], line["value"], linewidth=0.7, alpha=0.4, **style | {"marker": ""})
            mean = series.groupby(ENV_STEPS)["value"].mean()
            axis.plot(mean.index, mean, label=label, linewidth=2, markevery=0.2, markersize=5, **style)
        axis.set(xlabel="environment steps", ylabel=PANELS[metric])
        if metric.endswith(SUCCESS):  # or what is 0 throughout would be drawn in the middle
            axis.set_ylim(-0.03, 1.03)
        axis.locator_params(axis="x", nbins=5)
        axis.grid(alpha=0.3)
    lines = {str(line.get_label()): line for axis in axes for line in axis.get_lines() if line.get_linewidth() > 1}
    look: dict[str, Any] = {"fontsize": "small", "frameon": False, "handlelength": 4}
    if spare:
        spare.legend(lines.values(), lines.keys(), loc="center", **look)
    else:
        figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=min(len(lines), _COLUMNS), **look)
    data = pd.concat([history.assign(metric=metric) for metric, history in histories.items()])
    runs.save(figure, data, "learning_curves")


def _history(runs: SweepRuns, metric: str) -> pd.DataFrame:
    """Read a metric; of evaluations, those of trials that have more than the one at the end."""
    history = runs.history(metric)
    if metric.startswith(EVALUATION):
        return history[history.groupby("run_id")["value"].transform("size") > 1]
    return history


def _panels(count: int) -> tuple[Figure, list[Axes], Axes | None]:
    """Make a figure with panels in rows of two, which can be read at the width of a page, and an empty one if they are odd."""
    rows = math.ceil(count / _COLUMNS)
    figure, grid = plt.subplots(
        rows, _COLUMNS, figsize=(4.5 * _COLUMNS, 3.4 * rows), layout="constrained", sharex=True, squeeze=False
    )
    axes = list(grid.flat)
    for axis in axes:
        axis.tick_params(labelbottom=True)
    if len(axes) == count:
        return figure, axes, None
    axes[-1].set_axis_off()
    return figure, axes[:-1], axes[-1]


def _styles(trials: pd.DataFrame, colours: Mapping[str, str]) -> dict[Any, dict[str, Any]]:
    """Choose the colour of each series by its model, dashes and marker by the rest; references are grey."""
    of_the_rest: dict[Any, Any] = {}
    greys = iter(REFERENCE_COLOURS)
    styles: dict[Any, dict[str, Any]] = {}
    for key, _ in trials.groupby(_SERIES, sort=False):
        of = dict(zip(_SERIES, key, strict=True))
        if of["prompt"] == REFERENCE_PROMPT:
            styles[key] = {"color": next(greys), "linestyle": "-"}
        else:
            rest = tuple(value for name, value in of.items() if name != "model")
            look = of_the_rest.setdefault(rest, line_look(len(of_the_rest)))
            styles[key] = {"color": colours[str(of["model"])], **look}
    return styles


if __name__ == "__main__":
    draw_alone(draw)
