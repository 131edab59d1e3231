"""What importing the package sets for its process and all of its children."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import vlm_rm_sweeps

GRANDCHILD = "import os, sys; print(os.environ.get(sys.argv[1]))"
CHILD = "import subprocess, sys, vlm_rm_sweeps; subprocess.run([sys.executable, '-c', *sys.argv[1:]], check=True)"


def value_after_import(name: str, environment: dict[str, str]) -> str:
    """Of a variable, in a child of a process that has imported the package and had nothing else in its environment."""
    root = str(Path(vlm_rm_sweeps.__file__).parents[1])
    command = [sys.executable, "-c", CHILD, GRANDCHILD, name]
    ran = subprocess.run(command, env={"PYTHONPATH": root} | environment, capture_output=True, text=True, check=True)
    return ran.stdout.strip()


@pytest.mark.parametrize(
    ("name", "value"),
    [("RAY_USAGE_STATS_ENABLED", "0"), ("MLFLOW_DISABLE_TELEMETRY", "true"), ("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")],
)
def test_defaults_reach_child_processes_and_give_way_to_the_users_own(name: str, value: str) -> None:
    assert value_after_import(name, {}) == value
    assert value_after_import(name, {name: "the user's"}) == "the user's"


def test_a_cluster_that_is_joined_keeps_its_addresses() -> None:
    assert value_after_import("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", {"RAY_ADDRESS": "10.0.0.1:6379"}) == "None"


def test_ray_and_mlflow_have_read_them() -> None:
    from mlflow.telemetry.utils import is_telemetry_disabled
    from ray._common.usage.usage_lib import usage_stats_enabled
    from ray._private import ray_constants

    assert not usage_stats_enabled()
    assert is_telemetry_disabled()
    assert not ray_constants.ENABLE_RAY_CLUSTER
    assert os.environ.get("RAY_AUTH_MODE", "token") == "token"


def test_make_opens_mlflow_as_safely_as_the_command_that_a_sweep_prints() -> None:
    """The defaults of the package do not reach what make starts by itself."""
    recipe = (Path(__file__).parent.parent / "Makefile").read_text().split("\nmlflow:")[1].split("\n\n")[0]
    command = recipe.splitlines()[-1].split()
    assert command[:3] == ["env", "MLFLOW_DISABLE_TELEMETRY=true", "DO_NOT_TRACK=true"]
    assert command[command.index("--host") + 1] == "127.0.0.1"
