"""Over-optimisation: whether training improves policies, or only their score by their own reward model.

Run `make analysis SWEEP_RUN=FOLDER` for a sweep with `audit:`, or `python analysis/overoptimisation.py FOLDER`. There is a
panel for each trial with its training reward (proxy) and the gold models, in the models' colours, other specs, the truth and the true
reward. Each curve is rescaled to [0, 1], because scales differ. Audit points with an alarm are shaded. A summary by model is saved
too. Where a reward can be trusted, expect all curves to rise together.
"""

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from runs import TRIAL_TAGS, DoesNotApplyError, SweepRuns, draw_alone, line_name, reward_model_trials, reward_told

from vlm_rm_sweeps.evaluation.overoptimisation import summary_by_model
from vlm_rm_sweeps.metrics import (
    ALARM,
    AUDIT_GOAL_FRACTION,
    AUDIT_GOLD,
    AUDIT_PROXY,
    AUDIT_SPEC,
    AUDIT_TRUE_REWARD,
    ENV_STEPS,
    PARAMETERS_MILLIONS,
)
from vlm_rm_sweeps.training.audit import gold_metric

_MOST_PANELS = 12
_COLUMNS = 3
_PROXY = "proxy: training reward"


def draw(runs: SweepRuns) -> None:
    """Draw and save the figure, and save the summary by model."""
    trials = reward_model_trials(runs)
    if AUDIT_PROXY not in trials:
        raise DoesNotApplyError("its trials were not audited; add `audit:` to the sweep file")
    truth = AUDIT_GOAL_FRACTION if AUDIT_GOAL_FRACTION in trials else AUDIT_TRUE_REWARD
    # Where success is known, the true reward is drawn as well, because the two may disagree.
    names = [
        AUDIT_PROXY,
        *dict.fromkeys((truth, AUDIT_TRUE_REWARD)),
        *sorted(name for name in trials.columns.map(str) if name.startswith((AUDIT_GOLD, AUDIT_SPEC))),
    ]
    history = pd.concat([runs.history(name).assign(curve=_curve(name, truth)) for name in names], ignore_index=True)
    alarms = runs.history(ALARM)
    # Only some of many trials can be shown: those with an alarm come first.
    alarmed = alarms[alarms["value"] == 1]["run_id"].unique()
    shown = sorted(history["run_id"].unique(), key=lambda run_id: run_id not in alarmed)[:_MOST_PANELS]
    if len(shown) < history["run_id"].nunique():
        print(f"overoptimisation shows {len(shown)} of {history['run_id'].nunique()} trials, those with an alarm first")
    columns = min(_COLUMNS, len(shown))
    rows = -(-len(shown) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(4 * columns + 2.2, 2.9 * rows), layout="constrained", squeeze=False, sharex=True
    )
    for axis in axes.flat[len(shown) :]:
        axis.set_visible(False)
    of_gold = {_curve(gold_metric(model_id), truth): colour for model_id, colour in runs.colours.items()}
    for axis, run_id in zip(axes.flat, shown, strict=False):
        own = history[history["run_id"] == run_id]
        colours = of_gold | {_PROXY: runs.colours[own["model"].iloc[0]]}
        _panel(axis, own, alarms[alarms["run_id"] == run_id], colours)
        of = history[history["run_id"] == run_id].iloc[0][TRIAL_TAGS].to_dict()
        axis.set_title(line_name(of | {"alpha": reward_told(of["alpha"])}, history), fontsize="small")
    lines: dict[Any, Line2D] = {line.get_label(): line for axis in axes.flat for line in axis.get_lines()}
    lines[_PROXY] = Line2D([], [], color="0.4", linewidth=2.0)  # of another colour in each panel
    figure.legend(lines.values(), lines.keys(), loc="outside right center", frameon=False, fontsize="small")
    runs.save(figure, history, "overoptimisation")
    _save_summary(runs, trials, history, alarms)


def _curve(metric: str, truth: str) -> str:
    if metric == truth:
        return "truth: steps in the goal" if truth == AUDIT_GOAL_FRACTION else "truth: true reward"
    if metric == AUDIT_TRUE_REWARD:
        return "true reward"
    if metric == AUDIT_PROXY:
        return _PROXY
    return metric.replace(AUDIT_GOLD, "gold: ").replace(AUDIT_SPEC, "spec: ")


def _panel(axis: Axes, history: pd.DataFrame, alarms: pd.DataFrame, colours: Mapping[str, str]) -> None:
    for curve, line in history.groupby("curve", sort=False):
        low, high = line["value"].min(), line["value"].max()
        rescaled = (line["value"] - low) / (high - low) if high > low else line["value"] * 0 + 0.5
        kind = str(curve).split(":")[0]
        style = {
            "proxy": (None, "-", 2.0),
            "truth": ("black", "--", 2.0),
            "true reward": ("0.5", "--", 1.4),
            "gold": (None, "-", 1.6),
        }.get(kind, (None, ":", 1.2))
        colour, dashes, width = style
        of_model = colours.get(str(curve))
        axis.plot(line[ENV_STEPS], rescaled, label=str(curve), color=colour or of_model, linestyle=dashes, linewidth=width)
    points = [0, *history[ENV_STEPS].drop_duplicates().sort_values()]
    for step in alarms[alarms["value"] == 1][ENV_STEPS]:
        axis.axvspan(max(point for point in points if point < step), step, color="tab:red", alpha=0.2, linewidth=0)
    axis.set(xlabel="environment steps", ylabel="mean per step, rescaled", ylim=(-0.05, 1.05))
    axis.grid(alpha=0.3)


def _save_summary(runs: SweepRuns, trials: pd.DataFrame, history: pd.DataFrame, alarms: pd.DataFrame) -> None:
    kinds = history.assign(kind=history["curve"].str.split(":").str[0])
    points = kinds.pivot_table(
        index=["run_id", "model", ENV_STEPS], columns="kind", values="value", aggfunc="mean"
    ).reset_index()
    points = points.reindex(columns=["run_id", "model", ENV_STEPS, "proxy", "gold", "truth"])
    alarm = alarms[["run_id", ENV_STEPS, "value"]].rename(columns={"value": "alarm"})
    points = points.merge(alarm, how="left", on=["run_id", ENV_STEPS])
    points = points.merge(trials[["run_id", PARAMETERS_MILLIONS]], on="run_id").rename(columns={"run_id": "trial"})
    summary = summary_by_model(points)
    print(summary.to_string(index=False, float_format="%.3f"))
    runs.save_table(summary, "overoptimisation_by_model")


if __name__ == "__main__":
    draw_alone(draw)
