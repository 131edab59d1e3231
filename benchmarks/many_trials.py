"""What hundreds of short trials cost beside their own work, and what grows faster than their number, up to 10 000.

    .venv/bin/python benchmarks/many_trials.py                                        a sweep of 300 trials of 200 steps (4 minutes)
    .venv/bin/python benchmarks/many_trials.py --trials 0 --simulate 100 1000 10000   the driver's part alone (minutes)

The real sweep is `vlm-rm sweep` in a new process. *Own work* of a trial is from its start to its last result, the trainer's setup
included; *between trials* is what is left of the time in which as many trials ran at once as there was room for. The driver's CPU time
for each trial is given for the first and the last quarter of the trials, so that growth shows. Entries *behind* are those of the
journal that have not reached MLflow.

The simulated sweep runs no trial. What its trials would report is played through the driver's own parts, each number of trials in a
process of its own: Tune's trials as they are made, the callback with its journal, the mirror (with a stand-in for MLflow's client:
what MLflow costs is in `mlflow_rates.py`), `vlm-rm status`, the start of `--resume` with half of the trials ended, the tables, the
report, ASHA's decisions as a resumed sweep repeats them, and a search whose samples are a population. Figures are CPU milliseconds for
each trial: a part that is linear has the same in each column.
"""

import copy
import json
import multiprocessing
import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
from measuring import parser_of, write_figures

STEPS, RESULTS = 200, 4
"""Environment steps of each trial, and its results."""
SEEDS = 5
METRICS = (
    "clip_return",
    "true_return",
    "success",
    "goal_fraction",
    "updates",
    "update_seconds",
    "render_seconds",
    "frames_scored",
)
EVALUATIONS = ("evaluation_true_return", "evaluation_success", "evaluation_clip_return", "evaluation_goal_fraction")
TAKEOVERS = 2
"""Of every other sample of the population."""
_LOOKS = 100
"""From which the cost of one for each trial is computed."""


def keys_of(trials: int) -> dict[str, Any]:
    """Return the sweep file of some trials: combinations with five seeds each."""
    cells = max(1, trials // SEEDS)
    return {
        "name": "many",
        "task": "cartpole-upright",
        "models": ["embedded/tiny"],
        "alphas": [round(cell / cells, 6) for cell in range(cells)],
        "seeds": list(range(trials // cells)),
        "max_trials": trials,
        "true_reward": False,
        "untrained": False,
        "videos": False,
        "steps": STEPS,
        "steps_per_result": STEPS // RESULTS,
        "evaluation_episodes": 1,
        "settings": {"learning_starts": 100},
        "trial": {"cpus": 1},
    }


@dataclass(frozen=True)
class RealSweep:
    """A sweep of many short trials.

    Attributes:
        trials: Trials that finished.
        at_once: As many ran at once as there was room for.
        seconds: From the first start to the last end.
        own_s: Own work of a trial, mean.
        between_s: Time between trials for each, mean.
        driver_cpu_s: CPU seconds of the driver for each trial: of the first quarter of the trials, and of the last.
        driver_mb: Most memory that the driver had, in MB.
        behind: Entries that had not reached MLflow: the most while trials ran, when the last trial ended, and when the command did.
    """

    trials: int
    at_once: int
    seconds: float
    own_s: float
    between_s: float
    driver_cpu_s: tuple[float, float]
    driver_mb: float
    behind: tuple[int, int, int]


@dataclass(frozen=True)
class _Look:
    """What is seen of a running sweep: CPU seconds and MB of the driver, trials that ended, entries behind, whether it ended."""

    cpu_s: float
    mb: float
    ended: int
    behind: int
    is_over: bool


def run_sweep(folder: Path, trials: int, every_s: float = 2.0) -> RealSweep:
    """Run a sweep in a new process, and look at it from outside.

    Args:
        folder: An empty folder.
        trials: Number of trials.
        every_s: Seconds between two looks.

    Returns:
        What it cost.
    """
    (folder / "sweep.yaml").write_text(json.dumps(keys_of(trials)))
    command = [sys.executable, "-c", "from vlm_rm_sweeps.cli import main; main()", "sweep", "sweep.yaml"]
    path = {"PYTHONPATH": str(Path(__file__).parent.parent)}
    with (folder / "output.txt").open("w") as output:
        process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=subprocess.STDOUT, env=os.environ | path)
    driver, looks = psutil.Process(process.pid), list[_Look]()
    while process.poll() is None:
        look = _look(driver, folder)
        looks += [look] if look else []
        time.sleep(every_s)
    if process.returncode:
        raise SystemExit((folder / "output.txt").read_text())
    entries = _entries(folder)
    runs = json.loads(next(folder.glob("results/many-*/mlflow.json")).read_text())
    return _summary(entries, looks, _behind(entries, runs))


def _look(driver: psutil.Process, folder: Path) -> _Look | None:
    try:
        runs = json.loads(next(folder.glob("results/many-*/mlflow.json")).read_text())
        status = dict(line.split(":", 1) for line in Path(f"/proc/{driver.pid}/status").read_text().splitlines())
        cpu = sum(driver.cpu_times()[:2])
    except (StopIteration, OSError, psutil.Error):  # it has not begun, or ends now
        return None
    entries = _entries(folder)
    kinds = [entry["kind"] for entry in entries]
    mb = int(status["VmHWM"].split()[0]) * 1024 / 1e6
    return _Look(cpu, mb, kinds.count("end"), _behind(entries, runs), "sweep_end" in kinds)


def _entries(folder: Path) -> list[dict[str, Any]]:
    content = next(folder.glob("results/many-*/journal.jsonl")).read_text()
    return [json.loads(line) for line in content[: content.rfind("\n") + 1].splitlines()]


def _behind(entries: Sequence[Mapping[str, Any]], runs: Mapping[str, Any]) -> int:
    uids = [entry["uid"] for entry in entries]
    return len(uids) - (uids.index(runs["delivered"]) + 1 if runs.get("delivered") in uids else 0)


def _summary(entries: Sequence[Mapping[str, Any]], looks: Sequence[_Look], left: int) -> RealSweep:
    at: dict[str, dict[str, float]] = {kind: {} for kind in ("start", "result", "end")}
    running = at_once = 0
    for entry in entries:
        if entry["kind"] in at:
            at[entry["kind"]][entry["trial"]] = entry["time"] / 1e3  # of results, the last one
            running += {"start": 1, "end": -1}.get(entry["kind"], 0)
            at_once = max(at_once, running)
    trials, seconds = len(at["end"]), max(at["end"].values()) - min(at["start"].values())
    own = sum(at["result"][trial] - start for trial, start in at["start"].items()) / trials
    first, last = (_cpu_of(looks, trials * part // 4, trials * (part + 1) // 4) for part in (0, 3))
    running_looks = [look.behind for look in looks if not look.is_over]
    ended = next((look.behind for look in looks if look.is_over), left)
    most = max(running_looks, default=0)
    mb = max(look.mb for look in looks)
    return RealSweep(trials, at_once, seconds, own, at_once * seconds / trials - own, (first, last), mb, (most, ended, left))


def _cpu_of(looks: Sequence[_Look], low: int, high: int) -> float:
    """Return the driver's CPU seconds for each of the trials that ended between two looks."""
    begun = max((look for look in looks if look.ended <= low), key=lambda look: look.cpu_s, default=looks[0])
    done = next((look for look in looks if look.ended >= high), looks[-1])
    return (done.cpu_s - begun.cpu_s) / max(1, done.ended - begun.ended)


@dataclass
class Simulated:
    """What the driver's parts cost for a number of trials.

    Attributes:
        trials: The number.
        entries: Entries of the journal of the plain sweep.
        cpu_ms: CPU milliseconds for each trial, by part.
        memory_mb: MB by which this process has grown, by what it then has.
    """

    trials: int
    entries: int = 0
    cpu_ms: dict[str, float] = field(default_factory=dict)
    memory_mb: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Measure a part of the work of all trials."""
        started = time.process_time()
        yield
        self.cpu_ms[name] = 1e3 * (time.process_time() - started) / self.trials

    @contextmanager
    def grown_by(self, name: str) -> Iterator[None]:
        """Measure by how much this process grows."""
        before = psutil.Process().memory_info().rss
        yield
        self.memory_mb[name] = (psutil.Process().memory_info().rss - before) / 1e6


class NoMlflow:
    """Takes what MLflow's client would send, and keeps nothing but the number of calls."""

    def __init__(self) -> None:
        self.calls = 0

    def create_run(self, *_: Any, **__: Any) -> Any:
        """Return a new run."""
        self.calls += 1
        return SimpleNamespace(info=SimpleNamespace(run_id=f"{self.calls:032x}"))

    def get_run(self, *_: Any) -> Any:
        """Return a run without tags and parameters."""
        self.calls += 1
        return SimpleNamespace(data=SimpleNamespace(tags={}, params={}), info=SimpleNamespace(artifact_uri="file:///nowhere"))

    def search_runs(self, *_: Any, **__: Any) -> list[Any]:
        """Find nothing."""
        self.calls += 1
        return []

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*_: Any, **__: Any) -> Any:
            self.calls += 1
            return SimpleNamespace(experiment_id="1", lifecycle_stage="active")

        return call


class OfTune:
    """What the callback reads of Tune's trial.

    Args:
        trial: The trial.
    """

    def __init__(self, trial: Any) -> None:
        self.config = {"run": {"trial": trial.to_dict()}}


def simulate(trials: int) -> Simulated:
    """Play a sweep through the driver's parts. To be called in a new process.

    Args:
        trials: Number of trials.

    Returns:
        What each part cost.
    """
    for found in (Simulated(4 * SEEDS), Simulated(trials)):  # the first one imports everything, and is not counted
        with tempfile.TemporaryDirectory() as place:
            _plain(found, Path(place))
            _population(found, Path(place))
    return found


def _plain(found: Simulated, place: Path) -> None:
    """Measure a sweep of a grid."""
    from vlm_rm_sweeps.sweeping.config.plan import plan_of
    from vlm_rm_sweeps.sweeping.execution.pools import pool_configs
    from vlm_rm_sweeps.sweeping.execution.remaining import Remaining
    from vlm_rm_sweeps.sweeping.execution.scheduling import scheduler_of
    from vlm_rm_sweeps.sweeping.execution.sweep_run import SweepRun
    from vlm_rm_sweeps.sweeping.tracking.folder import SweepFolder
    from vlm_rm_sweeps.sweeping.tracking.journal import Journal, SweepStarted, read_entries
    from vlm_rm_sweeps.sweeping.tracking.mlflow_mirror import MlflowMirror
    from vlm_rm_sweeps.sweeping.tracking.progress import Progress
    from vlm_rm_sweeps.sweeping.tracking.report import write_report
    from vlm_rm_sweeps.sweeping.tracking.results import SweepOutcome
    from vlm_rm_sweeps.sweeping.tracking.status import standing_of
    from vlm_rm_sweeps.sweeping.tracking.tune_callback import JournalCallback

    with found.part("plan of the sweep"):
        plan = plan_of(keys_of(found.trials))
    assert len(plan.trials) == found.trials
    folder = SweepFolder(place / "many")
    folder.create(plan.sweep)
    uri = f"sqlite:///{place / 'mlflow.db'}"
    run = SweepRun(plan, folder, uri, _silent)
    with found.part("trials of Tune's"):
        _trials_of_tune(run._tuner(plan.trials, pool_configs(plan, "simulated"), []), found.trials)
    folder.journal.unlink()
    with found.grown_by("callback and journal"):
        journal = Journal(folder.journal)
        callback = JournalCallback(journal, Progress({trial.trial_id: STEPS for trial in plan.trials}, _silent), _silent)
        journal.append(SweepStarted(id="simulated"))
        with found.part("callback and journal"):
            for trial in plan.trials:
                _play(callback, trial)
    found.entries = len(journal.entries)
    outcome = SweepOutcome(folder.path, uri, [callback.outcome(trial) for trial in plan.trials], interrupted=False)
    with found.part("tables and the best combination"):
        folder.table.write_text(outcome.table.to_csv(index=False))
        folder.cells.write_text(outcome.cells.to_csv(index=False))
        assert outcome.best is not None
    with found.part("mirror, without MLflow"):
        mirror = MlflowMirror(journal, plan, folder, uri, _silent)
        mirror.__dict__["_client"] = NoMlflow()
        mirror.start()
        assert mirror.close(600) == 0
    with found.part("mlflow.json, written once"):
        mirror._runs.write(folder.mlflow)
    with found.part("vlm-rm status"):
        assert standing_of(folder.path).undelivered == 0
    with found.part("report"):
        write_report(folder.path, place / "report.html")
    with found.part("ASHA's decisions, repeated"):
        asha = plan_of(keys_of(found.trials) | _evaluated({"kind": "asha"}))
        scheduler_of(asha, {}, journal.entries)
    del journal, callback, mirror, outcome
    lines = folder.journal.read_bytes().splitlines(keepends=True)
    of_each = (len(lines) - 1) // found.trials
    folder.journal.write_bytes(b"".join(lines[: 1 + of_each * (found.trials // 2)]))
    folder.mlflow.unlink()
    with found.grown_by("--resume"), found.part("--resume with half of the trials ended, until trials start"):
        assert Remaining(plan, read_entries(folder.journal))
        resumed = SweepRun(plan, folder, uri, _silent)
    assert len(resumed._remaining.trials) == found.trials - found.trials // 2


def _population(found: Simulated, place: Path) -> None:
    """Measure a search whose samples are one population."""
    from vlm_rm_sweeps.sweeping.config.plan import plan_of
    from vlm_rm_sweeps.sweeping.execution.population import PopulationScheduler
    from vlm_rm_sweeps.sweeping.execution.sweep_run import SweepRun
    from vlm_rm_sweeps.sweeping.tracking.folder import SweepFolder
    from vlm_rm_sweeps.sweeping.tracking.journal import Journal, SweepStarted, TakenOver, TrialStarted
    from vlm_rm_sweeps.sweeping.tracking.mlflow_mirror import MlflowMirror

    space = {"settings.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}}
    search = {"space": space, "samples": found.trials, "sampler": "random", "seed": 0}
    keys = keys_of(found.trials) | {"alphas": [0.5], "seeds": [0], "search": search}
    plan = plan_of(keys | _evaluated({"kind": "pbt", "interval_steps": 50}))
    folder = SweepFolder(place / "population")
    folder.create(plan.sweep)
    uri = f"sqlite:///{place / 'mlflow.db'}"
    run = SweepRun(plan, folder, uri, _silent)
    with found.part("drawing of samples"):
        for trial in plan.trials:
            run._with_sample(trial)
    journal = Journal(folder.journal)
    samples = tuple(run._trials.values())
    for trial in samples:
        journal.append(TrialStarted(trial=trial.trial_id))
    for turn in range(1, 1 + TAKEOVERS):
        pairs = zip(samples[::2], samples[1::2], strict=False)
        taken = [
            TakenOver(trial=a.trial_id, step=50 * turn, source=b.trial_id, source_step=50 * turn, values=a.sample.values or {})
            for a, b in pairs
            if a.sample
        ]
        journal.append(*taken)
    with found.part("mirror of a population, without MLflow"):
        mirror = MlflowMirror(journal, plan, folder, uri, _silent)
        mirror.__dict__["_client"] = NoMlflow()
        mirror.start()
        assert mirror.close(600) == 0
    scheduler = PopulationScheduler(plan, samples, journal.entries, lambda _: None, lambda _: {})
    looks = "the population's scheduler, one look for each trial"
    with found.part(looks):
        for _ in range(_LOOKS):
            assert scheduler.choose_trial_to_run(None) is None
    found.cpu_ms[looks] *= found.trials / _LOOKS
    journal.append(SweepStarted(id="simulated"))
    with found.part("--resume of a population, until trials start"):
        SweepRun(plan, folder, uri, _silent)


def _silent(_: str) -> None: ...


def _evaluated(scheduler: Mapping[str, Any]) -> dict[str, Any]:
    return {"scheduler": dict(scheduler), "trial": {"cpus": 1, "evaluation_interval": STEPS // RESULTS}}


def _play(callback: Any, trial: Any) -> None:
    """Report a whole trial, as Tune would."""
    from vlm_rm_sweeps.metrics import FINISHED

    of_tune = OfTune(trial)
    callback.on_trial_start(0, [], of_tune)
    for number in range(1, 1 + RESULTS):
        values: dict[str, Any] = {name: float(number + trial.seed) for name in (*METRICS, *EVALUATIONS)} | {
            "env_steps_per_second": 100.0
        }
        result = pickle.loads(pickle.dumps(values)) | {
            "env_steps": number * STEPS // RESULTS,
            "time_ms": 1_000 * number,
            "hostname": None,
        }
        callback.on_trial_result(0, [], of_tune, result | ({FINISHED: True} if number == RESULTS else {}))
    callback.on_trial_complete(0, [], of_tune)


def _trials_of_tune(tuner: Any, trials: int) -> None:
    """Make the configurations of all of Tune's trials, and copy each as Tune does."""
    searcher = tuner._local_tuner._tune_config.search_alg
    made = [copy.deepcopy(searcher.suggest(str(number))) for number in range(trials)]
    assert len({each["run"]["trial"]["trial_id"] for each in made}) == trials


def print_real(real: RealSweep) -> None:
    """Print what a real sweep cost."""
    first, last = real.driver_cpu_s
    most, ended, left = real.behind
    rows = {
        "trials": f"{real.trials}",
        "trials at once": f"{real.at_once}",
        "from the first start to the last end, s": f"{real.seconds:.0f}",
        "own work of a trial, s": f"{real.own_s:.2f}",
        "between trials, s for each": f"{real.between_s:.2f}",
        "driver's CPU s for each trial, first and last quarter": f"{first:.2f}  {last:.2f}",
        "driver's memory at most, MB": f"{real.driver_mb:.0f}",
        "entries behind: at most, at the last end, in the end": f"{most}  {ended}  {left}",
    }
    for name, value in rows.items():
        print(f"{name:56}{value:>12}")


def print_simulated(columns: Sequence[Simulated]) -> None:
    """Print what the driver's parts cost, a column for each number of trials."""
    print(f"\n{'CPU ms for each trial, of a sweep of':64}" + "".join(f"{each.trials:10,}" for each in columns))
    for name in columns[0].cpu_ms:
        print(f"{name:64}" + "".join(f"{each.cpu_ms[name]:10.3f}" for each in columns))
    print(f"{'entries of the journal':64}" + "".join(f"{each.entries:10,}" for each in columns))
    for name in columns[0].memory_mb:
        print(f"{'MB more memory by ' + name:64}" + "".join(f"{each.memory_mb[name]:10.0f}" for each in columns))


def main() -> None:
    """Print the tables, and write them as JSON."""
    parser = parser_of(__doc__)
    parser.add_argument("--trials", type=int, default=300, help="of the real sweep; 0 for none")
    parser.add_argument("--simulate", type=int, nargs="*", default=[], metavar="TRIALS", help="numbers of trials to simulate")
    options = parser.parse_args()
    results: dict[str, object] = {}
    if options.trials:
        with tempfile.TemporaryDirectory() as folder:
            real = run_sweep(Path(folder), options.trials)
        print_real(real)
        results["real"] = real
    if options.simulate:
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=spawn, max_tasks_per_child=1) as processes:
            columns = list(processes.map(simulate, options.simulate))
        print_simulated(columns)
        results["simulated"] = columns
    write_figures(options, results)


if __name__ == "__main__":
    main()
