"""Runs a sweep: starts the reward pools, lets Tune run the trials, writes everything to MLflow and to the sweep's folder.

The folder holds `sweep.yaml` (the resolved sweep file), `mlflow.json` (where its runs are), `tune/` (Tune's state and each
trial's final checkpoint) and `trials.csv` (the final table).
"""

import logging
import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
import ray
import yaml
from ray import tune
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.logger import JsonLoggerCallback

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.rewards.catalog import find_model
from vlm_rm_sweeps.serving.pool import NAMESPACE, PoolConfig, await_pool, check_placement, start_pool
from vlm_rm_sweeps.sweeping.progress import Progress
from vlm_rm_sweeps.sweeping.results import TrialOutcome, best_trial, results_table
from vlm_rm_sweeps.sweeping.spec import Sweep, Trial
from vlm_rm_sweeps.sweeping.tracking import SweepTracker, set_up_store
from vlm_rm_sweeps.training.connector import SUCCESS, TRUE_RETURN, RewardSource
from vlm_rm_sweeps.training.trial import CLIP_RETURN, ENV_STEPS, EVALUATED, TrainableTrial, TrainingJob


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


def pool_configs(sweep: Sweep, sweep_id: str) -> dict[str, PoolConfig]:
    """The pool of each model of the sweep."""
    settings = sweep.pool.model_dump()
    return {model_id: PoolConfig(name=sweep_id, model_id=model_id, **settings) for model_id in sweep.models}


def run_sweep(sweep: Sweep, results: Path, tracking_uri: str, say: Callable[[str], None]) -> SweepOutcome:
    """Run all trials of a checked sweep into a new folder below `results`.

    Starts Ray on this machine unless `RAY_ADDRESS` names a cluster. Raises UserError if the servers and one trial cannot be
    placed, or a model cannot be loaded; a trial that fails does not stop the others.
    """
    folder = _new_folder(sweep, results)
    (folder / "sweep.yaml").write_text(yaml.safe_dump(sweep.model_dump(mode="json"), sort_keys=False), encoding="utf-8")
    with ExitStack() as cleanup:
        if not ray.is_initialized():
            # A local cluster talks to itself over loopback; Ray refuses the address when it joins one that runs already.
            local: dict[str, Any] = {} if os.environ.get("RAY_ADDRESS") else {"_node_ip_address": "127.0.0.1"}
            context = ray.init(
                namespace=NAMESPACE, log_to_driver=False, logging_level=logging.ERROR, configure_logging=False, **local
            )
            cleanup.callback(ray.shutdown)
            if context.dashboard_url:
                say(f"Ray dashboard: http://{context.dashboard_url}")
        pools = pool_configs(sweep, folder.name)
        check_placement(list(pools.values()), sweep.trial.cpus, sweep.trial.gpus)
        say(f"starting {sweep.pool.servers} reward server(s) of each of {', '.join(sweep.models)}")
        servers = {model_id: start_pool(pool) for model_id, pool in pools.items()}
        cleanup.callback(lambda: [ray.kill(server) for started in servers.values() for server in started])
        # The database takes seconds to set up: while the servers load their models.
        set_up_store(tracking_uri)
        specs = [prompt.spec(alpha) for prompt in sweep.wordings() for alpha in sweep.alphas]
        for model_id, pool in pools.items():
            await_pool(pool, servers[model_id], specs)
        tracker = SweepTracker(sweep, folder, tracking_uri)
        say(f"{len(sweep.trials())} trials of {sweep.steps:,} environment steps, written to {folder}")
        return _run_trials(sweep, folder, pools, tracker, say)


def _new_folder(sweep: Sweep, results: Path) -> Path:
    folder = results / f"{sweep.name}-{datetime.now():%Y%m%d-%H%M%S}"
    try:
        folder.mkdir(parents=True)
    except FileExistsError as error:
        raise UserError(
            f"{folder} exists already: another sweep of this name was started in the same second; try again"
        ) from error
    except OSError as error:
        raise UserError(f"{folder} cannot be created: {error.strerror}; choose another folder with --results") from error
    return folder


def _job(sweep: Sweep, trial: Trial, pools: dict[str, PoolConfig]) -> TrainingJob:
    spec = trial.spec()
    return TrainingJob(
        task=sweep.the_task(),
        settings=sweep.settings,
        reward=None
        if spec is None
        else RewardSource(pools[trial.model_id], spec, find_model(trial.model_id).preprocessing.frame_format, trial.rendering),
        seed=trial.seed,
        steps=sweep.steps,
        steps_per_result=sweep.steps_per_result,
        evaluation_episodes=sweep.evaluation_episodes,
    )


def _run_trials(
    sweep: Sweep, folder: Path, pools: dict[str, PoolConfig], tracker: SweepTracker, say: Callable[[str], None]
) -> SweepOutcome:
    trials = sweep.trials()
    recorder = _Recorder(folder, tracker, Progress(len(trials), sweep.steps, say))
    grid = [{"trial": trial.to_dict(), "job": _job(sweep, trial, pools)} for trial in trials]
    # By default Tune also writes each result as CSV and for TensorBoard.
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
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
            name="tune",
            storage_path=str(folder.resolve()),
            verbose=0,
            callbacks=[JsonLoggerCallback(), recorder],
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=True),
        ),
    )
    tuner.fit()
    outcomes = [recorder.outcome(trial) for trial in trials]
    # Tune returns normally after Ctrl-C; it shows in trials that neither finished nor failed.
    interrupted = any(outcome.status == "unfinished" for outcome in outcomes)
    outcome = SweepOutcome(folder, tracker.tracking_uri, outcomes, interrupted)
    for each in outcomes:
        if each.status == "unfinished":
            recorder.close_unfinished(each.trial)
    outcome.table.to_csv(folder / "trials.csv", index=False)
    tracker.log_artifact(folder / "trials.csv")
    best = outcome.best
    best_metrics = (
        {} if best is None else {f"best_{key}": best.metrics[key] for key in best.metrics if key.startswith(EVALUATED)}
    )
    tracker.end_sweep("KILLED" if interrupted else "FINISHED" if outcome.all_finished else "FAILED", best_metrics)
    return outcome


def _trial_of(tune_trial: TuneTrial) -> Trial:
    return Trial.from_dict(tune_trial.config["run"]["trial"])


class _Recorder(tune.Callback):
    """Hears from Tune and tells MLflow and the terminal."""

    def __init__(self, folder: Path, tracker: SweepTracker, progress: Progress) -> None:
        self._folder, self._tracker, self._progress = folder, tracker, progress
        self._metrics: dict[str, dict[str, float]] = {}
        self._ended: dict[str, tuple[str, str]] = {}
        self._started: set[str] = set()

    def on_trial_start(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        ours = _trial_of(trial)
        self._started.add(ours.trial_id)
        self._tracker.start_trial(ours)

    def on_trial_result(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, result: dict[str, Any], **info: Any
    ) -> None:
        ours = _trial_of(trial)
        # Tune adds its own entries, all of them named here, to what the trial reports.
        metrics = {key: value for key, value in result.items() if isinstance(value, float) and key not in _TUNE_ENTRIES}
        self._metrics.setdefault(ours.trial_id, {}).update(metrics)
        self._tracker.log_result(ours, metrics, int(result[ENV_STEPS]))
        self._progress.result(ours, int(result[ENV_STEPS]))

    def on_trial_complete(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        ours = _trial_of(trial)
        metrics = self._metrics.get(ours.trial_id, {})
        if EVALUATED + TRUE_RETURN not in metrics:
            return  # Tune calls this for interrupted trials too; only the last result has an evaluation
        self._ended[ours.trial_id] = ("finished", "")
        checkpoint = trial.checkpoint.path if trial.checkpoint else None
        tags = {"checkpoint": str(Path(checkpoint).relative_to(self._folder.resolve()))} if checkpoint else {}
        self._tracker.end_trial(ours, "FINISHED", tags)
        clip = f"CLIP return {metrics[EVALUATED + CLIP_RETURN]:.1f}, " if EVALUATED + CLIP_RETURN in metrics else ""
        success = f", success {metrics[EVALUATED + SUCCESS]:.2f}" if EVALUATED + SUCCESS in metrics else ""
        self._progress.ended(ours, f"{clip}true return {metrics[EVALUATED + TRUE_RETURN]:.1f}{success}")

    def on_trial_error(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        ours = _trial_of(trial)
        reason = _last_line(Path(trial.error_file)) if trial.error_file else "unknown"
        self._ended[ours.trial_id] = ("failed", reason)
        self._tracker.end_trial(ours, "FAILED", {"reason": reason[:5000]})
        self._progress.ended(ours, f"failed: {reason}")

    def outcome(self, trial: Trial) -> TrialOutcome:
        status, reason = self._ended.get(trial.trial_id, ("unfinished", "interrupted"))
        return TrialOutcome(trial, status, reason, self._metrics.get(trial.trial_id, {}))

    def close_unfinished(self, trial: Trial) -> None:
        if trial.trial_id in self._started:
            self._tracker.end_trial(trial, "KILLED", {})


_TUNE_ENTRIES = frozenset({"time_this_iter_s", "time_total_s", "time_since_restore"})


def _last_line(file: Path) -> str:
    lines = [line for line in file.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "unknown"
