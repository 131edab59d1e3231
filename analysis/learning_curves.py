"""Learning curves of a sweep: CLIP return and time in the goal against environment steps, a line for each trial.

Run: make analysis SWEEP_RUN=results/quickstart-... (or: python analysis/learning_curves.py FOLDER). Expect the time in the goal
of every trial to rise together with its CLIP return, if its reward model can be trusted.
"""

import itertools

import matplotlib.pyplot as plt
import pandas as pd
from runs import DoesNotApplyError, SweepRuns, draw_alone

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
    labels = pd.concat(histories.values()).groupby(["model", "alpha", "prompt", "seed"], sort=False).groups
    colours = dict(zip(labels, itertools.cycle(plt.color_sequences["tab10"]), strict=False))
    for axis, metric in zip(axes, histories, strict=True):
        for key, line in histories[metric].groupby(["model", "alpha", "prompt", "seed"], sort=False):
            model, alpha, prompt, seed = key
            reference = prompt == "-"
            label = f"{model}, seed {seed}" if reference else f"{model}, alpha {alpha}, {prompt}, seed {seed}"
            style = {"color": "black", "linestyle": "--"} if reference else {"color": colours[key]}
            axis.plot(line["env_steps"], line["value"], label=label, **style)
        axis.set(xlabel="environment steps", ylabel=PANELS[metric])
        axis.grid(alpha=0.3)
    axes[-1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5), fontsize="small", frameon=False)
    data = pd.concat([history.assign(metric=metric) for metric, history in histories.items()])
    runs.save(figure, data, "learning_curves")


if __name__ == "__main__":
    draw_alone(draw)
