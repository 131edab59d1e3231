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
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mlflow.entities import LifecycleStage, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.files import file_inside, write_whole
from vlm_rm_sweeps.metrics import ENV_STEPS, PARAMETERS_MILLIONS
from vlm_rm_sweeps.rewards.registry import find_reward_model
from vlm_rm_sweeps.sweeping.config.sweep import Prompt, Sweep, Trial
from vlm_rm_sweeps.sweeping.tracking.folder import SweepFolder
from vlm_rm_sweeps.sweeping.tracking.journal import Entry, Journal

_PACKAGES = ("vlm-rm-sweeps", "ray", "torch", "open_clip_torch", "gymnasium", "mujoco", "mlflow")
_MAX_PARAM = 6000
_MAX_TAG = 5000
_REASON = "reason"
_POLL_S = 0.2
_SILENCE_S = 5.0
_LONGEST_WAIT_S = 30.0
_REFUSALS = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST")
_PERHAPS_REFUSED = "BAD_REQUEST"
"""What MLflow makes of most faults of its database, too: they pass."""
_TRIES = 6


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
    if experiment is not None and experiment.lifecycle_stage == LifecycleStage.DELETED:
        raise UserError(
            f"the MLflow experiment {name!r} was deleted: restore it (`mlflow experiments restore --experiment-id "
            f"{experiment.experiment_id}`), or delete it for good (`mlflow gc`)"
        )
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
    """Write mlflow.json, which says where the runs are."""
    write_whole(file, json.dumps(runs, indent=2) + "\n")


def trial_params(sweep: Sweep, trial: Trial) -> dict[str, Any]:
    """What the trial's run says of it, beside what holds for the whole sweep."""
    params: dict[str, Any] = {"model": trial.model_id, "seed": trial.seed}
    if trial.prompt is not None:
        params |= prompt_params(trial.prompt) | {
            "alpha": trial.alpha,
            "textures": trial.rendering.textures,
            "camera": trial.rendering.camera,
            "profile": trial.rendering.profile,
            PARAMETERS_MILLIONS: round(find_reward_model(trial.model_id).parameters / 1e6, 3),
            "precision": sweep.pool.precision,
        }
    return params


class MlflowMirror(threading.Thread):
    """Brings the entries of a sweep's journal to MLflow, in order, each once: the one thread that talks to MLflow.

    While MLflow is away, entries wait in the journal and the trials go on. An entry may have reached MLflow without this process
    knowing (it was killed, the answer was lost), so each is written in a way that may be repeated: runs are found again by
    their tags, and a metric is left out if its run has it at that step.

    mlflow.json names the last entry before which all are delivered. What MLflow refuses does not hold up what follows, but the
    next attempt begins with it again.
    """

    def __init__(
        self, journal: Journal, sweep: Sweep, folder: SweepFolder, tracking_uri: str, say: Callable[[str], None]
    ) -> None:
        super().__init__(name="mlflow-mirror", daemon=True)
        self._journal, self._sweep, self._folder, self._say = journal, sweep, folder, say
        self._tracking_uri = tracking_uri
        self._state = _read_state(folder, tracking_uri)
        # If that entry is no longer there (the journal was cut short or damaged), all are repeated.
        uids = [entry.get("uid") for entry in journal.entries]
        delivered = self._state["delivered"]
        self._next = uids.index(delivered) + 1 if delivered in uids else 0
        self._refused: set[str] = set()
        self._refusals = 0
        self._trials = {trial.trial_id: trial for trial in sweep.trials()}
        self._steps: dict[tuple[str, str], set[int]] = {}
        self._closing = threading.Event()
        self._moved_on = time.monotonic()

    @cached_property
    def _client(self) -> MlflowClient:
        """Made where it is first needed: it opens the database, which may be away."""
        return MlflowClient(self._tracking_uri)

    def undelivered(self) -> int:
        return len(self._journal.entries) - self._next + self._refusals

    def close(self, patience_s: float) -> int:
        """Wait until all is delivered, or nothing was for `patience_s`; returns how many entries are not."""
        self._moved_on = time.monotonic()
        says_at = time.monotonic() + _SILENCE_S
        while self.is_alive() and self._waiting() and time.monotonic() - self._moved_on < patience_s:
            time.sleep(_POLL_S)
            if time.monotonic() > says_at:
                says_at = float("inf")
                self._say(f"{self._waiting()} entries are on their way to MLflow; Ctrl-C leaves them to --resume")
        self._closing.set()
        self.join(timeout=_SILENCE_S)
        return self.undelivered()

    def _waiting(self) -> int:
        return len(self._journal.entries) - self._next

    def run(self) -> None:
        failures = 0
        while True:
            self._journal.wait(self._next, _POLL_S)
            if not self._waiting():
                if self._closing.is_set():
                    return
                continue
            try:
                self._deliver(self._journal.entries[self._next], last_try=failures >= _TRIES - 1)
            except Exception as error:
                if self._closing.is_set():
                    return
                if failures == 0:
                    self._say(f"MLflow does not answer ({_first_line(error)}): results wait in {self._folder.journal}")
                failures += 1
                self._steps.clear()
                self._closing.wait(min(_LONGEST_WAIT_S, 2.0**failures / 4))
                continue
            self._next += 1
            self._moved_on = time.monotonic()
            if failures:
                failures = 0
                self._say(f"MLflow answers again: {self._waiting() + 1} entries follow")

    def _deliver(self, entry: Entry, last_try: bool) -> None:
        """Raises what may pass. What will not is said, and passed over."""
        try:
            getattr(self, f"_on_{entry['kind']}")(entry)
            if not self._refusals:
                self._keep_state(delivered=entry.get("uid"))
        except (MlflowException, UserError) as error:
            if isinstance(error, MlflowException) and not _is_refusal(error, last_try):
                raise
            # To try again would hold up everything behind it for ever.
            self._refusals += 1
            message = f"MLflow does not get an entry of {self._folder.journal} ({entry['kind']}): {_first_line(error)}"
            if message not in self._refused:
                self._refused.add(message)
                self._say(message)

    def _on_sweep(self, entry: Entry) -> None:
        self._keep_state(experiment_id=experiment_id(self._client, self._sweep.name, self._folder.path))
        tags = self._tags() | {"sweep_id": entry["id"]}
        run_id = self._state["run_id"] or self._found_or_made("", self._folder.path.name, tags, entry["time"])
        self._client.update_run(run_id, status="RUNNING")
        if run_id != self._state["run_id"]:
            self._describe(run_id, self._common() | {"trials": len(self._trials)})
            self._client.log_artifact(run_id, str(self._folder.sweep_file))
            # Last: a run that is known is a run that is complete.
            self._keep_state(run_id=run_id)

    def _on_start(self, entry: Entry) -> None:
        trial = self._trials[entry["trial"]]
        alpha = trial.alpha if trial.prompt else None
        tags = self._tags() | child_tags(self._sweep_run(), trial.model_id, alpha, trial.prompt_id)
        tags |= {
            "textures": trial.rendering.textures,
            "camera": trial.rendering.camera,
            "seed": str(trial.seed),
            "trial_id": trial.trial_id,
        }
        known = self._state["trials"].get(trial.trial_id)
        run_id = known or self._found_or_made(trial.trial_id, trial.label, tags, entry["time"])
        self._client.update_run(run_id, status="RUNNING")
        if known:
            return
        params = trial_params(self._sweep, trial)
        self._describe(run_id, self._common() | params)
        if PARAMETERS_MILLIONS in params:
            # A param can be grouped by and a metric can be an axis: it is needed as both.
            self._log_once(run_id, 0, {PARAMETERS_MILLIONS: params[PARAMETERS_MILLIONS]}, entry["time"])
        self._keep_state(trials=self._state["trials"] | {trial.trial_id: run_id})

    def _describe(self, run_id: str, params: Mapping[str, Any]) -> None:
        """Log the parameters that the run does not have yet: those that it has say how it began, perhaps at another commit."""
        known = self._client.get_run(run_id).data.params
        self._client.log_batch(run_id, params=as_params({key: value for key, value in params.items() if key not in known}))

    def _log_once(self, run_id: str, step: int, metrics: Mapping[str, float], time_ms: int) -> None:
        """Log metrics that are always logged together, unless the run has them at that step: one stands for all."""
        if not metrics:
            return
        one = ENV_STEPS if ENV_STEPS in metrics else min(metrics)
        if (run_id, one) not in self._steps:
            self._steps[run_id, one] = {metric.step for metric in self._client.get_metric_history(run_id, one)}
        if step not in self._steps[run_id, one]:
            self._client.log_batch(run_id, metrics=[Metric(name, value, time_ms, step) for name, value in metrics.items()])
            self._steps[run_id, one].add(step)

    def _sweep_run(self) -> str:
        if self._state["run_id"] is None:
            raise UserError("the sweep has no run to put it into")
        return str(self._state["run_id"])

    def _run_of(self, entry: Entry) -> str:
        """The run that an entry belongs to."""
        if not entry["trial"]:
            return self._sweep_run()
        if entry["trial"] not in self._state["trials"]:
            self._on_start(entry)  # it failed before it could start
        return str(self._state["trials"][entry["trial"]])

    def _on_measure(self, entry: Entry) -> None:
        """What was measured before training, at step 0."""
        self._log_once(self._run_of(entry), 0, entry["metrics"], entry["time"])

    def _on_result(self, entry: Entry) -> None:
        self._log_once(self._run_of(entry), entry["step"], entry["metrics"] | {ENV_STEPS: float(entry["step"])}, entry["time"])

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
        run_id = self._sweep_run()
        self._log_once(run_id, entry["step"], entry["metrics"], entry["time"])
        self._client.set_terminated(run_id, entry["status"], entry["time"])

    def _found_or_made(self, trial_id: str, name: str, tags: Mapping[str, str], time_ms: int) -> str:
        """The run of a trial (or of the sweep, if it is empty)."""
        run_id = self._find_run(trial_id, tags)
        if run_id is None:
            made = self._client.create_run(self._state["experiment_id"], time_ms, tags=dict(tags), run_name=name)
            run_id = str(made.info.run_id)
        return run_id

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
    """What mlflow.json says; a new state if it is not there yet or damaged. UserError if its runs are in another MLflow."""
    new: dict[str, Any] = {"tracking_uri": tracking_uri, "experiment_id": None, "run_id": None, "trials": {}, "delivered": None}
    try:
        found = json.loads(folder.mlflow.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return new
    if not isinstance(found, dict) or not new.keys() <= found.keys() or not isinstance(found["trials"], dict):
        return new
    # Results that were moved, or a server at a new address, are recognised by what is in them.
    if found["tracking_uri"] != tracking_uri and not _has_run(tracking_uri, found["run_id"]):
        raise UserError(
            f"the runs of {folder.path} are in {found['tracking_uri']}, not in {tracking_uri}: name that with --tracking-uri, or where "
            "it has moved to"
        )
    return found | {"tracking_uri": tracking_uri}


def _has_run(tracking_uri: str, run_id: str | None) -> bool:
    try:
        return run_id is not None and bool(MlflowClient(tracking_uri).get_run(run_id))
    except Exception:  # of many kinds: a file that is no database, a server that is none
        return False


def _is_refusal(error: MlflowException, last_try: bool) -> bool:
    return error.error_code in _REFUSALS or (error.error_code == _PERHAPS_REFUSED and last_try)


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
