"""Does `vlm-rm fit` keep its word? Sweeps are estimated, run, and compared: time, speed, memory and disk.

    .venv/bin/python benchmarks/fit_check.py sweeps/quickstart.yaml sweeps/paper_humanoid_splits_fast.yaml

Each sweep is run once, right after its estimate, into a folder of its own in `--results`. Run it with nothing else to do. Time is from
the start of the command to its end. Speed is environment steps of training per second of all trials, from the first one's start to
the last one's end, by the sweep's journal. Memory is the most
that all processes of the sweep had (proportional set size: what several share is counted once), looked at every two seconds. Disk is
what the results folder has at the end.
"""

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
from measuring import parser_of, write_figures

VLM_RM = str(Path(sys.executable).parent / "vlm-rm")
_INTERVAL_S = 2.0


@dataclass(frozen=True)
class Needs:
    """What a sweep takes, as estimated or as measured: seconds, environment steps per second, bytes of memory and of disk."""

    seconds: float
    steps_per_second: float
    memory: float
    disk: float


@contextmanager
def most_memory(process: psutil.Process) -> Iterator[list[float]]:
    """Watch a process and all that it starts; the list's last value is the most memory so far, in bytes."""
    most, ended = [0.0], threading.Event()

    def watch() -> None:
        while not ended.wait(_INTERVAL_S):
            now = 0.0
            with suppress(psutil.Error):
                for each in (process, *process.children(recursive=True)):
                    with suppress(psutil.Error):
                        now += each.memory_full_info().pss
            most.append(max(most[-1], now))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield most
    finally:
        ended.set()
        watcher.join()


def estimated(file: Path, changes: list[str], results: Path) -> Needs:
    """Ask `vlm-rm fit` what a sweep takes."""
    command = [VLM_RM, "fit", str(file), *changes, "--results", str(results), "--json"]
    found = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True).stdout)
    return Needs(3600 * found["hours"], found["steps_per_second"], found["memory_total"], found["disk"])


def measured(file: Path, changes: list[str], results: Path) -> Needs:
    """Run the sweep, and look at what it takes."""
    began = time.monotonic()
    command = [VLM_RM, "sweep", str(file), *changes, "--results", str(results)]
    with subprocess.Popen(command) as sweep, most_memory(psutil.Process(sweep.pid)) as memory:
        status = sweep.wait()
    seconds = time.monotonic() - began
    if status:
        raise SystemExit(f"{file}: the sweep ended with status {status}")
    disk = sum(each.stat().st_size for each in results.rglob("*") if each.is_file())
    (journal,) = results.glob("*/journal.jsonl")
    return Needs(seconds, speed(pd.DataFrame(map(json.loads, journal.read_text().splitlines()))), memory[-1], disk)


def speed(journal: pd.DataFrame) -> float:
    """Compute the steps per second of all trials from the events of their sweep."""
    trials = journal[journal["kind"].isin(["start", "result", "end"])]
    return float(trials.groupby("trial")["step"].max().sum() / (trials["time"].max() - trials["time"].min()) * 1000)


def row(name: str, fit: Needs, took: Needs) -> str:
    """Format the comparison of a sweep: each estimate, what it was, and their ratio."""

    def shown(estimate: float, real: float, unit: str, scale: float = 1.0) -> str:
        return f"{estimate / scale:8.3g} {real / scale:8.3g} {unit} {estimate / real:5.2f}"

    parts = (
        shown(fit.seconds, took.seconds, "min", 60),
        shown(fit.steps_per_second, took.steps_per_second, "steps/s"),
        shown(fit.memory, took.memory, "GB", 1e9),
        shown(fit.disk, took.disk, "MB", 1e6),
    )
    return f"{name:<32}" + "  ".join(parts)


def compare(file: Path, changes: list[str], results: Path) -> Mapping[str, Needs]:
    """Estimate a sweep, run it, and print the comparison."""
    folder = Path(tempfile.mkdtemp(prefix=f"fit-{file.stem}-", dir=results))
    fit, took = estimated(file, changes, folder), measured(file, changes, folder)
    print(row(file.stem, fit, took), flush=True)
    return {"estimated": fit, "measured": took}


def main() -> None:
    """Compare the sweeps that are named."""
    parser = parser_of(__doc__)
    parser.add_argument("sweeps", nargs="+", type=Path, help="sweep files")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="changes of each, as in `vlm-rm sweep`")
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of the sweeps")
    options = parser.parse_args()
    options.results.mkdir(parents=True, exist_ok=True)
    changes = [word for change in options.set for word in ("--set", change)]
    print("estimated, measured and their ratio of time, speed, memory and disk")
    found: dict[str, Any] = {file.stem: compare(file, changes, options.results) for file in options.sweeps}
    write_figures(options, found)


if __name__ == "__main__":
    main()
