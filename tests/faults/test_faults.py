"""Real small sweeps, disturbed from outside at random moments, must leave what an undisturbed one leaves.

`make test-faults` injects at least 20 faults of all kinds (FAULTS=, with the random SEED= that it prints) and prints a table;
one sweep with a few faults is part of the fast tests. After each sweep,

- every transition in the replay buffer of every trial must be there once, with the reward of an undisturbed scoring;
- MLflow must have one run for the sweep and one for each trial, and each of their metrics once at each step;
- the final table must be that of the undisturbed sweep.

Trials that raise, and rewards that are not finite, are in tests/sweeping/test_runner.py and tests/serving/test_pool.py: they cannot
be caused from outside.
"""

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
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest
import yaml
from mlflow.tracking import MlflowClient

SWEEP: dict[str, Any] = {
    "name": "faults",
    "task": "cartpole-upright",
    "models": ["embedded/tiny"],
    "alphas": [0.5],
    "steps": 3000,
    "steps_per_result": 250,
    "checkpoint_every": 500,
    "evaluation_episodes": 2,
    "videos": False,
    "settings": {"learning_starts": 250, "updates_per_step": 0.05},
    "pool": {"timeout_s": 15},
    "trial": {"retries": 100},
}
_LONGEST_ATTEMPT_S = 900
_UNREPEATABLE = ("seconds", "per_second")
_SERVER, _TRIAL = "RewardServer", "TrainableTrial"


class Driver:
    """`vlm-rm sweep --resume` in a process of its own, started again as often as it is stopped."""

    def __init__(self, results: Path, sweep: dict[str, Any], environment: dict[str, str] | None = None) -> None:
        self.results = results
        self.file = results / "sweep.yaml"
        self.file.write_text(yaml.safe_dump(sweep))
        self._environment = os.environ | (environment or {})
        self.log = results / "driver.log"
        self.attempts = 0
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.attempts += 1
        command = "from vlm_rm_sweeps.cli import main; main()"
        arguments = ["sweep", str(self.file), "--results", str(self.results), "--resume"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", command, *arguments],
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,
            )

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def folder(self) -> Path | None:
        return next(iter(sorted(self.results.glob("faults-2*"))), None)

    def results_written(self) -> int:
        journal = self.folder / "journal.jsonl" if self.folder else None
        return journal.read_bytes().count(b'"kind": "result"') if journal and journal.is_file() else 0

    def stop(self, how: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(how)
        self.process.wait(timeout=300)

    def workers(self, name: str) -> list[psutil.Process]:
        """Processes of this sweep's cluster in which actors of this class live."""
        assert self.process is not None
        found = []
        with suppress(psutil.Error):
            for child in psutil.Process(self.process.pid).children(recursive=True):
                with suppress(psutil.Error):
                    if name in " ".join(child.cmdline()) or (name == _TRIAL and "ResourceTrainable" in child.cmdline()[0]):
                        found.append(child)
        return found

    def newest_checkpoint(self) -> Path | None:
        states = sorted(self.folder.glob("trials/*/step-*/state.pkl")) if self.folder else []
        return states[-1] if states else None


def kill_server(driver: Driver, rng: random.Random) -> bool:
    return _signal_worker(driver, _SERVER, signal.SIGKILL, rng)


def hang_server(driver: Driver, rng: random.Random) -> bool:
    return _signal_worker(driver, _SERVER, signal.SIGSTOP, rng)


def kill_env_runner(driver: Driver, rng: random.Random) -> bool:
    return _signal_worker(driver, _TRIAL, signal.SIGKILL, rng)


def _signal_worker(driver: Driver, name: str, how: signal.Signals, rng: random.Random) -> bool:
    workers = driver.workers(name)
    if not workers:
        return False
    rng.choice(workers).send_signal(how)
    return True


def kill_driver(driver: Driver, rng: random.Random) -> bool:
    driver.stop(signal.SIGKILL)
    return True


def press_ctrl_c(driver: Driver, rng: random.Random) -> bool:
    driver.stop(signal.SIGINT)
    return True


def cut_checkpoint_short(driver: Driver, rng: random.Random) -> bool:
    driver.stop(signal.SIGKILL)
    newest = driver.newest_checkpoint()
    if newest is None:
        return False
    content = newest.read_bytes()
    newest.write_bytes(content[: rng.randrange(len(content))])
    return True


def cut_journal_short(driver: Driver, rng: random.Random) -> bool:
    driver.stop(signal.SIGKILL)
    assert driver.folder is not None
    journal = driver.folder / "journal.jsonl"
    content = journal.read_bytes()
    # The first line says which sweep it is; from there on anything may be lost.
    journal.write_bytes(content[: rng.randrange(content.index(b"\n") + 1, len(content))])
    return True


def fill_disk(driver: Driver, rng: random.Random) -> bool:
    """No file of a trial's process can grow beyond a few kilobytes, for a while."""
    newest, workers = driver.newest_checkpoint(), driver.workers(_TRIAL)
    if newest is None or not workers:
        return False
    room = newest.stat().st_size // 2
    for worker in workers:
        with suppress(psutil.Error):
            worker.rlimit(psutil.RLIMIT_FSIZE, (room, -1))
    time.sleep(rng.uniform(5, 15))
    for worker in workers:
        with suppress(psutil.Error):
            worker.rlimit(psutil.RLIMIT_FSIZE, (-1, -1))
    return True


def lock_database(driver: Driver, rng: random.Random) -> bool:
    with closing(sqlite3.connect(driver.results / "mlflow.db", isolation_level=None, timeout=60)) as other:
        other.execute("BEGIN EXCLUSIVE")
        time.sleep(rng.uniform(5, 15))
        other.execute("ROLLBACK")
    return True


Fault = Callable[[Driver, random.Random], bool]
FAULTS: dict[str, Fault] = {
    "reward server killed": kill_server,
    "reward server hung": hang_server,
    "env runner killed": kill_env_runner,
    "driver killed": kill_driver,
    "Ctrl-C": press_ctrl_c,
    "checkpoint cut short": cut_checkpoint_short,
    "journal cut short": cut_journal_short,
    "disk full": fill_disk,
    "database locked": lock_database,
}


@dataclass
class Findings:
    """What the disturbed sweeps left, compared with the undisturbed one."""

    faults: Counter[str] = field(default_factory=Counter)
    sweeps: int = 0
    transitions: int = 0
    lost: int = 0
    wrong: int = 0
    doubled_or_missing_runs: int = 0
    doubled_or_missing_metrics: int = 0
    different_tables: int = 0

    def table(self) -> str:
        lines = [f"  {name:24s} {count:5d}" for name, count in sorted(self.faults.items())]
        lines.append(f"  {'faults in all':24s} {self.faults.total():5d}")
        counts = {name: value for name, value in vars(self).items() if name != "faults"}
        return "\n".join([*lines, *(f"  {name.replace('_', ' '):24s} {value:5d}" for name, value in counts.items())])

    def nothing_lost(self) -> bool:
        found = (self.lost, self.wrong, self.doubled_or_missing_runs, self.doubled_or_missing_metrics, self.different_tables)
        return self.transitions > 0 and not any(found)


def run_disturbed(driver: Driver, faults: list[Fault], rng: random.Random, moments: list[int]) -> Counter[str]:
    """Run a sweep to its end; inject each fault when as many results are written as `moments` says. Returns what was injected."""
    names = {fault: name for name, fault in FAULTS.items()}
    waiting = sorted(zip(moments, faults, strict=True), key=lambda item: item[0])
    injected: Counter[str] = Counter()
    driver.start()
    until = time.monotonic() + _LONGEST_ATTEMPT_S
    while driver.running:
        if time.monotonic() > until:
            driver.stop(signal.SIGKILL)
            raise AssertionError(f"no end after {_LONGEST_ATTEMPT_S} s:\n{driver.log.read_text()[-3000:]}")
        time.sleep(0.2)
        if waiting and driver.results_written() >= waiting[0][0]:
            time.sleep(rng.uniform(0, 1))
            _, fault = waiting.pop(0)
            if driver.running and fault(driver, rng):
                injected[names[fault]] += 1
        if not driver.running and driver.process is not None and driver.process.returncode not in (0, 1):
            driver.start()
            until = time.monotonic() + _LONGEST_ATTEMPT_S
    assert driver.process is not None
    assert driver.process.returncode == 0, driver.log.read_text()[-3000:]
    return injected


def replay_buffers(folder: Path) -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
    """By trial: observations and rewards of each episode in the replay buffer of its last checkpoint."""
    buffers = {}
    for trial in sorted((folder / "trials").iterdir()):
        state = pickle.loads(sorted(trial.glob("step-*/state.pkl"))[-1].read_bytes())
        episodes = state["buffer"]["episodes"]
        buffers[trial.name] = [
            (np.asarray(episode["observations"]["data"]), np.asarray(episode["rewards"]["data"])) for episode in episodes
        ]
    return buffers


def repeatable_metrics(results: Path, folder: Path) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """By trial and metric: each step and value in MLflow. Trials with more than one run appear as `<id> again`."""
    client = MlflowClient(json.loads((folder / "mlflow.json").read_text())["tracking_uri"])
    experiment = client.get_experiment_by_name("faults")
    assert experiment is not None
    found: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for run in client.search_runs([experiment.experiment_id]):
        name = run.data.tags.get("trial_id", "sweep")
        while name in found:
            name += " again"
        assert run.info.status == "FINISHED"
        found[name] = {
            key: [
                (metric.step, 0.0 if any(part in key for part in _UNREPEATABLE) else metric.value)
                for metric in client.get_metric_history(run.info.run_id, key)
            ]
            for key in run.data.metrics
        }
    return found


def compare(findings: Findings, results: Path, folder: Path, expected_results: Path, expected: Path) -> None:
    findings.sweeps += 1
    undisturbed = replay_buffers(expected)
    for trial, episodes in replay_buffers(folder).items():
        for (observations, rewards), (right_observations, right_rewards) in zip(episodes, undisturbed[trial], strict=True):
            findings.transitions += len(right_rewards)
            findings.lost += abs(len(right_rewards) - len(rewards)) + int(np.isnan(rewards).sum())
            if len(rewards) == len(right_rewards):
                findings.wrong += int((rewards != right_rewards).sum())
                findings.wrong += int((observations != right_observations).any(axis=1).sum())
    metrics, right_metrics = repeatable_metrics(results, folder), repeatable_metrics(expected_results, expected)
    findings.doubled_or_missing_runs += len(metrics.keys() ^ right_metrics.keys())
    for run in metrics.keys() & right_metrics.keys():
        for key in metrics[run].keys() | right_metrics[run].keys():
            findings.doubled_or_missing_metrics += metrics[run].get(key) != right_metrics[run].get(key)
    tables = [pd.read_csv(each / "trials.csv").drop(columns="steps_per_second") for each in (folder, expected)]
    findings.different_tables += not tables[0].equals(tables[1])


def undisturbed_sweep(results: Path, sweep: dict[str, Any]) -> Path:
    driver = Driver(results, sweep)
    run_disturbed(driver, [], random.Random(0), [])
    assert driver.folder is not None
    return driver.folder


def disturbed_sweep(results: Path, sweep: dict[str, Any], faults: list[Fault], rng: random.Random, findings: Findings) -> Path:
    driver = Driver(results, sweep)
    most = 2 * sweep["steps"] // sweep["steps_per_result"] - 2
    injected = run_disturbed(driver, faults, rng, [rng.randrange(1, most) for _ in faults])
    findings.faults.update(injected)
    print(f"  {driver.attempts} attempts, {injected.total()} faults: {dict(injected)}", flush=True)
    assert driver.folder is not None
    return driver.folder


@pytest.fixture(scope="module")
def seed() -> int:
    chosen = int(os.environ.get("SEED", random.SystemRandom().randrange(10**6)))
    print(f"\nSEED={chosen}")
    return chosen


@pytest.mark.slow
def test_a_sweep_survives_a_killed_driver_and_server(tmp_path: Path, seed: int) -> None:
    """The short version: one sweep, three faults, compared with one that was left alone."""
    short = SWEEP | {"steps": 1000, "checkpoint_every": 250, "true_reward": False}
    rng, findings = random.Random(seed), Findings()
    folders = [tmp_path / "undisturbed", tmp_path / "disturbed"]
    for folder in folders:
        folder.mkdir()
    expected = undisturbed_sweep(folders[0], short)
    driver = Driver(folders[1], short)
    findings.faults = run_disturbed(driver, [kill_driver, kill_server], rng, [1, 2])
    assert driver.folder is not None
    compare(findings, folders[1], driver.folder, folders[0], expected)
    print(findings.table())
    assert findings.faults.total() == 2
    assert findings.nothing_lost(), findings.table()


@pytest.mark.faults
def test_sweeps_survive_every_kind_of_fault(tmp_path: Path, seed: int) -> None:
    rng, findings = random.Random(seed), Findings()
    wanted = int(os.environ.get("FAULTS", "20"))
    (tmp_path / "undisturbed").mkdir()
    expected = undisturbed_sweep(tmp_path / "undisturbed", SWEEP)
    kinds: list[Fault] = []
    while findings.faults.total() < wanted:
        if len(kinds) < 4:
            kinds += rng.sample(list(FAULTS.values()), len(FAULTS))
        faults, kinds = kinds[:4], kinds[4:]
        results = tmp_path / f"disturbed-{findings.sweeps}"
        results.mkdir()
        folder = disturbed_sweep(results, SWEEP, faults, rng, findings)
        compare(findings, results, folder, tmp_path / "undisturbed", expected)
    print(findings.table())
    assert findings.nothing_lost(), findings.table()


@pytest.mark.faults
def test_a_driver_killed_three_times(tmp_path: Path, seed: int) -> None:
    rng, findings = random.Random(seed), Findings()
    for name in ("undisturbed", "disturbed"):
        (tmp_path / name).mkdir()
    expected = undisturbed_sweep(tmp_path / "undisturbed", SWEEP)
    folder = disturbed_sweep(tmp_path / "disturbed", SWEEP, [kill_driver] * 3, rng, findings)
    compare(findings, tmp_path / "disturbed", folder, tmp_path / "undisturbed", expected)
    assert findings.faults == Counter({"driver killed": 3})
    assert findings.nothing_lost(), findings.table()


@pytest.fixture
def mlflow_server(tmp_path: Path) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Starts an MLflow server on a port that stays the same, as often as it is called."""
    started: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        arguments = ["--backend-store-uri", f"sqlite:///{tmp_path / 'mlflow.db'}", "--port", "5987", "--workers", "1"]
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", *arguments]
        started.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True))
        _await_server(5987)
        return started[-1]

    yield start
    for server in started:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)


def _await_server(port: int) -> None:
    import urllib.request

    until = time.monotonic() + 180
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).read()
            return
        except OSError:
            assert time.monotonic() < until, "the MLflow server does not start"
            time.sleep(0.5)


@pytest.mark.faults
def test_an_mlflow_server_that_is_away_for_a_while(
    tmp_path: Path, seed: int, mlflow_server: Callable[[], subprocess.Popen[bytes]]
) -> None:
    rng, findings = random.Random(seed), Findings()
    for name in ("undisturbed", "disturbed"):
        (tmp_path / name).mkdir()
    expected = undisturbed_sweep(tmp_path / "undisturbed", SWEEP)
    server = mlflow_server()
    driver = Driver(tmp_path / "disturbed", SWEEP, {"MLFLOW_TRACKING_URI": "http://127.0.0.1:5987"})

    def stop_server(driver: Driver, rng: random.Random) -> bool:
        os.killpg(server.pid, signal.SIGKILL)
        time.sleep(rng.uniform(20, 60))
        mlflow_server()
        return True

    FAULTS["MLflow server away"] = stop_server
    findings.faults = run_disturbed(driver, [stop_server], rng, [rng.randrange(2, 10)])
    assert driver.folder is not None
    compare(findings, tmp_path / "disturbed", driver.folder, tmp_path / "undisturbed", expected)
    assert "MLflow answers again" in driver.log.read_text()
    assert findings.nothing_lost(), findings.table()
