"""The exception whose message users see without a traceback, and helpers for such messages."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


class UserError(ValueError):
    """Bad input: the message names the offending value, what was expected and what to do.

    The command line prints the message and exits with status 2. It is a `ValueError`, so that pydantic adds the key of the
    sweep file at which it was raised.
    """


class DamagedFileError(UserError):
    """A stored file is missing or damaged. Who can do without it leaves it out, and says so."""


PASSED_ON = (UserError, KeyboardInterrupt)
"""What is passed on of all that somebody else's code raises: a message of ours, and Ctrl-C.

Anything else is that code's own error, also what is no Exception: `sys.exit()`, or asyncio's CancelledError.
"""
_LIST_AT_MOST = 20


def unknown_name(kind: str, name: str, known: Iterable[str], hint: str = "") -> str:
    """Word the message for a name that does not exist, with the nearest names that do.

    Args:
        kind: What is named, such as "task" or "model".
        name: The unknown name.
        known: The existing names; above 20 of them only the nearest are listed.
        hint: What else would have been accepted, appended to the list unchanged.

    Returns:
        One sentence, for a `UserError`.
    """
    known = sorted(known)
    by_letters = {each.lower(): each for each in reversed(known)}
    nearest = [by_letters[each] for each in difflib.get_close_matches(name.lower(), by_letters, n=5, cutoff=0.4)]
    suggestion = f"did you mean {nearest[0]!r}? " if nearest else ""
    expected = ", ".join(known) if len(known) <= _LIST_AT_MOST else f"{', '.join(nearest or known[:5])} or {len(known)} in all"
    return f"unknown {kind} {name!r}: {suggestion}expected one of {expected}{hint}"


def shown(value: object, letters: int = 200) -> str:
    """Return what a message shows of a value that somebody else made.

    Args:
        value: Anything.
        letters: The longest text.

    Returns:
        Its repr, shortened; its type alone if the repr raises an error.
    """
    try:
        text = repr(value)
    except Exception:  # a class of the user's may raise anything
        return f"an object of type {type(value).__name__}"
    return text if len(text) <= letters else f"{text[:letters]}..."


def expectation(problem: Mapping[str, Any]) -> str:
    """Word what was expected of a value, without the names of classes and types that its writer cannot know.

    Args:
        problem: One of the errors of pydantic's `ValidationError`.

    Returns:
        What follows the value in a message.
    """
    match problem["type"]:
        case "tuple_type":
            return "expected a list"
        case "model_type" | "dict_type":
            return "expected keys with their values, as in `{key: value}`"
        case "path_type":
            return "expected the path of a file or folder"
        case "too_long":
            return f"expected at most {problem['ctx']['max_length']} of them"
        case "too_short":
            return f"expected at least {problem['ctx']['min_length']} of them"
    message: str = problem["msg"]
    if problem["type"] == "value_error":  # in words of this project, which may begin with a name
        return message.removeprefix("Value error, ")
    return message[:1].lower() + message[1:]


def causes(problems: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Leave out what follows from another problem: pydantic counts a list as too short, too, for the bad values in it.

    Args:
        problems: The errors of pydantic's `ValidationError`.

    Returns:
        The others, in their order.
    """
    places = [problem["loc"] for problem in problems]

    def follows(problem: Mapping[str, Any]) -> bool:
        place = problem["loc"]
        return problem["type"] == "too_short" and any(
            len(other) > len(place) and other[: len(place)] == place for other in places
        )

    return [problem for problem in problems if not follows(problem)]


def reason_of(error: BaseException) -> str:
    """Summarise an error in one line: its type and the first line of its message.

    The lines after the first hold advice for debugging (CUDA) or the circumstances (Ray).

    Args:
        error: Any exception.

    Returns:
        For example `ValueError: expected 3 dimensions`; the type alone if there is no message.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return ": ".join([type(error).__name__, *lines[:1]])
