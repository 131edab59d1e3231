"""The one exception that is shown to users as a message, without a traceback."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Bad input: the message names the offending value, what was expected and what to do.

    The command line prints it and exits with status 2. A ValueError, so that pydantic adds the key where it was found.
    """


_LIST_AT_MOST = 20


def unknown_name(kind: str, name: str, known: Iterable[str], hint: str = "") -> str:
    """The message for a name that does not exist, with the nearest names that do."""
    known = sorted(known)
    nearest = difflib.get_close_matches(name, known, n=5, cutoff=0.4)
    suggestion = f"did you mean {nearest[0]!r}? " if nearest else ""
    expected = ", ".join(known) if len(known) <= _LIST_AT_MOST else f"{', '.join(nearest or known[:5])} or {len(known)} in all"
    return f"unknown {kind} {name!r}: {suggestion}expected one of {expected}{hint}"


def reason_of(error: BaseException) -> str:
    """What went wrong, in one line: the kind of error and the first line of its message.

    What follows the first line is advice for whoever debugs (CUDA), or the circumstances (Ray).
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return ": ".join([type(error).__name__, *lines[:1]])
