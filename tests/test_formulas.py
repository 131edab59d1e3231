"""Formulas are bounded before they are computed: none of these may take a second, or memory."""

import math
from typing import Any

import numpy as np
import pytest

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.formulas import Formula

NAMES: dict[str, Any] = {"obs": [1.0, -2.0], "x": 3.0, "info": {"n": np.float32(2), "state": "done", "v": np.ones(2)}}


class Grumpy:
    """As a tensor in `info`: its comparisons are no booleans, which it says with an error of its own."""

    def __bool__(self) -> bool:
        raise RuntimeError("truth value is ambiguous\nat line 3")


def value(text: str) -> Any:
    return Formula(text, {"max": max, "sqrt": math.sqrt}, NAMES.keys())(NAMES)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("obs[0] > 0.9 and not obs[1] > 0", True),
        ("x ** 2 + 7 % 4 - 7 // 2", 9.0),
        ("-2 ** 2", -4.0),
        ("max(obs, key=max) if x < 0 else 1", 1),
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
        ("x > 1 or y", "unknown name 'y'"),
        ("x > 1 or exp(3) > 3", "unknown function 'exp'"),
        ("x > 1 or x.real", "attribute access not allowed"),
        ("x > 1 or [x for x in obs]", "'\\[x for x in obs\\]' is not available"),
        ("x > 1 or max(x, 1)(2) > 1", "'max\\(x, 1\\)' is no function"),
        ("x > 1 or b'a' == 1", "is not available"),
        ("1 << 3", "the operator << is not available: expected"),
        ("x > 1 or 1 @ 3", "the operator @ is not available"),
        ("x < 1000" + "0" * 400, "the number '1000000.* is too large: expected at most 1.798e\\+308"),
        ("x > 1 or obs[1e999] == 1", "the number '1e999' is too large"),
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


def test_an_object_may_raise_anything() -> None:
    names = {"info": {"t": Grumpy()}}
    with pytest.raises(UserError, match=r"^RuntimeError: truth value is ambiguous$"):
        Formula("info['t'] and True", {}, names.keys())(names)
