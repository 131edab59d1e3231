"""The folder of a sweep, which contains everything that is needed to resume it.

It holds `sweep.yaml` (the resolved sweep file), `journal.jsonl` (all events), `mlflow.json` (the ids of its MLflow runs),
`trials/<id>/` (each trial's checkpoints), `trials.csv` (the final table), `cells.csv` (the combinations over their seeds), `epic.csv`
(if the sweep has `epic_states`), `tune/` (Tune's own files, which nothing here reads), and what is generated from it later: `figures/`
and `report.html`.

If results are at an address, all of this is in a copy on the driver's machine. `upload.py` puts it there, except `tune/`; the trials
put their checkpoints there themselves.
"""

import difflib
import fcntl
import filecmp
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import IO, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.files import file_inside, refuse_address, refuse_copy_of_job, write_whole, written_whole
from vlm_rm_sweeps.storage import RemoteFolder
from vlm_rm_sweeps.sweeping.config.named_files import with_stored_names
from vlm_rm_sweeps.sweeping.config.plan import Plan, fixed_settings
from vlm_rm_sweeps.sweeping.config.sweep import Sweep
from vlm_rm_sweeps.sweeping.config.validation import check_keys, in_file
from vlm_rm_sweeps.sweeping.config.yaml_file import BASE, read_yaml
from vlm_rm_sweeps.sweeping.config.yaml_text import to_yaml
from vlm_rm_sweeps.training.checkpoints import TRIALS, in_checkpoint
from vlm_rm_sweeps.videos import VIDEO_FOLDER

DATABASE = "mlflow.db"
"""Name of MLflow's database in a results folder."""
SWEEP_FILE = "sweep.yaml"
JOURNAL = "journal.jsonl"
TUNE = "tune"
LOCK = "lock"
IN_USE = "in-use.json"
"""At an address, what says that a sweep runs, and where."""
IN_USE_S = 120.0
"""Seconds after which a sweep that no longer says that it runs is taken for one that was killed."""
# MLflow would open a quoted one, but also make a folder with the quoted name.
_TAKEN_APART = re.compile(r"\?|%[0-9A-Fa-f]{2}")
_OF_EXECUTION = ("max_concurrent", "time_budget_s", "wait_for_nodes_s")
"""Keys that another execution of the same sweep may change: no trial depends on them."""
_STAMP = "[0-9]{8}-[0-9]{6}"


class FolderInUseError(UserError):
    """Another process runs the sweep."""


def default_tracking_uri(results: Path | RemoteFolder) -> str:
    """Return the URI of the SQLite database in the results folder, which needs no server.

    Args:
        results: The results folder; of an address, the database is in the copy on this machine.

    Returns:
        A URI as MLflow takes it, in which all letters that it can have stand for themselves.

    Raises:
        UserError: The path has a question mark, or a percent sign before two hexadecimal digits.
    """
    file = ((results.copy if isinstance(results, RemoteFolder) else results) / DATABASE).resolve()
    if taken_apart := _TAKEN_APART.search(str(file)):
        raise UserError(
            f"{file}: MLflow cannot open a database in a path with {taken_apart[0]!r}, which stands for something else in its "
            "addresses: choose another folder with --results, or another database with --tracking-uri"
        )
    return f"sqlite:///{file}"


class InUse(BaseModel):
    """Content of `in-use.json`: the process that runs a sweep.

    Attributes:
        host: Its machine.
        pid: Its id there.
        time: When it last said so, in seconds of Unix time.
    """

    model_config = ConfigDict(frozen=True)

    host: str
    pid: int
    time: float


@dataclass(frozen=True)
class SweepFolder:
    """The paths in a sweep's folder, which need not exist yet.

    Each of them raises UserError if it is a link that leads out of the folder, which may be somebody else's.

    Attributes:
        path: The folder itself.
        remote: The address that it is a copy of; None if it is the results' own place.
    """

    path: Path
    remote: RemoteFolder | None = None

    @classmethod
    def at(cls, place: Path | RemoteFolder) -> "SweepFolder":
        """Return the folder of a path, or of an address."""
        return cls(place.copy, place) if isinstance(place, RemoteFolder) else cls(place)

    @classmethod
    def new(cls, sweep: Sweep, results: Path | RemoteFolder) -> "SweepFolder":
        """Return a folder that does not exist yet, named after the sweep and the current time."""
        return cls.at(new_place(results, sweep.name))

    @classmethod
    def newest(cls, sweep: Sweep, results: Path | RemoteFolder) -> "SweepFolder | None":
        """Return the newest folder of a sweep of this name below `results`, at hand; None if there is none."""
        names = results.names() if isinstance(results, RemoteFolder) else [each.name for each in results.glob("*")]
        named = (name for name in sorted(names, reverse=True) if re.fullmatch(f"{re.escape(sweep.name)}-{_STAMP}", name))
        return next((folder for name in named if (folder := cls.at(results / name)).fetch()), None)

    @property
    def place(self) -> Path | RemoteFolder:
        """Where the results are, for people: the address if there is one."""
        return self.remote or self.path

    @property
    def sweep_file(self) -> Path:
        """The resolved sweep file."""
        return file_inside(self.path, SWEEP_FILE)

    @property
    def sweep_file_place(self) -> Path | RemoteFolder:
        """Where other machines see it: by a path that is the same everywhere, or at the address."""
        return self.sweep_file.resolve() if self.remote is None else self.remote / SWEEP_FILE

    @property
    def journal(self) -> Path:
        """The journal of all events."""
        return file_inside(self.path, JOURNAL)

    @property
    def mlflow(self) -> Path:
        """The file with the ids of the MLflow runs."""
        return file_inside(self.path, "mlflow.json")

    @property
    def table(self) -> Path:
        """The final table of trials."""
        return file_inside(self.path, "trials.csv")

    @property
    def cells(self) -> Path:
        """The final table of combinations, each over its seeds."""
        return file_inside(self.path, "cells.csv")

    @property
    def epic(self) -> Path:
        """The table of EPIC distances before training."""
        return file_inside(self.path, "epic.csv")

    @property
    def tune(self) -> Path:
        """The folder of Tune's own files."""
        return file_inside(self.path, TUNE)

    def trial(self, trial_id: str) -> Path:
        """Return the folder of a trial.

        Args:
            trial_id: The trial's id.

        Returns:
            Path of the folder, which need not exist.

        Raises:
            UserError: The path leads out of this folder: resuming a trial unpickles files in it.
        """
        return file_inside(self.path, Path(TRIALS) / trial_id)

    def trial_place(self, trial_id: str) -> Path | RemoteFolder:
        """Return where a trial's checkpoints are: its folder, by a path that is the same everywhere, or its address.

        Args:
            trial_id: The trial's id.

        Returns:
            The path or the address.

        Raises:
            UserError: See `trial`.
        """
        folder = self.trial(trial_id)
        return folder.resolve() if self.remote is None else self.remote / TRIALS / trial_id

    def fetch(self, all_of_it: bool = True) -> bool:
        """Bring what is at the address into the copy, except checkpoints, which are fetched when they are read.

        Nothing is fetched if there is no address, or while a process on this machine runs the sweep, whose copy is newer.

        Args:
            all_of_it: Whether to fetch what lies in folders, too, such as videos.

        Returns:
            Whether there is a sweep in the folder or at its address.

        Raises:
            StoreError: The store does not answer.
            UserError: A name there leads out of the copy.
        """
        if self.remote is None:
            return self.sweep_file.is_file()
        if SWEEP_FILE not in self.remote.names():
            return False
        self.path.mkdir(parents=True, exist_ok=True)
        with suppress(FolderInUseError), self._locked_here():

            def wanted(file: PurePosixPath) -> bool:
                if len(file.parts) == 1:
                    return file.name not in (IN_USE, LOCK)
                return all_of_it and file.parts[0] != TUNE and not in_checkpoint(file)

            self.remote.fetch(wanted, settled=TRIALS, growing=(JOURNAL,))
            for started in (self.remote / TRIALS).names() if all_of_it else ():
                self.trial(started).mkdir(parents=True, exist_ok=True)
        return True

    def copy_videos(self, folder: Path) -> None:
        """Copy the trials' videos, with what describes them, into a folder of the user's, under the same paths.

        Args:
            folder: Made if it does not exist. What is there stays.

        Raises:
            StoreError: The store does not answer.
            UserError: There is no sweep, or the folder has another file in the place of a video.
            OSError: The folder cannot be written.
        """
        if not self.fetch():
            raise UserError(f"{self.place} holds no sweep: expected a folder with {SWEEP_FILE}")
        for trial in self.trials():
            for file in sorted((trial / VIDEO_FOLDER).glob("*")):
                target = file_inside(folder, file.relative_to(self.path))
                if not target.exists():
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with written_whole(target) as unfinished:
                        shutil.copyfile(file, unfinished)
                elif not filecmp.cmp(file, target, shallow=False):
                    raise UserError(
                        f"{target} is not the video of {self.place}: name another folder, or one that does not exist"
                    )

    def trials(self) -> list[Path]:
        """Return the folders of the trials that have started, sorted by id; of an address, after `fetch`."""
        trials = file_inside(self.path, TRIALS)
        return sorted(self.trial(folder.name) for folder in trials.glob("*") if folder.is_dir())

    def stored_sweep(self) -> Sweep:
        """Read the sweep file in the folder, which is resolved: it has no base.

        Returns:
            The sweep.

        Raises:
            UserError: The file cannot be read, is no sweep file, or names a base, which may lie outside of the folder.
        """
        keys = read_yaml(self.sweep_file)
        if BASE in keys:
            raise UserError(f"{self.sweep_file}: {BASE} = {keys[BASE]!r} is refused: expected a resolved sweep file")
        try:
            return check_keys(Sweep, {"embedded_version": "v1"} | keys)  # there was one version before this key
        except UserError as error:
            raise in_file(self.sweep_file, error) from error

    def create(self, sweep: Sweep) -> None:
        """Create the folder with its sweep file.

        Args:
            sweep: The resolved sweep.

        Raises:
            UserError: The folder exists already or cannot be created.
            StoreError: The store does not answer.
        """
        if self.remote is not None and self.remote.names():
            raise UserError(f"{self.remote} exists already: another of this name was started in the same second; try again")
        make_folder(self.sweep_file, sweep.model_dump(mode="json"))

    def differences(self, plan: Plan) -> str:
        """Compare the sweep in the folder with a plan.

        Keys that the stored file lacks, because an earlier version wrote it, have their defaults, and paths that it stored
        relative to the working folder are equal to the absolute ones. Keys that are about one execution may differ.

        Args:
            plan: The plan of the sweep to run now.

        Returns:
            A unified diff from the stored sweep file (`-`) to the plan's (`+`); empty if they are the same.
        """
        stored = self.stored_sweep()
        if stored.algorithm == plan.sweep.algorithm:
            with suppress(ValidationError):  # the algorithm's settings are others now, and the comparison shows which
                settings = fixed_settings(type(plan.algorithm).model_validate(stored.settings), stored)
                stored = stored.model_copy(update={"settings": settings})
        keys = stored.model_dump(mode="json")
        named = with_stored_names(plan.sweep.model_dump(mode="json"), keys) | {key: keys[key] for key in _OF_EXECUTION}
        found, now = (to_yaml(each).splitlines() for each in (keys, named))
        return "\n".join(difflib.unified_diff(found, now, str(self.sweep_file), "now", lineterm="", n=1))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the folder for this process while the context lasts.

        The lock belongs to the open file: the system releases it however the process ends. At an address a note says that the sweep
        runs; `upload.py` renews it.

        Yields:
            None.

        Raises:
            FolderInUseError: Another process holds the lock, or another machine runs the sweep.
            StoreError: The store does not answer.
        """
        with self._locked_here():
            self._refuse_running_elsewhere()
            yield

    @contextmanager
    def _locked_here(self) -> Iterator[None]:
        with self._lock_file() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.seek(0)
                owner = file.read().strip() or "unknown"
                raise FolderInUseError(
                    f"{self.path} is in use by another process (id {owner}): wait until that has ended, or stop it"
                ) from error
            except OSError as error:  # a file system without locks
                raise UserError(
                    f"{self.path} cannot be locked ({error.strerror}), so another process could write there at the same time: choose "
                    "a folder on another file system with --results"
                ) from error
            with suppress(OSError):  # a full disk: the id is only informative
                os.ftruncate(file.fileno(), 0)
                os.write(file.fileno(), str(os.getpid()).encode())
            yield

    def _refuse_running_elsewhere(self) -> None:
        noted = self.remote.read(IN_USE) if self.remote is not None else None
        if noted is None:
            return
        try:
            user = InUse.model_validate_json(noted)
        except ValidationError:  # not written by this version
            return
        silent_s = max(0.0, time.time() - user.time)
        if silent_s < IN_USE_S and not (user.host == socket.gethostname() and _has_ended(user.pid)):
            raise FolderInUseError(
                f"{self.remote} is in use by process {user.pid} on {user.host}, which said so {silent_s:.0f} s ago: wait until that "
                f"has ended, or stop it; if it was killed, try again in {IN_USE_S - silent_s:.0f} s"
            )

    def note_use(self) -> None:
        """Write at the address that this process runs the sweep, so that no other machine does.

        Raises:
            FolderInUseError: Another machine runs it: this one was taken for dead, such as while it was suspended.
            StoreError: The store does not answer.
        """
        if self.remote is not None:
            self._refuse_running_elsewhere()
            noted = InUse(host=socket.gethostname(), pid=os.getpid(), time=time.time())
            self.remote.write(IN_USE, noted.model_dump_json().encode())

    def _lock_file(self) -> IO[str]:
        try:
            return file_inside(self.path, LOCK).open("a+")
        except OSError as error:
            raise UserError(f"{self.path} cannot be locked: {error.strerror}") from error

    def in_use(self) -> bool:
        """Whether another process has locked the folder, or another machine runs the sweep."""
        try:
            with self.locked():
                return False
        except FolderInUseError:
            return True


def _has_ended(pid: int) -> bool:
    """Whether there is no process of this id on this machine."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        return False
    return pid == os.getpid()


def new_place(results: Path | RemoteFolder, name: str) -> Path | RemoteFolder:
    """Return the path or address of a new folder below `results`, see `new_path`."""
    if isinstance(results, RemoteFolder):
        return results / new_path(results.copy, name).name
    return new_path(results, name)


def new_path(results: Path, name: str) -> Path:
    """Return the path of a new folder below `results`, named after what it is for and the current time.

    Args:
        results: The results folder, which need not exist.
        name: What the folder is for.

    Returns:
        Path of a folder that does not exist yet.

    Raises:
        UserError: `results` is an address, or in a folder that Ray may delete.
    """
    refuse_address(results)
    refuse_copy_of_job(results)
    return results / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"


def make_folder(resolved_file: Path, data: dict[str, Any]) -> None:
    """Create the folder of a sweep or a screening.

    Args:
        resolved_file: The resolved sweep or screening file; its parent is the folder.
        data: Content of the file.

    Raises:
        UserError: The folder exists already or cannot be created.
    """
    folder = resolved_file.parent
    try:
        folder.mkdir(parents=True)
        write_whole(resolved_file, to_yaml(data))
    except FileExistsError as error:
        raise UserError(f"{folder} exists already: another of this name was started in the same second; try again") from error
    except OSError as error:
        raise UserError(f"{folder} cannot be created: {error.strerror}; choose another folder with --results") from error
