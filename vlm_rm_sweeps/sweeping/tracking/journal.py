"""The journal of a sweep: all that happened, in order, on disk before anything else hears of it.

One JSON object on each line of `journal.jsonl`. MLflow is a mirror of it (`tracking.py`), and a sweep that is resumed knows from
it what is finished and what was logged.
"""

import json
import os
import threading
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

Kind = Literal["sweep", "start", "measure", "result", "end", "artifact", "sweep_end"]
Entry = dict[str, Any]
"""`uid` (its own, for ever), `kind`, `time` (milliseconds since 1970), `trial` (its id, where it is about one), and what the kind
has to say. `sweep` and `sweep_end` are the start and the end of each attempt."""


def read_entries(file: Path) -> list[Entry]:
    """The whole entries of a journal. A last line that was cut short is left out; there may be no journal yet."""
    return _read(file)[0]


def _read(file: Path) -> tuple[list[Entry], int]:
    """The whole entries, and how many lines before the last are none."""
    if not file.is_file():
        return [], 0
    content = file.read_bytes()
    lines = content[: content.rfind(b"\n") + 1].splitlines()
    entries = []
    for line in lines:
        with suppress(ValueError):
            entry = json.loads(line)
            if isinstance(entry, dict) and "kind" in entry:
                entries.append(entry)
    return entries, len(lines) - len(entries)


def ended_trials(entries: list[Entry]) -> dict[str, str]:
    """`FINISHED` or `FAILED` by trial id, of the trials that have ended."""
    ended = {entry["trial"]: entry["status"] for entry in entries if entry["kind"] == "end"}
    return {trial: status for trial, status in ended.items() if status in ("FINISHED", "FAILED")}


def open_trials(entries: list[Entry]) -> set[str]:
    """The trials that were started and of which no end is known, in this attempt or one before."""
    is_open = {entry["trial"]: entry["kind"] == "start" for entry in entries if entry["kind"] in ("start", "end")}
    return {trial for trial, still in is_open.items() if still}


def ended_in_order(entries: list[Entry]) -> bool:
    """Whether the last attempt came to its end, with each trial finished or failed: it was neither killed nor stopped."""
    attempts = [entry for entry in entries if entry["kind"] in ("sweep", "sweep_end")]
    return bool(attempts) and attempts[-1]["kind"] == "sweep_end" and attempts[-1]["status"] != "KILLED"


class Journal:
    """Appends entries. One process writes a journal at a time: it holds the lock of the sweep's folder.

    `damaged`: lines of it that are no entries. The trials' checkpoints have their results too.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self.entries, self.damaged = _read(file)
        self._grown = threading.Condition()
        self._unwritten: list[bytes] = []
        if file.is_file():
            # What follows would otherwise be written onto a line that was cut short.
            os.truncate(file, file.read_bytes().rfind(b"\n") + 1)

    def append(self, kind: Kind, time_ms: int, **content: Any) -> None:
        """Write an entry and flush it to disk.

        A full disk does not raise: what could not be written is kept, and tried again with the next entry.
        """
        entry = {"uid": uuid.uuid4().hex[:16], "kind": kind, "time": time_ms} | content
        self._unwritten.append(json.dumps(entry).encode())
        self._write()
        with self._grown:
            self.entries.append(entry)
            self._grown.notify_all()

    def wait(self, known: int, timeout_s: float) -> None:
        """Return when there are more than `known` entries, or after the time."""
        with self._grown:
            self._grown.wait_for(lambda: len(self.entries) > known, timeout_s)

    def unwritten(self) -> int:
        """How many entries are not on disk, after another try."""
        self._write()
        return len(self._unwritten)

    def _write(self) -> None:
        if not self._unwritten:
            return
        size = self._file.stat().st_size if self._file.is_file() else 0
        try:
            with self._file.open("ab") as file:
                file.write(b"".join(line + b"\n" for line in self._unwritten))
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            with suppress(OSError):
                os.truncate(self._file, size)  # part of it may have been written
            return
        self._unwritten = []
