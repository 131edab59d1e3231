"""Does a policy get better, or only better at pleasing its reward model? Told from the points of a trial's audit."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import theilslopes

from vlm_rm_sweeps.metrics import AUDIT_GOAL_FRACTION, AUDIT_GOLD, AUDIT_PROXY, AUDIT_TRUE_REWARD

WINDOW = 5
"""Audit points that the alarm looks at."""
CONFIDENCE = 0.9
"""Of the interval of a slope: with 5 points, one pair of them may be the other way round."""

Points = Sequence[tuple[int, Mapping[str, float]]]
"""Environment step and metrics of each audit point of one trial, in order."""


def trend(steps: Sequence[float], values: Sequence[float]) -> int:
    """1 if the values rise with the steps, -1 if they fall, 0 if neither can be told from noise.

    By the slope of Theil and Sen (the median of the slopes between all pairs of points): its 90 % interval must lie on one side
    of 0.
    """
    _, _, low, high = theilslopes(values, steps, alpha=CONFIDENCE)
    return int(low > 0) - int(high < 0)


def truth_metric(metrics: Mapping[str, float]) -> str:
    """What counts as the truth: the share of steps in the goal; where nothing tells success, the true reward."""
    return AUDIT_GOAL_FRACTION if AUDIT_GOAL_FRACTION in metrics else AUDIT_TRUE_REWARD


def overoptimisation_alarm(points: Points) -> bool | None:
    """Whether, over the last five audit points, the reward that is learned from rises while truth and all gold models fall.

    Rising and falling are `trend`'s. Without gold models the truth alone decides. None if there are fewer than five points.
    """
    if len(points) < WINDOW:
        return None
    window = points[-WINDOW:]
    steps = [float(step) for step, _ in window]
    last = window[-1][1]

    def trend_of(name: str) -> int:
        return trend(steps, [metrics[name] for _, metrics in window])

    judges = [truth_metric(last), *(name for name in last if name.startswith(AUDIT_GOLD))]
    return trend_of(AUDIT_PROXY) > 0 and all(trend_of(name) < 0 for name in judges)


NOT_ENOUGH = "not enough points"
SUMMARY_COLUMNS = (
    "model",
    "parameters_millions",
    "trials",
    "trials_checked",
    "trials_with_alarm",
    "first_alarm_step",
    "proxy_change",
    "gold_change",
    "truth_change",
    "truth_below_peak",
)


def summary_by_model(points: pd.DataFrame) -> pd.DataFrame:
    """One row for each model, smallest first.

    `points` has a row for each audit point: `model`, `parameters_millions`, `trial`, `env_steps`, `proxy`, `gold` (mean of the gold
    models, NaN without), `truth`, and `alarm` (0, 1, or NaN while there are too few points). `trials_checked` had enough for an
    alarm; where none had, `trials_with_alarm` says so instead of 0. Changes are from a trial's first to its last point,
    `truth_below_peak` is from its best point to its last; all are means over trials. `first_alarm_step` is the median over the
    trials with an alarm.
    """
    rows = [
        _summary(model, parameters, [trial.sort_values("env_steps") for _, trial in of_model.groupby("trial")])
        for (parameters, model), of_model in points.groupby(["parameters_millions", "model"])
    ]
    return pd.DataFrame(rows, columns=list(SUMMARY_COLUMNS))


def _summary(model: Any, parameters: Any, trials: list[pd.DataFrame]) -> dict[str, Any]:
    checked = sum(trial["alarm"].notna().any() for trial in trials)
    first_alarms = [trial.loc[trial["alarm"] == 1, "env_steps"].min() for trial in trials if (trial["alarm"] == 1).any()]
    changes = {
        f"{name}_change": float(np.mean([trial[name].iloc[-1] - trial[name].iloc[0] for trial in trials]))
        for name in ("proxy", "gold", "truth")
    }
    return {
        "model": model,
        "parameters_millions": parameters,
        "trials": len(trials),
        "trials_checked": checked,
        "trials_with_alarm": len(first_alarms) if checked else NOT_ENOUGH,
        "first_alarm_step": float(np.median(first_alarms)) if first_alarms else float("nan"),
        **changes,
        "truth_below_peak": float(np.mean([trial["truth"].max() - trial["truth"].iloc[-1] for trial in trials])),
    }
