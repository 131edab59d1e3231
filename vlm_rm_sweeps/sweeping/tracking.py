"""Where a sweep is written down: one MLflow run for the sweep, one child run for each trial.

Ray's own MLflow callback is not used: it makes flat runs, logs hundreds of values for each result and counts iterations, not
environment steps.
"""

import json
import logging
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mlflow.entities import Metric, Param, RunTag
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from vlm_rm_sweeps.rewards.catalog import find_model
from vlm_rm_sweeps.sweeping.spec import Sweep, Trial

_PACKAGES = ("vlm-rm-sweeps", "ray", "torch", "open_clip_torch", "gymnasium", "mujoco", "mlflow")
_MAX_PARAM = 6000


def default_tracking_uri(results: Path) -> str:
    """An sqlite file in the results folder: no server is needed."""
    return f"sqlite:///{(results / 'mlflow.db').resolve()}"


def git_commit() -> str:
    """The commit of the working directory, with `-dirty` if it has changes; 'unknown' outside a repository."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return described.stdout.strip()


def set_up_store(tracking_uri: str) -> None:
    """Create the database's tables if they are missing. To be called by one process, before any other opens it."""
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    MlflowClient(tracking_uri).search_experiments(max_results=1)


class SweepTracker:
    """The MLflow runs of one sweep. Lives in the driver: the one process that talks to MLflow."""

    def __init__(self, sweep: Sweep, folder: Path, tracking_uri: str) -> None:
        self.tracking_uri = tracking_uri
        self._sweep = sweep
        self._client = MlflowClient(tracking_uri)
        self._task = sweep.the_task().name
        self._common = {"task": self._task, "algorithm": sweep.algorithm, "git_commit": git_commit()} | {
            f"version_{package.replace('-', '_')}": version(package) for package in _PACKAGES
        }
        experiment = self._client.get_experiment_by_name(sweep.name)
        # Artifacts would otherwise land in the working directory.
        self.experiment_id = (
            experiment.experiment_id
            if experiment
            else self._client.create_experiment(
                sweep.name, artifact_location=(folder.parent / "mlartifacts").resolve().as_uri()
            )
        )
        self.run_id = self._create_run(folder.name, {"sweep": folder.name, "task": self._task})
        settings = {f"settings_{key}": value for key, value in sweep.settings.model_dump().items()}
        self._settings: dict[str, Any] = {"steps": sweep.steps} | settings
        self._log_params(self.run_id, self._common | self._settings | {"trials": len(sweep.trials())})
        self._children: dict[str, str] = {}
        self._sweep_tag = folder.name
        self.log_artifact(folder / "sweep.yaml")
        runs = {"tracking_uri": tracking_uri, "experiment_id": self.experiment_id, "run_id": self.run_id}
        (folder / "mlflow.json").write_text(json.dumps(runs, indent=2) + "\n")

    def _create_run(self, name: str, tags: Mapping[str, str]) -> str:
        run_id: str = self._client.create_run(self.experiment_id, tags=dict(tags), run_name=name).info.run_id
        return run_id

    def _log_params(self, run_id: str, params: Mapping[str, Any]) -> None:
        self._client.log_batch(run_id, params=[Param(key, str(value)[:_MAX_PARAM]) for key, value in params.items()])

    def start_trial(self, trial: Trial) -> None:
        """Open the child run of a trial."""
        model_id = trial.model_id
        tags = {
            MLFLOW_PARENT_RUN_ID: self.run_id,
            "sweep": self._sweep_tag,
            "task": self._task,
            "model": model_id,
            "alpha": f"{trial.alpha:g}",
            "prompt": trial.prompt_id,
            "textures": trial.rendering.textures,
            "camera": trial.rendering.camera,
            "seed": str(trial.seed),
            "trial_id": trial.trial_id,
        }
        run_id = self._create_run(trial.label, tags)
        self._children[trial.trial_id] = run_id
        params = self._common | self._settings | {"model": model_id, "seed": trial.seed}
        if trial.prompt is not None:
            millions = round(find_model(model_id).parameters / 1e6, 3)
            params |= {
                "alpha": trial.alpha,
                "prompt": trial.prompt.id,
                "goal": " | ".join(trial.prompt.goal),
                "baseline": " | ".join(trial.prompt.baseline),
                "textures": trial.rendering.textures,
                "camera": trial.rendering.camera,
                "profile": trial.rendering.profile,
                "parameters_millions": millions,
                "precision": self._sweep.pool.precision,
            }
            # A param can be grouped by and a metric can be an axis: it is needed as both.
            self._client.log_metric(run_id, "parameters_millions", millions)
        self._log_params(run_id, params)

    def log_result(self, trial: Trial, metrics: Mapping[str, float], env_steps: int) -> None:
        """Log metrics at a number of environment steps."""
        now = int(time.time() * 1000)
        batch = [Metric(name, value, now, env_steps) for name, value in metrics.items()]
        self._client.log_batch(self._children[trial.trial_id], metrics=batch)

    def end_trial(self, trial: Trial, status: str, tags: Mapping[str, str]) -> None:
        """Close the child run: status FINISHED, FAILED or KILLED."""
        if trial.trial_id not in self._children:
            self.start_trial(trial)  # it failed before it could start
        run_id = self._children[trial.trial_id]
        self._client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])
        self._client.set_terminated(run_id, status)

    def end_sweep(self, status: str, metrics: Mapping[str, float]) -> None:
        now = int(time.time() * 1000)
        self._client.log_batch(self.run_id, metrics=[Metric(name, value, now, 0) for name, value in metrics.items()])
        self._client.set_terminated(self.run_id, status)

    def log_artifact(self, file: Path) -> None:
        """Attach a file to the sweep's run."""
        self._client.log_artifact(self.run_id, str(file))


def mlflow_ui_command(tracking_uri: str) -> str:
    """The command that opens these runs in a browser."""
    return f"{Path(sys.executable).parent / 'mlflow'} ui --backend-store-uri {tracking_uri}"
