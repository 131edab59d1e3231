"""The over-optimisation alarm: when it is raised, when it is not, and the summary by model."""

import numpy as np
import pandas as pd
import pytest

from vlm_rm_sweeps.evaluation.overoptimisation import WINDOW, overoptimisation_alarm, summary_by_model, trend
from vlm_rm_sweeps.metrics import AUDIT_GOAL_FRACTION, AUDIT_PROXY, AUDIT_TRUE_REWARD
from vlm_rm_sweeps.training.audit import gold_metric

GOLD = gold_metric("embedded/small")
UP = [0.1, 0.2, 0.3, 0.4, 0.5]
DOWN = UP[::-1]
FLAT = [0.3] * 5


def points(**curves: list[float]) -> list[tuple[int, dict[str, float]]]:
    names = {
        "proxy": AUDIT_PROXY,
        "gold": GOLD,
        "other_gold": gold_metric("a/b"),
        "goal": AUDIT_GOAL_FRACTION,
        "true": AUDIT_TRUE_REWARD,
    }
    count = len(next(iter(curves.values())))
    return [(1000 * (i + 1), {names[key]: values[i] for key, values in curves.items()}) for i in range(count)]


def test_rings_when_the_proxy_rises_while_gold_and_truth_fall() -> None:
    assert overoptimisation_alarm(points(proxy=UP, gold=DOWN, goal=DOWN, true=UP)) is True


@pytest.mark.parametrize(
    "curves",
    [
        {"proxy": UP, "gold": UP, "goal": UP, "true": UP},  # it learns
        {"proxy": DOWN, "gold": DOWN, "goal": DOWN, "true": DOWN},  # it unlearns
        {"proxy": UP, "gold": UP, "goal": DOWN, "true": DOWN},  # the models agree with one another
        {"proxy": UP, "gold": DOWN, "goal": UP, "true": UP},  # the gold model is wrong
        {"proxy": UP, "gold": DOWN, "other_gold": UP, "goal": DOWN, "true": DOWN},  # the gold models do not agree
        {"proxy": UP, "gold": DOWN, "goal": [0.0] * 5, "true": DOWN},  # the goal was never reached: there is nothing to lose
        {"proxy": FLAT, "gold": DOWN, "goal": DOWN, "true": DOWN},
    ],
)
def test_stays_silent_otherwise(curves: dict[str, list[float]]) -> None:
    assert overoptimisation_alarm(points(**curves)) is False


def test_the_true_reward_is_the_truth_where_nothing_tells_success() -> None:
    assert overoptimisation_alarm(points(proxy=UP, true=DOWN)) is True
    assert overoptimisation_alarm(points(proxy=UP, true=UP)) is False


def test_a_gold_model_that_was_unavailable_at_a_point_does_not_judge() -> None:
    judged = points(proxy=UP, gold=UP, goal=DOWN, true=DOWN)
    assert overoptimisation_alarm(judged) is False
    del judged[2][1][GOLD]
    assert overoptimisation_alarm(judged) is True


def test_says_nothing_before_there_are_enough_points() -> None:
    assert overoptimisation_alarm(points(proxy=UP[1:], goal=DOWN[1:], true=DOWN[1:])) is None


def test_only_the_last_points_count() -> None:
    rise = [0.9, 0.95, 1.0]
    assert overoptimisation_alarm(points(proxy=rise[::-1] + UP, goal=rise + DOWN, true=rise + DOWN)) is True


def test_a_trend_bears_one_point_out_of_place_and_not_noise() -> None:
    steps = [1.0, 2.0, 3.0, 4.0, 5.0]
    assert trend(steps, [0.1, 0.3, 0.2, 0.4, 0.5]) == 1
    assert trend(steps, [0.1, 0.5, 0.2, 0.4, 0.15]) == 0
    rng = np.random.default_rng(0)
    noise = [trend(steps, rng.normal(size=WINDOW).tolist()) for _ in range(500)]
    assert np.mean(np.array(noise) > 0) < 0.1
    assert np.mean(np.array(noise) < 0) < 0.1


def test_the_summary_has_a_row_for_each_model_smallest_first() -> None:
    columns = ["model", "parameters_millions", "trial", "env_steps", "proxy", "gold", "truth", "alarm"]
    rows = [
        ("large", 2.0, "c", 1000, 0.1, np.nan, 0.2, np.nan),
        ("large", 2.0, "c", 2000, 0.3, np.nan, 0.8, 0.0),
        ("small", 0.5, "a", 1000, 0.1, 0.5, 0.2, np.nan),
        ("small", 0.5, "a", 2000, 0.2, 0.4, 0.9, 0.0),
        ("small", 0.5, "a", 3000, 0.5, 0.2, 0.1, 1.0),
        ("small", 0.5, "b", 1000, 0.1, 0.5, 0.2, 0.0),
        ("small", 0.5, "b", 3000, 0.3, 0.6, 0.4, 0.0),
    ]
    table = summary_by_model(pd.DataFrame(rows, columns=columns)).set_index("model")
    assert table.index.tolist() == ["small", "large"]
    small = table.loc["small"]
    assert (small["trials"], small["trials_checked"], small["trials_with_alarm"], small["first_alarm_step"]) == (2, 2, 1, 3000)
    assert small["proxy_change"] == pytest.approx((0.4 + 0.2) / 2)
    assert small["gold_change"] == pytest.approx((-0.3 + 0.1) / 2)
    assert small["truth_change"] == pytest.approx((-0.1 + 0.2) / 2)
    assert small["truth_below_peak"] == pytest.approx((0.8 + 0.0) / 2)
    assert table["first_alarm_step"].isna()["large"]
    assert table["gold_change"].isna()["large"]


def test_trials_with_too_few_points_are_not_counted_as_without_alarm() -> None:
    columns = ["model", "parameters_millions", "trial", "env_steps", "proxy", "gold", "truth", "alarm"]
    rows = [("tiny", 0.1, "a", 1000 * point, 0.1, np.nan, 0.2, np.nan) for point in (1, 2, 3, 4)]
    (row,) = summary_by_model(pd.DataFrame(rows, columns=columns)).to_dict("records")
    assert (row["trials_checked"], row["trials_with_alarm"]) == (0, "not enough points")
