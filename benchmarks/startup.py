"""How long a sweep takes from the command to its first trial, and what takes it: imports, Ray, servers, each trial.

Run `make bench-trials`, or `.venv/bin/python benchmarks/startup.py`; `--json FILE` writes the figures to a file, too. It runs
`vlm-rm sweep` on a small sweep of four trials, one after the other, several times, in new processes. The times are those of the
sweep's journal, and the moment at which each line of output comes. A trial *starts* when its trainer is built and it takes its first
steps. *Each further trial* is the time from the end of a trial to the start of the next one. The imports are new processes, too,
and take turns; their figures include the interpreter's own start. All figures are medians; CPU time is that of a process and of its
children that have ended.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from measuring import Cost, median_cost, parser_of, write_figures

SWEEP = """\
name: startup
task: cartpole-upright
models: [embedded/small]
alphas: [0.0, 0.5]
seeds: [0, 1]
true_reward: false
videos: false
steps: 256
steps_per_result: 64
evaluation_episodes: 1
settings: {learning_starts: 64}
trial: {cpus: %d}
"""
IMPORTS = {
    "the interpreter": "pass",
    "the command line": "import vlm_rm_sweeps.cli",
    "the check of a sweep file": "import vlm_rm_sweeps.sweeping.config.plan",
    "torch": "import torch",
    "open_clip": "import open_clip",
    "Ray": "import ray",
    "RLlib's DQN": "from ray.rllib.algorithms import dqn",
    "Tune": "from ray import tune",
    "MLflow's client": "from mlflow import MlflowClient",
    "a trial": "import vlm_rm_sweeps.training.trial",
    "a server": "import vlm_rm_sweeps.serving.server, vlm_rm_sweeps.rewards.clip",
}
_INIT = (
    "from vlm_rm_sweeps.process_defaults import prepare_ray; prepare_ray(); "
    "import ray; ray.init(address='local', logging_level=40{})"
)
RAY = {
    "Ray, started, with a dashboard": _INIT.format(""),
    "Ray, started, without one": _INIT.format(", include_dashboard=False"),
}


@dataclass(frozen=True)
class SweepTimes:
    """Seconds since the command was given.

    Attributes:
        ray: Ray runs, and the servers are being started.
        servers: The servers have loaded their models, and MLflow is ready.
        first_trial: The first trial starts.
        end: The command ends.
        further_trial: Seconds from the end of a trial to the start of the next one, median.
        cpu: CPU seconds of the driver, and of Ray and its processes as far as they have ended.
    """

    ray: float
    servers: float
    first_trial: float
    end: float
    further_trial: float
    cpu: float


def time_sweep(folder: Path) -> SweepTimes:
    """Run a small sweep in a new process.

    Args:
        folder: An empty folder.

    Returns:
        Its times.
    """
    (folder / "sweep.yaml").write_text(SWEEP % (os.cpu_count() or 1))
    command = [sys.executable, "-c", "from vlm_rm_sweeps.cli import main; main()", "sweep", "sweep.yaml"]
    started, cpu = time.time(), _children_cpu()
    log = folder / "output.txt"
    with log.open("w") as errors:
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=errors, text=True, env=_environment())
    assert process.stdout is not None
    printed = [(time.time() - started, line) for line in process.stdout]
    if process.wait():
        raise SystemExit("".join(line for _, line in printed) + log.read_text())
    end = time.time() - started
    ray = next(seconds for seconds, line in printed if line.startswith("starting "))
    (journal,) = folder.glob("results/*/journal.jsonl")
    entries = [json.loads(line) for line in journal.read_text().splitlines()]
    at = {kind: [entry["time"] / 1e3 for entry in entries if entry["kind"] == kind] for kind in ("sweep", "start", "end")}
    further = statistics.median(start - before for before, start in zip(at["end"], at["start"][1:], strict=False))
    return SweepTimes(ray, at["sweep"][0] - started, at["start"][0] - started, end, further, _children_cpu() - cpu)


def time_process(code: str) -> Cost:
    """Run Python code in a new process, and measure it."""
    started, cpu = time.perf_counter(), _children_cpu()
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, env=_environment())
    return Cost(time.perf_counter() - started, _children_cpu() - cpu)


def _children_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _environment() -> dict[str, str]:
    """Return this environment, with this repository's package first, also for a child in another folder."""
    return os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent), "PYTHONUNBUFFERED": "1"}


def time_processes(codes: dict[str, str], rounds: int) -> dict[str, Cost]:
    """Let pieces of code run in new processes by turns; a first turn, which fills the disk cache, is not counted."""
    turns: dict[str, list[Cost]] = {name: [] for name in codes}
    for round_ in range(1 + rounds):
        for name, code in codes.items():
            cost = time_process(code)
            if round_:
                turns[name].append(cost)
    return {name: median_cost(each) for name, each in turns.items()}


def time_sweeps(rounds: int) -> SweepTimes:
    """Run the small sweep several times, and return the medians."""
    found: list[SweepTimes] = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            found.append(time_sweep(Path(folder)))
    return SweepTimes(*(statistics.median(column) for column in zip(*(vars(each).values() for each in found), strict=True)))


def print_sweep(times: SweepTimes) -> None:
    """Print what happens when."""
    rows = {
        "Ray runs, servers start": times.ray,
        "models are loaded, MLflow is ready": times.servers,
        "the first trial starts": times.first_trial,
        "the sweep of four short trials ends": times.end,
        "each further trial": times.further_trial,
        "CPU seconds of driver and Ray": times.cpu,
    }
    print(f"{'vlm-rm sweep':48}{'seconds':>8}")
    for name, seconds in rows.items():
        print(f"{name:48}{seconds:8.1f}")


def print_processes(costs: dict[str, Cost]) -> None:
    """Print what processes cost."""
    print(f"\n{'a new process with':48}{'seconds':>8}{'CPU':>8}")
    for name, cost in costs.items():
        print(f"{name:48}{cost.seconds:8.2f}{cost.cpu_seconds:8.2f}")


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = parser_of(__doc__)
    parser.add_argument("--sweeps", type=int, default=3, help="how often the sweep is run")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each import; 0 for none")
    return parser.parse_args(given)


def main() -> None:
    """Print the tables, and write them as JSON."""
    options = arguments()
    results: dict[str, object] = {}
    if options.sweeps:
        times = time_sweeps(options.sweeps)
        print_sweep(times)
        results["sweep_seconds"] = times
    if options.rounds:
        costs = time_processes(IMPORTS | RAY, options.rounds)
        print_processes(costs)
        results["processes"] = costs
    write_figures(options, results)


if __name__ == "__main__":
    main()
