"""Files: atomic writing, checksums, and names that come from data (a table, a journal, a link in a copied folder)."""

import hashlib
import os
from pathlib import Path

from vlm_rm_sweeps.errors import UserError


def file_inside(folder: Path, name: str | Path) -> Path:
    """Resolve the name of a file that must lie inside a folder.

    Args:
        folder: May itself be a symbolic link.
        name: Relative to `folder`. The file need not exist.

    Returns:
        `folder / name`, unchanged.

    Raises:
        UserError: The name leads out of the folder: it is absolute, has too many `..`, or is a symbolic link to somewhere else.
    """
    file = folder / name
    if not file.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{folder}: the file {str(name)!r} is refused: expected a path that stays inside the folder")
    return file


_BYTE_ORDER_MARK = "\ufeff"
_LARGEST_TEXT = 2**20


def read_text(file: Path, expected: str) -> str:
    """Read a text file that the user named, whatever it turns out to be.

    Args:
        file: In UTF-8, with or without a byte order mark at its start.
        expected: What the file should be, for messages.

    Returns:
        The text, without the byte order mark.

    Raises:
        UserError: The file cannot be read, is larger than 1 MB (as `/dev/zero` is), or is not UTF-8; or it has a byte order
            mark after its start, which no editor shows.
    """
    try:
        with file.open("rb") as opened:
            content = opened.read(_LARGEST_TEXT + 1)
    except (OSError, ValueError) as error:  # ValueError: a name with a null character
        raise UserError(f"{file}: cannot be read ({getattr(error, 'strerror', None) or error}); expected {expected}") from error
    if len(content) > _LARGEST_TEXT:
        raise UserError(f"{file}: is larger than 1 MB; expected {expected}")
    try:
        text = content.decode("utf-8").removeprefix(_BYTE_ORDER_MARK)
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: is not a text file in UTF-8 ({error}); expected {expected}") from error
    if _BYTE_ORDER_MARK in text:
        line = text[: text.index(_BYTE_ORDER_MARK)].count("\n") + 1
        raise UserError(
            f"{file}: line {line} has a byte order mark (U+FEFF), which is invisible: delete it, or type the line anew"
        )
    return text


def write_whole(file: Path, text: str) -> None:
    """Write a text file atomically: readers find the old content or the new one, even if this process is killed.

    Args:
        file: Replaced if it exists. A temporary file is made beside it.
        text: Written as UTF-8.

    Raises:
        OSError: The text could not be written; the old content is still there.
    """
    unfinished = file.with_name(f"{file.name}.unfinished")
    try:
        with unfinished.open("w", encoding="utf-8") as opened:
            opened.write(text)
            opened.flush()
            os.fsync(opened.fileno())
        unfinished.replace(file)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise


def sha256_of(file: Path) -> str:
    """Compute the SHA-256 checksum of a file, in hexadecimal, without reading the file into memory at once."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
