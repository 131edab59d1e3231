"""Files: reading through a type, atomic writing, checksums, and names that come from data (a table, a journal, a link)."""

import errno
import fcntl
import hashlib
import os
import re
import select
import shutil
import sqlite3
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from vlm_rm_sweeps.errors import DamagedFileError, UserError, expectation, shown

if TYPE_CHECKING:
    from pydantic import TypeAdapter, ValidationError

UNFINISHED = ".unfinished-"
"""How the names of folders begin in which something is written. What a killed process left in one is never read."""
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
"""A disk that is full or read-only."""
SQLITE_ERRORS = (sqlite3.Error, UnicodeDecodeError)
"""What reading a damaged SQLite file raises: if the damage is in SQLite's own message, Python cannot read that."""
_SHOWN_PROBLEMS = 3
_SHOWN_CHARACTERS = 60

Content = TypeVar("Content")


def file_inside(folder: Path, name: str | Path) -> Path:
    """Resolve the name of a file that must lie inside a folder.

    Args:
        folder: May itself be a symbolic link.
        name: Relative to `folder`. The file need not exist.

    Returns:
        `folder / name`, unchanged.

    Raises:
        UserError: The name leads out of the folder: it is absolute, has too many `..`, or is a symbolic link to somewhere else.
            Or it leads nowhere: links that form a loop, or characters that no file name has.
    """
    file = folder / name
    try:
        inside = file.resolve().is_relative_to(folder.resolve())
    except (RuntimeError, ValueError, OSError):  # a loop of links, a null character, a loop in newer versions of Python
        inside = False
    if not inside:
        raise UserError(f"{folder}: the file {str(name)!r} is refused: expected a path that stays inside the folder")
    return file


_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
_COPY_OF_JOB = "working_dir_files"
"""Name of the folder in which Ray keeps the working folders of submitted jobs."""


def _address_in(path: Path) -> str | None:
    """Return the address that was taken for a path, such as `s3://bucket/results`, of which `Path` has taken a slash."""
    if found := _ADDRESS.match(str(path)):
        return f"{found[0].rstrip('/')}//{str(path)[len(found[0]) :].lstrip('/')}"
    return None


_ELSEWHERE = "where only the results of sweeps are written (`vlm-rm sweep --results`): name a file or folder of this machine"


def refuse_address(path: Path, because: str = _ELSEWHERE) -> None:
    """Refuse the address of a store where a file or folder is meant: it would be taken for one of that name here.

    Args:
        path: What the user named.
        because: Why an address cannot be used, and what to do, for the message.

    Raises:
        UserError: It is an address.
    """
    if address := _address_in(path):
        raise UserError(f"{address} is an address, {because}")


def refuse_copy_of_job(path: Path) -> None:
    """Refuse a folder in the copy that Ray makes of the working folder of a submitted job, and deletes when it likes.

    Args:
        path: Where results would be written.

    Raises:
        UserError: It is in such a copy.
    """
    if _COPY_OF_JOB in path.absolute().parts:
        raise UserError(
            f"{path.absolute()} is in Ray's copy of this job's working folder, which Ray may delete with all results: name a folder "
            "that stays, by its absolute path, with --results"
        )


_BYTE_ORDER_MARK = "\ufeff"
_LARGEST_TEXT = 2**20
_WRITER_COMES_WITHIN_S = 2.0


def read_text(file: Path, expected: str) -> str:
    """Read a text file that the user named, whatever it turns out to be.

    Args:
        file: In UTF-8, with or without a byte order mark at its start.
        expected: What the file should be, for messages.

    Returns:
        The text, without the byte order mark.

    Raises:
        UserError: The file cannot be read, is larger than 1 MB (as `/dev/zero` is), is a pipe to which nobody writes, or is not
            UTF-8; or it has a byte order mark after its start, which no editor shows.
    """
    try:
        content = _first_bytes(file, _LARGEST_TEXT + 1)
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


def _first_bytes(file: Path, count: int) -> bytes:
    """Read the start of a file; of a pipe, wait for a short while only until somebody opens its other end."""
    # An ordinary open would wait for the other end of a pipe, for ever if need be.
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as opened:
        start = _start_of_pipe(descriptor) if stat.S_ISFIFO(os.fstat(descriptor).st_mode) else b""
        os.set_blocking(descriptor, True)
        return start + opened.read(count)


def _start_of_pipe(pipe: int) -> bytes:
    """Return what a pipe has to read at once, at most a byte; nothing if who writes to it has not begun."""
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    poll.poll(_WRITER_COMES_WITHIN_S * 1000)
    try:
        start = os.read(pipe, 1)
    except BlockingIOError:
        return b""
    if not start:
        raise OSError(errno.EPIPE, "it is a pipe to which nobody writes")
    return start


def refuse_no_file(file: Path) -> None:
    """Refuse what exists and is no file, before a library opens it: a pipe would make it wait for ever.

    Args:
        file: It need not exist.

    Raises:
        OSError: It is a folder, a pipe or a device.
    """
    if file.exists() and not file.is_file():
        raise OSError(errno.EINVAL, "it is not a file")


_LARGEST_WHOLE = 2**30


def read_whole(file: Path, remedy: str, largest: int | None = _LARGEST_WHOLE) -> bytes:
    """Read a file that this package wrote earlier.

    Args:
        file: The file.
        remedy: What to do if it cannot be read, for the message.
        largest: Bytes that it has at most: a file with holes may claim any number; None for one that grows without a limit.

    Returns:
        Its content.

    Raises:
        DamagedFileError: It is missing, is no file, is too large, or cannot be read.
    """
    try:
        refuse_no_file(file)
        if largest is not None and file.stat().st_size > largest:
            raise OSError(errno.EFBIG, f"it is larger than {largest / 2**20:,.0f} MiB")
        return file.read_bytes()
    except MemoryError as error:
        raise DamagedFileError(f"{file} is too large for this machine's memory: {remedy}") from error
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        raise DamagedFileError(f"{file} cannot be read ({_reason(error)}): {remedy}") from error


def read_json(file: Path, content: "TypeAdapter[Content]", remedy: str) -> Content:
    """Read a JSON file through a type: the one way in which stored JSON is read.

    Args:
        file: The file, in UTF-8.
        content: Its type. Values are not converted: the text `"5"` is no number.
        remedy: What to do if the file is damaged, for the message.

    Returns:
        The checked content, without keys that the type does not have.

    Raises:
        DamagedFileError: The file cannot be read, is not JSON, or is not of this type. The message has the file and, for each
            bad key, its value and what was expected.
    """
    from pydantic import ValidationError  # here: the command line starts faster without it

    try:
        return content.validate_json(read_whole(file, remedy), strict=True)
    except ValidationError as error:
        raise DamagedFileError(f"{file} is damaged: {problems_in(error)}: {remedy}") from error


def problems_in(error: "ValidationError") -> str:
    """Describe what is wrong with stored data.

    Args:
        error: As pydantic raised it.

    Returns:
        The first bad keys, each with its value and what was expected.
    """
    described = []
    # A value that is wrong says more than a key that is missing: a file of another version has both.
    problems = sorted(error.errors(include_url=False), key=lambda problem: problem["type"] == "missing")
    for problem in problems[:_SHOWN_PROBLEMS]:
        key = ".".join(map(str, problem["loc"]))
        message = expectation(problem)
        value = "" if problem["type"] in ("missing", "json_invalid") else f" = {shown(problem['input'], _SHOWN_CHARACTERS)}"
        described.append(f"{key}{value}: {message}" if key else message)
    return "; ".join(described)


class _TakenError(OSError):
    """Something else is in the place of what was to be written."""


@contextmanager
def written_whole(path: Path, replaces: bool = True) -> Iterator[Path]:
    """Write a file or folder atomically: readers find the old one, the new one or none, even if this process is killed.

    Several processes may write the same path at once; the last one to finish wins.

    Args:
        path: What is written, in an existing folder. A folder must not exist, or be empty.
        replaces: Whether a file is replaced if it exists; else it is an error, also if it has appeared in the meantime.

    Yields:
        A path of the same name elsewhere, to write to. It takes the place of `path` at the end of the context, unless that
        raises.

    Raises:
        OSError: It could not be written; what was there before is still there, and nothing else.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        # A device or a pipe, in whose place the superuser would otherwise put a file.
        raise OSError(errno.EINVAL, "it is neither a file nor a folder", str(path))
    place = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=path.parent))
    try:
        unfinished = place / path.name
        yield unfinished
        if unfinished.is_file():
            flush(unfinished)
        _put_in_place(unfinished, path, replaces or unfinished.is_dir())
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _put_in_place(unfinished: Path, path: Path, replaces: bool) -> None:
    try:
        if not replaces:
            path.touch(exist_ok=False)  # renaming would replace a file that another process has written since
        unfinished.replace(path)
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
            raise _TakenError(error.errno, error.strerror, str(path)) from error
        raise


@contextmanager
def new_output(path: Path, replaces: bool = True) -> Iterator[Path]:
    """Write what the user asked for, see `written_whole`: it is there as a whole or not at all.

    Args:
        path: A file or folder. The folders above it are made, and removed again if nothing could be written.
        replaces: As of `written_whole`. False for a name that was found free before work that takes a while.

    Yields:
        The path to write to.

    Raises:
        UserError: It could not be written: the disk is full, the folder is not writable, or something else is in its place.
    """
    made = [folder for folder in path.parents if not folder.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path, replaces) as unfinished:
            yield unfinished
    except BaseException as error:
        for folder in made:
            with suppress(OSError):  # another process may have written into it
                folder.rmdir()
        if not isinstance(error, OSError):
            raise
        if isinstance(error, _TakenError):
            raise UserError(
                f"{path} exists now and is not overwritten: has another process written it meanwhile? Choose another name"
            ) from error
        raise UserError(
            f"{path} cannot be written ({_reason(error)}): free some disk space, or choose another place"
        ) from error


_ROOM = 2**20


def try_to_write(folder: Path) -> None:
    """Write some data into a folder, and remove it: what the system says of rights means nothing to its administrator.

    Args:
        folder: If it does not exist, the nearest one above it is tried. None is made.

    Raises:
        OSError: Its disk is full or read-only, or the folder is somebody else's, or no folder.
    """
    nearest = next(each for each in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(each))
    with tempfile.NamedTemporaryFile(dir=nearest, prefix=UNFINISHED) as file:
        file.write(bytes(_ROOM))
        file.flush()


def check_room(folder: Path) -> None:
    """Refuse a folder in which nothing can be written now, before work begins whose results it is to take.

    Args:
        folder: See `try_to_write`.

    Raises:
        UserError: Nothing can be written there.
    """
    try:
        try_to_write(folder)
    except OSError as error:
        raise UserError(
            f"{folder}: nothing can be written there ({_reason(error)}): make room, or choose another folder"
        ) from error


def write_whole(file: Path, text: str) -> None:
    """Write a text file atomically, see `written_whole`.

    Args:
        file: Replaced if it exists.
        text: Written as UTF-8.

    Raises:
        OSError: The text could not be written; the old content is still there.
    """
    with written_whole(file) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


@contextmanager
def folder_locked(folder: Path, wait: bool) -> Iterator[None]:
    """Let one process at a time work in a folder; the system releases the lock however the process ends.

    Args:
        folder: The folder. On a file system without locks nothing is locked.
        wait: Whether to wait for another process.

    Yields:
        Nothing.

    Raises:
        BlockingIOError: Another process works there, and it is not waited for.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(handle)


def flush(path: Path) -> None:
    """Wait until a file's content, or a folder's list of files, is on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


CACHE = "VLM_RM_CACHE"
"""Environment variable of the folder that `user_cache` returns."""


def user_cache() -> Path:
    """Return the folder of what this user may lose: `VLM_RM_CACHE`, or else `vlm-rm-sweeps` in the user's own cache.

    Each part of this package has a folder in it.

    Returns:
        The folder, which need not exist.
    """
    own = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get(CACHE) or Path(own) / "vlm-rm-sweeps")


def sha256_of(file: Path) -> str:
    """Compute the SHA-256 checksum of a file, in hexadecimal, without reading the file into memory at once."""
    refuse_no_file(file)
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
