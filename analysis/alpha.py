"""Effect of goal-baseline regularisation (the paper's alpha): EPIC distance and success by alpha, a line for each model.

Run `make analysis SWEEP_RUN=results/quickstart-...`, or `python analysis/alpha.py FOLDER`. Bars are 95 % intervals: of EPIC over the
states (bootstrap), of the interquartile mean of success over the seeds, which are the dots. Expect the best alpha to differ between
models. At alpha 1 the reward depends only on the projection onto the line from baseline to goal.
"""

import itertools

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from runs import DoesNotApplyError, SweepRuns, draw_alone, line_name, over_seeds, reward_model_trials, seed_dots

from vlm_rm_sweeps.metrics import EPIC_DISTANCE, EPIC_HIGH, EPIC_LOW, EVALUATION, SUCCESS

_LINE = ["model", "prompt", "textures", "camera"]
_SUCCESS = EVALUATION + SUCCESS
_SUCCESS_PANEL = "success after training"
_EPIC = {EPIC_DISTANCE: "value", EPIC_LOW: "low", EPIC_HIGH: "high"}


def draw(runs: SweepRuns) -> None:
    """Draw and save the figure."""
    trials = reward_model_trials(runs)
    if trials["alpha"].map(lambda reward: isinstance(reward, str)).any():
        raise DoesNotApplyError("it compares rewards by name")
    if trials["alpha"].nunique() < 2:
        raise DoesNotApplyError(f"it has only one alpha, {trials['alpha'].iloc[0]:g}")
    panels = {}
    if EPIC_DISTANCE in trials:
        table = trials.dropna(subset=[EPIC_DISTANCE]).groupby([*_LINE, "alpha"], as_index=False)[list(_EPIC)].first()
        panels["EPIC distance (smaller is better)"] = table.rename(columns=_EPIC)
    if _SUCCESS in trials:
        table = trials.groupby([*_LINE, "alpha"])[_SUCCESS].apply(over_seeds).unstack().reset_index()
        panels[_SUCCESS_PANEL] = table
    if not panels:
        raise DoesNotApplyError("its trials have neither EPIC distances (`epic_states`) nor success")
    figure, axes = plt.subplots(1, len(panels), figsize=(4.4 * len(panels) + 2.6, 4), layout="constrained", squeeze=False)
    for axis, (title, table) in zip(axes[0], panels.items(), strict=True):
        for (key, line), marker in zip(table.groupby(_LINE), itertools.cycle("osD^v"), strict=False):
            colour = runs.colours[str(key[0])]
            bars = np.nan_to_num([line["value"] - line["low"], line["high"] - line["value"]]).clip(0)
            label = line_name(dict(zip(_LINE, key, strict=True)), table)
            # Hollow markers stay visible where lines coincide.
            style = {"marker": marker, "fillstyle": "none", "markersize": 8, "capsize": 3, "color": colour}
            axis.errorbar(line["alpha"], line["value"], yerr=bars, label=label, **style)
        if title == _SUCCESS_PANEL:
            for model, own in trials.groupby("model"):
                seed_dots(axis, own["alpha"], own[_SUCCESS], runs.colours[str(model)])
        axis.set(title=title, xlabel="alpha", xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
        axis.grid(alpha=0.3)
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside right center", fontsize="small", frameon=False)
    runs.save(figure, pd.concat([table.assign(measure=title) for title, table in panels.items()]), "alpha")


if __name__ == "__main__":
    draw_alone(draw)
