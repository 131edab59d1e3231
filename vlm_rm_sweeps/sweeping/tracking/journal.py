"""The journal of a sweep: every event, in order, written to disk before anything else uses it.

Each line of `journal.jsonl` is one JSON object. MLflow mirrors the journal (`mlflow_mirror.py`), and a resumed sweep reads from
it which trials have finished and what was logged.
"""

import json
import os
import threading
import time
import uuid
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from vlm_rm_sweeps.files import read_whole, refuse_no_file
from vlm_rm_sweeps.metrics import RunStatus
from vlm_rm_sweeps.sweeping.config.searching import Drawn


def now_ms() -> int:
    """Return the current Unix time in milliseconds."""
    return int(time.time() * 1000)


class _Entry(BaseModel):
    """One event.

    Attributes:
        uid: Permanent id of the entry. The MLflow mirror stores that of the last delivered entry.
        kind: Type of the event.
        time: Unix time of the event, in milliseconds.
    """

    model_config = ConfigDict(frozen=True)

    uid: str = Field(default_factory=lambda: uuid.uuid4().hex[:16])
    kind: str
    time: int = Field(default_factory=now_ms)


class SweepStarted(_Entry):
    """An execution of the sweep started.

    Attributes:
        id: The sweep's id, the same in every execution.
    """

    kind: Literal["sweep"] = "sweep"
    id: str


class TrialStarted(_Entry):
    """A trial started, for the first time or again."""

    kind: Literal["start"] = "start"
    trial: str


class RewardMeasured(_Entry):
    """A trial's reward was measured before training."""

    kind: Literal["measure"] = "measure"
    trial: str
    metrics: dict[str, float]


class ThresholdsMeasured(_Entry):
    """The thresholds of the sweep's rewards were measured, before the first trial.

    Attributes:
        values: The threshold of each trial whose reward has a measured one, by trial id.
    """

    kind: Literal["thresholds"] = "thresholds"
    values: dict[str, float]


class SampleDrawn(_Entry):
    """A sample of the sweep's search was drawn.

    Attributes:
        sample: Its number.
        values: What was drawn, by the keys of `search.space`.
    """

    kind: Literal["sample"] = "sample"
    sample: int
    values: dict[str, Drawn]


class ResultLogged(_Entry):
    """A result of a trial.

    Attributes:
        trial: The trial's id.
        step: Its environment steps.
        metrics: Its metrics at that step.
        host: Name of the machine that computed it; None if that is the one which runs the sweep, or is unknown. Neither MLflow nor the
            report has it.
        remarks: What the audit had to do without at this step, or judges by something else; none in journals of version 0.1.
    """

    kind: Literal["result"] = "result"
    trial: str
    step: int
    metrics: dict[str, float]
    host: str | None = None
    remarks: tuple[str, ...] = ()


class TakenOver(_Entry):
    """A trial goes on with the training of another one, and with other values: population-based training.

    Attributes:
        trial: The trial's id.
        step: Environment steps of the trial, whose own training ends there.
        source: Id of the trial whose training it takes over.
        source_step: Environment steps of that training.
        values: What it goes on with, by the keys of `search.space`.
    """

    kind: Literal["takeover"] = "takeover"
    trial: str
    step: int
    source: str
    source_step: int
    values: dict[str, Drawn]

    def __str__(self) -> str:
        return f"{self.source} at step {self.source_step:,}"


class TrialEnded(_Entry):
    """A trial ended.

    Attributes:
        trial: The trial's id.
        status: How it ended.
        tags: Set on its MLflow run.
    """

    kind: Literal["end"] = "end"
    trial: str
    status: RunStatus
    tags: dict[str, str]


class TrialStopped(_Entry):
    """A trial ended before its last step, because the sweep file says so. It is not continued.

    Attributes:
        trial: The trial's id.
        step: Environment steps that it ran.
        reason: Why, in words.
        reached: Whether it was good enough; else a scheduler gave it up.
    """

    kind: Literal["stop"] = "stop"
    trial: str
    step: int
    reason: str
    reached: bool


class FileWritten(_Entry):
    """A file for MLflow was written.

    Attributes:
        trial: The trial that it belongs to; empty for the sweep itself.
        file: Its path, relative to the sweep's folder.
        to: The folder among the run's artifacts; None for the top level.
    """

    kind: Literal["artifact"] = "artifact"
    trial: str
    file: str
    to: str | None


class SweepEnded(_Entry):
    """An execution of the sweep ended.

    Attributes:
        status: How it ended.
        step: Number of finished trials.
        metrics: Evaluation metrics of the best combination, interquartile means over its seeds, with the prefix `best_`.
    """

    kind: Literal["sweep_end"] = "sweep_end"
    status: RunStatus
    step: int
    metrics: dict[str, float]


Entry = (
    SweepStarted
    | TrialStarted
    | RewardMeasured
    | ThresholdsMeasured
    | SampleDrawn
    | ResultLogged
    | TakenOver
    | TrialEnded
    | TrialStopped
    | FileWritten
    | SweepEnded
)
_ENTRY: TypeAdapter[Entry] = TypeAdapter(Annotated[Entry, Field(discriminator="kind")])


def read_entries(file: Path) -> list[Entry]:
    """Read the undamaged entries of a journal; none if the file does not exist yet."""
    return read_journal(file)[0]


def read_journal(file: Path) -> tuple[list[Entry], int]:
    """Read a journal.

    Args:
        file: The journal, which need not exist yet.

    Returns:
        The undamaged entries, and the number of damaged lines. A last line that is cut short counts as neither.

    Raises:
        DamagedFileError: It is no file, or cannot be read.
    """
    if not os.path.lexists(file):
        return [], 0
    content = read_whole(file, "restore it", largest=None)
    lines = content[: content.rfind(b"\n") + 1].splitlines()
    entries = []
    for line in lines:
        with suppress(ValidationError):
            entries.append(_ENTRY.validate_json(line))
    return entries, len(lines) - len(entries)


def ended_trials(entries: Iterable[Entry]) -> dict[str, RunStatus]:
    """Return the trials that finished or failed, by id, with their status."""
    ended = {entry.trial: entry.status for entry in entries if isinstance(entry, TrialEnded)}
    return {trial: status for trial, status in ended.items() if status in (RunStatus.FINISHED, RunStatus.FAILED)}


def stopped_trials(entries: Iterable[Entry]) -> dict[str, TrialStopped]:
    """Return the trials that were stopped early, by id."""
    return {entry.trial: entry for entry in entries if isinstance(entry, TrialStopped)}


def taken_over(entries: Iterable[Entry]) -> dict[str, list[TakenOver]]:
    """Return the takeovers of each trial that has any, by id, in their order."""
    found: dict[str, list[TakenOver]] = {}
    for entry in entries:
        if isinstance(entry, TakenOver):
            found.setdefault(entry.trial, []).append(entry)
    return found


def open_trials(entries: Iterable[Entry]) -> set[str]:
    """Return the trials that started and have not ended, in this execution or an earlier one."""
    is_open = {
        entry.trial: isinstance(entry, TrialStarted)
        for entry in entries
        if isinstance(entry, TrialStarted | TrialEnded | TrialStopped)
    }
    return {trial for trial, still in is_open.items() if still}


def ended_in_order(entries: Iterable[Entry]) -> bool:
    """Whether the last execution ended with each trial finished, stopped early or failed: it was neither killed nor stopped."""
    executions = [entry for entry in entries if isinstance(entry, SweepStarted | SweepEnded)]
    last = executions[-1] if executions else None
    return isinstance(last, SweepEnded) and last.status != RunStatus.KILLED


class Journal:
    """Appends entries to a journal.

    One process writes a journal at a time: it holds the lock of the sweep's folder.

    Args:
        file: The journal, which need not exist. A truncated last line is removed.

    Attributes:
        entries: Every entry, those of earlier executions included.
        damaged: Number of lines that could not be read. The trials' checkpoints have their results too.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self.entries, self.damaged = read_journal(file)
        self._grown = threading.Condition()
        self._unwritten: list[bytes] = []
        if file.is_file():
            # Otherwise the next entry would be appended to a truncated line.
            os.truncate(file, file.read_bytes().rfind(b"\n") + 1)

    def append(self, *entries: Entry) -> None:
        """Write entries, all at once, and flush them to disk.

        A full disk does not raise: entries that could not be written are kept and retried with the next one.

        Args:
            *entries: The events.
        """
        self._unwritten += [json.dumps(entry.model_dump(mode="json")).encode() for entry in entries]
        self._write()
        with self._grown:
            self.entries += entries
            self._grown.notify_all()

    def wait(self, known: int, timeout_s: float) -> None:
        """Wait until there are more than `known` entries, but at most `timeout_s` seconds."""
        with self._grown:
            self._grown.wait_for(lambda: len(self.entries) > known, timeout_s)

    def unwritten(self) -> int:
        """Retry failed writes, and return the number of entries that are still not on disk."""
        self._write()
        return len(self._unwritten)

    def _write(self) -> None:
        if not self._unwritten:
            return
        size = self._file.stat().st_size if self._file.is_file() else 0
        try:
            refuse_no_file(self._file)  # to open a pipe would wait for somebody who reads it
            with self._file.open("ab") as file:
                file.write(b"".join(line + b"\n" for line in self._unwritten))
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            with suppress(OSError):
                os.truncate(self._file, size)  # part of it may have been written
            return
        self._unwritten = []
