"""Sweeps that never ran: a folder and MLflow runs, as analysis scripts read them."""

import json
from pathlib import Path
from typing import Any

from mlflow.entities import Metric, Param
from mlflow.tracking import MlflowClient

MODELS = {"embedded/tiny": 0.139, "embedded/small": 0.52}
"""Models of these sweeps, with their millions of parameters."""


def sweep_of(folder: Path, store: str, trials: list[dict[str, Any]]) -> Path:
    """A folder with the MLflow runs of a sweep: tags, last metrics and curves of each finished trial."""
    folder.mkdir()
    client = MlflowClient(store)
    experiment = client.create_experiment(folder.name, artifact_location=(folder / "artifacts").as_uri())
    parent = client.create_run(experiment).info.run_id
    for trial in trials:
        tags = {key: str(value) for key, value in trial.items() if key not in ("metrics", "goal", "params")}
        run_id = client.create_run(experiment, tags=tags | {"mlflow.parentRunId": parent}).info.run_id
        points = [
            Metric(name, point, 0, 1000 * (index + 1))
            for name, value in trial["metrics"].items()
            for index, point in enumerate(value if isinstance(value, list) else [value])
        ]
        params = {"goal": trial.get("goal", "")} | trial.get("params", {})
        client.log_batch(run_id, metrics=points, params=[Param(key, str(value)) for key, value in params.items()])
        client.set_terminated(run_id)
    runs = {"tracking_uri": store, "experiment_id": experiment, "run_id": parent}
    (folder / "mlflow.json").write_text(json.dumps(runs))
    keys = {"name": "drawn", "task": "cartpole-upright", "models": list(MODELS), "alphas": [0.0], "steps": 10}
    (folder / "sweep.yaml").write_text(json.dumps(keys))
    return folder
