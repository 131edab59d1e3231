"""Cohen's kappa between raters, by hand."""

import math

import pandas as pd
import pytest

from vlm_rm_sweeps.labelling.agreement import agreement
from vlm_rm_sweeps.labelling.scales import SHARE, YES_NO


def labels(**raters: list[float | None]) -> pd.DataFrame:
    rows = [
        {"item": str(index), "rater": rater, "value": math.nan if value is None else value}
        for rater, values in raters.items()
        for index, value in enumerate(values)
    ]
    return pd.DataFrame(rows)


def test_kappa_by_hand() -> None:
    # They agree on 3 of 4; by chance it would be (1/2 * 3/4) + (1/2 * 1/4) = 1/2; so kappa is (3/4 - 1/2) / (1 - 1/2).
    row = agreement(labels(anna=[1, 1, 0, 0], bert=[1, 1, 1, 0]), YES_NO).iloc[0]
    assert (row["first"], row["second"], row["items"]) == ("anna", "bert", 4)
    assert row["equal"] == pytest.approx(0.75)
    assert row["kappa"] == pytest.approx(0.5)


def test_only_items_that_both_answered_count() -> None:
    table = agreement(labels(anna=[1, 0, None, 1, 0], bert=[1, 0, 0, None], carl=[None, None, None, 1]), YES_NO)
    assert table["items"].tolist() == [2, 1, 0]
    assert table["kappa"].iloc[0] == 1
    assert table["kappa"].iloc[1:].isna().all()


def test_a_step_apart_is_less_than_four_steps_apart() -> None:
    near = agreement(labels(anna=[0, 25, 50, 75, 100], bert=[0, 25, 50, 100, 100]), SHARE)["kappa"].iloc[0]
    far = agreement(labels(anna=[0, 25, 50, 75, 100], bert=[0, 25, 50, 0, 100]), SHARE)["kappa"].iloc[0]
    assert far < near < 1


def test_steps_that_nobody_chose_count_as_steps() -> None:
    """100 sorts before 25 as text, and two answers that are far apart stay so when nothing between them was given."""
    near = agreement(labels(anna=[25, 50, 25, 50], bert=[25, 50, 50, 50]), SHARE)["kappa"].iloc[0]
    assert near == pytest.approx(0.5)
    # With 25, 25, 100 against 25, 100, 100 and weights 3 apart, chance and observation scale alike: kappa stays that of a step.
    far = agreement(labels(anna=[25, 100, 25, 100], bert=[25, 100, 100, 100]), SHARE)["kappa"].iloc[0]
    assert far == pytest.approx(near)
    # Beside a third answer it does not: missing by three steps costs more than missing by one.
    by_one = agreement(labels(anna=[0, 0, 25, 100], bert=[0, 0, 0, 100]), SHARE)["kappa"].iloc[0]
    by_four = agreement(labels(anna=[0, 0, 100, 25], bert=[0, 0, 0, 25]), SHARE)["kappa"].iloc[0]
    assert by_four < by_one


def test_kappa_without_variation_is_unknown() -> None:
    assert math.isnan(agreement(labels(anna=[1, 1], bert=[1, 1]), YES_NO)["kappa"].iloc[0])


def test_one_rater_has_nobody_to_agree_with() -> None:
    assert agreement(labels(anna=[1, 0]), YES_NO).empty
