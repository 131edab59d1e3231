"""Learning curves of a sweep: CLIP return and time in the goal against environment steps, a line for each trial.

Run: make analysis SWEEP_RUN=results/quickstart-... (or: python analysis/learning_curves.py FOLDER). Expect the time in the goal
of every trial to rise together with its CLIP return, if its reward model can be trusted.
"""

import itertools
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from runs import TOLD_APART_BY, DoesNotApplyError, SweepRuns, draw_alone, line_name

PANELS = {
    "clip_return": "CLIP return",
    "goal_fraction": "fraction of the episode in the goal",
    "true_return": "true return",
}


def draw(runs: SweepRuns) -> None:
    histories = {metric: history for metric in PANELS if not (history := runs.history(metric)).empty}
    if not histories:
        raise DoesNotApplyError("nothing was trained")
    figure, panels = plt.subplots(1, len(histories), figsize=(5.5 * len(histories), 3.8), layout="constrained", squeeze=False)
    axes = panels[0]
    trials = pd.concat(histories.values())
    learned = trials[trials["prompt"] != "-"]
    colours = dict(
        zip(learned.groupby(TOLD_APART_BY, sort=False).groups, itertools.cycle(plt.color_sequences["tab10"]), strict=False)
    )
    colour: Any
    for axis, metric in zip(axes, histories, strict=True):
        for key, line in histories[metric].groupby(TOLD_APART_BY, sort=False):
            of = dict(zip(TOLD_APART_BY, key, strict=True))
            if of["prompt"] == "-":
                label, colour, dashes = f"{of['model']}, seed {of['seed']}", "black", "--"
            else:
                label, colour, dashes = line_name(of | {"alpha": float(str(of["alpha"]))}, learned), colours[key], "-"
            axis.plot(line["env_steps"], line["value"], label=label, color=colour, linestyle=dashes)
        axis.set(xlabel="environment steps", ylabel=PANELS[metric])
        axis.grid(alpha=0.3)
    axes[-1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5), fontsize="small", frameon=False)
    data = pd.concat([history.assign(metric=metric) for metric, history in histories.items()])
    runs.save(figure, data, "learning_curves")


if __name__ == "__main__":
    draw_alone(draw)
