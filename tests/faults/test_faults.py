"""Real small sweeps, disturbed at random moments, must leave what an undisturbed one leaves.

`make test-faults` injects at least 20 faults of all kinds (FAULTS=, with the random SEED= that it prints), prints a table and
writes it to FAULTS_TABLE; one sweep with two faults is part of the fast tests. After each sweep,

- every transition in the replay buffer of every trial must be there once, with the reward of an undisturbed scoring;
- MLflow must have one run for the sweep and one for each trial, each of their metrics once at each step, and the parameters, tags
  and artifacts of the undisturbed one;
- the final table must be that of the undisturbed sweep.

A fault that makes trials fail for good is taken away, and the sweep resumed, before that is checked.
"""

import itertools
import json
import os
import pickle
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest
import ray
import yaml
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from mlflow_server import MlflowServer

from vlm_rm_sweeps.cli.terminal import EXIT_FAILED
from vlm_rm_sweeps.metrics import RunStatus
from vlm_rm_sweeps.rewards.registry import load_reward_model
from vlm_rm_sweeps.rewards.reward_model import RewardSpec
from vlm_rm_sweeps.sweeping.config.sweep import Sweep
from vlm_rm_sweeps.sweeping.execution.run_sweep import run_sweep
from vlm_rm_sweeps.sweeping.tracking.journal import (
    Entry,
    FileWritten,
    ResultLogged,
    SweepEnded,
    TrialEnded,
    ended_trials,
    read_entries,
)

SWEEP: dict[str, Any] = {
    "name": "faults",
    "task": "cartpole-upright",
    "models": ["embedded/tiny"],
    "alphas": [0.5],
    # Starting all processes takes a small machine longer than these steps.
    "steps": 6000,
    "steps_per_result": 500,
    "checkpoint_every": 1000,
    "evaluation_episodes": 2,
    "epic_states": 20,
    "settings": {"learning_starts": 250, "updates_per_step": 0.05},
    # Many times what the largest request takes, also where the machine has other things to do.
    "pool": {"timeout_s": 30},
    "trial": {"retries": 100},
}
SHORT: dict[str, Any] = SWEEP | {
    "steps": 640,
    "steps_per_result": 128,
    "checkpoint_every": 128,
    "true_reward": False,
    "videos": False,
    "epic_states": 0,
}
_DRIVER = Path(__file__).parent / "driver.py"
_FAULTS_IN_A_SWEEP = 5
_MOST_SWEEPS = 6
_LONGEST_ATTEMPT_S = 900
_LONGEST_FAULT_S = 120
_UNREPEATABLE = ("seconds", "per_second", "micro_batch")
_SERVER, _TRIAL = "RewardServer", "TrainableTrial"
_SOONEST_NEW_SERVER_MS = 1000
"""Importing torch alone takes longer. A result that comes sooner after a kill was scored before it."""


class Driver:
    """`vlm-rm sweep --resume` in a process of its own, started again as often as it is stopped.

    `cluster`: the process whose children Ray's processes are, if it is not the driver itself that starts Ray.
    """

    def __init__(self, results: Path, sweep: dict[str, Any], cluster: psutil.Process | None = None, **environment: str) -> None:
        self.results = results
        self.file = results / "sweep.yaml"
        self.file.write_text(yaml.safe_dump(sweep))
        self.asked = results / "asked"
        self.asked.mkdir()
        self._environment = os.environ | {"FAULTS_FOLDER": str(self.asked)} | environment
        self._cluster = cluster
        self.log = results / "driver.log"
        self.attempts = 0
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.attempts += 1
        arguments = ["sweep", str(self.file), "--results", str(self.results), "--resume"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(_DRIVER), *arguments],
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,
            )

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def exit_status(self) -> int:
        assert self.process is not None
        assert self.process.returncode is not None
        return self.process.returncode

    @property
    def folder(self) -> Path | None:
        return next(iter(sorted(self.results.glob("faults-2*"))), None)

    def journal(self) -> list[Entry]:
        return read_entries(self.folder / "journal.jsonl") if self.folder else []

    def progress(self) -> int:
        """How much of the sweep has happened: results, ends of trials, videos, the table. Nothing counts twice."""
        done = [
            entry
            for entry in self.journal()
            if isinstance(entry, ResultLogged | FileWritten)
            or (isinstance(entry, TrialEnded) and entry.status == RunStatus.FINISHED)
        ]
        return len({(entry.kind, entry.trial, getattr(entry, "step", None), getattr(entry, "file", None)) for entry in done})

    def results_written(self) -> list[ResultLogged]:
        return [entry for entry in self.journal() if isinstance(entry, ResultLogged)]

    def scored_results(self) -> list[ResultLogged]:
        """Those of trials that need a reward server."""
        return [entry for entry in self.results_written() if "micro_batch" in entry.metrics]

    def stop(self, how: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(how)
        self.process.wait(timeout=300)

    def press_ctrl_c(self) -> None:
        """As a terminal does it: for all processes in its group."""
        assert self.process is not None
        with suppress(ProcessLookupError):  # it has just ended
            os.killpg(self.process.pid, signal.SIGINT)
        self.process.wait(timeout=300)

    def runs(self) -> list[Run]:
        """Those of this sweep in its MLflow."""
        assert self.folder is not None
        client = MlflowClient(json.loads((self.folder / "mlflow.json").read_text())["tracking_uri"])
        experiment = client.get_experiment_by_name("faults")
        assert experiment is not None
        return list(client.search_runs([experiment.experiment_id]))

    def workers(self, name: str) -> list[psutil.Process]:
        """Processes of this sweep's cluster in which actors of this class live."""
        assert self.process is not None
        found = []
        with suppress(psutil.Error):
            for child in (self._cluster or psutil.Process(self.process.pid)).children(recursive=True):
                with suppress(psutil.Error):
                    if name in " ".join(child.cmdline()):
                        found.append(child)
        return found

    def newest_checkpoint(self) -> Path | None:
        """Of the trials that will go on from one."""
        finished = [trial for trial, status in ended_trials(self.journal()).items() if status == "FINISHED"]
        states = self.folder.glob("trials/*/step-*/state.pkl") if self.folder else []
        return max((state for state in states if state.parts[-3] not in finished), default=None)


def kill_server(driver: Driver, rng: random.Random) -> bool:
    return _signal_worker(driver, _SERVER, signal.SIGKILL, rng)


def hang_server(driver: Driver, rng: random.Random) -> bool:
    return _signal_worker(driver, _SERVER, signal.SIGSTOP, rng)


def kill_env_runner(driver: Driver, rng: random.Random) -> bool:
    """The environments live in the trial's own process."""
    return _signal_worker(driver, _TRIAL, signal.SIGKILL, rng)


def _signal_worker(driver: Driver, name: str, how: signal.Signals, rng: random.Random) -> bool:
    workers = driver.workers(name)
    if not workers:
        return False
    with suppress(psutil.NoSuchProcess):
        rng.choice(workers).send_signal(how)
        return True
    return False


def server_out_of_memory(driver: Driver, rng: random.Random) -> bool:
    return _asked(driver, "out-of-memory")


def model_gives_nan(driver: Driver, rng: random.Random) -> bool:
    return _asked(driver, "not-a-number")


def trial_raises(driver: Driver, rng: random.Random) -> bool:
    return _asked(driver, "raises")


def _asked(driver: Driver, fault: str) -> bool:
    """Ask for a fault of driver.py, until somebody has it."""
    file = driver.asked / fault
    file.touch()
    while driver.running:
        if not file.exists():
            return True
        time.sleep(0.05)
    file.unlink(missing_ok=True)
    return False


def kill_driver(driver: Driver, rng: random.Random) -> bool:
    driver.stop(signal.SIGKILL)
    return driver.exit_status == -signal.SIGKILL


def press_ctrl_c(driver: Driver, rng: random.Random) -> bool:
    trials_run = bool(driver.workers(_TRIAL))
    driver.press_ctrl_c()
    if driver.exit_status == 0:
        return False  # it had just ended
    said = driver.log.read_text()
    assert driver.exit_status == 130, said[-3000:]
    assert "interrupted: " in said
    if trials_run:
        ended = driver.journal()[-1]
        assert isinstance(ended, SweepEnded)
        status = ended.status
        assert status in ("KILLED", "FINISHED")
        if "have not reached MLflow" not in said:
            statuses = {run.data.tags.get("trial_id", ""): run.info.status for run in driver.runs()}
            assert statuses.pop("") == status
            assert set(statuses.values()) <= {"KILLED", "FINISHED"}
    return True


def cut_checkpoint_short(driver: Driver, rng: random.Random) -> bool:
    if driver.newest_checkpoint() is None:
        return False
    driver.stop(signal.SIGKILL)
    newest = driver.newest_checkpoint()
    if newest is None:
        return False  # its trial has just finished
    content = newest.read_bytes()
    newest.write_bytes(content[: rng.randrange(len(content))])
    return True


def cut_journal_short(driver: Driver, rng: random.Random) -> bool:
    if len(driver.journal()) < 2:
        return False
    driver.stop(signal.SIGKILL)
    assert driver.folder is not None
    journal = driver.folder / "journal.jsonl"
    content = journal.read_bytes()
    # The first line says which sweep it is; from there on anything may be lost.
    journal.write_bytes(content[: rng.randrange(content.index(b"\n") + 1, len(content))])
    return True


def fill_disk(driver: Driver, rng: random.Random) -> bool:
    """No file of a trial's process can grow beyond half a checkpoint, until a checkpoint could not be written."""
    newest, workers = driver.newest_checkpoint(), driver.workers(_TRIAL)
    if newest is None or not workers:
        return False
    room, failures = newest.stat().st_size // 2, _failed_checkpoints(driver)
    for worker in workers:
        with suppress(psutil.Error):
            worker.rlimit(psutil.RLIMIT_FSIZE, (room, -1))
    until = time.monotonic() + _LONGEST_FAULT_S
    while _failed_checkpoints(driver) == failures and any(worker.is_running() for worker in workers):
        if time.monotonic() > until:
            break
        time.sleep(0.1)
    for worker in workers:
        with suppress(psutil.Error):
            worker.rlimit(psutil.RLIMIT_FSIZE, (-1, -1))
    return _failed_checkpoints(driver) > failures


def _failed_checkpoints(driver: Driver) -> int:
    return driver.log.read_text().count("o checkpoint at step") + driver.log.read_text().count(
        "checkpoint could not be written"
    )


def lock_database(driver: Driver, rng: random.Random) -> bool:
    """For longer than MLflow itself waits, which is 20 s."""
    if not driver.workers(_TRIAL):
        return False  # a sweep does not start without its database
    with closing(sqlite3.connect(driver.results / "mlflow.db", isolation_level=None, timeout=60)) as other:
        other.execute("BEGIN EXCLUSIVE")
        time.sleep(rng.uniform(25, 40))
        other.execute("ROLLBACK")
    return True


Fault = Callable[[Driver, random.Random], bool]
"""Causes something, and returns whether it could."""
SERVER_KILLED, DRIVER_KILLED, MLFLOW_AWAY = "reward server killed", "driver killed", "MLflow server away"
FAULTS: dict[str, Fault] = {
    SERVER_KILLED: kill_server,
    "reward server hung": hang_server,
    "reward server out of memory": server_out_of_memory,
    "NaN from the model": model_gives_nan,
    "trial raises": trial_raises,
    "env runner killed": kill_env_runner,
    DRIVER_KILLED: kill_driver,
    "Ctrl-C": press_ctrl_c,
    "checkpoint cut short": cut_checkpoint_short,
    "journal cut short": cut_journal_short,
    "disk full": fill_disk,
    "database locked": lock_database,
}


AT_ANY_TIME = (SERVER_KILLED, "reward server hung", DRIVER_KILLED, "Ctrl-C", "journal cut short")


@dataclass
class Findings:
    """What the disturbed sweeps left, compared with the undisturbed one.

    `recoveries`: seconds from the kill of the only reward server to the next result of a trial that needs it, where nothing else
    happened in between. That is how long a user sees nothing, and includes what any result takes (`between_results`, seconds,
    in the undisturbed sweep).
    """

    faults: Counter[str] = field(default_factory=Counter)
    sweeps: int = 0
    transitions: int = 0
    lost: int = 0
    wrong: int = 0
    doubled_or_missing_runs: int = 0
    doubled_or_missing_metrics: int = 0
    different_runs: int = 0
    different_tables: int = 0
    recoveries: list[float] = field(default_factory=list)
    between_results: float = float("nan")

    def table(self) -> str:
        rows: dict[str, str | int] = {**dict(sorted(self.faults.items())), "faults in all": self.faults.total()}
        rows |= {name.replace("_", " "): value for name, value in vars(self).items() if isinstance(value, int)}
        if self.recoveries:
            worst = f"{max(self.recoveries):.1f} s worst, of {len(self.recoveries)}"
            rows["killed server to result"] = f"{median(self.recoveries):.1f} s median, {worst}"
            rows["result to result"] = f"{self.between_results:.1f} s median, undisturbed"
        return "\n".join(f"  {name:28s} {value:>6}" for name, value in rows.items())

    def nothing_lost(self) -> bool:
        found = (self.lost, self.wrong, self.doubled_or_missing_runs, self.doubled_or_missing_metrics)
        return self.transitions > 0 and not any((*found, self.different_runs, self.different_tables))


class RecoveryClock:
    """Seconds from the kill of the only reward server to the next result of a trial that needs it, if nothing else comes between."""

    def __init__(self) -> None:
        self._killed_ms: float | None = None
        self._results_at_start = 0

    @property
    def runs(self) -> bool:
        return self._killed_ms is not None

    def attempt_starts(self, results: list[ResultLogged]) -> None:
        self._killed_ms, self._results_at_start = None, len(results)

    def fault(self, fault: str, at_ms: float, results: list[ResultLogged]) -> None:
        # Before the first result of an attempt its trials are being started.
        measured = fault == SERVER_KILLED and len(results) > self._results_at_start
        self._killed_ms = at_ms if measured else None

    def stop(self, results: list[ResultLogged]) -> list[float]:
        """The time if it is over, else nothing."""
        if self._killed_ms is None:
            return []
        since_ms = [result.time - self._killed_ms for result in results]
        found = [each / 1000 for each in since_ms if each > _SOONEST_NEW_SERVER_MS][:1]
        self._killed_ms = None if found else self._killed_ms
        return found


def run_disturbed(driver: Driver, faults: list[str], moments: list[int], rng: random.Random, findings: Findings) -> None:
    """Run a sweep to its end; inject each fault when its progress is as large as `moments` says, or as soon after as it can be."""
    waiting = sorted(zip(moments, faults, strict=True))
    clock, injected = RecoveryClock(), []
    driver.start()
    started = attempt_started = time.monotonic()
    while driver.running:
        if time.monotonic() > attempt_started + _LONGEST_ATTEMPT_S:
            driver.stop(signal.SIGKILL)
            raise AssertionError(f"no end after {_LONGEST_ATTEMPT_S} s:\n{driver.log.read_text()[-3000:]}")
        time.sleep(0.2)
        findings.recoveries += clock.stop(driver.scored_results())
        for each in [each for each in waiting if driver.folder and driver.progress() >= each[0]]:
            time.sleep(rng.uniform(0, 1))
            fault, at_ms = each[1], time.time() * 1000
            if fault == SERVER_KILLED and clock.runs:
                continue
            if driver.running and FAULTS[fault](driver, rng):
                waiting.remove(each)
                injected.append(fault)
                clock.fault(fault, at_ms, driver.scored_results())
                break
        if not driver.running and driver.exit_status in (-signal.SIGKILL, 130):
            clock.attempt_starts(driver.scored_results())
            driver.start()
            attempt_started = time.monotonic()
    seconds = time.monotonic() - started
    print(f"  {seconds:.0f} s, {driver.attempts} attempts: {', '.join(injected) or 'undisturbed'}", flush=True)
    findings.faults.update(injected)
    assert driver.exit_status == 0, driver.log.read_text()[-3000:]


def replay_buffers(folder: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """By trial: observations and rewards of all transitions in the replay buffer of its last checkpoint."""
    buffers = {}
    for trial in sorted((folder / "trials").iterdir()):
        state = pickle.loads(sorted(trial.glob("step-*/state.pkl"))[-1].read_bytes())
        columns = state["transitions"]["columns"]
        buffers[trial.name] = (columns["new_obs"], columns["rewards"])
    return buffers


@dataclass(frozen=True)
class Logged:
    """What MLflow has of a run, without what no two runs have in common."""

    metrics: dict[str, list[tuple[int, float]]]
    described: tuple[dict[str, str], dict[str, str], set[str]]

    @classmethod
    def of(cls, client: MlflowClient, run: Run, folder: Path) -> "Logged":
        assert run.info.status == "FINISHED"
        metrics = {
            key: [
                (metric.step, 0.0 if any(part in key for part in _UNREPEATABLE) else metric.value)
                for metric in client.get_metric_history(run.info.run_id, key)
            ]
            for key in run.data.metrics
        }
        own = ("sweep", "sweep_id")
        tags = {key: value for key, value in run.data.tags.items() if key not in own and not key.startswith("mlflow.")}
        if "checkpoints" in tags:  # a path, which can be followed
            tags["checkpoints"] = str(Path(tags["checkpoints"]).relative_to(folder.resolve()))
        params = {key: value for key, value in run.data.params.items() if key != "git_commit"}
        files = client.list_artifacts(run.info.run_id) + client.list_artifacts(run.info.run_id, "video")
        return cls(metrics, (params, tags, {file.path for file in files}))


def logged(folder: Path) -> dict[str, Logged]:
    """What MLflow has, by trial. Trials with more than one run appear as `<id> again`."""
    client = MlflowClient(json.loads((folder / "mlflow.json").read_text())["tracking_uri"])
    experiment = client.get_experiment_by_name("faults")
    assert experiment is not None
    found: dict[str, Logged] = {}
    for run in client.search_runs([experiment.experiment_id]):
        name = run.data.tags.get("trial_id", "sweep")
        while name in found:
            name += " again"
        found[name] = Logged.of(client, run, folder)
    return found


def compare(findings: Findings, folder: Path, expected: Path) -> None:
    """Add to the findings what differs between the folder of a disturbed sweep and that of an undisturbed one."""
    findings.sweeps += 1
    buffers = replay_buffers(folder)
    for trial, (right_observations, right_rewards) in replay_buffers(expected).items():
        findings.transitions += len(right_rewards)
        if trial not in buffers:
            findings.lost += len(right_rewards)
            continue
        observations, rewards = buffers[trial]
        findings.lost += abs(len(right_rewards) - len(rewards)) + int(np.isnan(rewards).sum())
        if len(rewards) == len(right_rewards):
            findings.wrong += int((rewards != right_rewards).sum())
            findings.wrong += int((observations != right_observations).any(axis=1).sum())
    runs, right_runs = logged(folder), logged(expected)
    findings.doubled_or_missing_runs += len(runs.keys() ^ right_runs.keys())
    for name in runs.keys() & right_runs.keys():
        metrics, right_metrics = runs[name].metrics, right_runs[name].metrics
        for key in metrics.keys() | right_metrics.keys():
            findings.doubled_or_missing_metrics += metrics.get(key) != right_metrics.get(key)
        findings.different_runs += runs[name].described != right_runs[name].described
    tables = [pd.read_csv(each / "trials.csv").drop(columns="steps_per_second") for each in (folder, expected)]
    findings.different_tables += not tables[0].equals(tables[1])


def disturb(results: Path, faults: list[str], rng: random.Random, findings: Findings, **environment: str) -> Driver:
    """A sweep in a new folder with these faults at random moments, one in each part of it."""
    results.mkdir()
    driver = Driver(results, SWEEP, **environment)
    results_of_a_trial = SWEEP["steps"] // SWEEP["steps_per_result"]
    # Of both trials: results and the end, which is after the evaluation; then the videos, and table and EPIC as artifacts.
    whole = 2 * (results_of_a_trial + 1) + 2
    if not any(fault in AT_ANY_TIME for fault in faults):
        whole = results_of_a_trial  # so long at least one of the two is trained
    parts = [round(whole * part / len(faults)) for part in range(len(faults) + 1)] if faults else []
    moments = [rng.randrange(first, last) for first, last in itertools.pairwise(parts)]
    run_disturbed(driver, _in_order(faults, rng), moments, rng, findings)
    return driver


def _in_order(faults: list[str], rng: random.Random) -> list[str]:
    """Any, but last one that can also happen while nothing is trained any more."""
    shuffled = rng.sample(faults, len(faults))
    last = next((fault for fault in shuffled if fault in AT_ANY_TIME), None)
    return [fault for fault in shuffled if fault != last] + [fault for fault in shuffled if fault == last]


@pytest.fixture(scope="module")
def rng() -> random.Random:
    seed = int(os.environ.get("SEED", random.SystemRandom().randrange(10**6)))
    print(f"\nSEED={seed}", flush=True)
    return random.Random(seed)


@pytest.fixture(scope="module")
def findings() -> Iterator[Findings]:
    """Of the whole suite; its table is printed at the end, and written to FAULTS_TABLE."""
    found = Findings()
    yield found
    print(f"\n{found.table()}")
    if "FAULTS_TABLE" in os.environ:
        file = Path(os.environ["FAULTS_TABLE"])
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(found.table() + "\n")
        print(f"written to {file}")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, rng: random.Random, findings: Findings) -> Path:
    """The folder of a sweep that was left alone."""
    driver = disturb(tmp_path_factory.mktemp("faults") / "undisturbed", [], rng, findings)
    assert driver.folder is not None
    times = [entry.time for entry in driver.scored_results()]
    findings.between_results = float(np.median(np.diff(times))) / 1000
    return driver.folder


@pytest.fixture(scope="module")
def kinds() -> list[str]:
    """The faults after which a sweep must end as if nothing had happened."""
    frames = np.random.default_rng(0).integers(0, 256, (64, 64, 64, 3), np.uint8)
    spec = RewardSpec(("pole vertically upright on top of the cart",), ("pole and cart",), 0.5)
    whole, half = (load_reward_model("embedded/tiny", micro_batch=size).score(frames, [spec]) for size in (64, 32))
    if np.array_equal(whole, half):
        return list(FAULTS)
    print("rewards depend on the size of micro-batches on this machine, so no server runs out of memory")
    return [fault for fault in FAULTS if FAULTS[fault] is not server_out_of_memory]


def rarest(kinds: list[str], count: int, findings: Findings, rng: random.Random) -> list[str]:
    """Those that there were fewest of."""
    return sorted(kinds, key=lambda fault: (findings.faults[fault], rng.random()))[:count]


@pytest.mark.sweeps
def test_a_sweep_survives_a_killed_driver_and_server(
    ray_cluster: None, tmp_path: Path, rng: random.Random, mlflow_database: Path
) -> None:
    """The short version: in the tests' own cluster, compared with a sweep that was left alone."""
    found = Findings()
    sweep, uri = Sweep.model_validate(SHORT), f"sqlite:///{mlflow_database}"
    expected = run_sweep(sweep, tmp_path, uri, lambda line: None).folder
    (tmp_path / "disturbed").mkdir()
    address = ray.get_runtime_context().gcs_address
    driver = Driver(tmp_path / "disturbed", SHORT, cluster=psutil.Process(), RAY_ADDRESS=address)
    run_disturbed(driver, [DRIVER_KILLED, SERVER_KILLED], [1, 2], rng, found)
    assert driver.folder is not None
    compare(found, driver.folder, expected)
    assert found.faults == {DRIVER_KILLED: 1, SERVER_KILLED: 1}
    assert found.transitions == 640
    assert found.nothing_lost(), found.table()


@pytest.mark.faults
def test_a_driver_killed_three_times(tmp_path: Path, rng: random.Random, findings: Findings, undisturbed: Path) -> None:
    driver = disturb(tmp_path / "disturbed", [DRIVER_KILLED] * 3, rng, findings)
    assert driver.folder is not None
    compare(findings, driver.folder, undisturbed)
    assert driver.attempts == 4
    assert findings.nothing_lost(), findings.table()


@pytest.mark.faults
def test_a_reward_server_killed_again_and_again(
    tmp_path: Path, rng: random.Random, findings: Findings, undisturbed: Path
) -> None:
    driver = disturb(tmp_path / "disturbed", [SERVER_KILLED] * 4, rng, findings)
    assert driver.folder is not None
    compare(findings, driver.folder, undisturbed)
    assert driver.attempts == 1
    assert findings.recoveries
    assert findings.nothing_lost(), findings.table()


class PassingServer(MlflowServer):
    """An MLflow server that goes away for a while."""

    def go_away(self, driver: Driver, rng: random.Random) -> bool:
        if not driver.workers(_TRIAL):
            return False  # a sweep does not start without its server
        self.stop()
        time.sleep(rng.uniform(120, 180))
        assert "MLflow does not answer" in driver.log.read_text()
        self.start()
        if not driver.running:
            # The sweep has ended meanwhile, and has said what brings the rest to MLflow.
            assert "--resume tries them again" in driver.log.read_text()
            driver.start()
        return True


@pytest.fixture
def mlflow_server(tmp_path: Path) -> Iterator[PassingServer]:
    server = PassingServer(tmp_path / "mlflow.db")
    server.start()
    yield server
    server.stop()


@pytest.mark.faults
def test_an_mlflow_server_that_is_away(
    tmp_path: Path,
    rng: random.Random,
    findings: Findings,
    undisturbed: Path,
    mlflow_server: PassingServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(FAULTS, MLFLOW_AWAY, mlflow_server.go_away)
    driver = disturb(tmp_path / "disturbed", [MLFLOW_AWAY], rng, findings, MLFLOW_TRACKING_URI=mlflow_server.url)
    assert driver.folder is not None
    compare(findings, driver.folder, undisturbed)
    assert "MLflow answers again" in driver.log.read_text() or driver.attempts > 1
    assert findings.nothing_lost(), findings.table()


FOR_GOOD = {
    "trial that always raises": ("keeps-raising", "RuntimeError: the same as before"),
    "memory never suffices": ("never-enough-memory", "ran out of memory with a single frame"),
    "env runner that keeps dying": ("keeps-dying", "died"),
}
"""Faults that end a trial: the file that asks for it, and what the reason says."""


@pytest.mark.faults
def test_what_fails_for_good_is_named_and_mended_by_resuming(
    tmp_path: Path, rng: random.Random, findings: Findings, undisturbed: Path
) -> None:
    results = tmp_path / "disturbed"
    results.mkdir()
    driver = Driver(results, SWEEP | {"trial": {"retries": 1}})
    for fault, (asked, reason) in FOR_GOOD.items():
        # Of 12 results; each fault is noticed one later.
        moment = len(driver.scored_results()) + rng.randint(1, 2)
        driver.start()
        while driver.running and len(driver.scored_results()) < moment:
            time.sleep(0.2)
        (driver.asked / asked).touch()
        assert driver.process is not None
        assert driver.process.wait(_LONGEST_ATTEMPT_S) == EXIT_FAILED, driver.log.read_text()[-3000:]
        assert reason in driver.log.read_text().split("trials: the greedy policy at the end")[-1]
        (driver.asked / asked).unlink()
        findings.faults[fault] += 1
    run_disturbed(driver, [], [], rng, findings)
    assert driver.folder is not None
    compare(findings, driver.folder, undisturbed)
    assert findings.nothing_lost(), findings.table()


@pytest.mark.faults
def test_every_kind_of_fault(
    tmp_path: Path, rng: random.Random, findings: Findings, undisturbed: Path, kinds: list[str]
) -> None:
    wanted = int(os.environ.get("FAULTS", "20"))
    number = 0
    while findings.faults.total() < wanted or (number < _MOST_SWEEPS and any(not findings.faults[kind] for kind in kinds)):
        driver = disturb(tmp_path / str(number), rarest(kinds, _FAULTS_IN_A_SWEEP, findings, rng), rng, findings)
        assert driver.folder is not None
        compare(findings, driver.folder, undisturbed)
        number += 1
    assert findings.nothing_lost(), findings.table()
    assert not [kind for kind in kinds if not findings.faults[kind]]
