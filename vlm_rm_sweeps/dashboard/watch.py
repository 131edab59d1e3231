"""`vlm-rm dashboard`: Prometheus and Grafana for the Ray cluster of a running sweep, on the loopback address.

Prometheus finds Ray's metrics through the service-discovery file that Ray writes. The configurations of both servers and the
Grafana dashboards are in the folders beside this module.
"""

import json
import os
import shutil
import signal
import socket
import stat
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
from vlm_rm_sweeps.files import write_whole
from vlm_rm_sweeps.process_defaults import prepare_ray

DASHBOARDS = Path(__file__).parent
_LOOPBACK = "127.0.0.1"
_DISCOVERY = "prom_metrics_service_discovery.json"
_START_S = 60.0
_STOP_S = 10.0
_POLL_S = 0.5
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Ignores proxies of the environment, which cannot reach this machine's loopback address."""


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster that runs on this machine.

    Attributes:
        session: Folder of its session.
        targets: Addresses (`host:port`) at which Prometheus can read its metrics.
    """

    session: Path
    targets: list[str]

    @property
    def discovery_file(self) -> Path:
        """The service-discovery file that Ray writes for Prometheus."""
        return self.session / _DISCOVERY

    @property
    def ray_dashboards(self) -> Path:
        """Folder of Ray's own Grafana dashboards."""
        return self.session / "metrics" / "grafana" / "dashboards"


def ray_folder() -> Path:
    """Return the folder in which Ray keeps its sessions."""
    return Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()) / "ray"


def find_cluster(folder: Path) -> Cluster:
    """Find the newest running cluster.

    Args:
        folder: See `ray_folder`.

    Returns:
        A cluster of this user of which at least one metrics address on this machine accepts connections.

    Raises:
        UserError: There is none.
    """
    for session in sorted((each for each in folder.glob("session_2*") if each.is_dir()), reverse=True):
        try:
            content = json.loads(_read_own(session / _DISCOVERY))
            targets = [str(target) for group in content for target in group["targets"]]
            targets = [target for target in targets if _is_here(target)]
        except (OSError, ValueError, KeyError, TypeError):
            continue  # it has no dashboard, or ended while the file was written
        if any(_answers(target) for target in targets):
            return Cluster(session.resolve(), targets)
    raise UserError(
        f"no Ray cluster with metrics is running on this machine (none of those in {folder} responds): start a sweep first, with "
        "`vlm-rm sweep FILE`, and run this command while it runs"
    )


def dashboard_address(cluster: Cluster) -> str | None:
    """Ask a cluster for the address of Ray's own dashboard.

    Args:
        cluster: A cluster that may have ended.

    Returns:
        URL of the dashboard; None if the cluster has none or does not respond.
    """
    prepare_ray()  # the cluster asks for a token
    from ray import _raylet
    from ray._private.ray_constants import KV_NAMESPACE_DASHBOARD

    raylet: Any = _raylet
    for port in cluster.session.glob("gcs_server_port_*"):
        with suppress(Exception):  # Ray raises various errors, for example if the cluster is another user's
            client = raylet.GcsClient(address=f"{_LOOPBACK}:{int(_read_own(port))}")
            found = client.internal_kv_get(b"webui:url", KV_NAMESPACE_DASHBOARD, timeout=5)
            return f"http://{found.decode()}" if found else None
    return None


def _read_own(file: Path) -> str:
    """Read a file of a session, which must be this user's: Ray lets every user write into the session's folder.

    Raises:
        OSError: It cannot be read, is a link, or is another user's to write.
    """
    with open(os.open(file, os.O_RDONLY | os.O_NOFOLLOW), encoding="utf-8") as opened:
        found = os.fstat(opened.fileno())
        if found.st_uid != os.getuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise PermissionError(f"{file} is another user's")
        return opened.read()


def _is_here(target: str) -> bool:
    """Whether an address is one of this machine's own: binding to it succeeds."""
    host = target.rpartition(":")[0].strip("[]")
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind((host, 0))
            return True
    except (OSError, ValueError):
        return False


def _answers(target: str) -> bool:
    host, _, port = target.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=1):
            return True
    except (OSError, ValueError):
        return False


def write_prometheus_config(cluster: Cluster, folder: Path) -> Path:
    """Write the configuration of Prometheus for a cluster, from the template `prometheus/prometheus.yml`.

    Args:
        cluster: The cluster to scrape.
        folder: Where to write the file.

    Returns:
        Path of `prometheus.yml`.
    """
    config = yaml.safe_load((DASHBOARDS / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))
    for job in config["scrape_configs"]:
        job["file_sd_configs"][0]["files"] = [str(cluster.discovery_file)]
    file = folder / "prometheus.yml"
    write_whole(file, yaml.safe_dump(config, sort_keys=False))
    return file


def prometheus_command(binary: str, config: Path, data: Path, port: int) -> list[str]:
    """Compose the command that starts Prometheus on the loopback address.

    Args:
        binary: Path of the executable.
        config: As `write_prometheus_config` wrote it.
        data: Folder of its database.
        port: Port of its page and API.

    Returns:
        Arguments for `subprocess`.
    """
    return [
        binary,
        f"--config.file={config}",
        f"--storage.tsdb.path={data}",
        f"--web.listen-address={_LOOPBACK}:{port}",
        "--log.level=warn",
    ]


def grafana_command(binary: str) -> list[str]:
    """Compose the command that starts Grafana.

    Args:
        binary: Path of the executable: `grafana-server` of older packages, or `grafana` of newer ones.

    Returns:
        Arguments for `subprocess`.
    """
    home = next((each for each in ("/usr/share/grafana", "/opt/homebrew/share/grafana") if Path(each).is_dir()), None)
    command = [binary] if Path(binary).name == "grafana-server" else [binary, "server"]
    return [*command, f"--homepath={home}"] if home else command


def grafana_environment(cluster: Cluster, data: Path, prometheus_port: int, port: int) -> dict[str, str]:
    """Compose Grafana's settings: loopback only, no telemetry, and read-only access without a login.

    Args:
        cluster: The cluster whose own dashboards are shown too.
        data: Folder of its database.
        prometheus_port: Port of Prometheus.
        port: Port of Grafana's page.

    Returns:
        Environment variables.
    """
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
        # Ray's dashboard embeds Grafana's panels in frames.
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
    """Run Prometheus and Grafana, if they are installed, until the cluster or one of them ends, or until Ctrl-C.

    Both servers have ended when this function returns.

    Args:
        cluster: The cluster to watch.
        data: Folder of both servers' databases, which are kept for the next time.
        prometheus_port: Port of Prometheus.
        grafana_port: Port of Grafana.
        say: Prints a line.

    Raises:
        UserError: A port is in use, or a server does not start or ends by itself.
    """
    prometheus = shutil.which("prometheus")
    grafana = shutil.which("grafana") or shutil.which("grafana-server")
    address = dashboard_address(cluster)
    say(f"Ray's metrics: http://{cluster.targets[0]}/metrics")
    say(
        f"Ray's dashboard: {address} (it asks for a token: `ray get-auth-token` prints it)"
        if address
        else "Ray's dashboard: not running"
    )
    if prometheus is None:
        say(
            "Prometheus is not installed, so there are no graphs over time. Install it with `apt install prometheus` on Debian (then "
            "`systemctl disable --now prometheus`), or from https://prometheus.io/download, with `prometheus` on the PATH"
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
                "Grafana is not installed, so there are no dashboards. Install it from https://grafana.com/grafana/download, with "
                "`grafana` on the PATH"
            )
        else:
            environment = grafana_environment(cluster, folder / "grafana", prometheus_port, grafana_port)
            command = grafana_command(grafana)
            servers.append(cleanup.enter_context(_server("Grafana", command, environment, grafana_port, "/api/health", folder)))
            say(f"Grafana: http://{_LOOPBACK}:{grafana_port}/d/vlm-rm-sweeps")
        say("Ctrl-C stops them")
        while any(_answers(target) for target in cluster.targets):
            if any(server.poll() is not None for server in servers):
                raise UserError(f"Prometheus or Grafana stopped unexpectedly: read the .log files in {folder}")
            time.sleep(_POLL_S)
        say("the sweep's cluster has ended")


@contextmanager
def _server(
    name: str, command: list[str], environment: dict[str, str], port: int, ready: str, folder: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server: the context starts when it is ready, and stops it at the end."""
    if _answers(f"{_LOOPBACK}:{port}"):
        raise UserError(f"port {port} is in use: choose another one for {name} with --{name.lower()}-port")
    log = folder / f"{name.lower()}.log"
    with log.open("wb") as output:
        # In its own session the server does not get Ctrl-C: this process gets it and then stops its servers in order.
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env=os.environ | environment, start_new_session=True, cwd=folder
        )
    try:
        deadline = time.monotonic() + _START_S
        while not _is_ready(f"http://{_LOOPBACK}:{port}{ready}"):
            if process.poll() is not None or time.monotonic() > deadline:
                last = log.read_text(errors="replace").strip().splitlines()[-1:] or ["it printed nothing"]
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
