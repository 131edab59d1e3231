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
    [
        ("RAY_USAGE_STATS_ENABLED", "0"),
        ("MLFLOW_DISABLE_TELEMETRY", "true"),
        ("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0"),
        ("RAY_AUTH_MODE", "token"),
    ],
)
def test_defaults_reach_child_processes_and_give_way_to_the_users_own(name: str, value: str) -> None:
    assert value_after_import(name, {}) == value
    assert value_after_import(name, {name: "the user's"}) == "the user's"


@pytest.mark.parametrize("name", ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "RAY_AUTH_MODE"])
def test_a_cluster_that_is_joined_keeps_its_own(name: str) -> None:
    assert value_after_import(name, {"RAY_ADDRESS": "10.0.0.1:6379"}) == "None"


def test_ray_and_mlflow_have_read_them() -> None:
    from mlflow.telemetry.utils import is_telemetry_disabled
    from ray._common.usage.usage_lib import usage_stats_enabled
    from ray._private import ray_constants
    from ray._private.authentication.authentication_utils import is_token_auth_enabled

    assert not usage_stats_enabled()
    assert is_telemetry_disabled()
    assert not ray_constants.ENABLE_RAY_CLUSTER
    assert os.environ["RAY_AUTH_MODE"] == "token"
    assert is_token_auth_enabled()


def test_make_opens_mlflow_as_safely_as_the_command_that_a_sweep_prints() -> None:
    """The defaults of the package do not reach what make starts by itself."""
    recipe = (Path(__file__).parent.parent / "Makefile").read_text().split("\nmlflow:")[1].split("\n\n")[0]
    command = recipe.splitlines()[-1].split()
    assert command[:3] == ["env", "MLFLOW_DISABLE_TELEMETRY=true", "DO_NOT_TRACK=true"]
    assert command[command.index("--host") + 1] == "127.0.0.1"


@pytest.mark.slow
def test_the_dashboard_of_a_sweep_listens_on_this_machine_alone_and_asks_for_a_token() -> None:
    """In a process of its own: the cluster of the other tests has no dashboard."""
    code = """
import psutil, urllib.error, urllib.request
from vlm_rm_sweeps.sweeping.execution.cluster import ray_cluster

said = []
with ray_cluster(said.append):
    (line,) = [line for line in said if line.startswith("Ray dashboard: ")]
    address = line.split()[2]
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    assert any("dashboard.py" in " ".join(process.cmdline()) for process in processes)
    listening = {
        connection.laddr.ip for process in processes for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}, listening
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        opener.open(address + "/api/cluster_status", timeout=30)
    except urllib.error.HTTPError as error:
        assert error.code == 401, error
    else:
        raise AssertionError("it answered without a token")
"""
    root = str(Path(vlm_rm_sweeps.__file__).parents[1])
    ran = subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": root}, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-2000:]
