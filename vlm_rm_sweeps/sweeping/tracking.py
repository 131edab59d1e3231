"""A sweep in MLflow: one run for the sweep, one child run for each trial, mirrored from the sweep's journal.

The functions say what all runs have in common, those of screenings included; `MlflowMirror` brings the journal to them.

Ray's own MLflow callback is not used: it makes flat runs, logs hundreds of values for each result and counts iterations, not
environment steps.
"""

import json
import logging
import os
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.files import file_inside
from vlm_rm_sweeps.rewards.catalog import find_model
from vlm_rm_sweeps.sweeping.folder import SweepFolder
from vlm_rm_sweeps.sweeping.journal import Entry, Journal
from vlm_rm_sweeps.sweeping.spec import Prompt, Sweep, Trial
from vlm_rm_sweeps.training.trial import ENV_STEPS

_PACKAGES = ("vlm-rm-sweeps", "ray", "torch", "open_clip_torch", "gymnasium", "mujoco", "mlflow")
_MAX_PARAM = 6000
_MAX_TAG = 5000
_REASON = "reason"
_POLL_S = 0.2
_LONGEST_WAIT_S = 30.0
_REFUSALS = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_DOES_NOT_EXIST")


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
    """Create the database's tables if they are missing. To be called by one process, before any other opens it.

    Raises UserError if the server or database cannot be reached.
    """
    # MLflow would try for minutes at each call; here a mirror tries again, while the trials go on.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    try:
        MlflowClient(tracking_uri).search_experiments(max_results=1)
    except Exception as error:
        raise UserError(
            f"MLflow at {tracking_uri} does not answer: {_first_line(error)}. Start its server, or name another with --tracking-uri"
        ) from error


def experiment_id(client: MlflowClient, name: str, folder: Path) -> str:
    """The experiment of this name, made if it is missing; its artifacts are kept beside the folder of the sweep or screening."""
    experiment = client.get_experiment_by_name(name)
    if experiment is not None:
        return str(experiment.experiment_id)
    # Artifacts would otherwise land in the working directory.
    return str(client.create_experiment(name, artifact_location=(folder.parent / "mlartifacts").resolve().as_uri()))


def parent_tags(folder: Path, task: str) -> dict[str, str]:
    """Tags of the run of a sweep or screening, which its children have too."""
    return {"sweep": folder.name, "task": task}


def child_tags(parent_run_id: str, model_id: str, alpha: float | None, prompt_id: str) -> dict[str, str]:
    """What tells the children of a run apart, and whose children they are. `alpha` None: a reference, which has none."""
    strength = "-" if alpha is None else f"{alpha:g}"
    return {MLFLOW_PARENT_RUN_ID: parent_run_id, "model": model_id, "alpha": strength, "prompt": prompt_id}


def prompt_params(prompt: Prompt) -> dict[str, str]:
    """A prompt's id and all of its wordings."""
    return {"prompt": prompt.id, "goal": " | ".join(prompt.goal), "baseline": " | ".join(prompt.baseline)}


def environment_params() -> dict[str, str]:
    """The versions of the code and of the packages that compute."""
    return {"git_commit": git_commit()} | {f"version_{each.replace('-', '_')}": version(each) for each in _PACKAGES}


def as_params(params: Mapping[str, Any]) -> list[Param]:
    """Parameters for MLflow, cut to the length that it takes."""
    return [Param(key, str(value)[:_MAX_PARAM]) for key, value in params.items()]


def keep_runs(file: Path, runs: Mapping[str, Any]) -> None:
    """Write mlflow.json, which says where the runs are; whoever looks meanwhile finds the one before."""
    unfinished = file.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(runs, indent=2) + "\n", encoding="utf-8")
    unfinished.replace(file)


def trial_params(sweep: Sweep, trial: Trial) -> dict[str, Any]:
    """What the trial's run says of it, beside what holds for the whole sweep."""
    params: dict[str, Any] = {"model": trial.model_id, "seed": trial.seed}
    if trial.prompt is not None:
        params |= prompt_params(trial.prompt) | {
            "alpha": trial.alpha,
            "textures": trial.rendering.textures,
            "camera": trial.rendering.camera,
            "profile": trial.rendering.profile,
            "parameters_millions": round(find_model(trial.model_id).parameters / 1e6, 3),
            "precision": sweep.pool.precision,
        }
    return params


class MlflowMirror(threading.Thread):
    """Brings the entries of a sweep's journal to MLflow, in order, each once: the one thread that talks to MLflow.

    While MLflow is away, entries wait in the journal and the trials go on. An entry may have reached MLflow without this process
    knowing (it was killed, the answer was lost), so each is written in a way that may be repeated: runs are found again by
    their tags, and a result is left out if its run has its step.
    """

    def __init__(
        self, journal: Journal, sweep: Sweep, folder: SweepFolder, tracking_uri: str, say: Callable[[str], None]
    ) -> None:
        super().__init__(name="mlflow-mirror", daemon=True)
        self._journal, self._sweep, self._folder, self._say = journal, sweep, folder, say
        self._tracking_uri = tracking_uri
        self._client = MlflowClient(tracking_uri)
        self._state = _read_state(folder, tracking_uri)
        if self._state["delivered"] > len(journal.entries):
            self._state["delivered"] = 0  # the journal was cut short: what is there already is left out one by one
        self._trials = {trial.trial_id: trial for trial in sweep.trials()}
        self._steps: dict[str, set[int]] = {}
        self._closing = threading.Event()
        self._moved_on = time.monotonic()

    def undelivered(self) -> int:
        return len(self._journal.entries) - int(self._state["delivered"])

    def close(self, patience_s: float) -> int:
        """Wait until all is delivered, or nothing was for `patience_s`; returns how many entries are not."""
        self._moved_on = time.monotonic()
        while self.is_alive() and self.undelivered() and time.monotonic() - self._moved_on < patience_s:
            time.sleep(_POLL_S)
        self._closing.set()
        self.join(timeout=patience_s)
        return self.undelivered()

    def run(self) -> None:
        failures = 0
        while True:
            self._journal.wait(int(self._state["delivered"]), _POLL_S)
            if not self.undelivered():
                if self._closing.is_set():
                    return
                continue
            try:
                self._deliver(self._journal.entries[self._state["delivered"]])
                self._keep_state(delivered=self._state["delivered"] + 1)
            except Exception as error:
                if self._closing.is_set():
                    return
                if failures == 0:
                    self._say(f"MLflow does not answer ({_first_line(error)}): results wait in {self._folder.journal}")
                failures += 1
                self._steps.clear()
                self._closing.wait(min(_LONGEST_WAIT_S, 2.0**failures / 4))
                continue
            self._moved_on = time.monotonic()
            if failures:
                failures = 0
                self._say(f"MLflow answers again: {self.undelivered() + 1} entries follow")

    def _deliver(self, entry: Entry) -> None:
        try:
            getattr(self, f"_on_{entry['kind']}")(entry)
        except (MlflowException, UserError) as error:
            if isinstance(error, MlflowException) and error.error_code not in _REFUSALS:
                raise
            # To try again would hold up everything behind it for ever.
            self._say(f"MLflow does not get an entry of {self._folder.journal} ({entry['kind']}): {_first_line(error)}")

    def _on_sweep(self, entry: Entry) -> None:
        self._keep_state(experiment_id=experiment_id(self._client, self._sweep.name, self._folder.path))
        tags = self._tags() | {"sweep_id": entry["id"]}
        if self._open_run("", self._folder.path.name, tags, entry["time"]):
            params = as_params(self._common() | {"trials": len(self._trials)})
            self._client.log_batch(self._state["run_id"], params=params)
            self._client.log_artifact(self._state["run_id"], str(self._folder.sweep_file))

    def _on_start(self, entry: Entry) -> None:
        trial = self._trials[entry["trial"]]
        alpha = trial.alpha if trial.prompt else None
        tags = self._tags() | child_tags(self._state["run_id"], trial.model_id, alpha, trial.prompt_id)
        tags |= {
            "textures": trial.rendering.textures,
            "camera": trial.rendering.camera,
            "seed": str(trial.seed),
            "trial_id": trial.trial_id,
        }
        if self._open_run(trial.trial_id, trial.label, tags, entry["time"]):
            run_id = self._state["trials"][trial.trial_id]
            params = trial_params(self._sweep, trial)
            self._client.log_batch(run_id, params=as_params(self._common() | params))
            if "parameters_millions" in params:
                # A param can be grouped by and a metric can be an axis: it is needed as both.
                self._client.log_metric(run_id, "parameters_millions", params["parameters_millions"], entry["time"], 0)

    def _run_of(self, entry: Entry) -> str:
        """The run that an entry belongs to."""
        if not entry["trial"]:
            return str(self._state["run_id"])
        if entry["trial"] not in self._state["trials"]:
            self._on_start(entry)  # it failed before it could start
        return str(self._state["trials"][entry["trial"]])

    def _on_measure(self, entry: Entry) -> None:
        """What was measured before training, at step 0. The same metric, with the same time, is kept once."""
        batch = [Metric(name, value, entry["time"], 0) for name, value in entry["metrics"].items()]
        self._client.log_batch(self._run_of(entry), metrics=batch)

    def _on_result(self, entry: Entry) -> None:
        run_id = self._run_of(entry)
        if run_id not in self._steps:
            self._steps[run_id] = {metric.step for metric in self._client.get_metric_history(run_id, ENV_STEPS)}
        if entry["step"] not in self._steps[run_id]:
            metrics = entry["metrics"] | {ENV_STEPS: float(entry["step"])}
            batch = [Metric(name, value, entry["time"], entry["step"]) for name, value in metrics.items()]
            self._client.log_batch(run_id, metrics=batch)
            self._steps[run_id].add(entry["step"])

    def _on_end(self, entry: Entry) -> None:
        run_id = self._run_of(entry)
        tags = [RunTag(key, str(value)[:_MAX_TAG]) for key, value in entry["tags"].items()]
        self._client.log_batch(run_id, tags=tags)
        if entry["status"] == "FINISHED" and _REASON in self._client.get_run(run_id).data.tags:
            self._client.delete_tag(run_id, _REASON)  # of an earlier attempt
        self._client.set_terminated(run_id, entry["status"], entry["time"])

    def _on_artifact(self, entry: Entry) -> None:
        run_id = self._run_of(entry)
        file = file_inside(self._folder.path, entry["file"])
        if file.is_file():
            self._client.log_artifact(run_id, str(file), entry["to"])

    def _on_sweep_end(self, entry: Entry) -> None:
        run_id = self._state["run_id"]
        for name, value in entry["metrics"].items():
            self._client.log_metric(run_id, name, value, entry["time"], 0)
        self._client.set_terminated(run_id, entry["status"], entry["time"])

    def _open_run(self, trial_id: str, name: str, tags: Mapping[str, str], time_ms: int) -> bool:
        """Make the run of a trial (or of the sweep, if it is empty), or go on with it; returns whether it was made now."""
        known = self._state["trials"].get(trial_id) if trial_id else self._state["run_id"]
        run_id: str | None = known or self._find_run(trial_id, tags)
        made = run_id is None
        if run_id is None:
            created = self._client.create_run(self._state["experiment_id"], time_ms, tags=dict(tags), run_name=name)
            run_id = created.info.run_id
        else:
            self._client.update_run(run_id, status="RUNNING")
        if trial_id:
            self._keep_state(trials=self._state["trials"] | {trial_id: run_id})
        else:
            self._keep_state(run_id=run_id)
        # Made, but its parameters may be missing, if this process ended in between: they can be logged again.
        return made or known is None

    def _find_run(self, trial_id: str, tags: Mapping[str, str]) -> str | None:
        if trial_id:
            condition = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{self._state['run_id']}' and tags.trial_id = '{trial_id}'"
        else:
            condition = f"tags.sweep_id = '{tags['sweep_id']}'"
        runs = self._client.search_runs([self._state["experiment_id"]], condition, max_results=1)
        return runs[0].info.run_id if runs else None

    def _tags(self) -> dict[str, str]:
        return parent_tags(self._folder.path, self._sweep.the_task().name)

    def _common(self) -> dict[str, Any]:
        """Parameters of the sweep's run and of each trial's."""
        settings = {f"settings_{key}": value for key, value in self._sweep.settings.model_dump().items()}
        described = {"task": self._sweep.the_task().name, "algorithm": self._sweep.algorithm, "steps": self._sweep.steps}
        return described | settings | environment_params()

    def _keep_state(self, **changed: Any) -> None:
        self._state |= changed
        keep_runs(self._folder.mlflow, self._state)


def _read_state(folder: SweepFolder, tracking_uri: str) -> dict[str, Any]:
    """What mlflow.json says; a new state if it is not there yet or damaged. UserError if it names another MLflow."""
    new: dict[str, Any] = {"tracking_uri": tracking_uri, "experiment_id": None, "run_id": None, "trials": {}, "delivered": 0}
    try:
        found: dict[str, Any] = json.loads(folder.mlflow.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return new
    if found["tracking_uri"] != tracking_uri:
        raise UserError(
            f"the runs of {folder.path} are in {found['tracking_uri']}, not in {tracking_uri}: name that with --tracking-uri"
        )
    return found


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]


def mlflow_ui_command(tracking_uri: str) -> str:
    """How to open these runs in a browser: a command, on the loopback address and without telemetry; a server's own address."""
    if urlsplit(tracking_uri).scheme in ("http", "https"):
        return f"a browser at {tracking_uri}"
    program = Path(sys.executable).parent / "mlflow"
    # The defaults of this package do not reach a shell.
    quiet = ["env", "MLFLOW_DISABLE_TELEMETRY=true", "DO_NOT_TRACK=true"]
    return shlex.join([*quiet, str(program), "ui", "--host", "127.0.0.1", "--backend-store-uri", tracking_uri])
