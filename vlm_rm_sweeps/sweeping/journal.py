"""The journal of a sweep: all that happened, in order, on disk before anything else hears of it.

One JSON object on each line of `journal.jsonl`. MLflow is a mirror of it (`tracking.py`), and a sweep that is resumed knows from
it what is finished and what was logged.
"""

import json
import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

Kind = Literal["sweep", "start", "measure", "result", "end", "artifact", "sweep_end"]
Entry = dict[str, Any]
"""`kind`, `time` (milliseconds since 1970), `trial` (its id, where it is about one), and what the kind has to say."""


def read_entries(file: Path) -> list[Entry]:
    """The whole entries of a journal. A last line that was cut short is left out; there may be no journal yet."""
    if not file.is_file():
        return []
    content = file.read_bytes()
    entries = []
    for line in content[: content.rfind(b"\n") + 1].splitlines():
        with suppress(ValueError):  # damaged: the trial's checkpoint has its results too
            entries.append(json.loads(line))
    return [entry for entry in entries if isinstance(entry, dict) and "kind" in entry]


class Journal:
    """Appends entries. One process writes a journal at a time: it holds the lock of the sweep's folder."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.entries = read_entries(file)
        self._grown = threading.Condition()
        self._unwritten: list[bytes] = []
        if file.is_file():
            # What follows would otherwise be written onto a line that was cut short.
            os.truncate(file, file.read_bytes().rfind(b"\n") + 1)

    def append(self, kind: Kind, time_ms: int, **content: Any) -> None:
        """Write an entry and flush it to disk.

        A full disk does not raise: what could not be written is kept, and tried again with the next entry.
        """
        entry = {"kind": kind, "time": time_ms} | content
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
