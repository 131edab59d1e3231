"""The smallest real sweep, and its runs in MLflow, for tests that run one."""

from typing import Any

from mlflow.entities import Run
from mlflow.tracking import MlflowClient

SWEEP: dict[str, Any] = {
    "name": "small",
    "task": "cartpole-upright",
    "models": ["embedded/tiny"],
    "alphas": [0.5],
    "steps": 256,
    "steps_per_result": 128,
    "evaluation_episodes": 2,
    "settings": {"learning_starts": 100, "updates_per_step": 0.02},
    # Both of the test cluster's CPUs: one trial follows the other, in the same process, whose start takes longer than the trial.
    "trial": {"cpus": 2, "retries": 0},
}


def parent_and_children(client: MlflowClient, name: str) -> tuple[Run, list[Run]]:
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    runs = list(client.search_runs([experiment.experiment_id]))
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert len(parents) == 1
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parents[0].info.run_id]
    assert len(runs) == 1 + len(children)
    return parents[0], children
