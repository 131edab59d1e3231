"""The folder of a sweep, which contains everything that is needed to resume it.

It holds `sweep.yaml` (the resolved sweep file), `journal.jsonl` (all events), `mlflow.json` (the ids of its MLflow runs),
`trials/<id>/` (each trial's checkpoints), `trials.csv` (the final table), `cells.csv` (the combinations over their seeds), `epic.csv`
(if the sweep has `epic_states`), `tune/` (Tune's own files, which nothing here reads), and what is generated from it later: `figures/`
and `report.html`.
"""

import difflib
import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from pydantic import ValidationError

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.files import file_inside, refuse_address, refuse_copy_of_job, write_whole
from vlm_rm_sweeps.sweeping.config.named_files import with_stored_names
from vlm_rm_sweeps.sweeping.config.plan import Plan, fixed_settings
from vlm_rm_sweeps.sweeping.config.sweep import Sweep
from vlm_rm_sweeps.sweeping.config.validation import check_keys, in_file
from vlm_rm_sweeps.sweeping.config.yaml_file import BASE, read_yaml
from vlm_rm_sweeps.sweeping.config.yaml_text import to_yaml
from vlm_rm_sweeps.training.checkpoints import TRIALS

DATABASE = "mlflow.db"
"""Name of MLflow's database in a results folder."""
# MLflow would open a quoted one, but also make a folder with the quoted name.
_TAKEN_APART = re.compile(r"\?|%[0-9A-Fa-f]{2}")
_OF_EXECUTION = ("max_concurrent", "time_budget_s")
"""Keys that another execution of the same sweep may change: no trial depends on them."""
_STAMP = "[0-9]" * 8 + "-" + "[0-9]" * 6


def default_tracking_uri(results: Path) -> str:
    """Return the URI of the SQLite database in the results folder, which needs no server.

    Args:
        results: The results folder.

    Returns:
        A URI as MLflow takes it, in which all letters that it can have stand for themselves.

    Raises:
        UserError: The path has a question mark, or a percent sign before two hexadecimal digits.
    """
    file = (results / DATABASE).resolve()
    if taken_apart := _TAKEN_APART.search(str(file)):
        raise UserError(
            f"{file}: MLflow cannot open a database in a path with {taken_apart[0]!r}, which stands for something else in its "
            "addresses: choose another folder with --results, or another database with --tracking-uri"
        )
    return f"sqlite:///{file}"


@dataclass(frozen=True)
class SweepFolder:
    """The paths in a sweep's folder, which need not exist yet.

    Each of them raises UserError if it is a link that leads out of the folder, which may be somebody else's.

    Attributes:
        path: The folder itself.
    """

    path: Path

    @classmethod
    def new(cls, sweep: Sweep, results: Path) -> "SweepFolder":
        """Return a folder that does not exist yet, named after the sweep and the current time."""
        return cls(new_path(results, sweep.name))

    @classmethod
    def newest(cls, sweep: Sweep, results: Path) -> "SweepFolder | None":
        """Return the newest folder of a sweep of this name below `results`; None if there is none."""
        found = sorted(folder for folder in results.glob(f"{sweep.name}-{_STAMP}") if (folder / "sweep.yaml").is_file())
        return cls(found[-1]) if found else None

    @property
    def sweep_file(self) -> Path:
        """The resolved sweep file."""
        return file_inside(self.path, "sweep.yaml")

    @property
    def journal(self) -> Path:
        """The journal of all events."""
        return file_inside(self.path, "journal.jsonl")

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
        return file_inside(self.path, "tune")

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

    def trials(self) -> list[Path]:
        """Return the folders of the trials that have started, sorted by id."""
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
        """
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

        The lock belongs to the open file: the system releases it however the process ends.

        Yields:
            None.

        Raises:
            UserError: Another process holds the lock.
        """
        with self._lock_file() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.seek(0)
                owner = file.read().strip() or "unknown"
                raise UserError(
                    f"{self.path} is in use by another process (id {owner}): wait until that has ended, or stop it"
                ) from error
            with suppress(OSError):  # a full disk: the id is only informative
                os.ftruncate(file.fileno(), 0)
                os.write(file.fileno(), str(os.getpid()).encode())
            yield

    def _lock_file(self) -> IO[str]:
        try:
            return file_inside(self.path, "lock").open("a+")
        except OSError as error:
            raise UserError(f"{self.path} cannot be locked: {error.strerror}") from error

    def in_use(self) -> bool:
        """Whether another process has locked the folder."""
        try:
            with self.locked():
                return False
        except UserError:
            return True


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
