"""The Prometheus and Grafana files, and starting the servers that are installed (the real Prometheus, if there is one)."""

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml
from ray._private.ray_constants import KV_NAMESPACE_DASHBOARD
from ray.dashboard.consts import GPU_TAG_KEYS
from ray.dashboard.modules.reporter.reporter_agent import METRICS_GAUGES

from vlm_rm_sweeps.dashboard import watch as watching
from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.serving.telemetry import declared_series

DASHBOARDS = sorted((watching.DASHBOARDS / "grafana" / "dashboards").glob("*.json"))
_FUNCTIONS = {
    "sum",
    "by",
    "rate",
    "histogram_quantile",
    "le",
    "max",
    "avg",
    "or",
    "vector",
    "model",
    "trial",
    "label",
    *GPU_TAG_KEYS,
    "__rate_interval",
}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def panels(file: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(file.read_text())["panels"]
    return found


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.stem)
def test_a_dashboard_asks_only_for_series_that_the_code_declares(file: Path) -> None:
    series, of_ray = declared_series(), {f"ray_{name}" for name in METRICS_GAUGES}
    assert {"ray_vlm_rm_frames_total", "ray_vlm_rm_reward_mean", "ray_vlm_rm_request_seconds_bucket"} <= series
    asked: set[str] = set()
    for panel in panels(file):
        assert panel["targets"], panel["title"]
        for target in panel["targets"]:
            words = set(re.findall(r"[a-zA-Z_][a-zA-Z0-9_]*", target["expr"])) - _FUNCTIONS
            assert words <= series | of_ray, (panel["title"], words - series - of_ray)
            asked |= words - of_ray
    # Each declared series is shown; for a histogram, its buckets are enough.
    assert {name for name in series if not name.endswith(("_sum", "_count"))} == asked


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.stem)
def test_a_dashboard_can_be_provisioned(file: Path) -> None:
    dashboard = json.loads(file.read_text())
    assert dashboard["uid"] == "vlm-rm-sweeps"
    assert dashboard["title"]
    assert "id" not in dashboard  # Grafana assigns it
    assert "__inputs" not in dashboard  # nobody could enter them
    datasources = yaml.safe_load((watching.DASHBOARDS / "grafana/provisioning/datasources/prometheus.yaml").read_text())[
        "datasources"
    ]
    known = {source["uid"] for source in datasources}
    ids, places = [], []
    for panel in dashboard["panels"]:
        ids.append(panel["id"])
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        places += [(place["x"] + dx, place["y"] + dy) for dx in range(place["w"]) for dy in range(place["h"])]
        assert {source["uid"] for source in [panel["datasource"], *(t["datasource"] for t in panel["targets"])]} <= known
    assert len(ids) == len(set(ids))
    assert len(places) == len(set(places)), "panels overlap"


def test_what_provisioning_leaves_open_is_given_to_grafana() -> None:
    text = "".join(file.read_text() for file in (watching.DASHBOARDS / "grafana" / "provisioning").rglob("*.yaml"))
    cluster = watching.Cluster(Path("/tmp/ray/session_x"), [])
    environment = watching.grafana_environment(cluster, Path("data"), 9090, 3000)
    asked = set(re.findall(r"\$([A-Z_]+)", text))
    assert asked == {"PROMETHEUS_URL", "VLM_RM_DASHBOARDS", "RAY_DASHBOARDS"}
    assert asked <= environment.keys()
    assert environment["GF_SERVER_HTTP_ADDR"] == "127.0.0.1"
    assert environment["GF_ANALYTICS_REPORTING_ENABLED"] == "false"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[watching.Cluster]:
    """A session folder like Ray's, whose metrics address accepts connections until the test ends."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        session = tmp_path / "ray" / "session_2026-01-02_00-00-00_000000_2"
        session.mkdir(parents=True)
        target = f"127.0.0.1:{listener.getsockname()[1]}"
        content = [{"labels": {"job": "ray"}, "targets": [target]}]
        (session / "prom_metrics_service_discovery.json").write_text(json.dumps(content))
        yield watching.Cluster(session, [target])


def test_finds_the_cluster_that_answers(cluster: watching.Cluster) -> None:
    folder = cluster.session.parent
    for name, content in {
        "session_2026-01-01_00-00-00_000000_1": json.dumps([{"targets": [cluster.targets[0]]}]),
        "session_2026-01-03_00-00-00_000000_3": json.dumps([{"targets": [f"127.0.0.1:{free_port()}"]}]),
        "session_2026-01-04_00-00-00_000000_4": '[{"targets": ["127.0.0.1:1',
    }.items():
        (folder / name).mkdir()
        (folder / name / "prom_metrics_service_discovery.json").write_text(content)
    (folder / "session_latest").symlink_to(folder / "session_2026-01-04_00-00-00_000000_4")
    found = watching.find_cluster(folder)
    assert found == cluster


def test_names_the_address_of_rays_own_dashboard(ray_cluster: None, cluster: watching.Cluster) -> None:
    worker: Any = ray._private.worker.global_worker
    session, kept = watching.Cluster(Path(worker.node.get_session_dir_path()), []), worker.gcs_client
    kept.internal_kv_put(b"webui:url", b"127.0.0.1:8265", True, KV_NAMESPACE_DASHBOARD)
    try:
        assert watching.dashboard_address(session) == "http://127.0.0.1:8265"
    finally:
        kept.internal_kv_del(b"webui:url", False, KV_NAMESPACE_DASHBOARD)
    assert watching.dashboard_address(session) is None
    assert watching.dashboard_address(cluster) is None


def test_without_a_cluster_it_says_what_to_start(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="start a sweep first"):
        watching.find_cluster(tmp_path)


def test_says_what_to_install(cluster: watching.Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    said: list[str] = []
    watching.watch(cluster, tmp_path / "data", free_port(), free_port(), said.append)
    assert "apt install prometheus" in said[-1]
    assert not (tmp_path / "data").exists()


def test_a_server_that_does_not_start_is_an_error_with_its_last_words(
    cluster: watching.Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "prometheus"
    broken.write_text("#!/bin/sh\necho the disk is on fire\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"Prometheus did not start .*: the disk is on fire"):
        watching.watch(cluster, tmp_path / "data", free_port(), free_port(), lambda line: None)


def test_a_port_in_use_is_refused(cluster: watching.Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/nowhere/{name}")
    port = int(cluster.targets[0].rpartition(":")[2])
    with pytest.raises(UserError, match=rf"port {port} is in use.*--prometheus-port"):
        watching.watch(cluster, tmp_path / "data", port, free_port(), lambda line: None)


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="Prometheus is not installed")
def test_the_real_prometheus_listens_on_loopback_scrapes_and_ends_on_ctrl_c(tmp_path: Path) -> None:
    from prometheus_client import CollectorRegistry, Gauge, start_http_server

    registry = CollectorRegistry()
    Gauge("ray_vlm_rm_reward_mean", "test", ["model"], registry=registry).labels("embedded/tiny").set(0.25)
    metrics, thread = start_http_server(0, "127.0.0.1", registry)
    session = tmp_path / "ray" / "session_2026-01-02_00-00-00_000000_2"
    session.mkdir(parents=True)
    target = f"127.0.0.1:{metrics.server_port}"
    (session / "prom_metrics_service_discovery.json").write_text(json.dumps([{"labels": {"job": "ray"}, "targets": [target]}]))
    port = free_port()
    code = (
        # A shell that runs the tests in the background has Ctrl-C ignored, and a child inherits that.
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); from vlm_rm_sweeps import cli; "
        f"sys.argv = ['vlm-rm', 'dashboard', '--results', {str(tmp_path)!r}, '--prometheus-port', '{port}', "
        f"'--grafana-port', '{free_port()}']; cli.main()"
    )
    environment = {"RAY_TMPDIR": str(tmp_path), "PATH": str(Path(shutil.which("prometheus") or "").parent)}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment | python_path(), stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        lines: list[str] = []
        reader = threading.Thread(target=lambda: lines.extend(iter(process.stdout.readline, "")), daemon=True)  # type: ignore[union-attr]
        reader.start()
        values = wait_for(lambda: query(port, "ray_vlm_rm_reward_mean"), 60)
        assert values == [("embedded/tiny", 0.25)]
        listening = subprocess.run(["ss", "-ltn"], capture_output=True, text=True, check=True).stdout
        assert f"127.0.0.1:{port} " in listening
        assert f"0.0.0.0:{port} " not in listening
        assert f"*:{port} " not in listening
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        metrics.shutdown()
        thread.join(5)
    with pytest.raises(OSError, match="refused"), socket.create_connection(("127.0.0.1", port), timeout=1):
        pass


def python_path() -> dict[str, str]:
    return {"PYTHONPATH": str(watching.DASHBOARDS.parents[1])}


def query(port: int, name: str) -> list[tuple[str, float]]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/query?query={name}", timeout=2) as answer:
            found = json.load(answer)["data"]["result"]
    except OSError:
        return []
    return [(series["metric"]["model"], float(series["value"][1])) for series in found]


def wait_for(ask: Any, seconds: float) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        answer = ask()
        if answer:
            return answer
        time.sleep(0.3)
    return None
