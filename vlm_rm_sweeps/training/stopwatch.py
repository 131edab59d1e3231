"""Measures how a trial's time is spent."""

import time
from typing import Any


class Stopwatch:
    """Adds up the seconds spent in one method of one object.

    Args:
        owner: The object, whose method is replaced by a timed one.
        method: Name of the method.
    """

    def __init__(self, owner: Any, method: str) -> None:
        self._seconds = 0.0
        timed = getattr(owner, method)

        def stopped(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            try:
                return timed(*args, **kwargs)
            finally:
                self._seconds += time.perf_counter() - started

        setattr(owner, method, stopped)

    def lap(self) -> float:
        """Return the seconds spent in the method since the last lap, and start the next lap."""
        seconds, self._seconds = self._seconds, 0.0
        return seconds
