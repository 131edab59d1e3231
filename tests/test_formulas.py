"""Formulas are bounded before they are computed: none of these may take a second, or memory."""

import math
from typing import Any

import numpy as np
import pytest

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.formulas import Formula

NAMES: dict[str, Any] = {"obs": [1.0, -2.0], "x": 3.0, "info": {"n": np.float32(2), "state": "done", "v": np.ones(2)}}


def value(text: str) -> Any:
    return Formula(text, {"max": max, "sqrt": math.sqrt})(NAMES)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("obs[0] > 0.9 and not obs[1] > 0", True),
        ("x ** 2 + 7 % 4 - 7 // 2", 9.0),
        ("-2 ** 2", -4.0),
        ("max(x, 5) if info['state'] == 'done' else 0", 5),
        ("info['n'] * 2", 4.0),
        ("(info['v'] * 2)[1]", 2.0),
        ("(x > 1) & (x < 5)", True),
        ("0 < x <= 3", True),
        (" + ".join(["x"] * 90), 270.0),
    ],
)
def test_arithmetic_and_comparisons(text: str, expected: Any) -> None:
    assert value(text) == expected


@pytest.mark.parametrize(
    "text", ["1 / 0", "(0 - 1) ** 0.5", "sqrt(0 - 1)", "10 ** 4000000", "9 ** 9 ** 9 ** 9", "x ** 10 ** 300"]
)
def test_where_there_is_no_value_it_is_none(text: str) -> None:
    assert value(text) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("'%1999999999d' % 1 == ''", "is no number"),
        ("'a' * 1999999999 == ''", "is no number"),
        ("obs * 1999999999 == obs", "is no number"),
        ("f'{x:1999999999}' == ''", "formatted texts are not allowed"),
        ("+".join(["x"] * 900), "nested deeper than 100"),
        (" + ".join(["x"] * 3000), "characters, expected at most 2,000"),
        ("(" * 300 + "x" + ")" * 300, "nested"),
        ("-" * 1900 + "x", "nested"),
        ("x.real", "attribute access not allowed"),
        ("open('a')", "unknown function 'open'"),
        ("y", "unknown name 'y'"),
        ("x > 1 <", "invalid syntax"),
        ("x\0", "null"),
        ("[x for y in obs]", "not available"),
    ],
    ids=lambda text: text[:20],
)
def test_what_could_grow_is_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        value(text)


@pytest.mark.parametrize(
    "text", ["0 < info['v'] < 1", "info['v'] > 0 and x > 0", "not info['v'] > 0", "max(info['v'], 0.5) > 0.1"]
)
def test_an_array_that_is_taken_for_one_number_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"an array of several numbers is taken for one: expected one of its numbers"):
        value(text)
