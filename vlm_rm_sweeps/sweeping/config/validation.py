"""Turns pydantic's errors into one message with each bad key, its value, what was expected and the nearest name."""

import difflib
import types
import typing
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from vlm_rm_sweeps.errors import UserError, causes, expectation, shown

Checked = TypeVar("Checked", bound=BaseModel)
_MOST_PROBLEMS = 10
_SHOWN_LETTERS = 80


def check_keys(model: type[Checked], data: Any, within: str = "", hint: str = "") -> Checked:
    """Validate the keys of a file or of a part of it.

    Args:
        model: The schema.
        data: Content of the file or the part.
        within: Path of the part in the file, with a final dot, such as `settings.`; empty for the whole file.
        hint: Appended to the message.

    Returns:
        An instance of the schema.

    Raises:
        UserError: One message that explains every bad key.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise UserError("; ".join(problems_of(error, model, within)) + hint) from error


def problems_of(error: ValidationError, model: type[BaseModel], within: str = "") -> list[str]:
    """Explain the bad keys of a part of the sweep file; `within` is the part's path, as for `check_keys`."""
    problems = causes(error.errors(include_url=False))
    explained, listed = [], set()
    for problem in problems[:_MOST_PROBLEMS]:
        section = problem["loc"][:-1]
        explained.append(_explain(problem, model, within, lists_keys=section not in listed))
        if problem["type"] == "extra_forbidden":
            listed.add(section)
    more = len(problems) - len(explained)
    return [*explained, *([f"and {more} more problems"] if more else [])]


def in_file(path: Path, error: UserError) -> UserError:
    """Return the same error with the name of the file that it is about."""
    return UserError(f"{path}: {error}")


def refuse_repeats(axis: str, values: Iterable[Any]) -> None:
    """Check that no value occurs more than once.

    Args:
        axis: Key of the list in the sweep file, for the message.
        values: The list.

    Raises:
        UserError: A value occurs more than once.
    """
    values = list(values)
    with suppress(TypeError):  # of values that cannot be hashed; there are few of them
        if len(set(values)) == len(values):
            return
    for value in values:
        if values.count(value) > 1:
            raise UserError(f"duplicate value {value!r} in `{axis}`: expected each value once")


def _explain(problem: Mapping[str, Any], model: type[BaseModel], within: str, lists_keys: bool) -> str:
    key = within + ".".join(_shortened(str(part)) for part in problem["loc"])
    found = shown(problem["input"])
    if problem["type"] == "extra_forbidden":
        known = list(_fields_at(problem["loc"][:-1], model))
        nearest = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1)
        helps = [f"did you mean {nearest[0]!r}?"] if nearest else []
        helps += [f"expected one of {', '.join(known)}"] if lists_keys else []
        return f"unknown key {key!r} (value {found}){': ' if helps else ''}{' '.join(helps)}"
    if problem["type"] == "missing":
        return f"{key!r} is missing"
    message = expectation(problem)
    names_its_keys = key == "epic_states" and isinstance(problem["input"], dict) and problem["type"] == "value_error"
    if not key or names_its_keys:
        return message
    if isinstance(problem["input"], dict):
        return f"{key}: {message}"
    return f"{key} = {found}: {message}"


def _shortened(name: str) -> str:
    return name if len(name) <= _SHOWN_LETTERS else f"{name[:_SHOWN_LETTERS]}..."


def _fields_at(location: tuple[int | str, ...], model: Any) -> Iterable[str]:
    """Return the keys that are allowed at a location in the sweep file, or in the part that `model` describes."""
    for part in location:
        if isinstance(part, str) and part in getattr(model, "model_fields", {}):
            model = model.model_fields[part].annotation
        if isinstance(model, types.GenericAlias | types.UnionType):
            model = typing.get_args(model)[0]
    fields: dict[str, Any] = getattr(model, "model_fields", {})
    return fields
