"""Shared by all tests: one small Ray cluster for the session, and pinned threads."""

import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"

import gc
import logging
import shutil
import sys
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
import ray
import torch
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from ray.rllib.algorithms.dqn import DQNConfig

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.process_defaults import prepare_ray
from vlm_rm_sweeps.serving.pool import NAMESPACE
from vlm_rm_sweeps.storage import RemoteFolder
from vlm_rm_sweeps.tasks.opengl import choose_backend
from vlm_rm_sweeps.tasks.registry import find_task
from vlm_rm_sweeps.training.checkpoints import BestContent, Checkpoint, TrialFolder

if TYPE_CHECKING:
    from store_server import StoreServer

torch.set_num_threads(1)

PLUGINS = Path(__file__).parent / "plugins"
"""Folder of what tests plug in, as a user's own modules lie beside a sweep file."""
sys.path.insert(0, str(PLUGINS))
# For Ray's workers. A sweep ships its modules by Ray's runtime environment, which keeps idle workers from being used.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(PLUGINS), os.environ.get("PYTHONPATH")]))


_CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
LONG_FILES = (
    "faults/test_faults.py",
    "serving/test_pool.py",
    "sweeping/execution/test_run_sweep.py",
    "sweeping/execution/test_run_sweep_failures.py",
)
"""Files that take longest, which start first: processes that share the tests take a whole file each, and the last should be short."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {Path(__file__).parent / file: place for place, file in enumerate(LONG_FILES)}
    items.sort(key=lambda item: order.get(item.path, len(order)))


def pytest_collection_finish() -> None:
    """Take all that was imported out of the garbage collector's sight: each full collection would walk millions of objects.

    imageio collects twice for each video that it writes.
    """
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    """Give it back: extension modules report what is never collected as leaks."""
    gc.unfreeze()


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """A Ray cluster of two CPUs on the loopback address, shared by all tests that need one."""
    prepare_ray()
    ray.init(
        address="local",  # else a Ray that somebody else runs on this machine is joined
        num_cpus=2,
        namespace=NAMESPACE,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        # Ray's own default, 10 s, is longer than the small sweeps here last.
        _system_config={"metrics_report_interval_ms": 1000},
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def mlflow_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of an empty MLflow database. Its tables take seconds to make: tests have an experiment of their own in it, or a copy."""
    from vlm_rm_sweeps.sweeping.tracking.mlflow_store import set_up_store  # here: MLflow takes seconds to import

    file = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    set_up_store(f"sqlite:///{file}")
    return file


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes this process one of another machine, whose copies of what is in a store are elsewhere; it begins as the first."""

    def move(name: str) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches" / name))

    move("first")
    return move


@pytest.fixture
def remote(tmp_path: Path, machine: Callable[[str], None]) -> RemoteFolder:
    """An empty folder in a store, which is another folder on this disk."""
    return RemoteFolder.at(f"file://{tmp_path}/store/results")


@pytest.fixture(scope="session")
def store_server() -> Iterator["StoreServer"]:
    """A server that speaks S3."""
    pytest.importorskip("moto", reason="moto is not installed")
    from store_server import StoreServer  # here: the folder of plugins is known now

    server = StoreServer()
    yield server
    server.stop()


@pytest.fixture
def s3(
    store_server: "StoreServer", tmp_path: Path, machine: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> RemoteFolder:
    """An empty folder in a store that speaks S3."""
    for name, value in store_server.environment.items():
        monkeypatch.setenv(name, value)
    return RemoteFolder.at(f"s3://bucket/{tmp_path.name}")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A headless Chromium, driven by playwright."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = os.environ.get("CHROMIUM") or next((path for path in map(shutil.which, _CHROMIUMS) if path), None)
    if found is None:
        pytest.skip("no Chromium found: install Debian's `chromium`, or name one with CHROMIUM=path")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def scrape(ray_cluster: None) -> Callable[[], list[Sample]]:
    """The series of this package that a Prometheus server would read from this node now."""

    def read() -> list[Sample]:
        url = f"http://127.0.0.1:{ray.nodes()[0]['MetricsExportPort']}/metrics"
        with urllib.request.urlopen(url, timeout=10) as page:
            lines = page.read().decode().splitlines(keepends=True)
        # Ray's own, thousands of lines, would take half a second to parse.
        families = text_string_to_metric_families("".join(line for line in lines if "ray_vlm_rm_" in line))
        return [sample for family in families for sample in family.samples]

    return read


@pytest.fixture(scope="session")
def opengl() -> None:
    """For tests that draw with MuJoCo: they are skipped where this machine has no OpenGL at all."""
    try:
        choose_backend()
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def saved_policy() -> Callable[..., Checkpoint]:
    """Saves an untrained policy as the best of a trial, as the trial writes it; keywords change its checkpoint.json.

    The policy is one for CartPole, or `module`.
    """

    def save(trial: Path, module: Any = None, **changed: Any) -> Checkpoint:
        task = find_task("cartpole-upright")
        env = task.make_env(None)
        torch.manual_seed(0)
        spec: Any = DQNConfig().get_default_rl_module_spec()
        spec.observation_space, spec.action_space, spec.inference_only = env.observation_space, env.action_space, True
        spec.model_config |= {"fcnet_hiddens": [16], "dueling": False}
        prompts = {"goal": [task.goal_prompt], "baseline": [task.baseline_prompt], "alpha": 0.5}
        reward = {"model": "embedded/v2/tiny", "precision": "fp32", "micro_batch": 32} | prompts
        content: dict[str, Any] = {"task": task.name, "env": None, "rendering": asdict(task.rendering())}
        content |= {"algorithm": "dqn", "settings": {"hidden": [16]}, "seed": 0, "reward": reward, "env_steps": 500}
        content |= {"model_config": dict(spec.model_config), "metrics": {"success": 0.0}} | changed
        return TrialFolder(trial).save_best(module or spec.build(), cast(BestContent, content))

    return save
