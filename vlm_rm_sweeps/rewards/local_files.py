"""Where the files of a model are on this machine: at their own paths, or in copies that came with the model.

A copy is kept in the user's cache, under the checksum of what it holds, so that it is written once for each machine.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from vlm_rm_sweeps.files import new_output, sha256_of, user_cache

_CACHE = "models"
_copies: dict[Path, Path] = {}
"""Folders of this process's models, by the path that they have where the models came from."""


def local_path(path: Path) -> Path:
    """Return where a file or folder of a model is on this machine.

    Args:
        path: Where it is on the machine that the model came from.

    Returns:
        Its copy, if `keep_copies` has one; else the path.
    """
    absolute = path.absolute()
    if absolute in _copies:
        return _copies[absolute]
    copy = _copies.get(absolute.parent, absolute.parent) / absolute.name
    return copy if copy != absolute and copy.exists() else path


def first_path(path: Path) -> Path:
    """Return where a file is on the machine that its model came from; the reverse of `local_path`."""
    absolute = path.absolute()
    folder = next((first for first, copy in _copies.items() if copy == absolute.parent), absolute.parent)
    return folder / absolute.name


def keep_copies(contents: Mapping[Path, bytes]) -> None:
    """Make the files of a model, which came with it, known to this process; those that this machine has are not written.

    Args:
        contents: By the path that a file has on the machine that the model came from.

    Raises:
        UserError: The user's cache cannot be written.
    """
    folders: dict[Path, dict[str, bytes]] = {}
    for path, content in contents.items():
        folders.setdefault(path.parent, {})[path.name] = content
    for folder, files in folders.items():
        checksums = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())}
        if not _lacking(folder, checksums):
            continue
        copy = user_cache() / _CACHE / hashlib.sha256(repr(checksums).encode()).hexdigest()
        for name in _lacking(copy, checksums):
            with new_output(copy / name) as unfinished:
                unfinished.write_bytes(files[name])
        _copies[folder] = copy


def _lacking(folder: Path, checksums: Mapping[str, str]) -> list[str]:
    """Return the names of files that are not in a folder, or are others there."""
    return [
        name for name, checksum in checksums.items() if not (folder / name).is_file() or sha256_of(folder / name) != checksum
    ]
