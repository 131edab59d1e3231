"""Tries many generated cases of a kind, and counts how they end: done, refused in words, or by a fault of this package.

A fault does not end the run, so that one run shows all of them.
"""

import signal
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from vlm_rm_sweeps.errors import UserError

Case = TypeVar("Case")

LONGEST_S = 5.0
"""No case of the long form may take longer. The short form has no limit: it shares its machine with other tests."""
_LONGEST_MESSAGE = 4_000
_SHOWN_LETTERS = 600


class TrialFailure(Exception):  # noqa: N818 - an outcome, as that of a trial, and no fault
    """What was planned failed in training, for a reason that is said."""


class _TooLongError(BaseException):
    """Raised in the middle of a case that takes too long. Code that may meet any Exception does not catch it."""


@dataclass
class Tally:
    """How the cases of a kind ended.

    Attributes:
        kind: What was generated.
        cases: How many of them.
        done: Those that were valid (exit status 0).
        refused: Those that ended with one message (exit status 2).
        failed: Those that were planned, and whose trial then failed with its cause.
        too_long: Those that were stopped after `LONGEST_S`.
        slowest_s: Seconds of the slowest.
        faults: By place in the code, the shortest case that ends there in a traceback, and all that ended there.
    """

    kind: str
    cases: int = 0
    done: int = 0
    refused: int = 0
    failed: int = 0
    too_long: int = 0
    slowest_s: float = 0.0
    slowest: str = ""
    faults: dict[str, tuple[str, int]] = field(default_factory=dict)

    @property
    def tracebacks(self) -> int:
        """The number of cases that ended by a fault."""
        return sum(times for _, times in self.faults.values())

    def check(self) -> None:
        """Fail if there was a fault or a case that took too long."""
        shown = [f"{place} ({times} times), such as {case}" for place, (case, times) in self.faults.items()]
        if self.too_long:
            shown.append(f"{self.too_long} cases took longer than {LONGEST_S:g} s, the slowest: {self.slowest}")
        if shown:
            pytest.fail("\n\n".join([f"{len(shown)} faults of {self.kind}:", *shown]), pytrace=False)

    def try_case(self, attempt: Callable[[Any], object], case: object, limit_s: float | None) -> None:
        """Try a case, and count how it ends."""
        self.cases += 1
        started = time.monotonic()
        try:
            with _limited(limit_s):
                attempt(case)
            self.done += 1
        except UserError as error:
            self.refused += 1
            self._check_message(str(error), case)
        except TrialFailure as error:
            self.failed += 1
            self._check_message(str(error), case)
        except _TooLongError:
            self.too_long += 1
        except (Exception, SystemExit) as error:
            self._add_fault(_place_of(error), case)
        took = time.monotonic() - started
        if took > self.slowest_s:
            self.slowest_s, self.slowest = took, _shown(case)

    def _check_message(self, message: str, case: object) -> None:
        if not message.strip() or "Traceback" in message:
            self._add_fault(f"a message that says nothing: {message[:200]!r}", case)
        elif len(message) > _LONGEST_MESSAGE:
            self._add_fault(f"a message of {len(message)} letters: {message[:200]!r}", case)

    def _add_fault(self, place: str, case: object) -> None:
        shown = _shown(case)
        shortest, times = self.faults.get(place, (shown, 0))
        self.faults[place] = min(shown, shortest, key=len), times + 1


def _place_of(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "vlm_rm_sweeps" in frame.filename] or frames
    try:
        message = str(error)[:300]
    except Exception:  # some errors raise another one when they are printed
        message = "unspeakable"
    return f"{type(error).__name__}: {message}, from {ours[-1].filename}:{ours[-1].lineno}"


def _shown(case: object) -> str:
    try:
        shown = repr(case)
    except Exception as error:  # some cases are objects that raise whenever they can
        shown = f"a {type(case).__name__} whose repr raises {type(error).__name__}"
    return shown if len(shown) <= _SHOWN_LETTERS else f"{shown[:_SHOWN_LETTERS]}..."


@contextmanager
def _limited(limit_s: float | None) -> Iterator[None]:
    """Stop what takes longer. Hypothesis' own deadline only looks at the clock afterwards, and an endless case has no afterwards."""
    if limit_s is None:
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise _TooLongError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, limit_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def fuzz(
    kind: str, cases: int, strategy: st.SearchStrategy[Case], attempt: Callable[[Case], object], limit_s: float | None
) -> Tally:
    """Try generated cases.

    Args:
        kind: What is generated, for the table.
        cases: How many; fewer only if there are no more different ones.
        strategy: Generates them. Without a limit, always the same ones; else by `--hypothesis-seed`.
        attempt: Tries a case. It returns if the case is valid, and raises a UserError if it is refused; all else is a fault.
        limit_s: The longest time for a case, in seconds.

    Returns:
        How they ended.
    """
    tally = Tally(kind)

    @settings(
        max_examples=cases,
        deadline=None,
        database=None,
        derandomize=limit_s is None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def try_each(case: Case) -> None:
        tally.try_case(attempt, case, limit_s)

    try_each()
    return tally


def table_of(tallies: Sequence[Tally]) -> str:
    """Format tallies as a table, the sum in its last row."""
    rows: list[tuple[str, ...]] = [
        ("fuzzed", "cases", "exit 0", "exit 2", "trial failed", "tracebacks", f"over {LONGEST_S:g} s", "slowest")
    ]
    for each in tallies:
        counted = (each.cases, each.done, each.refused, each.failed, each.tracebacks, each.too_long)
        rows.append((each.kind, *(f"{count:,}" for count in counted), f"{each.slowest_s:.2f} s"))
    sums = [
        sum(getattr(each, name) for each in tallies)
        for name in ("cases", "done", "refused", "failed", "tracebacks", "too_long")
    ]
    slowest = max((each.slowest_s for each in tallies), default=0.0)
    rows.append(("all", *(f"{total:,}" for total in sums), f"{slowest:.2f} s"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
    return "\n".join(lines) + "\n"
