"""Labels on disk: an append-only sqlite file.

Every answer is on disk (fsync) before `add` returns. A unique index allows a rater at most one standing label (one that is not
undone) for an item, which also holds between browser tabs and between servers. An undone label stays in the file, with the time
at which it was undone.
"""

import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from vlm_rm_sweeps.errors import DamagedFileError, UserError, shown
from vlm_rm_sweeps.files import SQLITE_ERRORS, problems_in
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
    """A label that is not undone.

    Attributes:
        number: Counts all labels of the file.
        rater: Who gave it.
        item: Id of the item.
        value: Value of the answer; None: skipped.
    """

    number: int
    rater: str
    item: str
    value: float | None


class _Row(BaseModel):
    """A label as it is stored: sqlite lets any column hold any type."""

    model_config = ConfigDict(frozen=True, strict=True)

    number: int
    rater: Annotated[str, Field(pattern=f"^{RATER_PATTERN}$")]
    item: str
    value: float | None
    labelled_at: str


_ROWS = TypeAdapter(list[_Row])
_COLUMNS = tuple(_Row.model_fields)


class ConflictingLabelError(ValueError):
    """The rater has already given another answer for this item, perhaps in another tab.

    Args:
        standing: The label given before; also an attribute.
    """

    def __init__(self, standing: Label) -> None:
        super().__init__(f"{standing.rater} has already labelled {standing.item}: undo that label to change it")
        self.standing = standing


class LabelStore:
    """The labels in one file. Any number of stores, threads and processes may use the file at once."""

    def __init__(self, file: Path, scale: Scale) -> None:
        """Open or create a label file.

        Args:
            file: In an existing folder.
            scale: The possible answers.

        Raises:
            DamagedFileError: It is not a label file, or cannot be made.
            UserError: It is one of another scale.
        """
        self.file, self.scale = file, scale
        with self._connection(create=True) as connection:
            self._refuse_programs(connection)
            # Read first: it works in a read-only folder, and while another process writes.
            stored = _scale_of(connection) or _set_up(connection, scale)
        if stored != scale.name:
            raise UserError(f"{file} holds labels of the scale {stored!r}, expected {scale.name!r}: choose another file")

    @contextmanager
    def _connection(self, create: bool = False) -> Iterator[sqlite3.Connection]:
        """Open the file. One that is gone is made again only if asked: whoever has moved the labels away should know.

        Raises:
            DamagedFileError: It cannot be opened, read or written.
        """
        if not create and not self.file.is_file():
            raise DamagedFileError(f"{self.file} is gone: move it back, or start the labelling again")
        try:
            address = f"file:{quote(str(self.file.absolute()))}?mode={'rwc' if create else 'rw'}"
            with closing(sqlite3.connect(address, uri=True, timeout=_WAIT_SECONDS)) as connection:
                # EXTRA also syncs the folder, so that a label survives a power failure right after it was given.
                connection.execute("PRAGMA synchronous = EXTRA")
                yield connection
        except sqlite3.OperationalError as error:
            # Text that is not UTF-8 has no code.
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise DamagedFileError(
                    f"{self.file} is being written by another program: finish or close that, and try again"
                ) from error
            raise self._unusable(error) from error
        except SQLITE_ERRORS as error:
            raise self._unusable(error) from error

    def _refuse_programs(self, connection: sqlite3.Connection) -> None:
        """Refuse a file that computes something when it is read or written: it may be somebody else's, and never come to an end."""
        found = connection.execute("SELECT type, name FROM sqlite_master WHERE type IN ('view', 'trigger')").fetchone()
        if found:
            raise DamagedFileError(f"{self.file} is not a label file: it has a {found[0]}, {shown(found[1])}")

    def _unusable(self, error: Exception) -> DamagedFileError:
        return DamagedFileError(
            f"{self.file} cannot be used as a label file ({error}): if the disk is full or read-only, free it; else choose "
            "another file, or move it away"
        )

    def check_writable(self) -> None:
        """Write to the file without changing a label, so that a full or read-only disk is noticed before anybody labels.

        Raises:
            DamagedFileError: It cannot be written.
        """
        with self._connection() as connection:
            # Each other value is a change, which sqlite writes; nothing here reads it.
            (written,) = connection.execute("PRAGMA user_version").fetchone()
            connection.execute(f"PRAGMA user_version = {(written + 1) % 2**30}")
            connection.commit()

    def add(self, rater: str, item: str, value: float | None) -> Label:
        """Store an answer. Giving the same answer again changes nothing.

        Args:
            rater: See `check_rater`.
            item: Id of the item.
            value: Value of the answer; None: skipped.

        Returns:
            The standing label, whether new or given before.

        Raises:
            ConflictingLabelError: The rater has given another answer before, and not undone it.
            UserError: The rater's name is not allowed, or the file cannot be written.
        """
        check_rater(rater)
        with self._connection() as connection:
            # One transaction, so that no other tab undoes the label between the two statements.
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(
                "INSERT INTO labels (rater, item, value, labelled_at) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (rater, item, value, _now()),
            )
            standing = self._labels(connection, "rater = ? AND item = ?", (rater, item))[0]
            connection.commit()
        if standing.value != value:
            raise ConflictingLabelError(standing)
        return standing

    def undo(self, rater: str, number: int) -> None:
        """Undo one label of a rater. Undoing it again, or a label of another rater, changes nothing.

        Args:
            rater: Who gave the label.
            number: See `Label`.
        """
        self._undo_where("rater = ? AND number = ?", (rater, number))

    def undo_skips(self, rater: str) -> None:
        """Undo all skips of a rater, so that they are asked again."""
        self._undo_where("rater = ? AND value IS NULL", (rater,))

    def _undo_where(self, condition: str, values: tuple[str | int, ...]) -> None:
        with self._connection() as connection:
            connection.execute(f"UPDATE labels SET undone_at = ? WHERE undone_at IS NULL AND {condition}", (_now(), *values))
            connection.commit()

    def standing(self, rater: str) -> list[Label]:
        """List a rater's labels that are not undone, in the order in which they were given."""
        with self._connection() as connection:
            return self._labels(connection, "rater = ?", (rater,))

    def table(self) -> pd.DataFrame:
        """Read the labels of all raters that are not undone.

        Returns:
            A row for each label, oldest first: `item`, `rater`, `value` (NaN: skipped) and `labelled_at` (ISO 8601, UTC).
        """
        with self._connection() as connection:
            rows = self._rows(connection, "TRUE", ())
        table = pd.DataFrame([vars(row) for row in rows], columns=["item", "rater", "value", "labelled_at"])
        return table.astype({"value": float})

    def _labels(self, connection: sqlite3.Connection, condition: str, values: tuple[str, ...]) -> list[Label]:
        return [Label(row.number, row.rater, row.item, row.value) for row in self._rows(connection, condition, values)]

    def _rows(self, connection: sqlite3.Connection, condition: str, values: tuple[str, ...]) -> Sequence[_Row]:
        """Read the labels that are not undone: the one way in which stored labels are read."""
        found = connection.execute(
            f"SELECT {', '.join(_COLUMNS)} FROM labels WHERE undone_at IS NULL AND {condition} ORDER BY number", values
        ).fetchall()
        try:
            rows = _ROWS.validate_python([dict(zip(_COLUMNS, row, strict=True)) for row in found])
        except ValidationError as error:
            raise DamagedFileError(
                f"{self.file} is damaged: labels.{problems_in(error)}: restore it, or mend that label with sqlite3"
            ) from error
        for row in rows:
            if row.value is not None and self.scale.answer(row.value) is None:
                raise DamagedFileError(
                    f"{self.file} is damaged: label {row.number}: value = {row.value:g}: expected an answer of the scale "
                    f"{self.scale.name!r}"
                )
        return rows


def check_rater(name: str) -> None:
    """Check that a rater's name can be used in file names, tags and command lines.

    Args:
        name: Matched against `RATER_PATTERN`.

    Raises:
        UserError: It cannot.
    """
    if not re.fullmatch(RATER_PATTERN, name):
        raise UserError(f"rater {name!r}: expected up to 40 letters, digits, dots, dashes and underscores, such as 'anna'")


def _scale_of(connection: sqlite3.Connection) -> str | None:
    """Read the name of a file's scale; None if the file is new."""
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'about'").fetchone():
        return None
    stored = connection.execute("SELECT scale FROM about").fetchone()
    return str(stored[0]) if stored else None


def _set_up(connection: sqlite3.Connection, scale: Scale) -> str:
    """Create the tables of a new file and return its scale, which another process may have set first."""
    connection.executescript(_SCHEMA)
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("INSERT INTO about SELECT ? WHERE NOT EXISTS (SELECT 1 FROM about)", (scale.name,))
    connection.commit()
    return str(connection.execute("SELECT scale FROM about").fetchone()[0])


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
