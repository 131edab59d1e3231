"""Rank correlations of offline measures with what policies reach, on tables for which they are known."""

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

sys.path.insert(0, str(Path(__file__).parents[2] / "analysis"))

from predictive import ALL_TASKS, RANDOM, TaskCells, correlations, rank_correlation, within_prompts

from vlm_rm_sweeps.metrics import HEADINGS


def seeds_around(means: np.ndarray, spread: float) -> np.ndarray:
    return means[:, None] + np.array([-spread, 0.0, spread])


def test_a_measure_that_orders_cells_as_success_does_correlates_perfectly() -> None:
    measured = np.arange(12.0)
    assert rank_correlation([TaskCells(measured, seeds_around(measured**3, 0.0))]) == pytest.approx((1.0, 1.0, 1.0))
    assert rank_correlation([TaskCells(-measured, seeds_around(measured**3, 0.0))]) == pytest.approx((-1.0, -1.0, -1.0))


def test_of_one_task_it_is_spearmans_of_the_means_over_seeds_ties_included() -> None:
    rng = np.random.default_rng(0)
    measured, outcomes = rng.normal(size=30), rng.integers(0, 4, (30, 3)) / 3
    value, low, high = rank_correlation([TaskCells(measured, outcomes)])
    assert value == pytest.approx(spearmanr(measured, outcomes.mean(axis=1)).statistic)
    assert low < value < high


def test_a_measure_that_has_nothing_to_do_with_success_has_an_interval_around_zero() -> None:
    ranks = [np.arange(-half, half + 1.0) for half in (5, 200)]
    few, many = (rank_correlation([TaskCells(np.abs(each), seeds_around(each, 0.0))]) for each in ranks)
    for value, low, high in (few, many):
        assert value == pytest.approx(0.0)
        assert low < 0 < high
    assert few[2] - few[1] > 3 * (many[2] - many[1])


def test_seeds_that_differ_widen_the_interval_towards_zero() -> None:
    measured = np.arange(20.0)
    sure, unsure = (rank_correlation([TaskCells(measured, seeds_around(measured, spread))]) for spread in (0.0, 15.0))
    assert sure[0] == unsure[0] == pytest.approx(1.0)
    assert 0 < unsure[1] < 0.97 < sure[1]
    assert unsure[2] - unsure[1] > 0.1 > sure[2] - sure[1]


def test_missing_seeds_are_left_out_of_the_mean() -> None:
    outcomes = np.array([[0.0, 0.2], [1.0, np.nan], [0.4, 0.5], [np.nan, 0.7], [0.1, 0.9]])
    value, low, high = rank_correlation([TaskCells(np.arange(5.0), outcomes)])
    assert value == pytest.approx(spearmanr(np.arange(5), np.nanmean(outcomes, axis=1)).statistic)
    assert math.isfinite(low)
    assert math.isfinite(high)


def test_over_several_tasks_no_difference_between_them_counts() -> None:
    ranks = np.arange(8.0)
    easy, hard = TaskCells(ranks, seeds_around(10 + ranks, 0.0)), TaskCells(100 + ranks, seeds_around(ranks, 0.0))
    assert rank_correlation([easy, hard])[0] == pytest.approx(1.0)
    raw = spearmanr(np.concatenate([ranks, 100 + ranks]), np.concatenate([10 + ranks, ranks])).statistic
    assert raw < 0
    opposite = TaskCells(-ranks, seeds_around(ranks, 0.0))
    assert rank_correlation([easy, opposite])[0] == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("measured", "outcomes"),
    [(np.ones(9), np.arange(9.0)), (np.arange(9.0), np.zeros(9)), (np.arange(3.0), np.arange(3.0))],
    ids=["one measure for all", "one success for all", "three cells"],
)
def test_what_says_nothing_is_undefined(measured: np.ndarray, outcomes: np.ndarray) -> None:
    assert all(map(math.isnan, rank_correlation([TaskCells(measured, seeds_around(outcomes, 0.0))])))


def rows_of(cells: pd.DataFrame, trials: pd.DataFrame) -> dict[tuple[str, str, str], dict[Any, Any]]:
    """The rows of correlations by measure, outcome and task."""
    return {(row["measure"], row["outcome"], row["task"]): row for row in correlations(cells, trials).to_dict("records")}


def cells_and_trials() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two tasks with 6 and 5 cells: a small EPIC distance and a large AUC go with success, and VOC is known for none."""
    cells: list[dict[str, Any]] = []
    trials: list[dict[str, Any]] = []
    for task, count in (("one", 6), ("two", 5)):
        for place in range(count):
            cell = {"task": task, "model": "m", "alpha": f"reward_{place}", "prompt": "p"}
            measures: dict[str, Any] = {name: float("nan") for name in HEADINGS}
            measures |= {"epic_distance": 1 - place / 10, "roc_auc": place / 10}
            cells.append(cell | {"states": RANDOM} | measures)
            trials += [
                cell | {"seed": seed, "success": place / 10 + seed / 100, "true_return": -10.0 * place} for seed in (0, 1)
            ]
    return pd.DataFrame(cells), pd.DataFrame(trials)


def test_measures_are_turned_so_that_more_is_better() -> None:
    rows = rows_of(*cells_and_trials())
    for measure in ("epic_distance", "roc_auc"):
        for task, count in (("one", 6), ("two", 5), (ALL_TASKS, 11)):
            row = rows[measure, "success", task]
            assert (row["value"], row["cells"], row["seeds"]) == (pytest.approx(1.0), count, 2)
            assert rows[measure, "true_return", task]["value"] == pytest.approx(-1.0)
    assert {measure for measure, _, _ in rows} == {"epic_distance", "roc_auc"}


def test_cells_without_a_measure_or_without_a_trial_are_left_out() -> None:
    cells, trials = cells_and_trials()
    cells.loc[cells["alpha"] == "reward_0", "roc_auc"] = float("nan")
    trials.loc[(trials["alpha"] == "reward_4") & (trials["task"] == "one"), "success"] = float("nan")
    rows = rows_of(cells, trials)
    assert rows["roc_auc", "success", "one"]["cells"] == 4
    assert rows["roc_auc", "success", "two"]["cells"] == 4
    assert rows["epic_distance", "success", "one"]["cells"] == 5
    assert rows["epic_distance", "true_return", "one"]["cells"] == 6


def test_a_task_in_which_nothing_succeeds_dilutes_no_other() -> None:
    cells, trials = cells_and_trials()
    trials.loc[trials["task"] == "two", "success"] = 0.0
    table = correlations(cells, trials)
    assert table[table["outcome"] == "success"]["task"].unique().tolist() == ["one"]
    assert ALL_TASKS in table[table["outcome"] == "true_return"]["task"].tolist()


def test_one_task_has_no_row_for_all_of_them_and_unknown_success_no_row() -> None:
    cells, trials = cells_and_trials()
    only = trials[trials["task"] == "one"].assign(success=float("nan"))
    table = correlations(cells[cells["task"] == "one"], only)
    assert table["task"].unique().tolist() == ["one"]
    assert table["outcome"].unique().tolist() == ["true_return"]


def test_within_prompts_good_sentences_are_not_told_from_bad_ones() -> None:
    """The measure knows which prompt is good, and takes the better of its rewards for the worse."""
    rows: list[dict[str, Any]] = [
        {"task": "one", "model": "m", "alpha": f"reward_{reward}", "prompt": prompt, "good": good, "reward": reward}
        for prompt, good in (("good", 1.0), ("bad", 0.0))
        for reward in range(5)
    ]
    undefined = {name: float("nan") for name in HEADINGS}
    cells = pd.DataFrame([row | undefined | {"states": RANDOM, "roc_auc": row["good"] - row["reward"] / 100} for row in rows])
    trials = pd.DataFrame([row | {"seed": 0, "success": row["good"] + row["reward"] / 100} for row in rows])
    assert rows_of(cells, trials)["roc_auc", "success", "one"]["value"] > 0.4
    within = rows_of(within_prompts(cells), within_prompts(trials))
    assert {task for _, _, task in within} == {"one, prompt good", "one, prompt bad", ALL_TASKS}
    assert all(row["value"] == pytest.approx(-1.0) for row in within.values())
