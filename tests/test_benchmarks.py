"""Do the benchmarks run, each by itself as `make bench` runs them? Their speeds are not asserted. Minutes: `make test-slow`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "rows"),
    [
        ("reward_pool.py", ["embedded/tiny", "embedded/small", "embedded/base", "embedded/large"]),
        ("rendering.py", ["CartPole", "MountainCar", "humanoid, fast profile", "humanoid, full profile", "humanoid, steps/s"]),
    ],
)
def test_a_benchmark_prints_a_row_for_everything_that_it_compares(script: str, rows: list[str]) -> None:
    command = [sys.executable, f"benchmarks/{script}"]
    ran = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=1200)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    missing = [row for row in rows if not any(line.startswith(row) for line in ran.stdout.splitlines())]
    assert not missing, ran.stdout


UPDATES = ["DQN on cartpole-upright, batch 64", "SAC on mountaincar-summit, batch 256", "SAC on humanoid-kneeling, batch 256"]
LEARNERS = ["this project", "stable-baselines3", "RLlib"]
LOOPS = ["this project", "Gymnasium's frames", "fast frames"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "arguments", "compared", "contestants", "figure"),
    [
        ("update.py", ["--updates", "2", "--rounds", "1", "--transitions", "256"], UPDATES, LEARNERS, "cpu"),
        (
            "end_to_end.py",
            ["--steps", "64", "--rounds", "1"],
            ["cartpole-upright", "mountaincar-summit"],
            LOOPS,
            "steps_per_second",
        ),
    ],
)
def test_a_benchmark_of_training_compares_all_contestants(
    script: str, arguments: list[str], compared: list[str], contestants: list[str], figure: str, tmp_path: Path
) -> None:
    file = tmp_path / "figures.json"
    command = [sys.executable, f"benchmarks/{script}", *arguments, "--json", str(file)]
    ran = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=1200)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    lines = ran.stdout.splitlines()
    missing = [
        (row, name) for row in compared for name in contestants if not any(row in line and name in line for line in lines)
    ]
    assert not missing, ran.stdout
    figures = list(json.loads(file.read_text())["results"].values())
    assert len(figures) == len(compared)
    assert all(list(each) == contestants for each in figures)
    assert all(each[name][figure] > 0 for each in figures for name in contestants)
