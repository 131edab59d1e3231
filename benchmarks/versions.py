"""Environment steps per second and CPU time of one trial of the humanoid, here and at an earlier commit, by turns.

    .venv/bin/python benchmarks/versions.py                        version 0.1 and the working tree
    .venv/bin/python benchmarks/versions.py --commit v0.2.0        another commit or tag

Both run `vlm-rm sweep` on version 0.1's recipe of the kneeling humanoid, with a smaller model and fewer steps. The working tree
runs today's recipe, too. The earlier commit's package is taken from git into a temporary folder, and runs with the packages that are
installed. A figure is of the results between the second and the last but one: the first is from before the updates begin, and the last
has the final evaluation. CPU time is that of the driver and of all processes below it: Ray's own, the reward server's and the trial's.
Where a trial's time goes is from its own metrics of the same results.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from measuring import parser_of, write_figures

ROOT = Path(__file__).parent.parent
VERSION_0_1 = "9a26474adb8089cffa96cbb0a32a37be8f847ce2"
SWEEP = """\
name: versions
task: humanoid-kneeling
models: [{model}]
alphas: [0.0]
textures: [modified]
cameras: [paper]
profile: fast
seeds: [0]
true_reward: false
untrained: false
videos: false
algorithm: sac
steps: {steps}
steps_per_result: 1024
checkpoint_every: {steps}
evaluation_episodes: 1
settings:
  learning_rate: 5.0e-4
  gamma: 0.95
  tau: 0.01
  entropy: auto
  hidden: [256, 256]
  batch: 256
  buffer: 150_000
  learning_starts: 1_000
  envs: 8
  rollout_steps: 16
  updates_per_step: 0.5
pool:
  micro_batch: 64
"""
TODAY = """\
base: {file}
name: versions-today
models: [{model}]
seeds: [0]
true_reward: false
untrained: false
videos: false
steps: {steps}
steps_per_result: 1024
checkpoint_every: {steps}
evaluation_episodes: 1
stop: null
settings: {{learning_starts: 1_000}}
"""
HERE, HERE_TODAY = "the working tree", "..., today's recipe"
COMMAND = "import sys; from vlm_rm_sweeps.cli import main; sys.argv[0] = 'vlm-rm'; main()"
PARTS = ("render_seconds", "sampling_seconds", "reward_wait_seconds", "encode_seconds", "replay_seconds", "update_seconds")


@dataclass(frozen=True)
class Turn:
    """Figures of one sweep, or medians of several.

    Attributes:
        steps_per_second: Environment steps per second.
        cpu_ms: CPU milliseconds per step of all processes.
        part_ms: Milliseconds per step of a trial's parts, by the name of their metric, where the version has it.
    """

    steps_per_second: float
    cpu_ms: float
    part_ms: dict[str, float]


def package_of(commit: str, folder: Path) -> Path:
    """Write a commit's package into a folder.

    Args:
        commit: A commit or tag of this repository.
        folder: A new folder.

    Returns:
        The folder.

    Raises:
        SystemExit: This repository does not have the commit.
    """
    archive = subprocess.run(["git", "-C", str(ROOT), "archive", commit, "vlm_rm_sweeps"], capture_output=True, check=False)
    if archive.returncode:
        print(
            f"{commit!r} is not in this repository ({archive.stderr.decode().strip()}). A shallow clone lacks it.",
            file=sys.stderr,
        )
        raise SystemExit(2)
    folder.mkdir()
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)
    return folder


def measured_turn(package: Path, sweep: Path, results: Path) -> Turn:
    """Run a sweep with a package.

    Args:
        package: The folder that the package is imported from.
        sweep: The sweep file.
        results: Its results' folder.

    Returns:
        The figures.

    Raises:
        SystemExit: The sweep failed; its output is printed.
    """
    environment = os.environ | {"PYTHONPATH": str(package), "OMP_NUM_THREADS": "1"}
    output = results.with_suffix(".log")
    with output.open("w") as log:
        command = [sys.executable, "-c", COMMAND, "sweep", str(sweep), "--results", str(results)]
        driver = psutil.Popen(command, env=environment, cwd=results.parent, stdout=log, stderr=subprocess.STDOUT)
        seen: dict[int, tuple[float, float, dict[str, float]]] = {}
        while driver.poll() is None:
            for entry in _results(results):
                seen.setdefault(entry["step"], (entry["time"] / 1e3, _cpu_seconds(driver), entry["metrics"]))
            time.sleep(0.2)
    if driver.returncode or len(seen) < 4:
        print(output.read_text(), file=sys.stderr)
        raise SystemExit(f"The sweep of {package} ended with status {driver.returncode}.")
    first, *between = sorted(seen)[1:-1]
    steps, (started, cpu_before, _), (ended, cpu_after, _) = between[-1] - first, seen[first], seen[between[-1]]
    metrics = [seen[step][2] for step in between]
    parts = {part: 1e3 * sum(each[part] for each in metrics) / steps for part in PARTS if all(part in each for each in metrics)}
    return Turn(steps / (ended - started), 1e3 * (cpu_after - cpu_before) / steps, parts)


def _results(results: Path) -> Iterable[dict[str, Any]]:
    """Return the results that the journal of the one sweep in a folder has so far."""
    for journal in results.glob("*/journal.jsonl"):
        for line in journal.read_text().splitlines():
            with suppress(ValueError):  # a line that is being written
                entry = json.loads(line)
                if entry["kind"] == "result" and entry["step"]:
                    yield entry


def _cpu_seconds(driver: psutil.Process) -> float:
    total = 0.0
    for process in (driver, *driver.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            total += sum(process.cpu_times()[:2])
    return total


def median(turns: Sequence[Turn]) -> Turn:
    """Return the median of each figure."""
    parts = {part: statistics.median(turn.part_ms[part] for turn in turns) for part in turns[0].part_ms}
    return Turn(
        statistics.median(turn.steps_per_second for turn in turns), statistics.median(turn.cpu_ms for turn in turns), parts
    )


def compare(commit: str, model: str, steps: int, rounds: int) -> dict[str, Turn]:
    """Let both versions run the sweep, by turns.

    Args:
        commit: The earlier commit.
        model: The reward model.
        steps: Environment steps of the trial.
        rounds: Turns of each version.

    Returns:
        Medians, of the working tree, of the commit and of the working tree with today's recipe.
    """
    with tempfile.TemporaryDirectory(prefix="versions-") as name:
        folder = Path(name)
        sweep, today = folder / "versions.yaml", folder / "today.yaml"
        sweep.write_text(SWEEP.format(model=model, steps=steps))
        today.write_text(TODAY.format(file=ROOT / "sweeps" / "humanoid_kneeling.yaml", model=model, steps=steps))
        earlier = package_of(commit, folder / "package")
        contestants = {HERE: (ROOT, sweep), commit: (earlier, sweep), HERE_TODAY: (ROOT, today)}
        turns: dict[str, list[Turn]] = {name: [] for name in contestants}
        for round_ in range(rounds):
            for index, (name, (package, file)) in enumerate(contestants.items()):
                turns[name].append(measured_turn(package, file, folder / f"results-{round_}-{index}"))
    return {name: median(each) for name, each in turns.items()}


def main() -> None:
    """Print the table, and write it as JSON."""
    parser: argparse.ArgumentParser = parser_of(__doc__)
    parser.add_argument(
        "--commit", default=VERSION_0_1, help="an earlier commit or tag; by default the last one of version 0.1"
    )
    parser.add_argument("--model", default="embedded/small", help="the reward model, which both versions have")
    parser.add_argument("--steps", type=int, default=6_144, help="environment steps of the trial")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each version")
    options = parser.parse_args()
    turns = compare(options.commit, options.model, options.steps, options.rounds)
    before = turns[options.commit]
    print(f"{'version':22}{'steps/s':>9}{'CPU ms/step':>13}{'speed':>8}{'CPU':>7}   ms/step by part")
    for name, turn in turns.items():
        speed, cpu = turn.steps_per_second / before.steps_per_second, turn.cpu_ms / before.cpu_ms
        parts = ", ".join(f"{part.removesuffix('_seconds').replace('_', ' ')} {ms:.2f}" for part, ms in turn.part_ms.items())
        print(f"{name[:20]:22}{turn.steps_per_second:9.1f}{turn.cpu_ms:13.1f}{speed:8.2f}{cpu:7.2f}   {parts}")
    write_figures(options, turns)


if __name__ == "__main__":
    main()
