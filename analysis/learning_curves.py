"""Learning curves of a sweep: CLIP return, success and time in the goal against environment steps, the mean over seeds and each seed.

Run: make analysis SWEEP_RUN=results/quickstart-... (or: python analysis/learning_curves.py FOLDER). Expect success and
the time in the goal of every trial to rise together with its CLIP return, if its reward model can be trusted. All are of the
training's own episodes, with its exploration. Thin lines are single trials.
"""

import itertools
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from runs import TOLD_APART_BY, DoesNotApplyError, SweepRuns, draw_alone, line_name

_SERIES = [name for name in TOLD_APART_BY if name != "seed"]
PANELS = {
    "clip_return": "CLIP return",
    "success": "success (share of episodes)",
    "goal_fraction": "fraction of the episode in the goal",
    "true_return": "true return",
}


def draw(runs: SweepRuns) -> None:
    histories = {metric: history for metric in PANELS if not (history := runs.history(metric)).empty}
    if not histories:
        raise DoesNotApplyError("nothing was trained")
    figure, panels = plt.subplots(1, len(histories), figsize=(4.5 * len(histories), 3.8), layout="constrained", squeeze=False)
    axes = panels[0]
    trials = pd.concat(histories.values())
    learned = trials[trials["prompt"] != "-"]
    colours: dict[Any, Any] = dict(zip(trials[trials["prompt"] == "-"].groupby(_SERIES).groups, ("black", "0.6"), strict=False))
    colours |= zip(learned.groupby(_SERIES, sort=False).groups, itertools.cycle(plt.color_sequences["tab10"]), strict=False)
    for axis, metric in zip(axes, histories, strict=True):
        for key, series in histories[metric].groupby(_SERIES, sort=False):
            of = dict(zip(_SERIES, key, strict=True))
            reference = of["prompt"] == "-"
            label = str(of["model"]) if reference else line_name(of | {"alpha": float(str(of["alpha"]))}, learned)
            style: dict[str, Any] = {"color": colours[key], "linestyle": "--" if reference else "-"}
            if series["run_id"].nunique() > 1:
                for _, line in series.groupby("run_id"):
                    axis.plot(line["env_steps"], line["value"], linewidth=0.7, alpha=0.4, **style)
            mean = series.groupby("env_steps")["value"].mean()
            axis.plot(mean.index, mean, label=label, linewidth=2, **style)
        axis.set(xlabel="environment steps", ylabel=PANELS[metric])
        axis.locator_params(axis="x", nbins=5)
        axis.grid(alpha=0.3)
    lines = {line.get_label(): line for axis in axes for line in axis.get_lines() if line.get_linewidth() > 1}
    figure.legend(lines.values(), lines.keys(), loc="outside right center", fontsize="small", frameon=False)
    data = pd.concat([history.assign(metric=metric) for metric, history in histories.items()])
    runs.save(figure, data, "learning_curves")


if __name__ == "__main__":
    draw_alone(draw)
