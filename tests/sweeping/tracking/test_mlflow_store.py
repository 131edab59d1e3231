"""The MLflow store is set up once, and a refusal is quick and leaves nothing behind."""

import sys
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.sweeping.tracking import mlflow_store
from vlm_rm_sweeps.sweeping.tracking.mlflow_store import set_up_store


@pytest.fixture(autouse=True)
def mlflow_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would try for minutes."""

    def ask(tracking_uri: str) -> None:
        pytest.fail(f"MLflow was asked to open {tracking_uri}")

    monkeypatch.setattr(mlflow_store, "MlflowClient", ask)


@pytest.mark.parametrize(
    ("kind", "reason"), [("folder", "unable to open database file"), ("text", "file is not a database"), ("name", "too long")]
)
def test_a_file_that_is_no_database_is_refused_at_once(kind: str, reason: str, tmp_path: Path) -> None:
    file = tmp_path / ("x" * 300 if kind == "name" else "mlflow.db")
    if kind == "folder":
        file.mkdir()
    elif kind == "text":
        file.write_text("some text, which no database begins with")
    with pytest.raises(UserError, match=rf"cannot be used: .*({reason}|unable to open).*--tracking-uri"):
        set_up_store(f"sqlite:///{file}")
    assert [each.name for each in tmp_path.iterdir()] == ([] if kind == "name" else ["mlflow.db"])


def test_a_refused_store_leaves_no_empty_folders(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be used"):
        set_up_store(f"sqlite:///{tmp_path}/new/folder/{'x' * 300}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("scheme", "module", "package"),
    [
        ("postgresql", "psycopg", "'psycopg[binary]'"),
        ("postgresql+psycopg2", "psycopg2", "psycopg2-binary"),
        ("mysql+pymysql", "pymysql", "pymysql"),
    ],
)
def test_a_missing_driver_is_named_and_not_taken_for_a_server_that_is_down(
    scheme: str, module: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlflow_store, "MlflowClient", MlflowClient)
    monkeypatch.setitem(sys.modules, module, None)  # as if it was not installed
    with pytest.raises(UserError) as refused:
        set_up_store(f"{scheme}://anna:s3cret@db.example/runs")
    message = str(refused.value)
    assert f"{scheme}://***@db.example/runs needs the Python module {module}, which is not installed" in message
    assert f"`pip install {package}`" in message
