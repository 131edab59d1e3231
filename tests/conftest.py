"""Shared by all tests: one small Ray cluster for the session, and pinned threads."""

import os

import vlm_rm_sweeps  # noqa: F401 - before Ray, which reads this package's defaults when it is imported

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"

import logging
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import pytest
import ray
import torch
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from ray.rllib.algorithms.dqn import DQNConfig

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.serving.pool import NAMESPACE
from vlm_rm_sweeps.tasks.opengl import choose_backend
from vlm_rm_sweeps.tasks.task import Task, get_task
from vlm_rm_sweeps.training.checkpoints import BestContent, Checkpoint, ResumableContent, TrialFolder, TrialResult

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """A Ray cluster of two CPUs on the loopback address, shared by all tests that need one."""
    ray.init(
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
    from vlm_rm_sweeps.sweeping.tracking.mlflow_mirror import set_up_store  # here: MLflow takes seconds to import

    file = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    set_up_store(f"sqlite:///{file}")
    return file


@pytest.fixture(scope="session")
def scrape(ray_cluster: None) -> Callable[[], list[Sample]]:
    """What a Prometheus server would read from this node now."""

    def read() -> list[Sample]:
        url = f"http://127.0.0.1:{ray.nodes()[0]['MetricsExportPort']}/metrics"
        with urllib.request.urlopen(url, timeout=10) as page:
            families = text_string_to_metric_families(page.read().decode())
        return [sample for family in families for sample in family.samples]

    return read


@pytest.fixture(scope="session")
def opengl() -> None:
    """For tests that draw with MuJoCo: they are skipped where this machine has no OpenGL at all."""
    try:
        choose_backend()
    except UserError as error:
        pytest.skip(str(error))


def _policy_content(task: Task, env_steps: int, model_config: dict[str, Any]) -> dict[str, Any]:
    prompts = {"goal": [task.goal_prompt], "baseline": [task.baseline_prompt], "alpha": 0.5}
    reward = {"model": "embedded/tiny", "precision": "fp32", "micro_batch": 32} | prompts
    content: dict[str, Any] = {"task": task.name, "env": None, "rendering": asdict(task.rendering())}
    content |= {"algorithm": "dqn", "settings": {"hidden": [16]}, "seed": 0, "reward": reward}
    return content | {"env_steps": env_steps, "model_config": model_config}


@pytest.fixture(scope="session")
def saved_policy() -> Callable[..., Checkpoint]:
    """Saves an untrained policy as the best of a trial, as the trial writes it; keywords change its checkpoint.json."""

    def save(trial: Path, **changed: Any) -> Checkpoint:
        task = get_task("cartpole-upright")
        env = task.make_env(None)
        torch.manual_seed(0)
        spec: Any = DQNConfig().get_default_rl_module_spec()
        spec.observation_space, spec.action_space, spec.inference_only = env.observation_space, env.action_space, True
        spec.model_config |= {"fcnet_hiddens": [16], "dueling": False}
        content = _policy_content(task, 500, dict(spec.model_config)) | {"metrics": {"success": 0.0}} | changed
        return TrialFolder(trial).save_best(spec.build(), cast(BestContent, content))

    return save


@pytest.fixture(scope="session")
def saved_step() -> Callable[..., Checkpoint]:
    """Saves a checkpoint of a trial to resume from, with a network and a state that nobody will read."""

    def save(trial: Path, env_steps: int, results: Sequence[TrialResult] = ()) -> Checkpoint:
        content = _policy_content(get_task("cartpole-upright"), env_steps, {}) | {"results": list(results), "done": False}
        return TrialFolder(trial).save(torch.nn.Linear(1, 1), {}, cast(ResumableContent, content))  # type: ignore[arg-type]

    return save
