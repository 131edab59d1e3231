"""One attempt at a sweep: from the moment that its folder is locked until however it ends."""

import errno
import logging
import os
import signal
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType

import pandas as pd
from ray import tune

from vlm_rm_sweeps.errors import UserError, reason_of
from vlm_rm_sweeps.files import write_whole
from vlm_rm_sweeps.metrics import EVALUATION
from vlm_rm_sweeps.serving.pool import PoolConfig
from vlm_rm_sweeps.sweeping.config.sweep import Sweep, Trial
from vlm_rm_sweeps.sweeping.execution.reward_metrics import known_measures, metrics_of
from vlm_rm_sweeps.sweeping.execution.trial_jobs import training_job
from vlm_rm_sweeps.sweeping.execution.trial_videos import FOLDER as VIDEO_FOLDER
from vlm_rm_sweeps.sweeping.execution.trial_videos import TrialVideos
from vlm_rm_sweeps.sweeping.tracking.folder import SweepFolder
from vlm_rm_sweeps.sweeping.tracking.journal import Journal, ended_in_order, ended_trials, open_trials
from vlm_rm_sweeps.sweeping.tracking.mlflow_mirror import MlflowMirror
from vlm_rm_sweeps.sweeping.tracking.progress import Progress
from vlm_rm_sweeps.sweeping.tracking.results import SweepOutcome
from vlm_rm_sweeps.sweeping.tracking.tune_callback import Recorder, now_ms, trial_of
from vlm_rm_sweeps.training.checkpoints import TrialFolder
from vlm_rm_sweeps.training.trial import TrainableTrial, TrainingJob

_SILENCED = ("ray.tune.tune", "ray.tune.analysis.experiment_analysis")
"""Where Tune says how to resume its own way, which is not ours, and misses the result files that it was told not to write."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_MLFLOW_PATIENCE_S = 60.0
"""How long the end of a sweep waits for an MLflow that does not answer. What is not delivered then stays in the journal."""


class Attempt:
    """A context, in which the trials that have not finished can be `run`. The folder must be locked.

    However the context is left (all trials ended, Ctrl-C, an error, or nothing was left to run), the sweep is brought to its
    end: no trial is left open, the table is written, and MLflow is told.
    """

    def __init__(self, sweep: Sweep, folder: SweepFolder, tracking_uri: str, say: Callable[[str], None]) -> None:
        self._sweep, self._folder, self._tracking_uri, self._say = sweep, folder, tracking_uri, say
        self._trials = sweep.trials()
        self._journal = Journal(folder.journal)
        self._mirror = MlflowMirror(self._journal, sweep, folder, tracking_uri, say)
        ended = ended_trials(self._journal.entries)
        self._todo = [trial for trial in self._trials if ended.get(trial.trial_id) != "FINISHED"]
        self._without_video = self._finished_without_video() if sweep.videos else []
        self._is_new = self.needs_servers or not ended_in_order(self._journal.entries)
        if self._is_new:
            ids = [entry["id"] for entry in self._journal.entries if entry["kind"] == "sweep"]
            self._journal.append("sweep", now_ms(), id=ids[0] if ids else uuid.uuid4().hex)
        progress = Progress({trial.trial_id: sweep.steps_of(trial) for trial in self._trials}, say)
        self._recorder = Recorder(self._journal, progress, say)
        self._know(known_measures(folder.epic))
        for trial in self._trials:
            self._recorder.recall(trial, TrialFolder(folder.trial(trial.trial_id)), finished=trial not in self._todo)

    @property
    def needs_servers(self) -> bool:
        return bool(self._todo or self._without_video)

    def __enter__(self) -> "Attempt":
        self._mirror.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._is_new:
            self._write_end(stopped=error is not None)
        undelivered = self._mirror.close(_MLFLOW_PATIENCE_S)
        if undelivered:
            self._say(
                f"{undelivered} entries have not reached MLflow: they wait in {self._folder.journal}; --resume tries them again"
            )
        if self._journal.unwritten():
            self._say(f"{self._folder.journal} could not be written whole: is the disk full?")

    def run(self, pools: Mapping[str, PoolConfig], measured: pd.DataFrame | None) -> None:
        """Run the trials that are still to do, and record the videos that are missing."""
        if measured is not None:
            self._write(self._folder.epic.name, measured)
            self._know(measured)
        videos = TrialVideos(self._say)

        def record(trial: Trial) -> None:
            if self._sweep.videos:
                job = training_job(self._sweep, self._folder, trial, pools)
                videos.record(trial.trial_id, job.folder, job.task, job.reward)

        for trial in self._without_video:
            record(trial)
        self._recorder.on_finished = record
        if self._todo:
            all_of = f" of {len(self._trials)}" if len(self._todo) < len(self._trials) else ""
            self._say(
                f"{len(self._todo)}{all_of} trials of {self._sweep.steps:,} environment steps, written to {self._folder.path}"
            )
            self._tune([(trial, training_job(self._sweep, self._folder, trial, pools)) for trial in self._todo])
        if self.outcome().interrupted:
            return  # whoever goes on records the videos that are missing
        for trial_id, file in videos.finish().items():
            path = str(file.relative_to(self._folder.path.resolve()))
            self._journal.append("artifact", now_ms(), trial=trial_id, file=path, to=VIDEO_FOLDER)

    def outcome(self) -> SweepOutcome:
        """Of all trials, as far as they are."""
        outcomes = [self._recorder.outcome(trial) for trial in self._trials]
        # Tune returns normally after Ctrl-C; it shows in trials that neither finished nor failed.
        interrupted = any(outcome.status == "unfinished" for outcome in outcomes)
        return SweepOutcome(self._folder.path, self._tracking_uri, outcomes, interrupted)

    def _finished_without_video(self) -> list[Trial]:
        """Of earlier attempts, which were killed while they recorded."""
        recorded = {
            entry["trial"] for entry in self._journal.entries if entry["kind"] == "artifact" and entry["to"] == VIDEO_FOLDER
        }
        return [trial for trial in self._trials if trial not in self._todo and trial.trial_id not in recorded]

    def _know(self, measures: pd.DataFrame | None) -> None:
        if measures is not None:
            of_trials = {trial.trial_id: metrics_of(measures, trial) for trial in self._trials}
            self._recorder.measured({trial_id: metrics for trial_id, metrics in of_trials.items() if metrics})

    def _write_end(self, stopped: bool) -> None:
        for trial_id in sorted(open_trials(self._journal.entries)):
            self._journal.append("end", now_ms(), trial=trial_id, status="KILLED", tags={})
        outcome = self.outcome()
        self._write(self._folder.table.name, outcome.table)
        for file in (self._folder.table, self._folder.epic):
            if file.is_file():
                self._journal.append("artifact", now_ms(), trial="", file=file.name, to=None)
        stopped = stopped or outcome.interrupted
        best = outcome.best.metrics if outcome.best and not stopped else {}
        self._journal.append(
            "sweep_end",
            now_ms(),
            status="KILLED" if stopped else "FINISHED" if outcome.all_finished else "FAILED",
            # The best trial of so many; of more, another may be.
            step=sum(each.status == "finished" for each in outcome.outcomes),
            metrics={f"best_{key}": value for key, value in best.items() if key.startswith(EVALUATION)},
        )

    def _write(self, name: str, table: pd.DataFrame) -> None:
        try:
            write_whole(self._folder.path / name, table.to_csv(index=False))
        except OSError as error:
            self._say(f"{self._folder.path / name} could not be written ({error.strerror}): --resume writes it")

    def _tune(self, jobs: list[tuple[Trial, TrainingJob]]) -> None:
        """Raises UserError if Tune cannot go on, because the disk is full."""
        sweep = self._sweep
        # By default Tune also writes each result as CSV, JSON and for TensorBoard.
        os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
        for speaker in _SILENCED:
            logging.getLogger(speaker).setLevel(logging.CRITICAL)
        attempts = self._folder.path / "tune"
        resources = {"CPU": sweep.trial.cpus, "GPU": sweep.trial.gpus}
        tuner = tune.Tuner(
            # `tune.with_resources` would give the trials' processes a name of its own.
            TrainableTrial,
            # One axis of plain trials, instead of one for each of model, alpha, prompt and seed: their order and ids are ours.
            param_space={
                "run": tune.grid_search([{"trial": trial.to_dict(), "job": job, "resources": resources} for trial, job in jobs])
            },
            tune_config=tune.TuneConfig(
                trial_name_creator=lambda tune_trial: trial_of(tune_trial).trial_id,
                # The next trial takes over the process of one that has ended, with all that it has imported.
                reuse_actors=True,
                trial_dirname_creator=lambda tune_trial: trial_of(tune_trial).trial_id,
            ),
            run_config=tune.RunConfig(
                name=f"attempt-{len(list(attempts.glob('attempt-*'))) + 1}",
                storage_path=str(attempts.resolve()),
                verbose=0,
                callbacks=[self._recorder],
                # Trials write their own.
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                failure_config=tune.FailureConfig(max_failures=sweep.trial.retries),
            ),
        )
        try:
            with _ctrl_c_as_before():
                tuner.fit()
        except Exception as error:
            full = _disk_error(error)
            if full is None:
                raise
            # Tune keeps files of its own for each trial.
            raise UserError(
                f"the sweep stopped ({reason_of(full)}): make room on that disk, and go on with --resume"
            ) from error


@contextmanager
def _ctrl_c_as_before() -> Iterator[None]:
    """Tune leaves its own handler behind, which would swallow the next Ctrl-C."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)


def _disk_error(error: BaseException | None) -> OSError | None:
    """The full disk that is behind an error, if one is."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return error
        error = error.__cause__ or error.__context__
    return None
