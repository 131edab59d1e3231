"""Results at an address, such as `s3://bucket/results`: in a store that all machines reach.

Nothing works in the store itself. Each machine has a copy, an ordinary folder, in which sweeps, trials and commands read and write as
they do elsewhere. `RemoteFolder` carries files between the two: what is written whole is put there, what is needed is fetched.

A store has no transactions, but a file is there whole or not at all. A folder that must be whole, such as a checkpoint, has one file
that is put last and removed first: without it the folder does not count.

Stores are opened by pyarrow, as Ray Tune opens them. Credentials come from the environment of each process and are never passed on.
"""

import functools
import hashlib
import os
import posixpath
import re
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlsplit

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.files import UNFINISHED, file_inside, user_cache, written_whole

_SECRET_NAME = re.compile(r"pass|pwd|secret|token|key", re.IGNORECASE)
_SCHEMES = "s3://, gs://, abfs://, hdfs:// or file://"
_ANSWER_S = 12.0
"""Seconds in which a store must answer the first request."""
_TRIES = 2
"""Tries of each request, each of which the store's client repeats itself for some seconds."""
_WAIT_S = 2.0
_S3_SETTINGS = frozenset({"region", "endpoint_override", "scheme"})
_S3_ATTEMPTS = 2
"""How often the client of S3 asks; a server that says nothing gets some seconds each time."""
_GOOGLE_RETRIES_S = 10
"""Seconds for which the client of Google's store repeats a request; 15 minutes by default."""
_CHUNK = 16 * 2**20
"""Bytes that are read before they are written: large, for replay buffers."""
_REASON_LETTERS = 300

Answer = TypeVar("Answer")


class StoreError(OSError):
    """A store does not answer, or refuses: what was to be put there is in the copy on this machine."""


def is_address(text: str) -> bool:
    """Whether a text is the address of a store, such as `s3://bucket/results`, and not the path of a folder."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text) is not None


def place_named(text: str) -> "Path | RemoteFolder":
    """Return the place that a text names.

    Args:
        text: A path or an address.

    Returns:
        The path, or the folder at the address.

    Raises:
        UserError: The address is refused, see `RemoteFolder.at`.
    """
    if is_address(text):
        return RemoteFolder.at(text)
    # No shell replaces it in `--results=~/results`.
    return Path(text).expanduser() if text.startswith("~/") else Path(text)


@dataclass(frozen=True)
class RemoteFolder:
    """A folder in a store, with a copy on this machine.

    It is plain data: every process opens the store itself, and has its copy where its own environment says.

    Args:
        store: Address of the store, such as `s3://bucket`, with what is to be known of it after a question mark.
        inside: The folder's path in the store, without slashes at its ends.
    """

    store: str
    inside: str

    @classmethod
    def at(cls, address: str) -> "RemoteFolder":
        """Return the folder at an address. The store is not asked.

        Args:
            address: Such as `s3://bucket/results`; what pyarrow's `FileSystem.from_uri` takes.

        Returns:
            The folder, which need not exist.

        Raises:
            UserError: It has a password or another secret, no pyarrow file system is for it, or it is not written as an address.
        """
        try:
            parts = urlsplit(address)
        except ValueError as error:
            raise UserError(f"{address!r} is no address ({error}): expected one such as s3://bucket/results") from error
        if parts.password is not None:
            raise UserError(
                f"{parts.scheme}://***@{parts.hostname}{parts.path}: an address has no password: it would be stored with the results. "
                "Set it in the environment, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            )
        for name, _ in parse_qsl(parts.query, keep_blank_values=True):
            if _SECRET_NAME.search(name):
                raise UserError(
                    f"{parts.scheme}://{parts.netloc}{parts.path}?{name}=***: an address has no secrets: it would be stored with the "
                    "results. Set them in the environment"
                )
        inside = parts.path.strip("/")
        if "%" in inside or any(part in (".", "..") for part in inside.split("/")):
            raise UserError(f"{address!r}: expected a path without '%', '.' and '..' as the names of folders")
        query = f"?{parts.query}" if parts.query else ""
        folder = cls(f"{parts.scheme.lower()}://{parts.netloc}/{query}", inside)
        if not inside and not parts.netloc:
            raise UserError(f"{address!r} names no bucket or folder: expected an address such as s3://bucket/results")
        _open_to_check(folder)
        return folder

    def __truediv__(self, name: str) -> "RemoteFolder":
        """Return a folder in this one."""
        return RemoteFolder(self.store, posixpath.join(self.inside, name))

    def __str__(self) -> str:
        """Return the address."""
        store, mark, query = self.store.partition("?")
        return f"{store}{self.inside}{mark}{query}"

    @property
    def name(self) -> str:
        """The folder's own name."""
        return posixpath.basename(self.inside)

    @property
    def copy(self) -> Path:
        """The copy on this machine, which need not exist."""
        return _copy_of(self.store) / self.inside

    @property
    def above(self) -> "RemoteFolder":
        """The folder in which this one lies."""
        return RemoteFolder(self.store, posixpath.dirname(self.inside))

    def check(self) -> None:
        """Make sure that files can be written here and read again, by writing a small one and removing it.

        Raises:
            UserError: They cannot: the bucket does not exist, there are no or wrong credentials, or nothing answers within seconds.
        """
        trouble: list[str | None] = []
        asking = threading.Thread(target=lambda: trouble.append(self.trouble()), name="ask-store", daemon=True)
        asking.start()
        asking.join(_ANSWER_S)
        if not trouble:
            trouble.append(f"it has not answered within {_ANSWER_S:g} s")
        if trouble[0]:
            raise UserError(
                f"{self} cannot be used for results ({trouble[0]}): check address, network and the credentials in the environment"
            )

    def trouble(self) -> str | None:
        """Write a small file, read and remove it; return what went wrong, or None."""
        mark = f".seen-{uuid.uuid4().hex[:12]}"
        try:
            store, path = self._opened(mark)
            _make_folders(store, path)
            with store.open_output_stream(path) as file:
                file.write(mark.encode())
            with store.open_input_stream(path) as file:
                if file.read() != mark.encode():
                    return "what is written there is not what is read"
            store.delete_file(path)
        except Exception as error:  # pyarrow's have many types
            return _reason(error)
        return None

    def names(self) -> list[str]:
        """List the files and folders that lie directly in this one.

        Returns:
            Their names, sorted; none if this one does not exist.

        Raises:
            StoreError: The store does not answer.
        """
        from pyarrow.fs import FileSelector

        def listed() -> list[str]:
            store, path = self._opened()
            return sorted(info.base_name for info in store.get_file_info(FileSelector(path, allow_not_found=True)))

        # The first thing that commands ask: the client's own tries are as long as somebody should wait.
        return self._asked("listed", listed, tries=1)

    def files(self) -> dict[str, int]:
        """List all files below this folder; none if it does not exist.

        Returns:
            Their sizes in bytes, by path relative to this folder.

        Raises:
            StoreError: The store does not answer.
        """
        from pyarrow.fs import FileSelector, FileType

        def listed() -> dict[str, int]:
            store, path = self._opened()
            found = store.get_file_info(FileSelector(path, recursive=True, allow_not_found=True))
            return {
                posixpath.relpath(info.path, path): int(info.size)
                for info in found
                if info.type == FileType.File and not info.base_name.startswith(UNFINISHED)
            }

        return self._asked("listed", listed)

    def fetch(self, wanted: Callable[[PurePosixPath], bool], settled: str, growing: Collection[str] = ()) -> None:
        """Bring files into the copy. What is in the copy alone stays.

        Args:
            wanted: Whether a file is fetched, by its path relative to this folder.
            settled: Name of a folder whose files do not change: of these, one of the same size is not fetched again.
            growing: Names of files that only grow. The longer one is kept; if neither continues the other, the copy's is set aside,
                under a name with the time.

        Raises:
            StoreError: The store does not answer.
            OSError: The copy cannot be written.
            UserError: A name leads out of the copy.
        """
        for name, size in self.files().items():
            path = PurePosixPath(name)
            here = file_inside(self.copy, name)
            if not wanted(path) or (path.parts[0] == settled and here.is_file() and here.stat().st_size == size):
                continue
            here.parent.mkdir(parents=True, exist_ok=True)
            with written_whole(here) as unfinished:
                self._copy_here(name, unfinished)
                if name in growing and here.is_file():
                    there, copied = unfinished.read_bytes(), here.read_bytes()
                    if copied.startswith(there):
                        unfinished.write_bytes(copied)
                    elif not there.startswith(copied):
                        shutil.copyfile(here, here.with_name(f"{here.stem}-{datetime.now():%Y%m%d-%H%M%S-%f}{here.suffix}"))

    def fetch_folder(self, name: str) -> Path:
        """Bring a folder into the copy, whole or not at all; in the place of one that is there.

        Args:
            name: Its path relative to this folder.

        Returns:
            The folder in the copy.

        Raises:
            StoreError: The store does not answer.
            OSError: The copy cannot be written.
        """
        here = file_inside(self.copy, name)
        here.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(here) as unfinished:
            unfinished.mkdir()
            for file in (self / name).files():
                target = file_inside(unfinished, file)
                target.parent.mkdir(parents=True, exist_ok=True)
                self._copy_here(posixpath.join(name, file), target)
            if here.exists():
                shutil.rmtree(here)
        return here

    def put_file(self, name: str) -> None:
        """Put a file of the copy into the store, in the place of one that is there.

        Args:
            name: Its path relative to this folder.

        Raises:
            StoreError: It cannot be put there; the copy stays.
        """
        from pyarrow.fs import LocalFileSystem, copy_files

        here = file_inside(self.copy, name)

        def put() -> None:
            store, path = self._opened(name)
            _make_folders(store, path)
            # Threads are not safe for uploads, as Ray found: github.com/apache/arrow/issues/32372.
            copy_files(
                str(here),
                path,
                source_filesystem=LocalFileSystem(),
                destination_filesystem=store,
                chunk_size=_CHUNK,
                use_threads=False,
            )

        self._asked(f"written, and stays in {here}", put)

    def put_folder(self, name: str, last: str | None = None) -> None:
        """Put a folder of the copy into the store, in the place of one that is there.

        Args:
            name: Its path relative to this folder.
            last: The file without which the folder does not count: it is removed first and put last.

        Raises:
            StoreError: It cannot be put there as a whole; the copy stays.
        """
        here = file_inside(self.copy, name)
        if last is not None:
            self.remove_file(posixpath.join(name, last), f"written, and stays in {here}")
        files = sorted(file.relative_to(here).as_posix() for file in here.rglob("*") if file.is_file())
        for file in sorted(files, key=lambda file: file == last):
            self.put_file(posixpath.join(name, file))

    def remove_folder(self, name: str, first: str) -> None:
        """Remove a folder from the store. The copy is left alone.

        Args:
            name: Its path relative to this folder.
            first: The file without which the folder does not count, which is removed first.

        Raises:
            StoreError: The store does not answer.
        """
        self.remove_file(posixpath.join(name, first))

        def remove() -> None:
            store, path = self._opened(name)
            store.delete_dir(path)

        self._asked("removed", remove, missing_is_fine=True)

    def read(self, name: str) -> bytes | None:
        """Read a small file.

        Args:
            name: Its path relative to this folder.

        Returns:
            Its content; None if it does not exist.

        Raises:
            StoreError: The store does not answer.
        """

        def read() -> bytes:
            store, path = self._opened(name)
            with store.open_input_stream(path) as file:
                return bytes(file.read())

        return self._asked("read", read, missing_is_fine=True)

    def write(self, name: str, content: bytes) -> None:
        """Write a small file, which the copy does not get.

        Args:
            name: Its path relative to this folder.
            content: Its content.

        Raises:
            StoreError: It cannot be written.
        """

        def write() -> None:
            store, path = self._opened(name)
            _make_folders(store, path)
            with store.open_output_stream(path) as file:
                file.write(content)

        self._asked("written", write)

    def remove_file(self, name: str, done: str = "removed") -> None:
        """Remove a file from the store, if it is there.

        Args:
            name: Its path relative to this folder.
            done: What was to be done, for the message.

        Raises:
            StoreError: The store does not answer.
        """

        def remove() -> None:
            store, path = self._opened(name)
            store.delete_file(path)

        self._asked(done, remove, missing_is_fine=True)

    def _copy_here(self, name: str, target: Path) -> None:
        from pyarrow.fs import LocalFileSystem, copy_files

        def copied() -> None:
            store, path = self._opened(name)
            copy_files(path, str(target), source_filesystem=store, destination_filesystem=LocalFileSystem(), chunk_size=_CHUNK)

        self._asked(f"fetched ({name})", copied)

    def _opened(self, name: str = "") -> tuple[Any, str]:
        """Return the store, and a path in it."""
        store, root = _opened_store(self.store)
        return store, posixpath.join(root, self.inside, name).rstrip("/") or "/"

    def _asked(self, done: str, ask: Callable[[], Answer], missing_is_fine: bool = False, tries: int = _TRIES) -> Any:
        """Ask the store, and if that fails, again.

        Raises:
            StoreError: It failed again.
        """
        for tries_left in reversed(range(tries)):
            try:
                return ask()
            except Exception as error:  # pyarrow's have many types
                if missing_is_fine and isinstance(error, FileNotFoundError):
                    return None
                if not tries_left:
                    raise StoreError(f"{self} cannot be {done} ({_reason(error)})") from error
                time.sleep(_WAIT_S)
        raise AssertionError("there is at least one try")


def _open_to_check(folder: RemoteFolder) -> None:
    """Let pyarrow read an address, except of S3, which would be asked for the bucket's region: that is left to `check`.

    Raises:
        UserError: pyarrow does not know such addresses, or something in it.
    """
    from pyarrow import ArrowException

    if folder.store.startswith("s3:"):
        if unknown := dict(parse_qsl(urlsplit(folder.store).query)).keys() - _S3_SETTINGS:
            raise UserError(f"{folder}: expected none but {', '.join(sorted(_S3_SETTINGS))} after '?', and not {min(unknown)}")
        return
    try:
        _opened_store(folder.store)
    except ArrowException as error:
        raise UserError(
            f"{folder} is no address of results ({_reason(error)}): expected one that begins with {_SCHEMES}"
        ) from error
    except OSError:  # no network, or no library for it: `check` says which
        return


@functools.cache
def _opened_store(address: str) -> tuple[Any, str]:
    """Return a store, opened once for each process, and the path of its root."""
    from pyarrow.fs import FileSystem

    if address.startswith("s3:"):
        return _opened_s3(address)
    if address.startswith(("gs:", "gcs:")) and "retry_limit_seconds" not in address:
        address += f"{'&' if '?' in address else '?'}retry_limit_seconds={_GOOGLE_RETRIES_S}"
    store, root = FileSystem.from_uri(address)
    return store, root


def _opened_s3(address: str) -> tuple[Any, str]:
    """Open a bucket of S3. As `FileSystem.from_uri` opens it, a server that says nothing would be asked for minutes."""
    from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem, resolve_s3_region

    parts = urlsplit(address)
    settings, environment = dict(parse_qsl(parts.query)), os.environ
    own_endpoint = environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL")
    endpoint = settings.get("endpoint_override") or own_endpoint
    store = S3FileSystem(
        region=settings.get("region") or (None if endpoint else resolve_s3_region(parts.netloc)),
        endpoint_override=endpoint,
        scheme=settings.get("scheme"),
        retry_strategy=AwsStandardS3RetryStrategy(max_attempts=_S3_ATTEMPTS),
    )
    return store, parts.netloc


def _make_folders(store: Any, path: str) -> None:
    """Make the folders above a file, where a store has such."""
    if store.type_name not in ("s3", "gcs"):
        store.create_dir(posixpath.dirname(path), recursive=True)


def _copy_of(store: str) -> Path:
    """Return the folder of a store's copy: readable, and another one for each store."""
    readable = re.sub(r"[^A-Za-z0-9.-]+", "_", store.partition("?")[0]).strip("_.")
    return user_cache() / f"{readable}-{hashlib.sha256(store.encode()).hexdigest()[:8]}"


def _reason(error: Exception) -> str:
    """Return the message of an error of pyarrow in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:_REASON_LETTERS]
