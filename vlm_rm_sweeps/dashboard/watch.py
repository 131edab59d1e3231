"""`vlm-rm dashboard`: Prometheus and Grafana beside the Ray cluster of a running sweep, on this machine's loopback address.

Ray keeps a file for Prometheus that says where its metrics are; what is shown is in the files beside this module.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.process_defaults import prepare_ray

DASHBOARDS = Path(__file__).parent
_LOOPBACK = "127.0.0.1"
_DISCOVERY = "prom_metrics_service_discovery.json"
_START_S = 60.0
_STOP_S = 10.0
_POLL_S = 0.5
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Without a proxy that the environment may name: it cannot reach this machine's loopback."""


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster that runs on this machine: the folder of its session, and the addresses of its metrics."""

    session: Path
    targets: list[str]

    @property
    def discovery_file(self) -> Path:
        return self.session / _DISCOVERY

    @property
    def ray_dashboards(self) -> Path:
        """Where Ray puts the Grafana dashboards of its own."""
        return self.session / "metrics" / "grafana" / "dashboards"


def ray_folder() -> Path:
    """Where Ray keeps the folders of its sessions."""
    return Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()) / "ray"


def find_cluster(folder: Path) -> Cluster:
    """The newest cluster whose session is in `folder` and whose metrics answer. UserError if there is none."""
    for session in sorted((each for each in folder.glob("session_2*") if each.is_dir()), reverse=True):
        try:
            content = json.loads((session / _DISCOVERY).read_text(encoding="utf-8"))
            targets = [str(target) for group in content for target in group["targets"]]
        except (OSError, ValueError, KeyError, TypeError):
            continue  # no dashboard, or ended before the file was whole
        if any(_answers(target) for target in targets):
            return Cluster(session.resolve(), targets)
    raise UserError(
        f"no Ray cluster with metrics runs on this machine ({folder} names none that answers): start a sweep first, with "
        "`vlm-rm sweep FILE`, and run this beside it"
    )


def dashboard_address(cluster: Cluster) -> str | None:
    """The address of Ray's own dashboard; None if the cluster has none, or does not tell."""
    prepare_ray()  # the cluster asks for a token
    from ray import _raylet
    from ray._private.ray_constants import KV_NAMESPACE_DASHBOARD

    raylet: Any = _raylet
    for port in cluster.session.glob("gcs_server_port_*"):
        with suppress(Exception):  # of Ray's own: another user's cluster, with another token
            client = raylet.GcsClient(address=f"{_LOOPBACK}:{port.read_text().strip()}")
            found = client.internal_kv_get(b"webui:url", KV_NAMESPACE_DASHBOARD, timeout=5)
            return f"http://{found.decode()}" if found else None
    return None


def _answers(target: str) -> bool:
    host, _, port = target.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=1):
            return True
    except (OSError, ValueError):
        return False


def write_prometheus_config(cluster: Cluster, folder: Path) -> Path:
    """`prometheus/prometheus.yml` for this cluster."""
    config = yaml.safe_load((DASHBOARDS / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))
    for job in config["scrape_configs"]:
        job["file_sd_configs"][0]["files"] = [str(cluster.discovery_file)]
    file = folder / "prometheus.yml"
    file.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return file


def prometheus_command(binary: str, config: Path, data: Path, port: int) -> list[str]:
    return [
        binary,
        f"--config.file={config}",
        f"--storage.tsdb.path={data}",
        f"--web.listen-address={_LOOPBACK}:{port}",
        "--log.level=warn",
    ]


def grafana_command(binary: str) -> list[str]:
    """Older packages have `grafana-server`, newer ones one binary for everything."""
    home = next((each for each in ("/usr/share/grafana", "/opt/homebrew/share/grafana") if Path(each).is_dir()), None)
    command = [binary] if Path(binary).name == "grafana-server" else [binary, "server"]
    return [*command, f"--homepath={home}"] if home else command


def grafana_environment(cluster: Cluster, data: Path, prometheus_port: int, port: int) -> dict[str, str]:
    """Grafana's settings: loopback, nothing sent home, and anybody on this machine may look but not change anything."""
    grafana = DASHBOARDS / "grafana"
    return {
        "GF_SERVER_HTTP_ADDR": _LOOPBACK,
        "GF_SERVER_HTTP_PORT": str(port),
        "GF_PATHS_DATA": str(data),
        "GF_PATHS_LOGS": str(data / "log"),
        "GF_PATHS_PLUGINS": str(data / "plugins"),
        "GF_PATHS_PROVISIONING": str(grafana / "provisioning"),
        "GF_AUTH_ANONYMOUS_ENABLED": "true",
        "GF_AUTH_ANONYMOUS_ORG_ROLE": "Viewer",
        "GF_AUTH_DISABLE_LOGIN_FORM": "true",
        "GF_AUTH_BASIC_ENABLED": "false",
        "GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION": "true",
        # Ray's dashboard shows Grafana's panels in frames.
        "GF_SECURITY_ALLOW_EMBEDDING": "true",
        "GF_ANALYTICS_REPORTING_ENABLED": "false",
        "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
        "GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES": "false",
        "GF_NEWS_NEWS_FEED_ENABLED": "false",
        "PROMETHEUS_URL": f"http://{_LOOPBACK}:{prometheus_port}",
        "VLM_RM_DASHBOARDS": str(grafana / "dashboards"),
        "RAY_DASHBOARDS": str(cluster.ray_dashboards),
    }


def watch(cluster: Cluster, data: Path, prometheus_port: int, grafana_port: int, say: Callable[[str], None]) -> None:
    """Run Prometheus and Grafana, where they are installed, until the cluster ends, one of them ends, or Ctrl-C.

    Nothing that this started runs when it returns.

    Args:
        cluster: The Ray cluster to watch.
        data: Folder in which they keep what they gather, for the next time.
        prometheus_port: Port of Prometheus on the loopback address.
        grafana_port: Port of Grafana on the loopback address.
        say: Takes each line for the user.

    Raises:
        UserError: A port is taken, a server does not start, or one ended by itself.
    """
    prometheus = shutil.which("prometheus")
    grafana = shutil.which("grafana") or shutil.which("grafana-server")
    address = dashboard_address(cluster)
    say(f"Ray's metrics: http://{cluster.targets[0]}/metrics")
    say(
        f"Ray's dashboard: {address} (it asks for a token: `ray get-auth-token` prints it)"
        if address
        else "Ray has no dashboard"
    )
    if prometheus is None:
        say(
            "Prometheus is not installed, and without it there are no graphs over time: `apt install prometheus` on Debian (then "
            "`systemctl disable --now prometheus`), or https://prometheus.io/download, with `prometheus` on the PATH"
        )
        return
    with ExitStack() as cleanup:
        folder = data.resolve()
        folder.mkdir(parents=True, exist_ok=True)
        servers = []
        config = write_prometheus_config(cluster, folder)
        command = prometheus_command(prometheus, config, folder / "prometheus", prometheus_port)
        servers.append(cleanup.enter_context(_server("Prometheus", command, {}, prometheus_port, "/-/ready", folder)))
        say(f"Prometheus: http://{_LOOPBACK}:{prometheus_port}")
        if grafana is None:
            say(
                "Grafana is not installed, and only it draws the dashboards: https://grafana.com/grafana/download, with "
                "`grafana` on the PATH"
            )
        else:
            environment = grafana_environment(cluster, folder / "grafana", prometheus_port, grafana_port)
            command = grafana_command(grafana)
            servers.append(cleanup.enter_context(_server("Grafana", command, environment, grafana_port, "/api/health", folder)))
            say(f"Grafana: http://{_LOOPBACK}:{grafana_port}/d/vlm-rm-sweeps")
        say("Ctrl-C ends them")
        while any(_answers(target) for target in cluster.targets):
            if any(server.poll() is not None for server in servers):
                raise UserError(f"Prometheus or Grafana ended by itself: see the .log files in {folder}")
            time.sleep(_POLL_S)
        say("the sweep's cluster has ended")


@contextmanager
def _server(
    name: str, command: list[str], environment: dict[str, str], port: int, ready: str, folder: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """A server that answers, and is ended when the context is left."""
    if _answers(f"{_LOOPBACK}:{port}"):
        raise UserError(f"port {port} is in use, so {name} cannot have it: name another one with --{name.lower()}-port")
    log = folder / f"{name.lower()}.log"
    with log.open("wb") as output:
        # A session of its own: Ctrl-C is for this process, which then ends its servers in order.
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env=os.environ | environment, start_new_session=True, cwd=folder
        )
    try:
        deadline = time.monotonic() + _START_S
        while not _is_ready(f"http://{_LOOPBACK}:{port}{ready}"):
            if process.poll() is not None or time.monotonic() > deadline:
                last = log.read_text(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
                raise UserError(f"{name} did not start ({' '.join(command[:2])} ...): {last[0]}")
            time.sleep(_POLL_S)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _is_ready(url: str) -> bool:
    try:
        with _DIRECT.open(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
