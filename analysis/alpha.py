"""What goal-baseline regularisation does (the paper's alpha): EPIC distance and success against alpha, a line for each model.

Run: make analysis SWEEP_RUN=results/quickstart-... (or: python analysis/alpha.py FOLDER). Bars are 95 % intervals: of EPIC over the
states (bootstrap), of success over the seeds (where there are several, see `success_interval`). Expect the best alpha to differ between
models; at 1 only what is along the line from baseline to goal counts.
"""

import itertools

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from runs import DoesNotApplyError, SweepRuns, draw_alone, line_name, reward_model_trials, success_interval

_LINE = ["model", "prompt", "textures", "camera"]
_SUCCESS = "evaluation_success"
_EPIC = {"epic_distance": "mean", "epic_low": "low", "epic_high": "high"}


def draw(runs: SweepRuns) -> None:
    trials = reward_model_trials(runs)
    if trials["alpha"].nunique() < 2:
        raise DoesNotApplyError(f"it has one alpha, {trials['alpha'].iloc[0]:g}")
    panels = {}
    if "epic_distance" in trials:
        table = trials.dropna(subset=["epic_distance"]).groupby([*_LINE, "alpha"], as_index=False)[list(_EPIC)].first()
        panels["EPIC distance (smaller is better)"] = table.rename(columns=_EPIC)
    if _SUCCESS in trials:
        table = trials.groupby([*_LINE, "alpha"])[_SUCCESS].apply(success_interval).unstack().reset_index()
        panels["success after training"] = table
    if not panels:
        raise DoesNotApplyError("its trials have neither EPIC distances (`epic_states`) nor success")
    figure, axes = plt.subplots(1, len(panels), figsize=(4.4 * len(panels) + 2.6, 4), layout="constrained", squeeze=False)
    for axis, (title, table) in zip(axes[0], panels.items(), strict=True):
        for (key, line), marker in zip(table.groupby(_LINE), itertools.cycle("osD^v"), strict=False):
            bars = np.nan_to_num([line["mean"] - line["low"], line["high"] - line["mean"]]).clip(0)
            label = line_name(dict(zip(_LINE, key, strict=True)), table)
            # Not filled: where lines coincide, all markers are seen.
            style = {"marker": marker, "fillstyle": "none", "markersize": 8, "capsize": 3}
            axis.errorbar(line["alpha"], line["mean"], yerr=bars, label=label, **style)
        axis.set(title=title, xlabel="alpha", xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
        axis.grid(alpha=0.3)
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside right center", fontsize="small", frameon=False)
    runs.save(figure, pd.concat([table.assign(measure=title) for title, table in panels.items()]), "alpha")


if __name__ == "__main__":
    draw_alone(draw)
