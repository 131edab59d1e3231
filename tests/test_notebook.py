"""The notebook runs, cell by cell, and keeps no output. No Jupyter is needed for it."""

import json
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Metric
from mlflow.tracking import MlflowClient

NOTEBOOK = Path(__file__).parents[1] / "examples" / "first_look.ipynb"
CONTENT = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
CODE = [cell for cell in CONTENT["cells"] if cell["cell_type"] == "code"]


def run() -> dict[str, Any]:
    """The names that its cells leave."""
    names: dict[str, Any] = {"__name__": "notebook"}
    for cell in CODE:
        exec(compile("".join(cell["source"]), f"{NOTEBOOK.name}, {cell['id']}", "exec"), names)
    return names


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    return tmp_path


def test_it_keeps_no_output() -> None:
    assert [cell["id"] for cell in CODE if cell["outputs"] or cell["execution_count"]] == []
    assert len({cell["id"] for cell in CONTENT["cells"]}) == len(CONTENT["cells"])


def test_it_scores_draws_and_reads_a_sweep(elsewhere: Path, mlflow_database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import mlflow

    (elsewhere / "results").mkdir()
    (elsewhere / "results" / "mlflow.db").symlink_to(mlflow_database)
    client = MlflowClient(f"sqlite:///{mlflow_database}")
    experiment = client.create_experiment("looked-at")
    for seed, success in enumerate((0.5, 1.0)):
        tags = {"sweep": "looked-at-1", "model": "embedded/tiny", "alpha": "0", "prompt": "p", "seed": str(seed)}
        run_id = client.create_run(experiment, tags=tags).info.run_id
        metrics = {"evaluation_success": success, "evaluation_true_return": 9.0}
        client.log_batch(run_id, metrics=[Metric(name, value, 0, 0) for name, value in metrics.items()])
        client.set_terminated(run_id)
    before = mlflow.get_tracking_uri()
    try:
        found = run()
    finally:
        mlflow.set_tracking_uri(before)
    assert (found["scores"].idxmax() == 0).all()
    assert abs(found["around"][found["rewards"].argmax()]) < 30
    assert found["by_model"].loc[("looked-at-1", "embedded/tiny"), "mean"] == 0.75
    assert "peak at" in capsys.readouterr().out


def test_without_a_sweep_it_says_what_to_do(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run()["by_model"] is None
    assert "does not exist: run `make sweep`" in capsys.readouterr().out
