"""Performance profiles: the share of a model's runs that are better than a score, by score (Agarwal et al. 2021).

Run `make analysis SWEEP_RUN=results/quickstart-...`, or `python analysis/performance_profiles.py FOLDER`. A run is one seed of one
combination of reward, prompt and rendering; each combination has the same weight. Bands are 95 % intervals (bootstrap over the
seeds), where each combination has several. A line that is above another one everywhere is the better model, whatever score is
asked for; the area beneath it is the mean.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from runs import SweepRuns, draw_alone, scores

from vlm_rm_sweeps.evaluation.over_seeds import performance_profile

_POINTS = 101


def draw(runs: SweepRuns) -> None:
    """Draw and save the figure."""
    found = scores(runs)
    every = np.concatenate([values for cells in found.by_model.values() for values in cells.values()])
    lowest, highest = (0.0, 1.0) if found.metric == "success" else (every.min(), every.max())
    thresholds = np.linspace(lowest, highest, _POINTS)
    figure, axis = plt.subplots(figsize=(6.4, 4), layout="constrained")
    tables = []
    widths = np.linspace(4.5, 1.5, len(found.by_model))  # a line that hides another one is narrower
    for width, (model, cells) in zip(widths, found.by_model.items(), strict=True):
        strata = list(cells.values())
        profile = performance_profile(strata, thresholds)
        colour = runs.colours[model]
        label = f"{model} ({sum(map(len, strata))} runs)"
        axis.step(thresholds, profile.value, where="post", label=label, color=colour, linewidth=width)
        low, high = (np.where(np.isnan(end), profile.value, end) for end in (profile.low, profile.high))
        axis.fill_between(thresholds, low, high, step="post", alpha=0.2, color=colour, linewidth=0)
        tables.append(pd.DataFrame({"model": model, "threshold": thresholds} | profile._asdict()))
    axis.set(xlabel=found.metric, ylabel=f"share of runs with more {found.metric}", ylim=(-0.03, 1.03))
    axis.grid(alpha=0.3)
    figure.legend(*axis.get_legend_handles_labels(), loc="outside right center", fontsize="small", frameon=False)
    runs.save(figure, pd.concat(tables), "performance_profiles")


if __name__ == "__main__":
    draw_alone(draw)
