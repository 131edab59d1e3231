"""What all benchmarks share: turns, medians, CPU time beside time, and the file of figures.

Contestants take turns in one run, so that a busy machine slows all of them alike, and a figure is the median over the turns. CPU
time is that of this process and of others that work for it. A file of figures has the keys `command`, `date`, `machine`, `versions`,
`settings` and `results`.
"""

import argparse
import json
import logging
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

_PACKAGES = ("vlm-rm-sweeps", "gymnasium", "mlflow", "mujoco", "numpy", "open_clip_torch", "ray", "torch")
_WARM_UP = 1


@dataclass(frozen=True)
class Cost:
    """What one turn cost, or the medians of several.

    Attributes:
        seconds: Time.
        cpu_seconds: CPU time of this process and of its helpers.
    """

    seconds: float
    cpu_seconds: float


def cpu_seconds(processes: Iterable[psutil.Process] = ()) -> float:
    """Return the CPU seconds that this process and others have used so far."""
    return time.process_time() + sum(sum(process.cpu_times()[:2]) for process in processes)


def cost_of(action: Callable[[], object], helpers: Sequence[psutil.Process] = ()) -> Cost:
    """Measure one call.

    Args:
        action: What is called.
        helpers: Other processes that work for it.

    Returns:
        Its time and CPU time.
    """
    cpu, started = cpu_seconds(helpers), time.perf_counter()
    action()
    return Cost(time.perf_counter() - started, cpu_seconds(helpers) - cpu)


def take_turns(
    contestants: Mapping[str, Callable[[], object]],
    rounds: int,
    helpers: Mapping[str, Sequence[psutil.Process]] | None = None,
) -> dict[str, Cost]:
    """Let contestants take turns, after a turn of each that is not counted.

    Args:
        contestants: What is called in a turn, by name.
        rounds: Turns of each contestant.
        helpers: Other processes that work for a contestant, by its name.

    Returns:
        Medians over the turns, by name.
    """
    turns: dict[str, list[Cost]] = {name: [] for name in contestants}
    for round_ in range(_WARM_UP + rounds):
        for name, action in contestants.items():
            cost = cost_of(action, (helpers or {}).get(name, ()))
            if round_ >= _WARM_UP:
                turns[name].append(cost)
    return {name: median_cost(each) for name, each in turns.items()}


def median_cost(turns: Sequence[Cost]) -> Cost:
    """Return the medians of several turns."""
    return Cost(statistics.median(turn.seconds for turn in turns), statistics.median(turn.cpu_seconds for turn in turns))


@contextmanager
def quiet_ray(cpus: int = 2) -> Iterator[None]:
    """Start Ray on this machine, without dashboard and messages, for the duration of a `with` block.

    Its processes can import the benchmarks' modules.

    Args:
        cpus: CPUs that it has to give away.

    Yields:
        Nothing.
    """
    import ray

    from vlm_rm_sweeps.process_defaults import prepare_ray
    from vlm_rm_sweeps.serving.pool import NAMESPACE

    prepare_ray()
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    ray.init(
        address="local",  # else a Ray that somebody else runs on this machine is joined, or one waited for that has ended
        num_cpus=cpus,
        namespace=NAMESPACE,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    try:
        yield
    finally:
        ray.shutdown()


def process_of(actor: Any) -> psutil.Process:
    """Return the process of a Ray actor on this machine."""
    import ray

    return psutil.Process(ray.get(actor.__ray_call__.remote(lambda _: os.getpid())))


def parser_of(doc: str | None) -> argparse.ArgumentParser:
    """Make a parser of the command line, which has the option `--json`.

    Args:
        doc: The docstring of the benchmark, whose first line describes it.

    Returns:
        The parser.
    """
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to a file, too")
    return parser


def write_figures(options: argparse.Namespace, results: Any) -> None:
    """Write figures to the file that `--json` names, if it names one.

    Args:
        options: The command line, which is written as the settings.
        results: The figures: JSON, and dataclasses in it.
    """
    if options.json is None:
        return
    settings = {name: value for name, value in vars(options).items() if name != "json"}
    content = {
        "command": " ".join(["python", *sys.argv]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES},
        "settings": settings,
        "results": results,
    }
    options.json.write_text(json.dumps(content, indent=2, default=_as_json) + "\n")


def _as_json(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else asdict(value)


def machine() -> dict[str, Any]:
    """Describe this machine: processor, cores, memory in GB, GPUs, and how busy it is."""
    torch = sys.modules.get("torch")
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())] if torch else []
    return {
        "processor": _processor(),
        "cores": psutil.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "gpus": gpus,
        "load_average": psutil.getloadavg()[0],
    }


def _processor() -> str:
    """Return the processor's name, family and model: its name alone may not say which one it is."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    if "model name" not in facts:
        return platform.processor() or platform.machine()
    return f"{facts['model name']}, family {facts.get('cpu family')}, model {facts.get('model')}"
