"""One execution of a sweep, from folder lock to final table."""

import logging
import os
import signal
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import pandas as pd
from ray import tune
from ray.tune.stopper import CombinedStopper, Stopper

from vlm_rm_sweeps.errors import UserError, reason_of
from vlm_rm_sweeps.files import DISK_ERRORS, write_whole
from vlm_rm_sweeps.metrics import EVALUATION, REWARD_THRESHOLD, RunStatus, TrialStatus
from vlm_rm_sweeps.process_defaults import prepare_tune
from vlm_rm_sweeps.serving.placement import has_room_without
from vlm_rm_sweeps.serving.pool import PoolConfig
from vlm_rm_sweeps.serving.ray_internals import count_no_lost_nodes
from vlm_rm_sweeps.serving.refused_nodes import NodeRefused, forget_refused_nodes, refuse, refused_nodes
from vlm_rm_sweeps.storage import StoreError
from vlm_rm_sweeps.sweeping.config.plan import Plan
from vlm_rm_sweeps.sweeping.config.trial import Trial
from vlm_rm_sweeps.sweeping.execution.population import PopulationScheduler
from vlm_rm_sweeps.sweeping.execution.remaining import Remaining
from vlm_rm_sweeps.sweeping.execution.reward_metrics import known_measures, metrics_of
from vlm_rm_sweeps.sweeping.execution.room import RoomCallback
from vlm_rm_sweeps.sweeping.execution.scheduling import NodesLeft, TimeBudget, scheduler_of
from vlm_rm_sweeps.sweeping.execution.searching import TrialsInTurn, draw, drawn_samples, judged_samples
from vlm_rm_sweeps.sweeping.execution.trial_jobs import training_job
from vlm_rm_sweeps.sweeping.execution.trial_videos import TrialVideos
from vlm_rm_sweeps.sweeping.tracking.folder import SweepFolder
from vlm_rm_sweeps.sweeping.tracking.journal import (
    FileWritten,
    Journal,
    SampleDrawn,
    SweepEnded,
    SweepStarted,
    ThresholdsMeasured,
    TrialEnded,
    ended_in_order,
    open_trials,
)
from vlm_rm_sweeps.sweeping.tracking.mlflow_mirror import MlflowMirror
from vlm_rm_sweeps.sweeping.tracking.progress import Progress, Watcher
from vlm_rm_sweeps.sweeping.tracking.results import SweepOutcome, TrialOutcome
from vlm_rm_sweeps.sweeping.tracking.tune_callback import JournalCallback, trial_of
from vlm_rm_sweeps.training.checkpoints import TRIALS, TrialFolder
from vlm_rm_sweeps.training.trial import TrainableTrial, TrainingJob
from vlm_rm_sweeps.videos import VIDEO_FOLDER

_SILENCED = (
    "ray.tune.tune",
    "ray.tune.analysis.experiment_analysis",
    "ray.tune.execution.insufficient_resources_manager",
)
"""Tune's loggers: they explain how Tune resumes, which is not used here, warn of result files that are disabled, and repeat each
minute that no trial runs."""
_PENDING = "TUNE_MAX_PENDING_TRIALS_PG"
"""Where Tune reads how many trials may wait for room."""
_AHEAD = 200
"""As many as Tune lets wait that it knows from the beginning."""
_CHECKPOINT_FOLDER = "best"
"""Among a run's artifacts."""
_MLFLOW_PATIENCE_S = 60.0
"""Seconds that the end of a sweep waits for MLflow if it does not respond. Undelivered entries stay in the journal."""


class SweepRun:
    """A context in which the unfinished trials can be `run`.

    The folder must be locked. However the context is left (all trials ended, Ctrl-C, an error, or nothing was left to run), the
    sweep is closed: no trial stays open, the table is written, and the remaining entries are delivered to MLflow.

    Args:
        plan: The sweep.
        folder: Its folder.
        tracking_uri: The MLflow server or database.
        say: Prints a line.
        watch: Shows the progress of the trials; None for lines of it.
    """

    def __init__(
        self,
        plan: Plan,
        folder: SweepFolder,
        tracking_uri: str,
        say: Callable[[str], None],
        watch: Watcher | None = None,
    ) -> None:
        self._folder, self._tracking_uri, self._say = folder, tracking_uri, say
        self._journal = Journal(folder.journal)
        self._plan = plan = plan.with_samples(drawn_samples(self._journal.entries))
        self._trials = {trial.trial_id: trial for trial in plan.trials}
        """The plan's trials by id; those of a search with what has been drawn by now."""
        self._of_samples: dict[int, list[str]] = {}
        """The trials of each sample of a search, by its number."""
        for trial in plan.trials:
            if trial.sample is not None:
                self._of_samples.setdefault(trial.sample.number, []).append(trial.trial_id)
        self._mirror = MlflowMirror(self._journal, plan, folder, tracking_uri, say)
        self._remaining = Remaining(plan, self._journal.entries)
        self._has_news = bool(self._remaining) or not ended_in_order(self._journal.entries)
        if self._has_news:
            ids = [entry.id for entry in self._journal.entries if isinstance(entry, SweepStarted)]
            self._journal.append(SweepStarted(id=ids[0] if ids else uuid.uuid4().hex))
        progress = Progress({trial.trial_id: plan.steps_of(trial) for trial in plan.trials}, say, watch)
        self._callback = JournalCallback(self._journal, progress, say)
        self._with_checkpoint = {
            entry.trial for entry in self._journal.entries if isinstance(entry, FileWritten) and entry.to == _CHECKPOINT_FOLDER
        }
        """Trials whose best policy is in the journal, for MLflow."""
        self._measures: dict[str, dict[str, float]] = {}
        self._take_in(known_measures(folder.epic))
        remaining = {trial.trial_id for trial in self._remaining.trials}
        for trial in plan.trials:
            finished = trial.trial_id not in remaining
            # A store is asked only about trials that have started, whose folders are in its copy.
            here = folder.trial(trial.trial_id)
            started = folder.trial_place(trial.trial_id) if here.is_dir() else here
            self._callback.recall(trial, TrialFolder(started), finished)

    def __enter__(self) -> "SweepRun":
        self._mirror.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._has_news:
            self._write_end(stopped=error is not None)
        undelivered = self._mirror.close(_MLFLOW_PATIENCE_S)
        if undelivered:
            self._say(
                f"{undelivered} entries have not reached MLflow: they wait in {self._folder.journal}; --resume delivers them"
            )
        if self._journal.unwritten():
            self._say(f"{self._folder.journal} could not be written completely: is the disk full?")

    def run(self, pools: Mapping[str, PoolConfig], measured: pd.DataFrame | None, thresholds: Mapping[str, float]) -> None:
        """Run the unfinished trials, and record the missing videos.

        Args:
            pools: The pool of each model, by model id. They must be running.
            measured: Table of `measure_sweep`; None if the sweep measures nothing before training.
            thresholds: The measured threshold of each trial whose reward has one, by trial id.
        """
        if thresholds:
            if not any(isinstance(entry, ThresholdsMeasured) for entry in self._journal.entries):
                self._journal.append(ThresholdsMeasured(values=dict(thresholds)))
            self._callback.measured({trial_id: {REWARD_THRESHOLD: value} for trial_id, value in thresholds.items()})
        if measured is not None:
            self._write(self._folder.epic.name, measured)
            self._take_in(measured)
        forget_refused_nodes()
        videos = TrialVideos(self._say)

        def record(trial: Trial) -> None:
            if self._plan.sweep.videos:
                videos.record(trial.trial_id, self._job(trial, pools))

        for trial in self._remaining.videos:
            record(trial)

        def finished(trial: Trial) -> None:
            self._append_checkpoint(trial)
            record(trial)

        self._callback.on_finished = finished
        trials = self._remaining.trials
        if trials:
            all_of = f" of {len(self._plan.trials)}" if len(trials) < len(self._plan.trials) else ""
            self._say(
                f"{len(trials)}{all_of} trials of {self._plan.sweep.steps:,} environment steps, written to {self._folder.place}"
            )
            self._say(self._plan.about_steps())
            self._tune(trials, pools)
        if not self.outcome().interrupted:  # else the next execution records the missing videos
            self._append_videos(videos.finish())

    def outcome(self) -> SweepOutcome:
        """Return how the trials ended; those that have not are unfinished."""
        outcomes = self._outcomes()
        # Tune returns normally after Ctrl-C, which leaves trials that neither finished nor failed.
        interrupted = any(outcome.status == TrialStatus.UNFINISHED for outcome in outcomes)
        return SweepOutcome(self._folder.path, self._tracking_uri, outcomes, interrupted)

    def _outcomes(self) -> list[TrialOutcome]:
        return [self._callback.outcome(trial) for trial in self._trials.values()]

    def _take_in(self, measures: pd.DataFrame | None) -> None:
        if measures is not None:
            of_trials = {trial.trial_id: metrics_of(measures, trial) for trial in self._plan.trials}
            self._measures = {trial_id: metrics for trial_id, metrics in of_trials.items() if metrics}
            self._callback.measured(self._measures)

    def _append_videos(self, files: Mapping[str, Path]) -> None:
        for trial_id, file in files.items():
            path = Path(TRIALS) / trial_id / VIDEO_FOLDER / file.name
            if self._folder.remote is not None:  # it was recorded on any node, and put there
                try:
                    self._folder.remote.fetch_folder(str(path.parent))
                except StoreError as error:
                    self._say(f"no video of trial {trial_id} in MLflow: {error}")
                    continue
            self._journal.append(FileWritten(trial=trial_id, file=str(path), to=VIDEO_FOLDER))

    def _append_checkpoint(self, trial: Trial) -> None:
        """Append the files of a trial's best policy, if the sweep file wants them in MLflow, unless an earlier execution did."""
        if self._plan.sweep.log_checkpoints == "none" or trial.trial_id in self._with_checkpoint:
            return
        self._with_checkpoint.add(trial.trial_id)
        try:
            best = TrialFolder(self._folder.trial_place(trial.trial_id)).best()
        except (UserError, StoreError) as error:
            self._say(f"no checkpoint of trial {trial.trial_id} in MLflow: {error}")
            return
        for file in sorted(best.folder.iterdir()) if best is not None else ():
            path = Path(TRIALS) / trial.trial_id / file.parent.name / file.name
            self._journal.append(FileWritten(trial=trial.trial_id, file=str(path), to=_CHECKPOINT_FOLDER))

    def _write_end(self, stopped: bool) -> None:
        for trial_id in sorted(open_trials(self._journal.entries)):
            self._journal.append(TrialEnded(trial=trial_id, status=RunStatus.KILLED, tags={}))
        outcome = self.outcome()
        for each in outcome.outcomes:
            if each.status == TrialStatus.FINISHED:  # by an execution that was killed before it said so
                self._append_checkpoint(each.trial)
        self._write(self._folder.table.name, outcome.table)
        self._write(self._folder.cells.name, outcome.cells)
        for file in (self._folder.table, self._folder.cells, self._folder.epic):
            if file.is_file():
                self._journal.append(FileWritten(trial="", file=file.name, to=None))
        stopped = stopped or outcome.interrupted
        best = outcome.best.metrics if outcome.best and not stopped else {}
        ended = RunStatus.FINISHED if outcome.all_finished else RunStatus.FAILED
        self._journal.append(
            SweepEnded(
                status=RunStatus.KILLED if stopped else ended,
                step=outcome.finished,
                metrics={f"best_{key}": value for key, value in best.items() if key.startswith(EVALUATION)},
            )
        )

    def _write(self, name: str, table: pd.DataFrame) -> None:
        try:
            write_whole(self._folder.path / name, table.to_csv(index=False))
        except OSError as error:
            self._say(f"{self._folder.path / name} could not be written ({error.strerror}): --resume writes it")

    def _tune(self, trials: Sequence[Trial], pools: Mapping[str, PoolConfig]) -> None:
        """Run trials under Tune.

        Raises:
            UserError: The disk is full, or no node is left that can run trials.
        """
        prepare_tune()
        count_no_lost_nodes()
        for speaker in _SILENCED:
            logging.getLogger(speaker).setLevel(logging.CRITICAL)
        seconds = self._plan.sweep.time_budget_s
        budget = TimeBudget(seconds) if seconds is not None else None
        nodes_left = self._nodes_left(pools)
        self._callback.on_refused = self._refuse
        try:
            with _ctrl_c_as_before(), _room_asked_for(_AHEAD if self._plan.sweep.search is None else None):
                self._tuner(trials, pools, [budget, nodes_left] if budget is not None else [nodes_left]).fit()
        except Exception as error:
            full = _disk_error(error)
            if full is None:
                raise
            # Tune keeps files of its own for each trial.
            raise UserError(
                f"the sweep stopped ({reason_of(full)}): free some disk space, and continue with --resume"
            ) from error
        if nodes_left.is_over:
            *_, why = refused_nodes().values()
            raise UserError(f"{why}. No other node can run trials: mend that, and continue with --resume")
        if budget is not None and budget.used_up:
            self._callback.why_unfinished = f"interrupted: time_budget_s = {seconds:g} is used up"

    def _refuse(self, refusal: NodeRefused) -> None:
        """Use a node no more, and say so once."""
        if refuse(refusal):
            self._say(f"{refusal.reason}. This sweep trains no more on that node")

    def _nodes_left(self, pools: Mapping[str, PoolConfig]) -> NodesLeft:
        demand = self._demand(pools)
        return NodesLeft(lambda: has_room_without(refused_nodes(), *demand), self._plan.sweep.wait_for_nodes_s)

    def _room(self, trials: Sequence[Trial], pools: Mapping[str, PoolConfig]) -> RoomCallback:
        def left() -> int:
            return sum(self._callback.outcome(trial).status == TrialStatus.UNFINISHED for trial in trials)

        return RoomCallback(*self._demand(pools), left, self._say)

    def _demand(self, pools: Mapping[str, PoolConfig]) -> tuple[list[PoolConfig], float, float, int]:
        reserved = self._plan.sweep.trial
        return list(pools.values()), reserved.cpus, reserved.gpus, reserved.env_runners

    def _tuner(self, trials: Sequence[Trial], pools: Mapping[str, PoolConfig], stoppers: Sequence[Stopper]) -> tune.Tuner:
        stopping = scheduler_of(self._plan, self._measures, self._journal.entries)
        if stopping is not None:
            self._callback.why_stopped = stopping.stopped.get
        reserved = self._plan.sweep.trial
        resources = {"CPU": reserved.cpus, "GPU": reserved.gpus}
        executions = self._folder.tune

        def run_of(trial: Trial) -> dict[str, Any]:
            return {"run": {"trial": trial.to_dict(), "job": self._job(trial, pools), "resources": resources}}

        population = None
        if self._plan.sweep.compared_every is not None:
            entries, take_over = self._journal.entries, self._callback.take_over
            population = PopulationScheduler(self._plan, trials, entries, take_over, run_of)
        # Of an axis of all trials (`grid_search`) Tune would copy the whole for each of them: half an hour for 10 000.
        in_turn = TrialsInTurn(
            trials,
            # What is drawn for a trial depends on how others have ended by then.
            lambda trial: run_of(self._with_sample(trial)),
            **({"has_room": population.has_room, "is_over": population.is_over} if population is not None else {}),
        )
        return tune.Tuner(
            # `tune.with_resources` would rename the trials' processes.
            TrainableTrial,
            tune_config=tune.TuneConfig(
                trial_name_creator=lambda tune_trial: trial_of(tune_trial).trial_id,
                # A new trial reuses the process of one that has ended, with everything that it has imported.
                reuse_actors=True,
                trial_dirname_creator=lambda tune_trial: trial_of(tune_trial).trial_id,
                scheduler=stopping or population,
                search_alg=in_turn,
                # One more than there are, of those that may pause: Tune takes the last one for the end.
                num_samples=len(trials) + (population is not None),
                # Trials that wait for others would count.
                max_concurrent_trials=self._plan.sweep.max_concurrent if population is None else None,
            ),
            run_config=tune.RunConfig(
                name=f"attempt-{len(list(executions.glob('attempt-*'))) + 1}",
                storage_path=str(executions.resolve()),
                verbose=0,
                callbacks=[self._callback, self._room(trials, pools)],
                stop=CombinedStopper(*stoppers),
                # Trials write their own checkpoints.
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                failure_config=tune.FailureConfig(max_failures=reserved.retries),
            ),
        )

    def _with_sample(self, trial: Trial) -> Trial:
        """Draw a trial's sample, unless that was done for another seed or by an earlier execution."""
        now = self._trials[trial.trial_id]
        if now.sample is None or now.sample.values is not None:
            return now
        # The samples of a population begin together, whichever of them happen to have ended.
        is_population = self._plan.sweep.compared_every is not None
        judged = [] if is_population else judged_samples(self._plan, self._outcomes())
        values = draw(self._plan, now.sample.number, judged)
        self._journal.append(SampleDrawn(sample=now.sample.number, values=values))
        for trial_id in self._of_samples[now.sample.number]:
            self._trials[trial_id] = self._trials[trial_id].drawn(values)
        return self._trials[trial.trial_id]

    def _job(self, trial: Trial, pools: Mapping[str, PoolConfig]) -> TrainingJob:
        """Build a trial's job after its takeovers so far."""
        takeovers = self._callback.outcome(trial).takeovers
        return training_job(self._plan, self._folder, trial, pools, takeovers[-1] if takeovers else None)


@contextmanager
def _room_asked_for(trials: int | None) -> Iterator[None]:
    """Let Tune ask the cluster for room for some trials ahead, so that an autoscaler sees them; None: as Tune does for a search."""
    if trials is None or _PENDING in os.environ:
        yield
        return
    os.environ[_PENDING] = str(trials)
    try:
        yield
    finally:
        del os.environ[_PENDING]


@contextmanager
def _ctrl_c_as_before() -> Iterator[None]:
    """Restore the handler of Ctrl-C at the end: Tune leaves its own behind, which would swallow the next Ctrl-C."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)


def _disk_error(error: BaseException | None) -> OSError | None:
    """Return the disk-full error in an error's chain of causes, if there is one."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            return error
        error = error.__cause__ or error.__context__
    return None
