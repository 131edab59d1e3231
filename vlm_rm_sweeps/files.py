"""Names of files that come from data: a table, a journal, a checkpoint's description, a link in a folder that was copied."""

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
