"""Runs a sweep: starts the reward pools, lets Tune run the trials, and writes down what happens.

A sweep is a list of plain trials, each of which knows from its own folder how far it is. So to go on with a sweep is to run
those of its trials that have not finished; Tune's own snapshots, which would have to be unpickled and know nothing of replay
buffers and MLflow runs, are not used.
"""

import logging
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import ray
from ray import tune
from ray.tune.experiment import Trial as TuneTrial

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.evaluation.overoptimisation import ALARM, overoptimisation_alarm
from vlm_rm_sweeps.rewards.catalog import find_model
from vlm_rm_sweeps.serving.pool import NAMESPACE, PoolConfig, await_pool, check_placement, start_pool
from vlm_rm_sweeps.sweeping.folder import SweepFolder
from vlm_rm_sweeps.sweeping.journal import Journal
from vlm_rm_sweeps.sweeping.measuring import measure_sweep, metrics_of, read_measures
from vlm_rm_sweeps.sweeping.progress import Progress
from vlm_rm_sweeps.sweeping.results import TrialOutcome, best_trial, results_table
from vlm_rm_sweeps.sweeping.spec import UNTRAINED, Sweep, Trial
from vlm_rm_sweeps.sweeping.tracking import MlflowMirror, set_up_store
from vlm_rm_sweeps.sweeping.trial_videos import TrialVideos
from vlm_rm_sweeps.training.audit import PROXY, AuditPlan
from vlm_rm_sweeps.training.checkpoints import TrialFolder
from vlm_rm_sweeps.training.connector import SUCCESS, TRUE_RETURN, RewardSource
from vlm_rm_sweeps.training.settings import BestBy
from vlm_rm_sweeps.training.trial import (
    CLIP_RETURN,
    ENV_STEPS,
    EVALUATED,
    FAILURE,
    NOTE,
    TIME,
    TrainableTrial,
    TrainingJob,
    last_line,
)

_SILENCED = ("ray.tune.tune", "ray.tune.analysis.experiment_analysis")
"""Where Tune says how to resume its own way, which is not ours, and misses the result files that it was told not to write."""
_LOOPBACK = "127.0.0.1"
_RAY_TRIES = 3
_MLFLOW_PATIENCE_S = 60.0
"""How long the end of a sweep waits for an MLflow that does not answer. What is not delivered then stays in the journal."""


@dataclass(frozen=True)
class SweepOutcome:
    """What `run_sweep` leaves. `interrupted`: the user stopped it; `outcomes`: one for each trial, in order."""

    folder: Path
    tracking_uri: str
    outcomes: list[TrialOutcome]
    interrupted: bool

    @property
    def table(self) -> pd.DataFrame:
        return results_table(self.outcomes)

    @property
    def best(self) -> TrialOutcome | None:
        return best_trial(self.outcomes)

    @property
    def all_finished(self) -> bool:
        return all(outcome.status == "finished" for outcome in self.outcomes)


def pool_configs(sweep: Sweep, pool_name: str) -> dict[str, PoolConfig]:
    """The pool of each model of the sweep and its audit."""
    settings = sweep.pool.model_dump()
    return {model_id: PoolConfig(name=pool_name, model_id=model_id, **settings) for model_id in sweep.served_models()}


def check_resumable(sweep: Sweep, folder: SweepFolder) -> None:
    """UserError, with the differences, if the sweep in the folder is not this one."""
    differences = folder.differences(sweep)
    if differences:
        raise UserError(
            f"the sweep in {folder.path} cannot be resumed, because its sweep file has changed since. Undo the changes, or start a new "
            f"sweep with --new:\n{differences}"
        )


def run_sweep(
    sweep: Sweep, results: Path, tracking_uri: str, say: Callable[[str], None], resumed: SweepFolder | None = None
) -> SweepOutcome:
    """Run all trials of a checked sweep into a new folder below `results`, or go on with the one in `resumed`.

    A resumed sweep keeps its finished trials, goes on with the others from their last checkpoints (failed ones are tried
    again), and writes into the same MLflow runs. Starts Ray on this machine unless `RAY_ADDRESS` names a cluster.

    Raises UserError if Ray does not start, the servers and one trial cannot be placed, a model cannot be loaded, or the
    resumed folder is in use or of another sweep; nothing is left behind then. A trial that fails does not stop the others.
    """
    folder = resumed or SweepFolder.named(sweep, results)
    try:
        return _run_sweep(sweep, folder, tracking_uri, say, resumed)
    except KeyboardInterrupt:
        # While trials run, Tune ends them in order and returns: this is before or after them.
        finished = sum(status == "FINISHED" for status in folder.ended_trials().values())
        say(f"interrupted: {finished} of {len(sweep.trials())} trials are finished; the same command with --resume goes on")
        raise


def _run_sweep(
    sweep: Sweep, folder: SweepFolder, tracking_uri: str, say: Callable[[str], None], resumed: SweepFolder | None
) -> SweepOutcome:
    with ExitStack() as cleanup:
        if resumed:
            check_resumable(sweep, resumed)
            cleanup.enter_context(resumed.locked())
        ended = folder.ended_trials()
        todo = [trial for trial in sweep.trials() if ended.get(trial.trial_id) != "FINISHED"]
        if not todo:
            set_up_store(tracking_uri)
            return _Sweep(sweep, folder, tracking_uri, say).run([], {})
        cleanup.enter_context(_ray_cluster(say))
        # A name of its own: the servers of a driver that was killed may not be gone yet.
        pools = pool_configs(sweep, f"{folder.path.name}-{uuid.uuid4().hex[:6]}")
        check_placement(list(pools.values()), sweep.trial.cpus, sweep.trial.gpus)
        say(f"starting {sweep.pool.servers} reward server(s) of each of {', '.join(pools)}")
        servers = {model_id: start_pool(pool) for model_id, pool in pools.items()}
        cleanup.callback(lambda: [ray.kill(server) for started in servers.values() for server in started])
        # The database takes seconds to set up: while the servers load their models.
        set_up_store(tracking_uri)
        for model_id, pool in pools.items():
            await_pool(pool, servers[model_id], sweep.served_specs())
        measured = None
        if sweep.epic_states and not folder.epic.is_file():
            say(f"measuring the reward models on {sweep.epic_states:,} random states")
            measured = measure_sweep(sweep, pools)
        if not resumed:
            folder.create(sweep)
            cleanup.enter_context(folder.locked())
        if measured is not None:
            measured.to_csv(folder.epic, index=False)
        return _Sweep(sweep, folder, tracking_uri, say).run(todo, pools)


@contextmanager
def _ray_cluster(say: Callable[[str], None]) -> Iterator[None]:
    if ray.is_initialized():
        yield
        return
    context = _start_ray(say)
    try:
        if not os.environ.get("RAY_ADDRESS") and ray.nodes()[0]["NodeManagerAddress"] != _LOOPBACK:
            say("Ray listens on every interface of this machine, because it was imported before vlm_rm_sweeps or was told to")
        if context.dashboard_url:
            say(f"Ray dashboard: http://{context.dashboard_url}")
        yield
    finally:
        ray.shutdown()


def _start_ray(say: Callable[[str], None]) -> Any:
    """Ray gives its own processes 30 s to start, which a busy machine may exceed: it is tried again.

    Raises UserError if that does not help.
    """
    for tries_left in reversed(range(_RAY_TRIES)):
        try:
            return ray.init(namespace=NAMESPACE, log_to_driver=False, logging_level=logging.ERROR, configure_logging=False)
        except Exception as error:  # of all kinds
            ray.shutdown()
            if not tries_left:
                raise UserError(
                    f"Ray does not start: {last_line(str(error))} If this machine is busy, try again later; if RAY_ADDRESS is set, it "
                    "must name a cluster that runs"
                ) from error
            say(f"Ray does not start ({last_line(str(error))}): it is tried again")


class _Sweep:
    """One attempt at a sweep whose folder is locked and whose servers run."""

    def __init__(self, sweep: Sweep, folder: SweepFolder, tracking_uri: str, say: Callable[[str], None]) -> None:
        self._sweep, self._folder, self._say, self._tracking_uri = sweep, folder, say, tracking_uri
        self._trials = sweep.trials()
        self._journal = Journal(folder.journal)
        if not self._journal.entries:
            self._journal.append("sweep", _now(), id=uuid.uuid4().hex)
        self._mirror = MlflowMirror(self._journal, sweep, folder, tracking_uri, say)

    def run(self, todo: list[Trial], pools: dict[str, PoolConfig]) -> SweepOutcome:
        """Run the trials that are still to do; the outcome is that of all."""
        videos = TrialVideos(self._say)
        jobs = {trial.trial_id: self._job(trial, pools) for trial in todo}

        def finished(trial: Trial) -> None:
            job = jobs[trial.trial_id]
            if self._sweep.videos:
                videos.record(trial.trial_id, job.folder, job.reward)

        progress = Progress(len(self._trials), self._sweep.steps, self._say)
        recorder = _Recorder(self._journal, progress, self._say, finished, self._measured())
        for trial in self._trials:
            recorder.recall(trial, TrialFolder(self._folder.trial(trial.trial_id)), finished=trial not in todo)
        self._mirror.start()
        if todo:
            count = f"{len(todo)} of {len(self._trials)}" if len(todo) < len(self._trials) else str(len(todo))
            self._say(f"{count} trials of {self._sweep.steps:,} environment steps, written to {self._folder.path}")
            self._tune(todo, jobs, recorder)
            for trial_id, file in videos.finish().items():
                path = str(file.relative_to(self._folder.path.resolve()))
                self._journal.append("artifact", _now(), trial=trial_id, file=path, to=file.parent.name)
        outcomes = [recorder.outcome(trial) for trial in self._trials]
        # Tune returns normally after Ctrl-C; it shows in trials that neither finished nor failed.
        interrupted = any(outcome.status == "unfinished" for outcome in outcomes)
        outcome = SweepOutcome(self._folder.path, self._tracking_uri, outcomes, interrupted)
        self._end(outcome, recorder, anything_new=bool(todo))
        return outcome

    def _measured(self) -> dict[str, dict[str, float]]:
        """What was measured of each trial's reward before training, by trial id."""
        if not self._folder.epic.is_file():
            return {}
        table = read_measures(self._folder.epic)
        found = {trial.trial_id: metrics_of(table, trial) for trial in self._trials}
        return {trial_id: metrics for trial_id, metrics in found.items() if metrics}

    def _end(self, outcome: SweepOutcome, recorder: "_Recorder", anything_new: bool) -> None:
        if anything_new:
            recorder.close_unfinished()
            outcome.table.to_csv(self._folder.table, index=False)
            for file in (self._folder.table, self._folder.epic):
                if file.is_file():
                    self._journal.append("artifact", _now(), trial="", file=file.name, to=None)
            best = outcome.best.metrics if outcome.best else {}
            self._journal.append(
                "sweep_end",
                _now(),
                status="KILLED" if outcome.interrupted else "FINISHED" if outcome.all_finished else "FAILED",
                metrics={f"best_{key}": value for key, value in best.items() if key.startswith(EVALUATED)},
            )
        undelivered = self._mirror.close(_MLFLOW_PATIENCE_S)
        if undelivered:
            self._say(
                f"{undelivered} entries have not reached MLflow: they wait in {self._folder.journal}; --resume sends them"
            )
        if self._journal.unwritten():
            self._say(f"{self._folder.journal} could not be written whole: is the disk full?")

    def _tune(self, todo: list[Trial], jobs: dict[str, TrainingJob], recorder: "_Recorder") -> None:
        sweep = self._sweep
        grid = [{"trial": trial.to_dict(), "job": jobs[trial.trial_id]} for trial in todo]
        # By default Tune also writes each result as CSV, JSON and for TensorBoard.
        os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
        for speaker in _SILENCED:
            logging.getLogger(speaker).setLevel(logging.CRITICAL)
        attempts = self._folder.path / "tune"
        tuner = tune.Tuner(
            tune.with_resources(TrainableTrial, {"cpu": sweep.trial.cpus, "gpu": sweep.trial.gpus}),
            # One axis of plain trials, instead of one for each of model, alpha, prompt and seed: their order and ids are ours.
            param_space={"run": tune.grid_search(grid)},
            tune_config=tune.TuneConfig(
                trial_name_creator=lambda tune_trial: _trial_of(tune_trial).trial_id,
                # The next trial takes over the process of one that has ended, with all that it has imported.
                reuse_actors=True,
                trial_dirname_creator=lambda tune_trial: _trial_of(tune_trial).trial_id,
            ),
            run_config=tune.RunConfig(
                name=f"attempt-{len(list(attempts.glob('attempt-*'))) + 1}",
                storage_path=str(attempts.resolve()),
                verbose=0,
                callbacks=[recorder],
                # Trials write their own.
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                failure_config=tune.FailureConfig(max_failures=sweep.trial.retries),
            ),
        )
        tuner.fit()

    def _job(self, trial: Trial, pools: dict[str, PoolConfig]) -> TrainingJob:
        sweep, spec = self._sweep, trial.spec()
        job = TrainingJob(
            task=sweep.the_task(),
            env=sweep.env,
            settings=sweep.settings,
            reward=None,
            seed=trial.seed,
            steps=0 if trial.model_id == UNTRAINED else sweep.steps,
            steps_per_result=sweep.steps_per_result,
            evaluation_episodes=sweep.evaluation_episodes,
            folder=self._folder.trial(trial.trial_id).resolve(),
            checkpoint_every=sweep.checkpoint_every,
            best_by=self._best_by(trial),
            audit=self._audit(trial, pools),
        )
        if spec is None:
            return job
        frame_format = find_model(trial.model_id).preprocessing.frame_format
        return replace(job, reward=RewardSource(pools[trial.model_id], spec, frame_format, trial.rendering))

    def _audit(self, trial: Trial, pools: dict[str, PoolConfig]) -> AuditPlan | None:
        settings = self._sweep.audit
        if settings is None or trial.prompt is None:
            return None
        # A model is no judge of itself.
        gold = tuple(pools[model_id] for model_id in settings.models if model_id != trial.model_id)
        return AuditPlan(self._sweep.audit_specs(trial), gold, settings.every, settings.frames)

    def _best_by(self, trial: Trial) -> BestBy:
        """What the sweep asks for, if this trial has it: the true return always is."""
        unknown = {"success": self._sweep.the_task().success_criterion is None, "clip_return": trial.prompt is None}
        return "true_return" if unknown.get(self._sweep.best_by, False) else self._sweep.best_by


def _trial_of(tune_trial: TuneTrial) -> Trial:
    return Trial.from_dict(tune_trial.config["run"]["trial"])


def _now() -> int:
    return int(time.time() * 1000)


class _Recorder(tune.Callback):
    """Hears from Tune and tells the journal and the terminal."""

    def __init__(
        self,
        journal: Journal,
        progress: Progress,
        say: Callable[[str], None],
        finished: Callable[[Trial], None],
        measured: dict[str, dict[str, float]],
    ) -> None:
        self._journal, self._progress, self._say, self._finished = journal, progress, say, finished
        self._measured = measured
        self._metrics: dict[str, dict[str, float]] = {trial_id: dict(metrics) for trial_id, metrics in measured.items()}
        self._audit_points: dict[str, list[tuple[int, dict[str, float]]]] = {}
        self._steps: dict[str, int] = {}
        self._ended: dict[str, tuple[str, str]] = {}
        self._started: dict[str, Trial] = {}

    def __reduce__(self) -> tuple[type[tune.Callback], tuple[()]]:
        # Tune pickles its callbacks into its snapshots, which nobody will read.
        return tune.Callback, ()

    def recall(self, trial: Trial, checkpoints: TrialFolder, finished: bool) -> None:
        """Take up what is known of a trial from earlier attempts.

        Results that its checkpoint has and the journal lacks (which was cut short) are written down now.
        """
        for entry in self._journal.entries:
            if entry["kind"] == "result" and entry["trial"] == trial.trial_id:
                self._recall_result(trial, entry["step"], entry["metrics"])
        if finished:
            self._ended[trial.trial_id] = ("finished", "")
        else:
            checkpoint, _ = checkpoints.last()
            for result in checkpoint.content["results"] if checkpoint else []:
                self._record(trial, result)
        self._progress.resumed(trial, self._steps.get(trial.trial_id, 0), finished)

    def on_trial_start(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        ours = _trial_of(trial)
        if ours.trial_id not in self._started:  # else it is tried again
            self._journal.append("start", _now(), trial=ours.trial_id)
            if ours.trial_id in self._measured and not self._is_measured(ours):
                self._journal.append("measure", _now(), trial=ours.trial_id, metrics=self._measured[ours.trial_id])
        self._started[ours.trial_id] = ours

    def _is_measured(self, trial: Trial) -> bool:
        """Whether an earlier attempt wrote its measures down."""
        return any(entry["kind"] == "measure" and entry["trial"] == trial.trial_id for entry in self._journal.entries)

    def on_trial_result(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, result: dict[str, Any], **info: Any
    ) -> None:
        ours = _trial_of(trial)
        if FAILURE in result:
            self._fail(ours, result[FAILURE])
            return
        self._record(ours, result)
        if NOTE in result:
            self._say(f"{ours.label}: {result[NOTE]}")
        self._progress.result(ours, int(result[ENV_STEPS]))

    def _record(self, trial: Trial, result: dict[str, Any]) -> None:
        step = int(result[ENV_STEPS])
        if step <= self._steps.get(trial.trial_id, -1):
            return  # a trial that went on from a checkpoint comes past results that it had reported before
        # Tune adds its own entries, all of them named here, to what the trial reports.
        metrics = {key: value for key, value in result.items() if isinstance(value, float) and key not in _TUNE_ENTRIES}
        if PROXY in metrics:
            metrics |= self._alarm(trial, step, metrics)
        self._journal.append("result", int(result[TIME]), trial=trial.trial_id, step=step, metrics=metrics)
        self._recall_result(trial, step, metrics)

    def _alarm(self, trial: Trial, step: int, metrics: dict[str, float]) -> dict[str, float]:
        """The alarm at this audit point; empty while there are too few."""
        points = self._audit_points.get(trial.trial_id, [])
        alarm = overoptimisation_alarm([*points, (step, metrics)])
        if alarm and not any(earlier.get(ALARM) for _, earlier in points):
            self._say(
                f"{trial.label}: over-optimisation alarm at step {step:,}: its reward rises, and what it stands for falls"
            )
        return {} if alarm is None else {ALARM: float(alarm)}

    def _recall_result(self, trial: Trial, step: int, metrics: dict[str, float]) -> None:
        self._steps[trial.trial_id] = max(step, self._steps.get(trial.trial_id, -1))
        self._metrics.setdefault(trial.trial_id, {}).update(metrics)
        if PROXY in metrics:
            self._audit_points.setdefault(trial.trial_id, []).append((step, metrics))

    def on_trial_recover(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        self._say(f"{_trial_of(trial).label}: failed ({_reason(trial)}), is tried again")

    def on_trial_complete(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        ours = _trial_of(trial)
        metrics = self._metrics.get(ours.trial_id, {})
        if EVALUATED + TRUE_RETURN not in metrics:
            return  # it was interrupted, or gave up; only the last result has an evaluation
        self._end(ours, "FINISHED", "finished", "")
        self._finished(ours)
        clip = f"CLIP return {metrics[EVALUATED + CLIP_RETURN]:.1f}, " if EVALUATED + CLIP_RETURN in metrics else ""
        success = f", success {metrics[EVALUATED + SUCCESS]:.2f}" if EVALUATED + SUCCESS in metrics else ""
        self._progress.ended(ours, f"{clip}true return {metrics[EVALUATED + TRUE_RETURN]:.1f}{success}")

    def on_trial_error(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        self._fail(_trial_of(trial), _reason(trial))

    def _fail(self, trial: Trial, reason: str) -> None:
        self._end(trial, "FAILED", "failed", reason)
        self._progress.ended(trial, f"failed: {reason}")

    def _end(self, trial: Trial, status: str, outcome: str, reason: str) -> None:
        self._ended[trial.trial_id] = (outcome, reason)
        tags = {"checkpoints": f"trials/{trial.trial_id}"} | ({"reason": reason} if reason else {})
        self._journal.append("end", _now(), trial=trial.trial_id, status=status, tags=tags)

    def outcome(self, trial: Trial) -> TrialOutcome:
        status, reason = self._ended.get(trial.trial_id, ("unfinished", "interrupted"))
        return TrialOutcome(trial, status, reason, self._metrics.get(trial.trial_id, {}))

    def close_unfinished(self) -> None:
        """Write down that the trials which were started and have not ended were stopped."""
        for trial_id in self._started.keys() - self._ended.keys():
            self._journal.append("end", _now(), trial=trial_id, status="KILLED", tags={})


_TUNE_ENTRIES = frozenset({"time_this_iter_s", "time_total_s", "time_since_restore"})


def _reason(trial: TuneTrial) -> str:
    """The last line of what a trial left, without the traceback."""
    if not trial.error_file or not Path(trial.error_file).is_file():
        return "unknown"
    return last_line(Path(trial.error_file).read_text(errors="replace"))
