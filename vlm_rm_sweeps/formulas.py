"""Formulas that users write: arithmetic, comparisons and a few functions, bounded before anything is computed."""

import ast
import math
import operator
from collections.abc import Callable, Mapping
from numbers import Number
from typing import Any

import numpy as np
import simpleeval

from vlm_rm_sweeps.errors import UserError

_MOST_LETTERS = 2_000
_MOST_DEPTH = 100
_OF_AN_ARRAY = "truth value of an array"
"""Part of what NumPy says of several numbers that are taken for true or false."""
_OPERANDS = (Number, np.bool_, np.ndarray)


def _of_numbers(operation: Callable[..., Any]) -> Callable[..., Any]:
    """Refuse texts and lists, which `*` repeats and `%` formats, to any length."""

    def compute(*operands: Any) -> Any:
        for operand in operands:
            if not isinstance(operand, _OPERANDS):
                raise TypeError(f"{operand!r:.40} is no number")
        return operation(*operands)

    return compute


def _of_values(comparison: Callable[..., Any]) -> Callable[..., Any]:
    """Refuse a list: Python finds it different from any number, which would silently be no success."""

    def compare(*compared: Any) -> Any:
        if any(isinstance(each, list) for each in compared):
            raise TypeError("obs is a list of numbers, which is compared as a whole")
        return comparison(*compared)

    return compare


_OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: _of_numbers(operator.add),
    ast.Sub: _of_numbers(operator.sub),
    ast.Mult: _of_numbers(operator.mul),
    ast.Div: _of_numbers(operator.truediv),
    ast.FloorDiv: _of_numbers(operator.floordiv),
    ast.Mod: _of_numbers(operator.mod),
    # Of floats: Python's own power of integers may have millions of digits, and that of a negative number may be complex.
    ast.Pow: _of_numbers(math.pow),
    ast.BitAnd: _of_numbers(operator.and_),
    ast.BitOr: _of_numbers(operator.or_),
    ast.BitXor: _of_numbers(operator.xor),
    ast.Invert: _of_numbers(operator.invert),
    ast.USub: _of_numbers(operator.neg),
    ast.UAdd: _of_numbers(operator.pos),
    ast.Not: operator.not_,
    ast.Eq: _of_values(operator.eq),
    ast.NotEq: _of_values(operator.ne),
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda part, whole: part in whole,
    ast.NotIn: lambda part, whole: part not in whole,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
}


class Formula:
    """A parsed formula, without attributes, so that it calls no methods.

    Args:
        text: For example `obs[0] > 0.9`.
        functions: The functions that it may call, by name.

    Attributes:
        parsed: Its syntax tree.

    Raises:
        UserError: The text is no formula, or is too long or too deep to be computed.
    """

    def __init__(self, text: str, functions: Mapping[str, Callable[..., Any]]) -> None:
        self.text = text
        if len(text) > _MOST_LETTERS:
            raise UserError(f"it has {len(text):,} characters, expected at most {_MOST_LETTERS:,}")
        try:
            self.parsed = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, MemoryError, RecursionError) as error:  # the last two: nested too deeply for Python
            reason = error.msg if isinstance(error, SyntaxError) else str(error) or "nested too deeply"
            raise UserError(reason) from error
        _check(self.parsed)
        self._evaluator = simpleeval.SimpleEval(_OPERATORS, dict(functions), names={}, allowed_attrs={})

    def __call__(self, names: Mapping[str, Any]) -> Any:
        """Compute the value.

        Args:
            names: Values of the formula's names.

        Returns:
            The value; None where there is none (a division by 0, the root of a negative number).

        Raises:
            UserError: A name or function does not exist, or something that is no number is computed with.
        """
        self._evaluator.names = dict(names)
        try:
            return self._evaluator.eval(self.text, self.parsed)
        except simpleeval.InvalidExpression as error:
            raise UserError(_reason(error)) from error
        except ArithmeticError:
            return None
        except ValueError as error:
            if _OF_AN_ARRAY not in str(error):  # such as the root of a negative number
                return None
            raise UserError(
                "an array of several numbers is taken for one: expected one of its numbers, such as info['position'][0]"
            ) from error
        except (LookupError, TypeError) as error:
            raise UserError(_reason(error)) from error


def _check(parsed: ast.expr) -> None:
    """Refuse formatted texts, which may have any length, and a depth at which Python would give up."""
    level: list[ast.AST] = [parsed]
    for _ in range(_MOST_DEPTH):
        for node in level:
            if isinstance(node, ast.JoinedStr):
                raise UserError("formatted texts are not allowed")
        level = [child for node in level for child in ast.iter_child_nodes(node)]
        if not level:
            return
    raise UserError(f"it is nested deeper than {_MOST_DEPTH} levels: expected fewer terms or parentheses")


def _reason(error: Exception) -> str:
    match error:
        case simpleeval.NameNotDefined():
            return f"unknown name {error.name!r}"
        case simpleeval.FunctionNotDefined():
            return f"unknown function {error.func_name!r}"
        case KeyError():  # `info` is the only mapping
            return f"info has no {error}"
    return str(error)
