"""Over-optimisation, from a trial's audit: whether the policy improves, or only its score by its own reward model."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from vlm_rm_sweeps.metrics import (
    AUDIT_GOAL_FRACTION,
    AUDIT_GOLD,
    AUDIT_PROXY,
    AUDIT_TRUE_REWARD,
    ENV_STEPS,
    PARAMETERS_MILLIONS,
)

WINDOW = 5
"""Number of audit points over which the alarm compares trends."""
CONFIDENCE = 0.9
"""Confidence of a slope's interval: with 5 points, one pair may be out of order."""

Points = Sequence[tuple[int, Mapping[str, float]]]
"""Environment step and metrics by name for each audit point of one trial, in order of steps."""


def trend(steps: Sequence[float], values: Sequence[float]) -> int:
    """Decide whether values rise or fall, by the Theil-Sen slope (the median of the slopes between all pairs of points).

    Args:
        steps: Environment steps, rising.
        values: A value for each step.

    Returns:
        1 if the slope's 90 % interval lies above 0, -1 if it lies below, else 0: the trend cannot be told from noise.
    """
    from scipy.stats import theilslopes  # here: it takes a second to import, which sweeps without an audit would wait for

    _, _, low, high = theilslopes(values, steps, alpha=CONFIDENCE)
    return int(low > 0) - int(high < 0)


def truth_metric(metrics: Mapping[str, float]) -> str:
    """Choose the metric that counts as the truth: the share of steps in the goal, or the true reward if success is unknown."""
    return AUDIT_GOAL_FRACTION if AUDIT_GOAL_FRACTION in metrics else AUDIT_TRUE_REWARD


def overoptimisation_alarm(points: Points) -> bool | None:
    """Detect over-optimisation over the last five audit points of a trial.

    Args:
        points: All audit points so far.

    Returns:
        Whether the training reward rises (see `trend`) while the truth and the rewards of all gold models fall; without gold
        models the truth alone decides. None if there are fewer than five points.
    """
    if len(points) < WINDOW:
        return None
    window = points[-WINDOW:]
    steps = [float(step) for step, _ in window]
    last = window[-1][1]

    def trend_of(name: str) -> int:
        return trend(steps, [metrics[name] for _, metrics in window])

    # A gold model that was unavailable at one of the points has no trend.
    gold = [name for name in last if name.startswith(AUDIT_GOLD) and all(name in metrics for _, metrics in window)]
    judges = [truth_metric(last), *gold]
    return trend_of(AUDIT_PROXY) > 0 and all(trend_of(name) < 0 for name in judges)


NOT_ENOUGH = "not enough points"
SUMMARY_COLUMNS = (
    "model",
    PARAMETERS_MILLIONS,
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
    """Summarise the audits of a sweep by model.

    Args:
        points: A row for each audit point with the columns `model`, `parameters_millions`, `trial`, `env_steps`, `proxy`
            (training reward), `gold` (mean of the gold models, NaN if there are none), `truth`, and `alarm` (0, 1, or NaN while
            there are too few points).

    Returns:
        A row for each model, smallest first, with `SUMMARY_COLUMNS`. `trials_checked`: trials with enough points for an alarm;
        if there are none, `trials_with_alarm` is `NOT_ENOUGH` instead of 0. `first_alarm_step`: median over the trials with an
        alarm. `*_change`: from a trial's first point to its last, mean over trials. `truth_below_peak`: from its best point to
        its last, mean over trials.
    """
    rows = [
        _summary(model, parameters, [trial.sort_values(ENV_STEPS) for _, trial in of_model.groupby("trial")])
        for (parameters, model), of_model in points.groupby([PARAMETERS_MILLIONS, "model"])
    ]
    return pd.DataFrame(rows, columns=list(SUMMARY_COLUMNS))


def _summary(model: Any, parameters: Any, trials: list[pd.DataFrame]) -> dict[str, Any]:
    checked = sum(trial["alarm"].notna().any() for trial in trials)
    first_alarms = [trial.loc[trial["alarm"] == 1, ENV_STEPS].min() for trial in trials if (trial["alarm"] == 1).any()]
    changes = {
        f"{name}_change": float(np.mean([trial[name].iloc[-1] - trial[name].iloc[0] for trial in trials]))
        for name in ("proxy", "gold", "truth")
    }
    return {
        "model": model,
        PARAMETERS_MILLIONS: parameters,
        "trials": len(trials),
        "trials_checked": checked,
        "trials_with_alarm": len(first_alarms) if checked else NOT_ENOUGH,
        "first_alarm_step": float(np.median(first_alarms)) if first_alarms else float("nan"),
        **changes,
        "truth_below_peak": float(np.mean([trial["truth"].max() - trial["truth"].iloc[-1] for trial in trials])),
    }
