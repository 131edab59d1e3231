"""How many results a second reach an MLflow server, over HTTP and with basic auth.

    .venv/bin/python benchmarks/mlflow_rates.py
    .venv/bin/python benchmarks/mlflow_rates.py --server-packages FOLDER   with basic auth, too, whose Flask-WTF is in that folder

For each kind of server, `mlflow server` is started on the loopback address with its databases in files of SQLite. The journal of a
sweep grows at a steady rate: `--at-once` trials report by turns, and each that has made its `--results` ends and makes room for the
next one. The project's own mirror takes it from there. Entries *behind* are those of the journal that have not reached MLflow.
*Results/s* are those that arrived, until the last one had. *All at once* is the same journal when it waits as a whole, as on
`--resume`. With basic auth MLflow hashes the password for each request, unless its server's settings have `auth_cache_ttl_seconds`.
"""

import itertools
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from measuring import cpu_seconds, parser_of, write_figures

KINDS = {"http": None, "basic auth": 0, "basic auth, cached": 60}
"""Of each kind of server, for how many seconds it remembers a password that was right; None if it asks for none."""
TARGETS = {"http": 100.0, "basic auth": 20.0, "basic auth, cached": 100.0}
"""Results a second that are fed."""
USER, PASSWORD = "admin", "a long password for measuring"
METRICS = 16
"""Of each result, about as many as a trial logs."""


@dataclass(frozen=True)
class Rates:
    """What reached one kind of server.

    Attributes:
        fed: Results a second that were written to the journal.
        arrived: Results a second that arrived, until the last one had.
        behind: Entries behind after each quarter of the time in which results were written.
        all_at_once: Results a second that arrived of a journal that waited as a whole.
        requests: HTTP requests for each result.
        mirror_ms: CPU ms of this process for each result.
        server_ms: CPU ms of the server for each result.
    """

    fed: float
    arrived: float
    behind: tuple[int, ...]
    all_at_once: float
    requests: float
    mirror_ms: float
    server_ms: float


@contextmanager
def server(folder: Path, remembered_s: int | None, workers: int, packages: Path | None) -> Iterator[tuple[str, psutil.Process]]:
    """Run an MLflow server for the duration of a `with` block.

    Args:
        folder: Where its databases are.
        remembered_s: See `KINDS`.
        workers: Its processes.
        packages: A folder of packages that it needs besides those of this interpreter.

    Yields:
        Its address, and its process, whose children do the work.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"]
    command += ["--artifacts-destination", str(folder / "artifacts"), "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", str(workers)]
    paths = [path for path in (os.environ.get("PYTHONPATH"), packages and str(packages)) if path]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "MLFLOW_DISABLE_TELEMETRY": "true"}
    environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # eight processes that serve something else
    if remembered_s is not None:
        settings = folder / "auth.ini"
        settings.write_text(
            f"[mlflow]\ndefault_permission = READ\ndatabase_uri = sqlite:///{folder / 'auth.db'}\nadmin_username = {USER}\n"
            f"admin_password = {PASSWORD}\nauthorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
            f"grant_default_workspace_access = false\nauth_cache_ttl_seconds = {remembered_s}\n"
        )
        command += ["--app-name", "basic-auth"]
        environment |= {"MLFLOW_AUTH_CONFIG_PATH": str(settings), "MLFLOW_FLASK_SERVER_SECRET_KEY": "of no use elsewhere"}
    with (folder / "server.txt").open("w") as output:
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=subprocess.STDOUT, cwd=folder, start_new_session=True
        )
    try:
        _await(f"http://127.0.0.1:{port}/health", process, folder / "server.txt")
        yield f"http://127.0.0.1:{port}", psutil.Process(process.pid)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _await(address: str, process: subprocess.Popen[bytes], output: Path) -> None:
    until = time.monotonic() + 180
    while True:
        try:
            urllib.request.urlopen(address, timeout=5).read()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"the MLflow server does not start:\n{output.read_text()[-2000:]}") from None
            time.sleep(0.5)


def events(trials: list[str], at_once: int, results: int) -> Iterator[Any]:
    """Make the entries of a journal: a number of trials report by turns, until all have ended."""
    from vlm_rm_sweeps.metrics import RunStatus
    from vlm_rm_sweeps.sweeping.tracking.journal import ResultLogged, TrialEnded, TrialStarted

    waiting, running = list(reversed(trials)), dict[str, int]()
    while waiting or running:
        while waiting and len(running) < at_once:
            running[waiting[-1]] = 0
            yield TrialStarted(trial=waiting.pop())
        for trial in list(running):
            running[trial] += 1
            metrics = {f"metric_{number}": float(running[trial]) for number in range(METRICS)}
            yield ResultLogged(trial=trial, step=100 * running[trial], metrics=metrics)
            if running[trial] == results:
                del running[trial]
                yield TrialEnded(trial=trial, status=RunStatus.FINISHED, tags={})


def deliver(address: str, folder: Path, trials: int, at_once: int, results: int, rate: float | None) -> tuple[float, list[int]]:
    """Bring a sweep's journal to a server.

    Args:
        address: The server's address.
        folder: An empty folder, whose name is the sweep's.
        trials: Number of trials.
        at_once: Trials that report by turns.
        results: Results of each trial.
        rate: Results a second; None if all wait from the beginning.

    Returns:
        Seconds until all had arrived, and the entries behind after each quarter of the feeding.
    """
    from vlm_rm_sweeps.sweeping.config.plan import plan_of
    from vlm_rm_sweeps.sweeping.tracking.folder import SweepFolder
    from vlm_rm_sweeps.sweeping.tracking.journal import Journal, ResultLogged, SweepStarted
    from vlm_rm_sweeps.sweeping.tracking.mlflow_mirror import MlflowMirror
    from vlm_rm_sweeps.sweeping.tracking.mlflow_store import set_up_store

    keys = {
        "name": folder.name,
        "task": "cartpole-upright",
        "models": ["embedded/tiny"],
        "alphas": [0.5],
        "steps": 100 * results,
    }
    plan = plan_of(keys | {"seeds": list(range(trials)), "max_trials": trials, "true_reward": False, "untrained": False})
    sweep = SweepFolder(folder)
    sweep.create(plan.sweep)
    set_up_store(address)
    journal = Journal(sweep.journal)
    journal.append(SweepStarted(id=folder.name))
    mirror = MlflowMirror(journal, plan, sweep, address, print)
    entries = events([trial.trial_id for trial in plan.trials], at_once, results)
    if rate is None:
        journal.append(*entries)
    started, count, behind = time.monotonic(), itertools.count(1), list[int]()
    mirror.start()
    for entry in entries:
        journal.append(entry)
        if rate is not None and isinstance(entry, ResultLogged):
            fed = next(count)
            time.sleep(max(0.0, started + fed / rate - time.monotonic()))
            if 4 * fed // (trials * results) > len(behind):
                behind.append(mirror.undelivered())
    if mirror.close(120):
        raise SystemExit(f"{mirror.undelivered()} entries have not reached {address}")
    return time.monotonic() - started, behind


@contextmanager
def counted_requests() -> Iterator[list[int]]:
    """Count the HTTP requests of this process in the first element of a list."""
    import requests

    send, lock, count = requests.Session.send, threading.Lock(), [0]

    def counted(*given: Any, **named: Any) -> Any:
        with lock:
            count[0] += 1
        return send(*given, **named)

    requests.Session.send = counted  # type: ignore[method-assign]
    try:
        yield count
    finally:
        requests.Session.send = send  # type: ignore[method-assign]


def measure(options: Any, kind: str) -> Rates:
    """Measure one kind of server."""
    trials, results, rate = options.trials, options.results, TARGETS[kind] if options.rate is None else options.rate
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        with server(folder, KINDS[kind], options.workers, options.server_packages) as (address, process):
            deliver(address, folder / "warm", 2, 2, 1, None)
            helpers = [process, *process.children(recursive=True)]
            own, others = cpu_seconds(), sum(sum(each.cpu_times()[:2]) for each in helpers)
            with counted_requests() as requests:
                seconds, behind = deliver(address, folder / "fed", trials, options.at_once, results, rate)
            own, others = cpu_seconds() - own, sum(sum(each.cpu_times()[:2]) for each in helpers) - others
            waited, _ = deliver(address, folder / "waited", trials, options.at_once, results, None)
    number = trials * results
    milliseconds = 1e3 * own / number, 1e3 * others / number
    return Rates(rate, number / seconds, tuple(behind), number / waited, requests[0] / number, *milliseconds)


def main() -> None:
    """Print the table, and write it as JSON."""
    parser = parser_of(__doc__)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, help="kinds of servers; by default those that can be started")
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--at-once", type=int, default=20, help="trials that report by turns")
    parser.add_argument("--results", type=int, default=10, help="of each trial")
    parser.add_argument("--rate", type=float, help="results a second; by default 100, and 20 with basic auth without its cache")
    parser.add_argument("--workers", type=int, default=2, help="processes of the server")
    parser.add_argument("--server-packages", type=Path, help="a folder with Flask-WTF, which basic auth needs")
    options = parser.parse_args()
    os.environ.update({"MLFLOW_TRACKING_USERNAME": USER, "MLFLOW_TRACKING_PASSWORD": PASSWORD})
    kinds = options.kinds or [kind for kind in KINDS if kind == "http" or options.server_packages]
    print(
        f"{'':20}{'fed/s':>8}{'results/s':>10}  {'behind':20}{'all at once/s':>14}{'requests':>9}{'mirror ms':>10}{'server ms':>10}"
    )
    found = {}
    for kind in kinds:
        rates = found[kind] = measure(options, kind)
        behind = " ".join(map(str, rates.behind))
        costs = f"{rates.requests:9.2f}{rates.mirror_ms:10.1f}{rates.server_ms:10.1f}"
        print(f"{kind:20}{rates.fed:8.0f}{rates.arrived:10.1f}  {behind:20}{rates.all_at_once:14.1f}{costs}", flush=True)
    write_figures(options, found)


if __name__ == "__main__":
    main()
