"""How a sweep stands, from its folder alone: on any machine that sees it, while it runs or later, without Ray or MLflow."""

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from vlm_rm_sweeps.errors import DamagedFileError, UserError
from vlm_rm_sweeps.metrics import EVALUATION, STEPS_PER_SECOND, SUCCESS, TRUE_RETURN, RunStatus
from vlm_rm_sweeps.storage import RemoteFolder
from vlm_rm_sweeps.sweeping.config.searching import Drawn
from vlm_rm_sweeps.sweeping.config.trial import in_words
from vlm_rm_sweeps.sweeping.tracking.folder import JOURNAL, SweepFolder
from vlm_rm_sweeps.sweeping.tracking.journal import (
    Entry,
    ResultLogged,
    SweepEnded,
    SweepStarted,
    TakenOver,
    TrialEnded,
    TrialStarted,
    TrialStopped,
    read_journal,
)
from vlm_rm_sweeps.sweeping.tracking.progress import duration
from vlm_rm_sweeps.sweeping.tracking.results import takeovers_in_words
from vlm_rm_sweeps.sweeping.tracking.runs_file import read_runs_file

TrialState = Literal["running", "finished", "stopped", "failed", "interrupted"]
SweepState = Literal["running", "silent", "interrupted", "ended"]
_SILENT_S = 600.0
"""Seconds without an entry after which a sweep may have been killed."""
_ENDED: Mapping[RunStatus, TrialState] = {
    RunStatus.FINISHED: "finished",
    RunStatus.FAILED: "failed",
    RunStatus.KILLED: "interrupted",
}
_REASON = "reason"
_STAMP_LETTERS = len("20260101-120000")
"""At the end of a folder's name is when it was made."""
_METRICS = (SUCCESS, TRUE_RETURN)


@dataclass
class TrialStanding:
    """How a trial that has started stands.

    Attributes:
        trial: Its id.
        state: Whether it runs, or how it ended.
        step: Environment steps of its newest result.
        steps_per_second: Speed since the result before; None before the first.
        metrics: The newest success and true return: greedy ones, if it was evaluated, by their names.
        reason: Why it failed or was stopped; empty otherwise.
        host: The machine of its newest result, if that was not the one which runs the sweep.
        takeovers: How often it took over another trial's training.
        taken_over: The last training that it took over, in words; empty without any.
        values: What it goes on with since then, by the keys of `search.space`.
    """

    trial: str
    state: TrialState
    step: int
    steps_per_second: float | None
    metrics: dict[str, float]
    reason: str
    host: str | None = None
    takeovers: int = 0
    taken_over: str = ""
    values: dict[str, Drawn] = field(default_factory=dict)


@dataclass(frozen=True)
class Standing:
    """How a sweep stands.

    Attributes:
        folder: Its folder, or its address.
        sweep_file: Its resolved sweep file, on this machine.
        state: `silent` is a sweep that has written nothing for ten minutes: it is slow, or was killed.
        trials: Number of its trials.
        counts: Trials by state; `waiting` have not started.
        steps_done: Environment steps of all trials so far.
        steps: Environment steps of all trials in whole, without what trials that were stopped early leave out.
        steps_per_second: Speed of all trials together since this execution started; None without a result.
        seconds_left: Estimated from that; None if nothing runs.
        last_entry_s: Seconds since the newest entry of the journal.
        started: The trials that have started, in their order.
        mlflow: Where the MLflow runs are, without secrets; None if that is unknown.
        undelivered: Entries that have not reached MLflow; None if that is unknown.
        damaged: Lines of the journal that cannot be read, so that the rest of this may lack something.
    """

    folder: str
    sweep_file: str
    state: SweepState
    trials: int
    counts: dict[str, int]
    steps_done: int
    steps: int
    steps_per_second: float | None
    seconds_left: float | None
    last_entry_s: float
    started: list[TrialStanding]
    mlflow: str | None
    undelivered: int | None
    damaged: int

    def as_data(self) -> dict[str, Any]:
        """Convert it to plain data, for JSON."""
        return asdict(self)


def newest_sweep(results: Path | RemoteFolder) -> Path | RemoteFolder:
    """Find the newest sweep of a results folder.

    Args:
        results: The results folder, or its address.

    Returns:
        The sweep's folder, or its address.

    Raises:
        UserError: There is none.
        StoreError: The address does not answer.
    """
    if isinstance(results, RemoteFolder):
        stamped = sorted(((name[-_STAMP_LETTERS:], name) for name in results.names()), reverse=True)
        for _, name in stamped:
            if JOURNAL in (results / name).names():
                return results / name
        raise UserError(f"there is no sweep in {results}: name its address, or other results with --results")
    found = [file.parent for file in results.glob("*/journal.jsonl")]
    if not found:
        raise UserError(f"there is no sweep in {results}: name its folder, or another results folder with --results")
    return max(found, key=lambda folder: (folder / "journal.jsonl").stat().st_mtime)


def standing_of(place: Path | RemoteFolder, now_s: float | None = None) -> Standing:
    """Read how a sweep stands.

    Args:
        place: The sweep's folder, in which nothing is written, and no lock is taken; or its address, from which records are fetched.
        now_s: Unix time in seconds; by default now.

    Returns:
        How it stands.

    Raises:
        UserError: The folder is no sweep's, its sweep file cannot be read, or its journal has no line that can be read.
        StoreError: The address does not answer.
    """
    folder = SweepFolder.at(place)
    if not folder.fetch(all_of_it=False):
        raise UserError(
            f"{place} is not the folder of a sweep (it has no {folder.sweep_file.name}): expected one such as results/quickstart-..."
        )
    sweep, (entries, damaged) = folder.stored_sweep(), read_journal(folder.journal)
    if damaged and not entries:
        raise UserError(f"{folder.journal} is damaged: none of its {damaged} lines can be read: restore it")
    now_s = time.time() if now_s is None else now_s
    silent_s = max(0.0, now_s - entries[-1].time / 1000) if entries else 0.0
    started = _trials(entries)
    trials = max(sweep.count_trials(), len(started))
    counts = Counter[str](each.state for each in started.values())
    counts["waiting"] = trials - len(started)
    trained = trials - (len(sweep.seeds) if sweep.untrained else 0)
    # Whole results may go beyond `steps`.
    done = sum(min(each.step, sweep.steps) for each in started.values())
    left_out = sum(max(0, sweep.steps - each.step) for each in started.values() if each.state == "stopped")
    state = _state(entries, silent_s)
    speed = _speed(entries)
    left = trained * sweep.steps - left_out - done
    mlflow, undelivered = _mirrored(folder, entries)
    return Standing(
        folder=str(place),
        sweep_file=str(folder.sweep_file),
        state=state,
        trials=trials,
        counts={name: count for name, count in counts.items() if count},
        steps_done=done,
        steps=done + left,
        steps_per_second=speed,
        seconds_left=left / speed if speed and state == "running" else None,
        last_entry_s=silent_s,
        started=list(started.values()),
        mlflow=mlflow,
        undelivered=undelivered,
        damaged=damaged,
    )


def _trials(entries: Iterable[Entry]) -> dict[str, TrialStanding]:
    found: dict[str, TrialStanding] = {}

    def at(trial: str) -> TrialStanding:
        return found.setdefault(trial, TrialStanding(trial, "running", 0, None, {}, ""))

    for entry in entries:
        match entry:
            case TrialStarted():
                at(entry.trial).state, at(entry.trial).reason = "running", ""
            case ResultLogged():
                trial = at(entry.trial)
                trial.step = max(trial.step, entry.step)
                trial.host = entry.host
                trial.steps_per_second = entry.metrics.get(STEPS_PER_SECOND, trial.steps_per_second)
                named = [prefix + name for name in _METRICS for prefix in (EVALUATION, "")]
                trial.metrics |= {name: entry.metrics[name] for name in named if name in entry.metrics}
            case TakenOver():
                trial = at(entry.trial)
                trial.takeovers, trial.taken_over, trial.values = trial.takeovers + 1, str(entry), entry.values
            case TrialEnded():
                at(entry.trial).state, at(entry.trial).reason = (
                    _ENDED.get(entry.status, "interrupted"),
                    entry.tags.get(_REASON, ""),
                )
            case TrialStopped():
                at(entry.trial).state, at(entry.trial).reason = "stopped", entry.reason
    return found


def _state(entries: list[Entry], silent_s: float) -> SweepState:
    executions = [entry for entry in entries if isinstance(entry, SweepStarted | SweepEnded)]
    if executions and isinstance(executions[-1], SweepEnded):
        return "interrupted" if executions[-1].status == RunStatus.KILLED else "ended"
    return "running" if silent_s < _SILENT_S else "silent"


def _speed(entries: list[Entry]) -> float | None:
    """Return the environment steps per second of the newest execution."""
    starts = [number for number, entry in enumerate(entries) if isinstance(entry, SweepStarted)]
    if not starts:
        return None
    before, now = _steps(entries[: starts[-1]]), _steps(entries)
    times = [entry.time for entry in entries[starts[-1] :] if isinstance(entry, ResultLogged)]
    gained = sum(step - before.get(trial, 0) for trial, step in now.items())
    seconds = (max(times, default=0) - entries[starts[-1]].time) / 1000
    return gained / seconds if gained > 0 and seconds > 0 else None


def _steps(entries: Iterable[Entry]) -> dict[str, int]:
    steps: dict[str, int] = {}
    for entry in entries:
        if isinstance(entry, ResultLogged):
            steps[entry.trial] = max(entry.step, steps.get(entry.trial, 0))
    return steps


def _mirrored(folder: SweepFolder, entries: list[Entry]) -> tuple[str | None, int | None]:
    """Return where the MLflow runs are, and how many entries have not reached them; what is unknown is None."""
    try:
        runs = read_runs_file(folder.mlflow)
    except DamagedFileError:  # or there is none yet
        return None, None
    uids = [entry.uid for entry in entries]
    delivered = uids.index(runs.delivered) + 1 if runs.delivered in uids else 0
    return runs.tracking_uri, len(entries) - delivered


def lines_of(standing: Standing) -> list[str]:
    """Word how a sweep stands, for a terminal.

    Args:
        standing: How it stands.

    Returns:
        Lines: the whole sweep, the trials that run, what failed or was stopped with its cause, and where to look.
    """
    counted = ", ".join(f"{count} {state}" for state, count in standing.counts.items())
    lines = [f"{standing.folder}: {_in_words(standing)}", f"{standing.trials} trials: {counted}"]
    speed = "" if standing.steps_per_second is None else f", {standing.steps_per_second:.0f} steps/s"
    left = "" if standing.seconds_left is None else f", about {duration(standing.seconds_left)} left"
    lines.append(f"{standing.steps_done:,} of {standing.steps:,} steps{speed}{left}")
    ended = []
    for trial in standing.started:
        place = "" if trial.host is None else f" on {trial.host}"
        if trial.state == "running":
            metrics = "".join(f", {name} {value:.3g}" for name, value in trial.metrics.items())
            pace = "" if trial.steps_per_second is None else f", {trial.steps_per_second:.0f} steps/s"
            lines.append(f"  {trial.trial}  running{place}, step {trial.step:,}{pace}{metrics}")
        elif trial.state in ("failed", "stopped"):
            ended.append(f"  {trial.trial}  {trial.state}{place} at step {trial.step:,}: {trial.reason or 'unknown cause'}")
    lines += [
        f"  {trial.trial}  {takeovers_in_words(trial.takeovers)}, the last one of trial {trial.taken_over}, with "
        f"{in_words(trial.values)}"
        for trial in standing.started
        if trial.takeovers
    ]
    lines += ended
    if standing.mlflow is not None:
        waiting = f"; {standing.undelivered} entries have not arrived yet" if standing.undelivered else ""
        lines.append(f"MLflow: {standing.mlflow}{waiting}")
    if standing.damaged:
        lines.append(f"damaged lines of {standing.folder}/journal.jsonl, whose entries are missing here: {standing.damaged}")
    lines.append(f"which trial is which: vlm-rm sweep {standing.sweep_file} --dry-run")
    if standing.counts.get("failed"):
        lines.append(f"errors: {standing.folder}/trials/ID/failure.json, and Ray's logs on the trial's node")
    return lines


def _in_words(standing: Standing) -> str:
    ago = duration(standing.last_entry_s)
    return {
        "running": f"running, last entry {ago} ago",
        "silent": f"nothing was written for {ago}: it is slow, or was killed; if no process runs it, --resume continues",
        "interrupted": f"interrupted {ago} ago; --resume continues",
        "ended": f"ended {ago} ago",
    }[standing.state]
