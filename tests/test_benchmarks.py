"""Do the benchmarks run, each by itself as `make bench` runs them? Their speeds are not asserted. Minutes: `make test-slow`."""

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
