"""A sweep is resolved once: from its file to its first trial, each task is made and each model looked up one time."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from vlm_rm_sweeps.rewards import registry as model_registry
from vlm_rm_sweeps.sweeping.config import plan as plans
from vlm_rm_sweeps.sweeping.config.plan import Plan
from vlm_rm_sweeps.sweeping.config.screening import load_plan
from vlm_rm_sweeps.sweeping.execution.pools import pool_configs
from vlm_rm_sweeps.sweeping.execution.sweep_run import SweepRun
from vlm_rm_sweeps.sweeping.tracking.folder import SweepFolder
from vlm_rm_sweeps.tasks import gym_task
from vlm_rm_sweeps.tasks import registry as task_registry

QUICKSTART = Path(__file__).parents[3] / "sweeps" / "quickstart.yaml"
PENDULUM = {
    "name": "pendulum",
    "env": {"id": "Pendulum-v1", "episode_steps": 200, "success": "obs[0] > 0.9"},
    "models": ["embedded/tiny", "embedded/small"],
    "alphas": [0.0, 0.5],
    "prompts": [{"id": "up", "goal": "a pendulum up", "baseline": "a pendulum"}],
    "steps": 1000,
}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each look-up is called, wherever its caller imported it from."""
    counted: Counter[str] = Counter()

    def count(name: str, original: Callable[..., Any], *owners: Any) -> None:
        def counting(*args: Any, **kwargs: Any) -> Any:
            counted[name] += 1
            return original(*args, **kwargs)

        for owner in owners:
            monkeypatch.setattr(owner, name, counting)

    count("find_task", task_registry.find_task, task_registry, plans)
    count("known_task", task_registry.known_task, task_registry)
    count("make_task", gym_task.make_task, gym_task, plans)
    count("find_reward_model", model_registry.find_reward_model, model_registry, plans)
    count("_make", gym_task._make, gym_task)
    return counted


def until_the_first_trial(file: Path, results: Path, database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a sweep does in the driver before Tune runs its trials, but for Ray's own start."""
    monkeypatch.setattr(SweepRun, "_tune", lambda run, trials, pools: None)
    plan = load_plan(file)
    assert isinstance(plan, Plan)
    plan.remarks()
    folder = SweepFolder.new(plan.sweep, results)
    folder.create(plan.sweep)
    with SweepRun(plan, folder, f"sqlite:///{database}", lambda line: None) as run:
        run.run(pool_configs(plan, "unused"), None, {})


def test_the_quick_start(calls: Counter[str], tmp_path: Path, mlflow_database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    until_the_first_trial(QUICKSTART, tmp_path, mlflow_database, monkeypatch)
    assert calls == {"find_task": 1, "find_reward_model": 2}


def test_an_environment_of_a_sweep_file(
    calls: Counter[str], tmp_path: Path, mlflow_database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "pendulum.yaml"
    file.write_text(yaml.safe_dump(PENDULUM))
    until_the_first_trial(file, tmp_path, mlflow_database, monkeypatch)
    # Once to check that it steps and draws, once to see which actions it has.
    assert calls == {"make_task": 1, "_make": 2, "find_reward_model": 2}
