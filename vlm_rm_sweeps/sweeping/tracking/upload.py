"""Puts the files of a sweep or screening where its results are, if that is an address, while it runs.

Checkpoints and videos are put there by the processes that write them.
"""

import math
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from vlm_rm_sweeps.files import UNFINISHED
from vlm_rm_sweeps.storage import RemoteFolder
from vlm_rm_sweeps.sweeping.tracking.folder import IN_USE, IN_USE_S, JOURNAL, LOCK, FolderInUseError, SweepFolder
from vlm_rm_sweeps.sweeping.tracking.tracking_uri import sqlite_file

_EVERY_S = 5.0
_SHARE = 10.0
"""A journal is put there as a whole, so it waits this many times as long as that takes."""
_LONGEST_WAIT_S = 30.0
_LAST_TRIES = 3


class FolderUpload(threading.Thread):
    """A context in which what lies directly in a folder is put at its address, whenever it has changed.

    A store that does not answer is told once, and asked again and again. At the end all is put there, or it is said what is missing: it
    stays in the copy, from which the next execution on this machine puts it there. If this machine was silent for long, and another one
    has gone on with the sweep, nothing more is put there.

    Args:
        folder: The folder, which no other process writes. Without an address nothing is done.
        tracking_uri: The MLflow server or database with its runs.
        say: Prints a line.
    """

    def __init__(self, folder: SweepFolder, tracking_uri: str, say: Callable[[str], None]) -> None:
        super().__init__(name="folder-upload", daemon=True)
        self._folder, self._say = folder, say
        # A database in a file is found on this machine alone: on another one the runs are made anew, from the journal.
        self._leave_out = {LOCK, *([folder.mlflow.name] if sqlite_file(tracking_uri) is not None else [])}
        self._there: dict[str, tuple[int, int]] = {}
        """Size and time of what was put there, by name."""
        self._noted_at = -math.inf
        self._is_elsewhere = False
        self._closing = threading.Event()

    def __enter__(self) -> "FolderUpload":
        """Put there what there is.

        Raises:
            StoreError: The store does not answer.
        """
        if self._folder.remote is not None:
            self._put_changed(self._folder.remote)
            self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        remote = self._folder.remote
        if remote is None:
            return
        self._closing.set()
        self.join()
        if self._is_elsewhere:
            return
        for tries_left in reversed(range(_LAST_TRIES)):
            try:
                self._put_changed(remote)
                remote.remove_file(IN_USE)
                return
            except OSError as problem:
                if not tries_left:
                    self._say(
                        f"{problem}. The newest results are in {self._folder.path}: --resume on this machine puts them there"
                    )

    def run(self) -> None:
        """Put there what has changed, until the context ends."""
        remote, failures, wait_s = self._folder.remote, 0, _EVERY_S
        while remote is not None and not self._closing.wait(wait_s):
            started = time.monotonic()
            try:
                self._put_changed(remote)
            except FolderInUseError as error:
                self._say(f"{error}. What this process writes stays in {self._folder.path}")
                self._is_elsewhere = True
                return
            except OSError as error:
                if not failures:
                    self._say(f"{error}: results wait in {self._folder.path}")
                failures += 1
                wait_s = min(_LONGEST_WAIT_S, _EVERY_S * failures)
                continue
            if failures:
                self._say(f"{remote} can be written again")
            failures = 0
            wait_s = min(_LONGEST_WAIT_S, max(_EVERY_S, _SHARE * (time.monotonic() - started)))

    def _put_changed(self, remote: RemoteFolder) -> None:
        """Put there what has changed, the journal last: it names files.

        Raises:
            FolderInUseError: Another machine runs the sweep.
            StoreError: The store does not answer.
        """
        if time.time() - self._noted_at > IN_USE_S / 4:  # the monotonic clock stands still while a machine is suspended
            self._folder.note_use()
            self._noted_at = time.time()
        for file in sorted(self._folder.path.iterdir(), key=lambda file: (file.name == JOURNAL, file.name)):
            if file.is_file() and file.name not in self._leave_out and not file.name.startswith(UNFINISHED):
                self._put_if_changed(remote, file)

    def _put_if_changed(self, remote: RemoteFolder, file: Path) -> None:
        state = file.stat().st_size, file.stat().st_mtime_ns
        if self._there.get(file.name) != state:
            remote.put_file(file.name)
            self._there[file.name] = state
