"""What a search found: how good its samples are, by each value that was drawn.

Run `make analysis SWEEP_RUN=results/...`, or `python analysis/search.py FOLDER`. A point is a trial; a ring is a sample, the mean
over its seeds. Where rings rise to one side, the range ends too early. Later samples are darker, as the bar shows: by `tpe` they
gather where earlier ones were good.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator
from runs import DoesNotApplyError, SweepRuns, draw_alone, reward_model_trials

from vlm_rm_sweeps.metrics import EVALUATION, SAMPLE
from vlm_rm_sweeps.sweeping.config.searching import ALPHA, SETTING, Range
from vlm_rm_sweeps.sweeping.tracking.folder import SweepFolder


def draw(runs: SweepRuns) -> None:
    """Draw and save the figure."""
    sweep = None if runs.is_screening else SweepFolder(runs.folder).stored_sweep()
    if sweep is None or sweep.search is None:
        raise DoesNotApplyError("it has no `search`")
    if sweep.compared_every is not None:
        raise DoesNotApplyError("`pbt` changed the values that were drawn")
    search = sweep.search
    metric = EVALUATION + search.by
    trials = reward_model_trials(runs)
    if metric not in trials:
        raise DoesNotApplyError(f"its trials have no {search.by}")
    params = {child.info.run_id: child.data.params for child in runs.children}
    table = trials[["run_id", SAMPLE, "seed", metric]].astype({SAMPLE: int}).sort_values([SAMPLE, "seed"])
    for key in search.space:
        name = ALPHA if key == ALPHA else key.replace(SETTING, "settings_")
        table[key] = [params[run_id][name] for run_id in table["run_id"]]
    size = (3.8 * len(search.space) + 1.4, 3.8)
    figure, axes = plt.subplots(1, len(search.space), figsize=size, layout="constrained", squeeze=False, sharey=True)
    for axis, (key, values) in zip(axes[0], search.space.items(), strict=True):
        order = [] if isinstance(values, Range) else [str(value) for value in values]
        at = table[key].map(order.index) if order else table[key].astype(float)
        of_samples = pd.DataFrame({SAMPLE: table[SAMPLE], "at": at, metric: table[metric]}).groupby(SAMPLE).mean()
        points = axis.scatter(at, table[metric], s=10, c=table[SAMPLE], cmap="viridis_r")
        axis.scatter(of_samples["at"], of_samples[metric], s=70, facecolors="none", edgecolors="0.3")
        if isinstance(values, Range) and values.log:
            axis.set_xscale("log")
        if order:
            axis.set_xticks(np.arange(len(order)), order)
        axis.set_xlabel(key)
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel(search.by.replace("_", " "))
    figure.colorbar(points, ax=axes, label=SAMPLE, ticks=MaxNLocator(integer=True), pad=0.02)
    runs.save(figure, table.drop(columns="run_id"), "search")


if __name__ == "__main__":
    draw_alone(draw)
