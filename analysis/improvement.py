"""Probability of improvement: how likely a run of one model is better than a run of another (Agarwal et al. 2021).

Run `make analysis SWEEP_RUN=results/quickstart-...`, or `python analysis/improvement.py FOLDER`. Runs are compared within the same
reward, prompt and rendering; ties count half. Bars are 95 % intervals (bootstrap over the seeds), where each combination has
several. A bar that crosses 0.5 means that the seeds do not tell which model is better.
"""

import itertools

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from runs import DoesNotApplyError, SweepRuns, draw_alone, scores

from vlm_rm_sweeps.evaluation.over_seeds import probability_of_improvement


def draw(runs: SweepRuns) -> None:
    """Draw and save the figure."""
    found = scores(runs)
    rows = []
    # The larger model first: the question is whether it is worth its size.
    for second, first in itertools.combinations(found.by_model, 2):
        one, other = found.by_model[first], found.by_model[second]
        common = [cell for cell in one if cell in other]
        if common:
            estimate = probability_of_improvement([one[cell] for cell in common], [other[cell] for cell in common])
            rows.append({"model": first, "than": second, "combinations": len(common)} | estimate._asdict())
    if not rows:
        raise DoesNotApplyError("no two models have trials of the same reward and prompt")
    table = pd.DataFrame(rows).astype({"value": float, "low": float, "high": float})
    figure, axis = plt.subplots(figsize=(6.4, 1.2 + 0.35 * len(table)), layout="constrained")
    bars = np.nan_to_num([table["value"] - table["low"], table["high"] - table["value"]]).clip(0)
    for row, model in enumerate(table["model"]):
        bar = bars[:, row : row + 1]
        axis.errorbar(table["value"][row], row, xerr=bar, fmt="o", capsize=3, color=runs.colours[model])
    axis.axvline(0.5, color="0.4", linestyle="--", linewidth=1)
    axis.set_yticks(table.index, [f"{row.model}\nbetter than {row.than}" for row in table.itertuples()], fontsize="small")
    axis.set(xlim=(-0.03, 1.03), ylim=(len(table) - 0.5, -0.5), xlabel=f"probability of more {found.metric}")
    axis.grid(alpha=0.3, axis="x")
    runs.save(figure, table, "improvement")


if __name__ == "__main__":
    draw_alone(draw)
