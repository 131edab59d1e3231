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
