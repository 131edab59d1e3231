"""Files that are whole or not there, and names of files that come from data: a table, a journal, a link in a copied folder."""

import os
from pathlib import Path

from vlm_rm_sweeps.errors import UserError


def file_inside(folder: Path, name: str | Path) -> Path:
    """The file of this name in a folder, whether it exists or not.

    Raises UserError if it is not in there: an absolute name, one that leads out by `..`, or a symbolic link to somewhere else.
    The folder itself may be a link.
    """
    file = folder / name
    if not file.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{folder}: the file {str(name)!r} is refused: expected one inside the folder, not a way out of it")
    return file


def write_whole(file: Path, text: str) -> None:
    """Write a text file, replacing what is there: whoever looks finds the old one or the new one, whatever ends this process.

    Raises OSError, with the old one still in place.
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
