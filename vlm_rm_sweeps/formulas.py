"""Formulas that users write: arithmetic, comparisons and a few functions, bounded before anything is computed."""

import ast
import math
import operator
import sys
from collections.abc import Callable, Collection, Mapping
from numbers import Number
from typing import Any

import numpy as np
import simpleeval

from vlm_rm_sweeps.errors import UserError, reason_of, shown

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

_REFUSED_OPERATORS = {ast.LShift: "<<", ast.RShift: ">>", ast.MatMult: "@"}


class Formula:
    """A parsed formula, without attributes, so that it calls no methods.

    All of it is checked before anything is computed, also what `and`, `or` and `if` may never reach.

    Args:
        text: For example `obs[0] > 0.9`.
        functions: The functions that it may call, by name.
        names: The names of the values that it may use.

    Attributes:
        parsed: Its syntax tree.

    Raises:
        UserError: The text is no formula, uses an unknown name, function or operator, has a number beyond the range of floats, or
            is too long or too deep to be computed.
    """

    def __init__(self, text: str, functions: Mapping[str, Callable[..., Any]], names: Collection[str]) -> None:
        self.text = text.strip()
        if len(text) > _MOST_LETTERS:
            raise UserError(f"it has {len(text):,} characters, expected at most {_MOST_LETTERS:,}")
        try:
            self.parsed = ast.parse(self.text, mode="eval").body
        except (SyntaxError, ValueError, MemoryError, RecursionError) as error:  # the last two: nested too deeply for Python
            reason = error.msg if isinstance(error, SyntaxError) else str(error) or "nested too deeply"
            raise UserError(reason) from error
        self._evaluator = simpleeval.SimpleEval(_OPERATORS, dict(functions), names={}, allowed_attrs={})
        self._check(names)

    def __call__(self, values: Mapping[str, Any]) -> Any:
        """Compute the value.

        Args:
            values: Values of the formula's names.

        Returns:
            The value; None where there is none (a division by 0, the root of a negative number).

        Raises:
            UserError: Something that is no number is computed with, or one of the values raises an error of its own.
        """
        self._evaluator.names = dict(values)
        try:
            return self._evaluator.eval(self.text, self.parsed)
        except ArithmeticError:
            return None
        except ValueError as error:
            if _OF_AN_ARRAY not in str(error):  # such as the root of a negative number
                return None
            raise UserError(
                "an array of several numbers is taken for one: expected one of its numbers, such as info['position'][0]"
            ) from error
        except KeyError as error:  # `info` is the only mapping
            raise UserError(f"info has no {error}") from error
        except (LookupError, TypeError, simpleeval.InvalidExpression) as error:
            raise UserError(str(error)) from error
        except Exception as error:  # an object of the user's, such as a tensor in `info`, may raise anything
            raise UserError(reason_of(error)) from error

    def _check(self, names: Collection[str]) -> None:
        """Refuse a depth at which Python would give up, and then each part that cannot be computed."""
        level: list[ast.AST] = [self.parsed]
        for _ in range(_MOST_DEPTH):
            level = [child for node in level for child in ast.iter_child_nodes(node)]
        if level:
            raise UserError(f"it is nested deeper than {_MOST_DEPTH} levels: expected fewer terms or parentheses")
        for node in ast.walk(self.parsed):
            problem = self._problem(node, names)
            if problem is not None:
                raise UserError(problem)

    def _problem(self, node: ast.AST, names: Collection[str]) -> str | None:
        functions = self._evaluator.functions
        match node:
            case ast.JoinedStr():  # may have any length
                return "formatted texts are not allowed"
            case ast.Attribute():
                return f"attribute access not allowed: .{node.attr}"
            case ast.Call(func=ast.Name(id=name)) if name not in functions:
                return f"unknown function {name!r}"
            case ast.Call(func=called) if not isinstance(called, ast.Name | ast.Attribute):
                return f"{self._written(called)} is no function"
            case ast.Name(id=name) if name not in names and name not in functions:
                return f"unknown name {name!r}"
            case ast.BinOp(op=used) if type(used) in _REFUSED_OPERATORS:
                return f"the operator {_REFUSED_OPERATORS[type(used)]} is not available: expected + - * / // % ** & | or ^"
            case ast.Constant(value=int() | float() as number) if abs(number) > sys.float_info.max:
                return f"the number {self._written(node)} is too large: expected at most {sys.float_info.max:.4g}"
            case ast.Constant(value=value) if not isinstance(value, int | float | str | None):
                return f"{self._written(node)} is not available"
            case ast.expr() if type(node) not in self._evaluator.nodes:
                return f"{self._written(node)} is not available"
        return None

    def _written(self, node: ast.AST) -> str:
        """Return a part as it stands in the text, shortened."""
        return shown(ast.get_source_segment(self.text, node), 40)
