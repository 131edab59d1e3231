"""Does a larger model make a better reward (the paper's Figure 4)? EPIC distance and success by model size.

Run `make analysis SWEEP_RUN=results/model_scaling-...`, or `python analysis/model_scaling.py FOLDER`. There is a line for each
alpha (and prompt, textures and camera, if several were compared); a colour is a model. Bars are 95 % intervals: of EPIC over the
states (bootstrap), of the interquartile mean of success over the seeds, which are the dots. Those of success are left out, and are in
the CSV alone, where so many lines are drawn that they would hide each other. Dashed lines are the references: the true reward and the
untrained policy. Expect EPIC distances to fall with size, and success to rise, perhaps abruptly, as in the paper.
"""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from runs import (
    DoesNotApplyError,
    SweepRuns,
    draw_alone,
    line_look,
    line_name,
    over_seeds,
    reward_model_trials,
    seed_dots,
)

from vlm_rm_sweeps.metrics import EPIC_DISTANCE, EPIC_HIGH, EPIC_LOW, EVALUATION, PARAMETERS_MILLIONS, SUCCESS
from vlm_rm_sweeps.palette import REFERENCE_COLOURS
from vlm_rm_sweeps.sweeping.config.trial import REFERENCE_PROMPT

_LINE = ["alpha", "prompt", "textures", "camera"]
_GROUP = [*_LINE, PARAMETERS_MILLIONS, "model"]
_SUCCESS = EVALUATION + SUCCESS
_SUCCESS_PANEL = "success after training"
_MOST_WITH_BARS = 6
"""The most lines whose intervals of success, which are wide, can be told apart."""


def draw(runs: SweepRuns) -> None:
    """Draw and save the figure."""
    trials = reward_model_trials(runs)
    if trials["model"].nunique() < 2:
        raise DoesNotApplyError(f"it has only one model, {trials['model'].iloc[0]}")
    panels = {}
    if EPIC_DISTANCE in trials:
        panels["EPIC distance (smaller is better)"] = _epic(trials)
    if _SUCCESS in trials:
        panels[_SUCCESS_PANEL] = _success(trials)
    if not panels:
        raise DoesNotApplyError("its trials have neither EPIC distances (`epic_states`) nor success")
    figure, axes = plt.subplots(1, len(panels), figsize=(6 * len(panels), 4), layout="constrained", squeeze=False)
    for axis, (title, table) in zip(axes[0], panels.items(), strict=True):
        _panel(axis, table, runs.colours, most_with_bars=_MOST_WITH_BARS if title == _SUCCESS_PANEL else len(table))
        if title == _SUCCESS_PANEL:
            _references(axis, runs.trials())
            for model, own in trials.groupby("model"):
                seed_dots(axis, own[PARAMETERS_MILLIONS], own[_SUCCESS], runs.colours[str(model)])
            axis.set_ylim(-0.03, 1.03)
        axis.set(title=title, xlabel="parameters (millions)")
    named = axes[0][-1].get_legend_handles_labels()
    figure.legend(*named, loc="outside right center", frameon=False, fontsize="small", handlelength=4)
    runs.save(figure, pd.concat([table.assign(measure=title) for title, table in panels.items()]), "model_scaling")


def _epic(trials: pd.DataFrame) -> pd.DataFrame:
    """Take each reward model's EPIC distance once: it is measured before training, so all seeds share it."""
    named = {EPIC_DISTANCE: "value", EPIC_LOW: "low", EPIC_HIGH: "high"}
    table = trials.dropna(subset=[EPIC_DISTANCE]).groupby(_GROUP, as_index=False)[list(named)].first()
    return table.rename(columns=named)


def _success(trials: pd.DataFrame) -> pd.DataFrame:
    return trials.groupby(_GROUP)[_SUCCESS].apply(over_seeds).unstack().reset_index()


def _references(axis: Axes, trials: pd.DataFrame) -> None:
    references = trials[trials["prompt"] == REFERENCE_PROMPT]
    for shade, (name, own) in zip(REFERENCE_COLOURS, references.groupby("model"), strict=False):
        axis.axhline(over_seeds(own[_SUCCESS])["value"], color=shade, linestyle=(0, (8, 3)), label=str(name))


def _panel(axis: Axes, table: pd.DataFrame, colours: Mapping[str, str], most_with_bars: int) -> None:
    lines = list(table.groupby(_LINE))
    for index, (key, line) in enumerate(lines):
        # Shifted sideways, so that bars do not hide each other.
        at = line[PARAMETERS_MILLIONS] * 1.03 ** (index - (len(lines) - 1) / 2)
        bars = np.nan_to_num([line["value"] - line["low"], line["high"] - line["value"]]).clip(0)
        label = line_name(dict(zip(_LINE, key, strict=True)), table)
        look = line_look(index)
        axis.plot(at, line["value"], color="0.55", linewidth=1.4, label=label, zorder=1, **look)
        for place, (x, value, model) in enumerate(zip(at, line["value"], line["model"], strict=True)):
            bar = bars[:, place : place + 1] if len(lines) <= most_with_bars else None
            axis.errorbar(x, value, yerr=bar, marker=look["marker"], capsize=3, color=colours[model], zorder=2)
    models = table[[PARAMETERS_MILLIONS, "model"]].drop_duplicates()
    axis.set_xscale("log")
    axis.set_xticks(
        models[PARAMETERS_MILLIONS],
        [f"{millions:g}\n{model}" for millions, model in models.itertuples(index=False)],
        fontsize="small",
    )
    axis.minorticks_off()
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.3)


if __name__ == "__main__":
    draw_alone(draw)
