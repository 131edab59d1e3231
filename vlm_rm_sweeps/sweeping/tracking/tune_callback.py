"""Tune's callback of a sweep: appends trial events to the journal and reports them on the terminal."""

import pickle
import platform
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from ray import tune
from ray.exceptions import RayActorError, RayTaskError
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.result import HOSTNAME

from vlm_rm_sweeps.errors import reason_of
from vlm_rm_sweeps.evaluation.overoptimisation import overoptimisation_alarm
from vlm_rm_sweeps.metrics import (
    ALARM,
    AUDIT_PROXY,
    CLIP_RETURN,
    ENV_STEPS,
    EVALUATION,
    FAILURE,
    FINISHED,
    NOTE,
    REACHED,
    REMARKS,
    SUCCESS,
    TIME_MS,
    TRUE_RETURN,
    RunStatus,
    TrialStatus,
)
from vlm_rm_sweeps.rewards.known_states import AUDIT_DRIFT, REMARKABLE, drift_in_training
from vlm_rm_sweeps.serving.pool import cause_of_death
from vlm_rm_sweeps.serving.refused_nodes import NodeRefused
from vlm_rm_sweeps.sweeping.config.trial import Trial, in_words
from vlm_rm_sweeps.sweeping.tracking.journal import (
    Journal,
    ResultLogged,
    RewardMeasured,
    TakenOver,
    TrialEnded,
    TrialStarted,
    TrialStopped,
    stopped_trials,
    taken_over,
)
from vlm_rm_sweeps.sweeping.tracking.progress import Progress
from vlm_rm_sweeps.sweeping.tracking.results import TrialOutcome
from vlm_rm_sweeps.training.checkpoints import TrialFolder

_TUNE_ENTRIES = frozenset({"time_this_iter_s", "time_total_s", "time_since_restore"})


class JournalCallback(tune.Callback):
    """Appends trial events to the journal and keeps the metrics and outcome of every trial.

    Args:
        journal: The sweep's journal.
        progress: Counts trials and steps for the terminal.
        say: Prints a line.
    """

    def __init__(self, journal: Journal, progress: Progress, say: Callable[[str], None]) -> None:
        self._journal, self._progress, self._say = journal, progress, say
        self.on_finished: Callable[[Trial], None] = lambda trial: None
        """Called with every trial that finishes, or is good enough."""
        self.on_refused: Callable[[NodeRefused], None] = lambda refusal: None
        """Called with every refusal of a node."""
        self.why_stopped: Callable[[str], str | None] = lambda trial_id: None
        """Why a scheduler stopped a trial, by its id; None if it did not."""
        self.why_unfinished = "interrupted"
        self._measured: dict[str, dict[str, float]] = {}
        self._metrics: dict[str, dict[str, float]] = {}
        self._audit_points: dict[str, list[tuple[int, dict[str, float]]]] = {}
        self._steps: dict[str, set[int]] = {}
        self._hosts: dict[str, str | None] = {}
        """Where the newest result of a trial was computed, if not on this machine."""
        self._evaluated: dict[str, bool] = {}
        """Whether the newest result of a trial has an evaluation of its greedy policy."""
        self._remarks: dict[str, list[str]] = {}
        """What the audit of a trial said, each sentence once."""
        self._said: set[str] = set()
        self._ended: dict[str, tuple[TrialStatus, str]] = {}
        self._started: set[str] = set()
        self._finished: set[str] = set()
        """Trials that said so in their last result."""
        self._reached: dict[str, str] = {}
        """What trials reached that were good enough."""
        self._takeovers = taken_over(journal.entries)
        self._stopped_before = stopped_trials(journal.entries)
        self._results_before: dict[str, list[ResultLogged]] = {}
        self._appended: set[str] = set()
        """Trials whose measures are in the journal."""
        # Once, and not for each trial: a journal may have a hundred thousand entries.
        for entry in journal.entries:
            if isinstance(entry, ResultLogged):
                self._results_before.setdefault(entry.trial, []).append(entry)
            elif isinstance(entry, RewardMeasured):
                self._appended.add(entry.trial)

    def __reduce__(self) -> tuple[type[tune.Callback], tuple[()]]:
        # Tune pickles its callbacks into its snapshots, which are never read.
        return tune.Callback, ()

    def measured(self, metrics: dict[str, dict[str, float]]) -> None:
        """Record the metrics of each trial's reward from before training, by trial id."""
        for trial_id, known in metrics.items():
            self._measured[trial_id] = self._measured.get(trial_id, {}) | known
            self._metrics[trial_id] = known | self._metrics.get(trial_id, {})

    def recall(self, trial: Trial, checkpoints: TrialFolder, finished: bool) -> None:
        """Restore the results of a trial from earlier executions of the sweep.

        Results in its checkpoint that the journal lacks (because it was truncated or damaged) are appended to it.

        Args:
            trial: The trial.
            checkpoints: The folder of its checkpoints.
            finished: Whether the trial has finished, or was stopped early.
        """
        for entry in self._results_before.pop(trial.trial_id, []):
            self._recall_result(trial, entry.step, entry.metrics)
            self._remember(trial, entry.remarks)
        # Reading a checkpoint includes its replay buffer: for trials that have ended, only if the journal needs repair.
        checkpoint, _ = checkpoints.last() if self._journal.damaged or not finished else (None, [])
        for result in checkpoint.content["results"] if checkpoint else []:
            self._record(trial, result)
        stopped = self._stopped_before.get(trial.trial_id)
        if stopped is not None:
            self._ended[trial.trial_id] = (TrialStatus.STOPPED, stopped.reason)
        elif finished:
            self._ended[trial.trial_id] = (TrialStatus.FINISHED, "")
        if finished:
            self._append_measures(trial)
        self._progress.resumed(trial, max(self._steps.get(trial.trial_id, {0})), finished, stopped is not None)

    def on_trial_start(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        """Append the start of a trial, unless it is being retried."""
        ours = trial_of(trial)
        if ours.trial_id not in self._started:
            self._started.add(ours.trial_id)
            self._journal.append(TrialStarted(trial=ours.trial_id))
            self._append_measures(ours)

    def take_over(self, takeovers: Sequence[tuple[Trial, TakenOver]]) -> None:
        """Append takeovers that were decided together, and report them.

        Args:
            takeovers: Each with the trial that goes on with another one's training.
        """
        self._journal.append(*(takeover for _, takeover in takeovers))
        for trial, takeover in takeovers:
            self._takeovers.setdefault(trial.trial_id, []).append(takeover)
            self._say(f"{trial.label}: takes over the training of trial {takeover}, with {in_words(takeover.values)}")

    def _append_measures(self, trial: Trial) -> None:
        """Append the metrics from before training, unless an earlier execution did."""
        if trial.trial_id in self._measured and trial.trial_id not in self._appended:
            self._appended.add(trial.trial_id)
            self._journal.append(RewardMeasured(trial=trial.trial_id, metrics=self._measured[trial.trial_id]))

    def on_trial_result(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, result: dict[str, Any], **info: Any
    ) -> None:
        """Append a result, or the failure of a trial that gave up."""
        ours = trial_of(trial)
        if FAILURE in result:
            self._fail(ours, result[FAILURE])
            return
        host = result.get(HOSTNAME)
        self._hosts[ours.trial_id] = None if host == platform.node() else host
        self._record(ours, result)
        if FINISHED in result:
            self._finished.add(ours.trial_id)
        if REACHED in result:
            self._reached[ours.trial_id] = result[REACHED]
        if NOTE in result:
            self._say(f"{ours.label}: {result[NOTE]}")
        # The same endpoint fails all trials alike: the journal has each time, the terminal the first.
        for remark in dict.fromkeys(result.get(REMARKS, ())):
            if remark not in self._said:
                self._said.add(remark)
                self._say(f"{ours.label}: {remark}")
        self._progress.result(ours, int(result[ENV_STEPS]), self._metrics[ours.trial_id])

    def _record(self, trial: Trial, result: dict[str, Any]) -> None:
        step = int(result[ENV_STEPS])
        if step in self._steps.get(trial.trial_id, set()):
            return  # a trial that resumes from a checkpoint repeats results that it had reported before
        # Tune adds its own entries, all of them named here, to what the trial reports.
        # Names that come from another process are new objects in each result, of which a journal may have a hundred thousand.
        metrics = {
            sys.intern(key): value for key, value in result.items() if isinstance(value, float) and key not in _TUNE_ENTRIES
        }
        if AUDIT_PROXY in metrics:
            metrics |= self._alarm(trial, step, metrics)
            self._tell_drift(trial, step, metrics)
        remarks = tuple(result.get(REMARKS, ()))
        self._journal.append(
            ResultLogged(
                time=int(result[TIME_MS]),
                trial=trial.trial_id,
                step=step,
                metrics=metrics,
                host=self._hosts.get(trial.trial_id),
                remarks=remarks,
            )
        )
        self._recall_result(trial, step, metrics)
        self._remember(trial, remarks)

    def _remember(self, trial: Trial, remarks: Iterable[str]) -> None:
        known = self._remarks.setdefault(trial.trial_id, [])
        known += [remark for remark in dict.fromkeys(remarks) if remark not in known]

    def _alarm(self, trial: Trial, step: int, metrics: dict[str, float]) -> dict[str, float]:
        """Return the over-optimisation alarm at this audit point; empty while there are too few points."""
        points = self._audit_points_before(trial, step)
        alarm = overoptimisation_alarm([*points, (step, metrics)])
        if alarm and not any(earlier.get(ALARM) for _, earlier in points):
            self._say(f"{trial.label}: over-optimisation alarm at step {step:,}: its reward rises while the truth falls")
        return {} if alarm is None else {ALARM: float(alarm)}

    def _tell_drift(self, trial: Trial, step: int, metrics: dict[str, float]) -> None:
        """Say, at the first audit point where it is so, that the policy went where its distilled model does not know the states."""
        remark = drift_in_training(metrics.get(AUDIT_DRIFT, 0.0), step)
        earlier = (point.get(AUDIT_DRIFT, 0.0) for _, point in self._audit_points_before(trial, step))
        if remark and all(share <= REMARKABLE for share in earlier):
            self._say(f"{trial.label}: {remark}")

    def _audit_points_before(self, trial: Trial, step: int) -> list[tuple[int, dict[str, float]]]:
        return [point for point in self._audit_points.get(trial.trial_id, []) if point[0] < step]

    def _recall_result(self, trial: Trial, step: int, metrics: dict[str, float]) -> None:
        steps, before = self._steps.setdefault(trial.trial_id, set()), self._metrics.get(trial.trial_id, {})
        # A result that was missing in the middle is older than those after it.
        newest = step >= max(steps, default=-1)
        if newest:
            self._evaluated[trial.trial_id] = EVALUATION + TRUE_RETURN in metrics
        self._metrics[trial.trial_id] = before | metrics if newest else metrics | before
        steps.add(step)
        if AUDIT_PROXY in metrics:
            self._audit_points.setdefault(trial.trial_id, []).append((step, metrics))
            self._audit_points[trial.trial_id].sort(key=lambda point: point[0])

    def on_trial_recover(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        """Report that a trial failed and is retried, or that its node cannot run trials."""
        error = _error_of(trial)
        if isinstance(error, NodeRefused):
            self.on_refused(error)
            return
        ours = trial_of(trial)
        host = self._hosts.get(ours.trial_id)
        self._say(f"{ours.label}: failed{f' on {host}' if host else ''} ({_reason(trial)}), retrying")

    def on_trial_complete(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        """Append the end of a trial, if it finished or was stopped early."""
        ours = trial_of(trial)
        why = self.why_stopped(ours.trial_id)
        if ours.trial_id in self._reached:
            self._stop(ours, self._reached[ours.trial_id], reached=True)
        elif ours.trial_id in self._finished:
            self._finish(ours)
        elif why is not None:
            self._stop(ours, why, reached=False)

    def _stop(self, trial: Trial, reason: str, reached: bool) -> None:
        step = max(self._steps.get(trial.trial_id, {0}))
        self._journal.append(TrialStopped(trial=trial.trial_id, step=step, reason=reason, reached=reached))
        self._ended[trial.trial_id] = (TrialStatus.STOPPED, reason)
        self._progress.ended(trial, f"stopped at step {step:,}: {reason}", early=True)
        if reached:
            self.on_finished(trial)

    def _finish(self, trial: Trial) -> None:
        self._end(trial, RunStatus.FINISHED, TrialStatus.FINISHED, "")
        self.on_finished(trial)
        metrics = self._metrics.get(trial.trial_id, {})
        shown = ((CLIP_RETURN, "CLIP return", 1), (TRUE_RETURN, "true return", 1), (SUCCESS, "success", 2))
        values = [
            f"{words} {metrics[EVALUATION + name]:.{digits}f}" for name, words, digits in shown if EVALUATION + name in metrics
        ]
        self._progress.ended(trial, ", ".join(values) or "finished")

    def on_trial_error(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        """Append the final failure of a trial."""
        self._fail(trial_of(trial), _reason(trial))

    def _fail(self, trial: Trial, reason: str) -> None:
        self._end(trial, RunStatus.FAILED, TrialStatus.FAILED, reason)
        self._progress.ended(trial, f"failed: {reason}")

    def _end(self, trial: Trial, run_status: RunStatus, status: TrialStatus, reason: str) -> None:
        self._ended[trial.trial_id] = (status, reason)
        tags = {"reason": reason} if reason else {}
        if remarks := self._remarks.get(trial.trial_id):
            tags["audit_remarks"] = "; ".join(remarks)
        self._journal.append(TrialEnded(trial=trial.trial_id, status=run_status, tags=tags))

    def outcome(self, trial: Trial) -> TrialOutcome:
        """Return how a trial ended; until then it is unfinished."""
        status, reason = self._ended.get(trial.trial_id, (TrialStatus.UNFINISHED, self.why_unfinished))
        metrics = self._metrics.get(trial.trial_id, {})
        if status == TrialStatus.STOPPED and not self._evaluated.get(trial.trial_id, False):
            # An evaluation before that is not of the policy that it ended with.
            metrics = {name: value for name, value in metrics.items() if not name.startswith(EVALUATION)}
        return TrialOutcome(trial, status, reason, metrics, tuple(self._takeovers.get(trial.trial_id, ())))


def trial_of(tune_trial: TuneTrial) -> Trial:
    """Return the trial of the sweep that one of Tune's trials runs."""
    return Trial.from_dict(tune_trial.config["run"]["trial"])


def _reason(trial: TuneTrial) -> str:
    """Return the error that ended a trial, in one line."""
    error = _error_of(trial)
    if error is None:
        return "unknown"
    return cause_of_death(error) if isinstance(error, RayActorError) else reason_of(error)


def _error_of(trial: TuneTrial) -> BaseException | None:
    """Return the last error of a trial, which Tune pickles into files in the sweep's own folder."""
    if not trial.pickled_error_file or not Path(trial.pickled_error_file).is_file():
        return None
    error = pickle.loads(Path(trial.pickled_error_file).read_bytes())
    cause: BaseException = error.cause if isinstance(error, RayTaskError) else error
    return cause
