"""Importing the package changes nothing; starting Ray, MLflow or pygame sets what they need, and the user's own values win."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

import vlm_rm_sweeps

ROOT = Path(vlm_rm_sweeps.__file__).parents[1]


def run_python(code: str, environment: dict[str, str], *arguments: str) -> str:
    """What a new process prints that has nothing else in its environment."""
    ran = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    return ran.stdout.strip()


def test_importing_any_module_sets_no_variable_and_prints_nothing() -> None:
    """Ray, Gymnasium and others set variables of their own while they are imported: each variable is traced to who sets it."""
    code = """
import importlib, pkgutil, sys

def watch(event, arguments):
    if event in ("os.putenv", "os.unsetenv"):
        frame = sys._getframe(1)
        while frame.f_globals["__name__"] in ("os", "collections.abc"):
            frame = frame.f_back
        seen.append(arguments[0].decode())
        if frame.f_globals["__name__"].startswith("vlm_rm_sweeps"):
            raise AssertionError(f"{frame.f_globals['__name__']} sets {arguments[0].decode()}")

seen = []
sys.addaudithook(watch)
import vlm_rm_sweeps
for module in pkgutil.walk_packages(vlm_rm_sweeps.__path__, "vlm_rm_sweeps."):
    importlib.import_module(module.name)
assert "PYGAME_HIDE_SUPPORT_PROMPT" in seen, "Gymnasium sets it: nothing was watched"
assert {"ray", "mlflow", "pygame"} <= sys.modules.keys()
"""
    assert run_python(code, {}) == ""


@pytest.mark.parametrize("module", ["pygame_frames", "mountain_car", "cart_pole"])
def test_a_task_by_itself_is_imported_without_the_banner_of_pygame(module: str) -> None:
    assert run_python(f"import vlm_rm_sweeps.tasks.{module}", {}) == ""


CHILD = """
import subprocess, sys
from vlm_rm_sweeps import process_defaults
getattr(process_defaults, sys.argv[1])()
grandchild = "import os, sys; print(os.environ.get(sys.argv[1]))"
subprocess.run([sys.executable, "-c", grandchild, sys.argv[2]], check=True)
"""


@pytest.mark.parametrize(
    ("prepare", "name", "value"),
    [
        ("prepare_ray", "RAY_USAGE_STATS_ENABLED", "0"),
        ("prepare_ray", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0"),
        ("prepare_ray", "RAY_AUTH_MODE", "token"),
        ("prepare_mlflow", "MLFLOW_DISABLE_TELEMETRY", "true"),
        ("prepare_mlflow", "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true"),
        ("prepare_tune", "TUNE_PRINT_ALL_TRIAL_ERRORS", "0"),
        ("prepare_pygame", "SDL_VIDEODRIVER", "dummy"),
        ("prepare_pygame", "SDL_AUDIODRIVER", "dummy"),
    ],
)
def test_defaults_reach_child_processes_and_give_way_to_the_users_own(prepare: str, name: str, value: str) -> None:
    assert run_python(CHILD, {}, prepare, name) == value
    assert run_python(CHILD, {name: "the user's"}, prepare, name) == "the user's"


@pytest.mark.parametrize("name", ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "RAY_AUTH_MODE"])
def test_a_cluster_that_is_joined_keeps_its_own(name: str) -> None:
    assert run_python(CHILD, {"RAY_ADDRESS": "10.0.0.1:6379"}, "prepare_ray", name) == "None"


def test_ray_and_mlflow_obey_though_they_were_imported_before() -> None:
    code = """
import mlflow.telemetry, ray, ray.tune
from mlflow.telemetry import client
from ray._common.usage.usage_lib import usage_stats_enabled
from ray._private import ray_constants
from ray._private.authentication.authentication_utils import is_token_auth_enabled
from ray.tune.utils.util import warn_if_slow
from vlm_rm_sweeps.process_defaults import prepare_mlflow, prepare_ray, prepare_tune

assert client.get_telemetry_client() is not None
assert ray_constants.ENABLE_RAY_CLUSTER and usage_stats_enabled() and not is_token_auth_enabled()
assert warn_if_slow("x").threshold < 1
prepare_ray(), prepare_tune(), prepare_mlflow()
assert client.get_telemetry_client() is None
assert not ray_constants.ENABLE_RAY_CLUSTER and not usage_stats_enabled() and is_token_auth_enabled()
assert warn_if_slow("x").threshold == 10
"""
    run_python(code, {"HOME": os.environ["HOME"]})


def test_tune_starts_trials_in_processes_that_ray_keeps_ready() -> None:
    """A trial with variables of its own takes a second longer to start. Those that a cloud needs still reach it."""
    code = """
import os
from ray import tune
from ray.tune.execution.class_cache import _ActorClassCache
from vlm_rm_sweeps.process_defaults import prepare_tune

def variables():
    return _ActorClassCache().get(tune.Trainable)._default_options["runtime_env"].get("env_vars", {})

assert variables() == {"PL_DISABLE_FORK": "1"}
prepare_tune()
assert variables() == {}
os.environ["AWS_SESSION_TOKEN"] = "secret"
assert variables() == {"AWS_SESSION_TOKEN": "secret"}
"""
    run_python(code, {"HOME": os.environ["HOME"]})


def test_a_trainer_in_this_process_says_nothing() -> None:
    """As `vlm-rm fit` has one; what the trainers of trials say is in Ray's logs."""
    code = """
import os
os.dup2(1, 2)
from vlm_rm_sweeps.serving.cluster import ray_cluster
from vlm_rm_sweeps.tasks.registry import find_task
from vlm_rm_sweeps.training.algorithms.registry import find_algorithm
from vlm_rm_sweeps.training.trainer import build_trainer

with ray_cluster(lambda line: None):
    trainer = build_trainer(find_algorithm("dqn")(), find_task("cartpole-upright"), None, 0, 64, 1)
    trainer.train(), trainer.evaluate(), trainer.stop()
"""
    assert run_python(code, {"HOME": os.environ["HOME"]}) == ""


def test_a_cluster_that_runs_is_left_as_it_is(ray_cluster: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from vlm_rm_sweeps.process_defaults import prepare_ray

    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    prepare_ray()
    assert "RAY_AUTH_MODE" not in os.environ


def test_make_opens_mlflow_as_safely_as_the_command_that_a_sweep_prints() -> None:
    """The defaults of the package do not reach what make starts by itself."""
    recipe = (Path(__file__).parent.parent / "Makefile").read_text().split("\nmlflow:")[1].split("\n\n")[0]
    command = recipe.splitlines()[-1].split()
    assert command[:3] == ["env", "MLFLOW_DISABLE_TELEMETRY=true", "DO_NOT_TRACK=true"]
    assert command[command.index("--host") + 1] == "127.0.0.1"


@pytest.mark.slow
def test_the_dashboard_of_a_sweep_listens_on_this_machine_alone_and_asks_for_a_token() -> None:
    """In a process of its own, as the cluster of the other tests has no dashboard, and as a library's user has it: Ray is imported."""
    code = """
import contextlib, psutil, ray, urllib.error, urllib.request
from vlm_rm_sweeps.serving.cluster import ray_cluster

said = []
with ray_cluster(said.append):
    (line,) = [line for line in said if line.startswith("Ray dashboard: ")]
    address = line.split()[2]
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    commands, listening = [], set()
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            commands.append(" ".join(process.cmdline()))
            connections = process.net_connections("tcp")
            listening |= {each.laddr.ip for each in connections if each.status == psutil.CONN_LISTEN}
    assert any("dashboard.py" in command for command in commands)
    assert listening <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}, listening
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        opener.open(address + "/api/cluster_status", timeout=30)
    except urllib.error.HTTPError as error:
        assert error.code == 401, error
    else:
        raise AssertionError("it answered without a token")
"""
    run_python(code, {"HOME": os.environ["HOME"]})


FREE_AND_ALLOCATE = """
import resource, sys
from vlm_rm_sweeps.process_defaults import keep_freed_memory
import numpy as np
if "keep" in sys.argv:
    keep_freed_memory()
def use():
    arrays = [np.ones(5_000_000) for _ in range(3)]  # 40 MB each: more than glibc keeps of its own accord
use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_memory_that_is_freed_is_kept_unless_the_user_has_settings() -> None:
    def pages(*words: str, **variables: str) -> int:
        return int(run_python(FREE_AND_ALLOCATE, variables, *words))

    given_back = pages()
    assert pages("keep") < given_back / 10
    assert pages("keep", MALLOC_TRIM_THRESHOLD_="131072") > given_back / 2
