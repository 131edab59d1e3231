"""Mirrors a sweep's journal to MLflow: one run for the sweep, one child run for each trial.

Ray's own MLflow callback is not used: it creates flat runs, logs hundreds of values for each result and counts iterations, not
environment steps.
"""

import json
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from mlflow.entities import Metric, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from vlm_rm_sweeps.errors import DamagedFileError, UserError, reason_of
from vlm_rm_sweeps.files import file_inside
from vlm_rm_sweeps.metrics import (
    ENV_STEPS,
    PARAMETERS_MILLIONS,
    REWARD,
    SAMPLE,
    SETTING_OVER_STEPS,
    TAKEOVERS,
    RunStatus,
    TrialStatus,
)
from vlm_rm_sweeps.rewards.functions.registry import readable_reward
from vlm_rm_sweeps.sweeping.config.plan import Plan
from vlm_rm_sweeps.sweeping.config.searching import Drawn, setting_values
from vlm_rm_sweeps.sweeping.config.trial import Trial
from vlm_rm_sweeps.sweeping.tracking.environment import environment_params
from vlm_rm_sweeps.sweeping.tracking.folder import DATABASE, SweepFolder
from vlm_rm_sweeps.sweeping.tracking.journal import (
    Entry,
    FileWritten,
    Journal,
    ResultLogged,
    RewardMeasured,
    SampleDrawn,
    SweepEnded,
    SweepStarted,
    TakenOver,
    ThresholdsMeasured,
    TrialEnded,
    TrialStarted,
    TrialStopped,
    taken_over,
)
from vlm_rm_sweeps.sweeping.tracking.mlflow_store import (
    as_params,
    child_tags,
    experiment_id,
    has_run,
    keeps_files_in,
    parent_tags,
    prompt_params,
)
from vlm_rm_sweeps.sweeping.tracking.runs_file import RunsFile, read_runs_file
from vlm_rm_sweeps.sweeping.tracking.tracking_uri import hide_secrets, sqlite_file, without_secrets

_MAX_TAG = 5000
_REASON = "reason"
_POLL_S = 0.2
_SILENCE_S = 5.0
_LONGEST_WAIT_S = 30.0
_REFUSALS = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST")
_PERHAPS_REFUSED = "BAD_REQUEST"
"""MLflow uses this code for most errors of its database too, which are temporary."""
_TEMPORARY = ("TEMPORARILY_UNAVAILABLE", "INTERNAL_ERROR")
_TRIES = 6
_ENTRIES_AT_ONCE = 20_000
"""The more wait, the more of each run go in one request: a server that is slow for each request is caught up with."""
_PASSED_AT_ONCE = 200
"""As many that are no results, or of trials that wait, are looked behind."""
_WRITE_S = 1.0
"""Seconds between two writes of mlflow.json. What a killed process had delivered since is found in MLflow."""
_METRICS_AT_ONCE = 1_000
"""MLflow takes no more in one request."""


def trial_params(plan: Plan, trial: Trial) -> dict[str, Any]:
    """Return the parameters of a trial's run, besides those of the whole sweep."""
    params: dict[str, Any] = {"model": trial.model_id, "seed": trial.seed}
    if trial.prompt is not None:
        params |= prompt_params(trial.prompt) | {
            **_reward_params(trial),
            "textures": trial.rendering.textures,
            "camera": trial.rendering.camera,
            "profile": trial.rendering.profile,
            PARAMETERS_MILLIONS: round(plan.models[trial.model_id].parameters / 1e6, 3),
            "precision": plan.sweep.pool.precision,
            "backend": plan.sweep.pool.backend,
            "score_every": plan.sweep.score_every,
            "score_between": plan.sweep.score_between,
        }
    if trial.sample is not None:
        drawn = {f"settings_{name}": value for name, value in setting_values(trial.sample.values or {}).items()}
        params |= {SAMPLE: trial.sample.number} | drawn
    return params


def _reward_params(trial: Trial) -> dict[str, Any]:
    """Return alpha; of a sweep that names rewards, the label, what the reward is and, if it has one, alpha."""
    if trial.reward is None:
        return {"alpha": trial.alpha}
    alpha = {} if trial.known_alpha is None else {"alpha": trial.known_alpha}
    return {REWARD: trial.reward.label, "reward_function": json.dumps(readable_reward(trial.reward.function))} | alpha


class MlflowMirror(threading.Thread):
    """Delivers the entries of a sweep's journal to MLflow, in order, each once: the only thread that talks to MLflow.

    While MLflow is unavailable, entries wait in the journal and the trials continue. An entry may have reached MLflow without
    this process knowing (it was killed, or the response was lost), so every write can be repeated: runs are found again by
    their tags, and a metric is skipped if its run has it at that step.

    mlflow.json names the last entry up to which everything is delivered, as of about a second ago. An entry that MLflow refuses does
    not block later ones, but the next execution of the sweep retries from there. Results that wait are delivered together: a request
    takes a server as long as a hundred metrics do.

    Args:
        journal: The sweep's journal.
        plan: The sweep.
        folder: The sweep's folder.
        tracking_uri: The MLflow server or database.
        say: Prints a line.

    Raises:
        UserError: The runs of this folder are in another MLflow store.
    """

    def __init__(
        self, journal: Journal, plan: Plan, folder: SweepFolder, tracking_uri: str, say: Callable[[str], None]
    ) -> None:
        super().__init__(name="mlflow-mirror", daemon=True)
        self._journal, self._plan, self._folder, self._say = journal, plan, folder, say
        self._tracking_uri = tracking_uri
        self._runs = _known_runs(folder, tracking_uri)
        # If that entry is missing (the journal was truncated or damaged), all entries are repeated.
        uids = [entry.uid for entry in journal.entries]
        self._next = uids.index(self._runs.delivered) + 1 if self._runs.delivered in uids else 0
        self._is_written = True
        self._written_at = -math.inf
        self._refused: set[str] = set()
        self._refusals = 0
        self._unattached = False
        self._trials = {trial.trial_id: trial for trial in plan.trials}
        self._of_samples: dict[int, list[str]] = {}
        """The trials of each sample of a search, by its number."""
        for trial in plan.trials:
            if trial.sample is not None:
                self._of_samples.setdefault(trial.sample.number, []).append(trial.trial_id)
        self._takeovers = taken_over(journal.entries[: self._next])
        """Those that have been delivered, by trial id."""
        self._steps: dict[tuple[str, str], set[int]] = {}
        self._made: set[str] = set()
        """Runs that this process has made: they have nothing that it has not logged."""
        self._reasoned: set[str] = set()
        """Runs that this process has given a reason."""
        self._ahead: set[str] = set()
        """Results that have been delivered before entries in front of them."""
        self._closing = threading.Event()
        self._moved_on = time.monotonic()

    @cached_property
    def _client(self) -> MlflowClient:
        """Created on first use: it opens the database, which may be unavailable."""
        return MlflowClient(self._tracking_uri)

    def undelivered(self) -> int:
        """Return the number of entries that have not reached MLflow."""
        return len(self._journal.entries) - self._next - len(self._ahead) + self._refusals

    def close(self, patience_s: float) -> int:
        """Wait until everything is delivered or MLflow stops accepting entries, then end the thread.

        Args:
            patience_s: Seconds without a delivery after which to give up.

        Returns:
            The number of entries that have not reached MLflow.
        """
        self._moved_on = time.monotonic()
        says_at = time.monotonic() + _SILENCE_S
        while self.is_alive() and self._waiting() and time.monotonic() - self._moved_on < patience_s:
            time.sleep(_POLL_S)
            if time.monotonic() > says_at:
                says_at = float("inf")
                self._say(f"{self._waiting()} entries are on their way to MLflow; Ctrl-C leaves them to --resume")
        self._closing.set()
        self.join(timeout=_SILENCE_S)
        self._write_runs()
        return self.undelivered()

    def _waiting(self) -> int:
        return len(self._journal.entries) - self._next

    def run(self) -> None:
        """Deliver entries until the mirror is closed."""
        failures = 0
        while True:
            self._journal.wait(self._next, _POLL_S)
            if not self._waiting():
                if self._closing.is_set():
                    return
                self._write_runs()
                continue
            try:
                delivered = self._deliver_next(last_try=failures >= _TRIES - 1)
            except Exception as error:
                if self._closing.is_set():
                    return
                if failures == 0:
                    self._say(f"MLflow does not answer ({self._reason(error)}): results wait in {self._folder.journal}")
                failures += 1
                self._forget()
                self._closing.wait(min(_LONGEST_WAIT_S, 2.0**failures / 4))
                continue
            self._next += delivered
            self._moved_on = time.monotonic()
            if failures:
                failures = 0
                self._say(f"MLflow answers again: {self._waiting() + delivered} entries follow")

    def _forget(self) -> None:
        """Forget what runs have: after an error it is unknown what has arrived of what it was about."""
        self._steps.clear()
        self._made.clear()

    def _deliver_next(self, last_try: bool) -> int:
        """Deliver the next entry, and results that wait behind it, and return how many entries are delivered without a gap."""
        entries = self._journal.entries
        if isinstance(entries[self._next], ResultLogged) and entries[self._next].uid not in self._ahead:
            results = self._ready_results()
            if len(results) > 1 and self._deliver_results(results):
                self._ahead.update(entry.uid for entry in results)
        count = 0
        while self._next + count < len(entries) and entries[self._next + count].uid in self._ahead:
            self._ahead.remove(entries[self._next + count].uid)
            count += 1
        if not count:
            self._deliver(entries[self._next], last_try)
            return 1
        if not self._refusals:
            self._keep(delivered=entries[self._next + count - 1].uid)
        return count

    def _ready_results(self) -> list[ResultLogged]:
        """Return the results that wait, of each trial up to its next entry of another kind: trials do not wait for each other."""
        entries, ready, held_up, passed = self._journal.entries, list[ResultLogged](), set[str](), 0
        for index in range(self._next, min(len(entries), self._next + _ENTRIES_AT_ONCE)):
            entry = entries[index]
            if isinstance(entry, SweepStarted | SweepEnded) or passed > _PASSED_AT_ONCE:
                break
            if isinstance(entry, ResultLogged) and entry.trial not in held_up:
                if entry.uid not in self._ahead:
                    ready.append(entry)
                continue
            passed += 1
            if not isinstance(entry, ResultLogged | SampleDrawn | ThresholdsMeasured):
                held_up.add(entry.trial)
        return ready

    def _deliver_results(self, results_of_all: Sequence[ResultLogged]) -> bool:
        """Write results, those of each run together. False: one of them is refused, so they have to be delivered one by one."""
        try:
            by_run: dict[str, list[ResultLogged]] = {}
            for entry in results_of_all:
                by_run.setdefault(self._run_of(entry.trial, entry.time), []).append(entry)
            for run_id, results in by_run.items():
                known = self._logged_steps(run_id, ENV_STEPS)
                new = {result.step: result for result in reversed(results) if result.step not in known}  # the first at a step
                for request in _requests([new[step] for step in sorted(new)]):
                    self._client.log_batch(run_id, metrics=request)
                known.update(new)
        except (MlflowException, UserError) as error:
            self._forget()
            if isinstance(error, UserError) or _is_refusal(error, last_try=True):
                return False
            raise
        return True

    def _deliver(self, entry: Entry, last_try: bool) -> None:
        """Write one entry. Temporary errors are raised; others are reported, and the entry is skipped."""
        try:
            getattr(self, f"_on_{entry.kind}")(entry)
            if not self._refusals:
                self._keep(delivered=entry.uid)
        except (MlflowException, UserError) as error:
            if isinstance(error, MlflowException) and not _is_refusal(error, last_try):
                raise
            self._refuse(error, entry.kind)

    def _refuse(self, error: Exception, kind: str) -> None:
        """Skip what MLflow does not take: retrying would block all later entries for ever."""
        self._refusals += 1
        message = f"MLflow does not get an entry of {self._folder.journal} ({kind}): {self._reason(error)}"
        if message not in self._refused:
            self._refused.add(message)
            self._say(message)

    def _reason(self, error: Exception) -> str:
        return hide_secrets(reason_of(error), self._tracking_uri)

    def _on_sweep(self, entry: SweepStarted) -> None:
        self._keep(experiment_id=experiment_id(self._client, self._tracking_uri, self._plan.sweep.name, self._folder.path))
        tags = self._tags() | {"sweep_id": entry.id}
        run_id = self._runs.run_id or self._found_or_made("", self._folder.path.name, tags, entry.time)
        self._client.update_run(run_id, status=RunStatus.RUNNING)
        if run_id != self._runs.run_id:
            self._describe(run_id, self._common | {"trials": len(self._trials)})
        try:
            self._attach(run_id, self._folder.sweep_file)
        except UserError as error:  # the trials' runs need this run, not its files
            self._refuse(error, entry.kind)
        # Last: only complete runs are recorded.
        self._keep(run_id=run_id)

    def _on_sample(self, entry: SampleDrawn) -> None:
        """Note what was drawn, for the runs of the sample's trials."""
        for trial_id in self._of_samples.get(entry.sample, ()):
            self._trials[trial_id] = self._trials[trial_id].drawn(entry.values)

    def _on_thresholds(self, entry: ThresholdsMeasured) -> None:
        """Do nothing: each trial's threshold is among its measures."""

    def _on_start(self, entry: TrialStarted) -> None:
        self._start(entry.trial, entry.time)

    def _start(self, trial_id: str, time_ms: int) -> None:
        trial = self._trials.get(trial_id)
        if trial is None:
            raise UserError(f"the sweep has no trial {trial_id!r}: the journal is damaged")
        label = trial.reward.label if trial.reward else None
        tags = self._tags() | child_tags(self._sweep_run(), trial.model_id, trial.known_alpha, trial.prompt_id, label)
        tags |= {
            "textures": trial.rendering.textures,
            "camera": trial.rendering.camera,
            "seed": str(trial.seed),
            "trial_id": trial.trial_id,
        }
        if trial.sample is not None:
            tags[SAMPLE] = str(trial.sample.number)
        tags |= self._link(trial.trial_id)
        known = self._runs.trials.get(trial.trial_id)
        run_id = known or self._found_or_made(trial.trial_id, trial.label, tags, time_ms)
        if known or run_id not in self._made:
            self._client.update_run(run_id, status=RunStatus.RUNNING)
        if known:
            return
        params = trial_params(self._plan, trial)
        # MLflow groups runs by parameters and plots metrics: this value is needed as both.
        at_start = {name: value for name, value in params.items() if name == PARAMETERS_MILLIONS}
        if trial.sample is not None and self._plan.sweep.compared_every is not None:
            at_start |= _over_steps(trial.sample.values or {})
        self._describe(run_id, self._common | params, _at_step(at_start, 0, time_ms))
        self._keep(trials=self._runs.trials | {trial.trial_id: run_id})

    def _describe(self, run_id: str, params: Mapping[str, Any], metrics: Sequence[Metric] = ()) -> None:
        """Log the parameters and metrics that the run lacks: existing ones record how it began, perhaps at another commit."""
        if run_id not in self._made:
            found = self._client.get_run(run_id).data
            params = {key: value for key, value in params.items() if key not in found.params}
            metrics = [each for each in metrics if each.key not in found.metrics]
        self._client.log_batch(run_id, metrics=metrics, params=as_params(params))

    def _log_once(self, run_id: str, step: int, metrics: Mapping[str, float], time_ms: int) -> None:
        """Log metrics that are always logged together, unless the run has one of them at that step already."""
        if not metrics:
            return
        known = self._logged_steps(run_id, ENV_STEPS if ENV_STEPS in metrics else min(metrics))
        if step not in known:
            self._client.log_batch(run_id, metrics=_at_step(metrics, step, time_ms))
            known.add(step)

    def _logged_steps(self, run_id: str, metric: str) -> set[int]:
        """Return the steps at which a run has a metric, asked for once."""
        if (run_id, metric) not in self._steps and run_id in self._made:
            self._steps[run_id, metric] = set()
        elif (run_id, metric) not in self._steps:
            self._steps[run_id, metric] = {each.step for each in self._client.get_metric_history(run_id, metric)}
        return self._steps[run_id, metric]

    def _experiment(self) -> str:
        if self._runs.experiment_id is None:
            raise UserError("the sweep has no MLflow experiment")
        return self._runs.experiment_id

    def _sweep_run(self) -> str:
        if self._runs.run_id is None:
            raise UserError("the sweep has no MLflow run")
        return self._runs.run_id

    def _run_of(self, trial_id: str, time_ms: int) -> str:
        """Return the run of a trial, which is started if needed, or of the sweep if the id is empty."""
        if not trial_id:
            return self._sweep_run()
        if trial_id not in self._runs.trials:
            self._start(trial_id, time_ms)  # it failed before it could start
        return self._runs.trials[trial_id]

    def _on_measure(self, entry: RewardMeasured) -> None:
        """Log what was measured before training, at step 0."""
        self._log_once(self._run_of(entry.trial, entry.time), 0, entry.metrics, entry.time)

    def _on_result(self, entry: ResultLogged) -> None:
        self._log_once(self._run_of(entry.trial, entry.time), entry.step, _metrics_of(entry), entry.time)

    def _on_takeover(self, entry: TakenOver) -> None:
        """Tag the run with all of its takeovers, and log what it goes on with from this step on."""
        run_id = self._run_of(entry.trial, entry.time)
        known = self._takeovers.setdefault(entry.trial, [])
        if entry not in known:  # else it is delivered again
            known.append(entry)
        told = "; ".join(f"at step {each.step:,} trial {each}" for each in known)
        tags = {TAKEOVERS: str(len(known)), "taken_over": told[-_MAX_TAG:]}
        self._client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])
        self._log_once(run_id, entry.step, _over_steps(entry.values), entry.time)

    def _on_end(self, entry: TrialEnded) -> None:
        run_id = self._run_of(entry.trial, entry.time)
        # A run that was made before may have none, or one to where the results were then.
        link = {} if run_id in self._made else self._link(entry.trial)
        if entry.tags or link:
            self._tag(run_id, entry.tags | link)
        has_perhaps = run_id not in self._made or run_id in self._reasoned
        if entry.status == RunStatus.FINISHED and has_perhaps and _REASON in self._client.get_run(run_id).data.tags:
            self._client.delete_tag(run_id, _REASON)  # of an earlier execution
        self._client.set_terminated(run_id, entry.status, entry.time)

    def _link(self, trial_id: str) -> dict[str, str]:
        """Return the tag that says where a trial's checkpoints are: a path, or an address, that others can follow."""
        return {"checkpoints": str(self._folder.trial_place(trial_id))}

    def _tag(self, run_id: str, tags: Mapping[str, str]) -> None:
        if _REASON in tags:
            self._reasoned.add(run_id)
        self._client.log_batch(run_id, tags=[RunTag(key, value[:_MAX_TAG]) for key, value in tags.items()])

    def _on_stop(self, entry: TrialStopped) -> None:
        """End the run of a trial that was stopped early: as finished if it was good enough, else as killed."""
        run_id = self._run_of(entry.trial, entry.time)
        tags = {"status": str(TrialStatus.STOPPED), "stopped_at_step": str(entry.step), _REASON: entry.reason}
        self._tag(run_id, tags | self._link(entry.trial))
        self._client.set_terminated(run_id, RunStatus.FINISHED if entry.reached else RunStatus.KILLED, entry.time)

    def _on_artifact(self, entry: FileWritten) -> None:
        run_id = self._run_of(entry.trial, entry.time)
        file = file_inside(self._folder.path, entry.file)
        if file.is_file():
            self._attach(run_id, file, entry.to)

    def _attach(self, run_id: str, file: Path, to: str | None = None) -> None:
        """Log a file, unless the database beside the sweep says that it belongs outside of the results folder."""
        results = self._folder.path.resolve().parent
        if sqlite_file(self._tracking_uri) != results / DATABASE or keeps_files_in(results, self._place_of(run_id)):
            self._upload(run_id, str(file), to)
        elif not self._unattached:
            place = self._place_of(run_id)
            self._say(
                f"MLflow keeps the files of these runs outside of {results} ({place}): they stay in the sweep's folder alone"
            )
            self._unattached = True

    def _place_of(self, run_id: str) -> str:
        """Return where MLflow keeps the files of a run."""
        return str(self._client.get_run(run_id).info.artifact_uri)

    def _upload(self, run_id: str, file: str, to: str | None = None) -> None:
        """Upload a file.

        Raises:
            UserError: Artifacts cannot be written though MLflow answers, which concerns no other entry.
        """
        try:
            self._client.log_artifact(run_id, file, to)
        except Exception as error:  # whatever a store of artifacts raises: a disk, S3, a proxy
            if isinstance(error, MlflowException) and error.error_code in _TEMPORARY:
                raise
            place = without_secrets(self._place_of(run_id))
            raise UserError(f"no artifact can be written to {place}: {reason_of(error)}") from error

    def _on_sweep_end(self, entry: SweepEnded) -> None:
        run_id = self._sweep_run()
        self._log_once(run_id, entry.step, entry.metrics, entry.time)
        self._client.set_terminated(run_id, entry.status, entry.time)

    def _found_or_made(self, trial_id: str, name: str, tags: Mapping[str, str], time_ms: int) -> str:
        """Find or create the run of a trial, or of the sweep if the id is empty."""
        # A run that this process has made for the sweep has no children of other processes.
        run_id = None if trial_id and self._runs.run_id in self._made else self._find_run(trial_id, tags)
        if run_id is None:
            made = self._client.create_run(self._experiment(), time_ms, tags=dict(tags), run_name=name)
            run_id = str(made.info.run_id)
            self._made.add(run_id)
        return run_id

    def _find_run(self, trial_id: str, tags: Mapping[str, str]) -> str | None:
        if trial_id:
            condition = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{self._runs.run_id}' and tags.trial_id = '{trial_id}'"
        else:
            condition = f"tags.sweep_id = '{tags['sweep_id']}'"
        runs = self._client.search_runs([self._experiment()], condition, max_results=1)
        return runs[0].info.run_id if runs else None

    def _tags(self) -> dict[str, str]:
        return parent_tags(self._folder.path, self._plan.task.name)

    @cached_property
    def _common(self) -> dict[str, Any]:
        """The parameters that the sweep's run and each trial's run share. To find them takes longer than to log them."""
        settings = {f"settings_{key}": value for key, value in self._plan.sweep.settings.items()}
        control = {f"control_{key}": value for key, value in self._plan.sweep.control.model_dump(exclude_defaults=True).items()}
        sweep = self._plan.sweep
        described = {"task": self._plan.task.name, "algorithm": sweep.algorithm, "steps": sweep.steps}
        return described | settings | control | environment_params()

    def _keep(self, **changed: Any) -> None:
        """Note what is known of the runs. The file grows with the trials, so it is not written anew for each entry."""
        self._runs = self._runs.model_copy(update=changed)
        self._is_written = False
        if time.monotonic() - self._written_at >= _WRITE_S:
            self._write_runs()

    def _write_runs(self) -> None:
        if self._is_written:
            return
        runs = self._runs
        with suppress(OSError):  # a full disk: what is not written is delivered again, which changes nothing
            runs.write(self._folder.mlflow)
            self._written_at = time.monotonic()
            self._is_written = self._runs is runs


def _known_runs(folder: SweepFolder, tracking_uri: str) -> RunsFile:
    """Read mlflow.json; without runs if it is missing or damaged.

    Raises:
        UserError: The runs are in another MLflow store.
    """
    named = without_secrets(tracking_uri)
    try:
        found = read_runs_file(folder.mlflow)
    except DamagedFileError:
        return RunsFile(tracking_uri=named)
    # Results that were moved, or a server at a new address, are recognised by the runs in them.
    if found.tracking_uri != named and not (found.run_id and has_run(tracking_uri, found.run_id)):
        raise UserError(
            f"the runs of {folder.path} are in {found.tracking_uri}, not in {named}: name that with --tracking-uri, or where "
            "it has moved to"
        )
    return found.model_copy(update={"tracking_uri": named})


def _metrics_of(entry: ResultLogged) -> dict[str, float]:
    return entry.metrics | {ENV_STEPS: float(entry.step)}


def _over_steps(values: Mapping[str, Drawn]) -> dict[str, float]:
    """Return drawn settings that are numbers as metrics, for a training in which they change."""
    numbers = {name: value for name, value in setting_values(values).items() if isinstance(value, int | float)}
    return {SETTING_OVER_STEPS + name: float(value) for name, value in numbers.items()}


def _at_step(metrics: Mapping[str, float], step: int, time_ms: int) -> list[Metric]:
    return [Metric(name, value, time_ms, step) for name, value in metrics.items()]


def _requests(results: Sequence[ResultLogged]) -> Iterator[list[Metric]]:
    """Divide the metrics of results into requests that MLflow takes, each with whole results."""
    request: list[Metric] = []
    for result in results:
        metrics = _at_step(_metrics_of(result), result.step, result.time)
        if request and len(request) + len(metrics) > _METRICS_AT_ONCE:
            yield request
            request = []
        request += metrics
    if request:
        yield request


def _is_refusal(error: MlflowException, last_try: bool) -> bool:
    return error.error_code in _REFUSALS or (error.error_code == _PERHAPS_REFUSED and last_try)
