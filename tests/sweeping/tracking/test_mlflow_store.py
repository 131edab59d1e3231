"""The MLflow store is set up once, and a refusal is quick and leaves nothing behind."""

import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from mlflow.tracking import MlflowClient
from mlflow.tracking.request_header import registry

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.sweeping.tracking import mlflow_store
from vlm_rm_sweeps.sweeping.tracking.mlflow_store import OneRequestAConnection, set_up_store


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


@pytest.fixture
def asked() -> Iterator[tuple[str, list[str | None]]]:
    """The address of a server without experiments, and what each request says of its connection."""
    said: list[str | None] = []

    class Answers(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # which keeps connections

        def do_POST(self) -> None:
            said.append(self.headers["Connection"])
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, format: str, *arguments: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", said
        server.shutdown()


def test_a_server_answers_at_once_because_no_connection_is_kept(
    asked: tuple[str, list[str | None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On one that is kept, each answer of MLflow's usual server takes 40 ms longer."""
    url, said = asked
    monkeypatch.setattr(mlflow_store, "MlflowClient", MlflowClient)
    providers = registry._request_header_provider_registry
    monkeypatch.setattr(providers, "_registry", [each for each in providers if not isinstance(each, OneRequestAConnection)])
    MlflowClient(url).search_experiments(max_results=1)
    assert said == ["keep-alive"]
    for _ in range(2):  # of which the second one adds nothing
        set_up_store(url)
    assert said == ["keep-alive", "close", "close"]
    assert sum(isinstance(each, OneRequestAConnection) for each in providers) == 1


def test_connections_over_https_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    providers = registry._request_header_provider_registry
    monkeypatch.setattr(providers, "_registry", [])
    mlflow_store._answer_at_once("https://127.0.0.1:1")
    mlflow_store._answer_at_once("sqlite:////tmp/x.db")
    assert list(providers) == []
