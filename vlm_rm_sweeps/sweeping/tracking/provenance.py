"""Where the results of a sweep come from: commit, versions, machine and time, for reports and the gallery."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from vlm_rm_sweeps.errors import UserError, reason_of
from vlm_rm_sweeps.sweeping.tracking.environment import COMMIT, MACHINE, UNKNOWN, VERSION
from vlm_rm_sweeps.sweeping.tracking.folder import SweepFolder
from vlm_rm_sweeps.sweeping.tracking.journal import Entry, SweepStarted, read_entries


@dataclass(frozen=True)
class Provenance:
    """Where results come from.

    Attributes:
        commit: The commit of the working directory; it ends in `-dirty` if there were changes; empty if unknown.
        versions: Versions of packages, by name.
        machine: Processor, cores and GPUs; empty if unknown, as of sweeps of version 0.1.
        started: When the sweep was first started (UTC); None if its journal is gone.
        seconds: Wall time of all executions, without what lay between them.
        problem: Why commit, versions and machine are unknown; empty if they are not.
    """

    commit: str
    versions: dict[str, str]
    machine: str
    started: datetime | None
    seconds: float
    problem: str


def provenance(folder: SweepFolder, tracking_uri: str | None = None) -> Provenance:
    """Find out where the results in a folder come from: from its journal and its MLflow run.

    Args:
        folder: The folder of a sweep.
        tracking_uri: The MLflow server or database with its run; by default the database in the results folder.

    Returns:
        What is known.

    Raises:
        UserError: The journal is a link that leads out of the folder.
    """
    entries = read_entries(folder.journal)
    started = datetime.fromtimestamp(entries[0].time / 1000, UTC) if entries else None
    params, problem = _params(folder, tracking_uri)
    versions, machine = (
        {name.removeprefix(prefix): value for name, value in sorted(params.items()) if name.startswith(prefix)}
        for prefix in (VERSION, MACHINE)
    )
    commit = params.get(COMMIT, UNKNOWN)
    return Provenance(
        commit="" if commit == UNKNOWN else commit,
        versions=versions,
        machine=_machine(machine),
        started=started,
        seconds=seconds_of(entries),
        problem=problem,
    )


def seconds_of(entries: Iterable[Entry]) -> float:
    """Add up the wall time of all executions of a sweep.

    Args:
        entries: Its journal.

    Returns:
        Seconds from the start of each execution to its last entry.
    """
    total = began = last = 0
    for entry in entries:
        if isinstance(entry, SweepStarted):
            total, began = total + last - began, entry.time
        last = max(began, entry.time)
    return (total + last - began) / 1000


def _params(folder: SweepFolder, tracking_uri: str | None) -> tuple[dict[str, str], str]:
    """Return the parameters of the sweep's MLflow run, or none and why."""
    from vlm_rm_sweeps.sweeping.tracking.mlflow_runs import find_runs  # imports MLflow, which takes seconds

    try:
        runs = find_runs(folder.path, tracking_uri)
        return dict(runs.client.get_run(runs.run_id).data.params), ""
    except UserError as error:
        return {}, str(error)
    except Exception as error:  # a missing database, server or file: the rest does not need it
        return {}, f"the sweep's MLflow run cannot be read: {reason_of(error)}"


def _machine(described: dict[str, str]) -> str:
    if not described:
        return ""
    cores = described.get("cores", "?")
    parts = [described.get("cpu", "?"), f"{cores} core{'' if cores == '1' else 's'}", described.get("gpus", "")]
    return ", ".join(part for part in parts if part)
