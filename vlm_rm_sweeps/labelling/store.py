"""Labels on disk: an sqlite file to which raters only ever add.

Every answer is on disk (fsync) before `add` returns. That a rater has at most one standing label for an item is an index of
the database, so it also holds between two tabs and two servers. An undone label stays, with the time at which it was undone.
"""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.labelling.scales import Scale

RATER_PATTERN = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,39}"
_WAIT_SECONDS = 10.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS about (scale TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS labels (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    rater TEXT NOT NULL,
    item TEXT NOT NULL,
    value REAL,  -- NULL: skipped
    labelled_at TEXT NOT NULL,
    undone_at TEXT
);
CREATE UNIQUE INDEX IF NOT EXISTS one_standing_label ON labels (rater, item) WHERE undone_at IS NULL;
"""


@dataclass(frozen=True)
class Label:
    """A standing label. `number` counts all labels of the file; `value` None means skipped."""

    number: int
    rater: str
    item: str
    value: float | None


class ConflictingLabelError(ValueError):
    """The rater has answered differently about this item before, in another tab perhaps; `standing` is that label."""

    def __init__(self, standing: Label) -> None:
        super().__init__(f"{standing.rater} has already labelled {standing.item}")
        self.standing = standing


class LabelStore:
    """The labels in one file. Any number of stores, threads and processes may use the same file at once."""

    def __init__(self, file: Path, scale: Scale) -> None:
        """Open or create the file. UserError if it is no label file, or one with another scale."""
        self.file, self.scale = file, scale
        try:
            with self._connection() as connection:
                # Reading comes first: labels can be read from a folder that cannot be written, and while others write.
                stored = _scale_of(connection) or _set_up(connection, scale)
        except sqlite3.Error as error:
            raise UserError(f"{file} cannot be used as a file of labels: {error}") from error
        if stored != scale.name:
            raise UserError(f"{file} holds labels of the scale {stored!r}, not {scale.name!r}: choose another file")

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self.file, timeout=_WAIT_SECONDS)) as connection:
            # EXTRA also syncs the folder: the label survives a loss of power right after it was given.
            connection.execute("PRAGMA synchronous = EXTRA")
            yield connection

    def add(self, rater: str, item: str, value: float | None) -> Label:
        """Store an answer (None: skipped) and return the standing label; the same answer again changes nothing.

        Raises ConflictingLabelError if the rater's standing label for the item is another one.
        """
        check_rater(rater)
        with self._connection() as connection:
            # One transaction, so that no other tab takes the label back between the two statements.
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(
                "INSERT INTO labels (rater, item, value, labelled_at) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (rater, item, value, _now()),
            )
            standing = _labels(connection, "rater = ? AND item = ?", (rater, item))[0]
            connection.commit()
        if standing.value != value:
            raise ConflictingLabelError(standing)
        return standing

    def undo(self, rater: str, number: int) -> None:
        """Take one label of the rater back. Taking it back twice changes nothing."""
        self._take_back("rater = ? AND number = ?", (rater, number))

    def undo_skips(self, rater: str) -> None:
        """Ask the rater again about everything that they skipped."""
        self._take_back("rater = ? AND value IS NULL", (rater,))

    def _take_back(self, condition: str, values: tuple[str | int, ...]) -> None:
        with self._connection() as connection:
            connection.execute(f"UPDATE labels SET undone_at = ? WHERE undone_at IS NULL AND {condition}", (_now(), *values))
            connection.commit()

    def standing(self, rater: str) -> list[Label]:
        """The labels of a rater that were not taken back, in the order in which they were given."""
        with self._connection() as connection:
            return _labels(connection, "rater = ?", (rater,))

    def table(self) -> pd.DataFrame:
        """All standing labels: `item`, `rater`, `value` (NaN: skipped) and `labelled_at`."""
        with self._connection() as connection:
            return pd.read_sql(
                "SELECT item, rater, value, labelled_at FROM labels WHERE undone_at IS NULL ORDER BY number",
                connection,
                dtype={"value": float},
            )


def check_rater(name: str) -> None:
    """UserError unless the name can stand in a file, a tag and a command line."""
    if not re.fullmatch(RATER_PATTERN, name):
        raise UserError(f"rater {name!r}: expected up to 40 letters, digits, dots, dashes and underscores, such as 'anna'")


def _scale_of(connection: sqlite3.Connection) -> str | None:
    """The scale of the labels in a file; None if it is new."""
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'about'").fetchone():
        return None
    stored = connection.execute("SELECT scale FROM about").fetchone()
    return str(stored[0]) if stored else None


def _set_up(connection: sqlite3.Connection, scale: Scale) -> str:
    """Make a new file's tables; returns its scale, which is another's if that was faster."""
    connection.executescript(_SCHEMA)
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("INSERT INTO about SELECT ? WHERE NOT EXISTS (SELECT 1 FROM about)", (scale.name,))
    connection.commit()
    return str(connection.execute("SELECT scale FROM about").fetchone()[0])


def _labels(connection: sqlite3.Connection, condition: str, values: tuple[str, ...]) -> list[Label]:
    found = connection.execute(
        f"SELECT number, rater, item, value FROM labels WHERE undone_at IS NULL AND {condition} ORDER BY number", values
    )
    return [Label(*row) for row in found]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
