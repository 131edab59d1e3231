"""A Ray cluster of several nodes with addresses of their own: each lives in a network namespace of this machine.

The namespaces hang on a switch in one of its own, so nothing outside of them can be reached, nor reaches them. It needs root.
"""

import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

_ADDRESS = "10.77.0"
_PORT = 6379
_START_S = 120.0
_RAY = str(Path(sys.executable).parent / "ray")
_SHORT_PATIENCE = {
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
}
"""So that a node whose network is cut is taken for dead within seconds."""


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def _can_make_namespaces() -> bool:
    if shutil.which("ip") is None:
        return False
    name = f"vlm-rm-try-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True).returncode == 0
    if made:
        _ip("netns", "del", name)
    return made


needs_network_namespaces = pytest.mark.skipif(not _can_make_namespaces(), reason="it needs root, to make network namespaces")


class RayNodes:
    """A cluster whose head, node 1, has no CPUs, and on which sweeps are run. End it with `stop`."""

    def __init__(self, logs: Path) -> None:
        self._logs, self._prefix = logs, f"vlm-rm-{os.getpid()}"
        self._token = secrets.token_hex(16)
        self._started: dict[int, subprocess.Popen[bytes]] = {}
        self._sweeps: list[subprocess.Popen[bytes]] = []
        self._switch = f"{self._prefix}-switch"
        _ip("netns", "add", self._switch)
        _ip("-n", self._switch, "link", "add", "bridge", "type", "bridge")
        _ip("-n", self._switch, "link", "set", "bridge", "up")
        self._namespaces: list[int] = []
        self._start(1, ["--head", f"--port={_PORT}", "--include-dashboard=false"], cpus=0)

    @property
    def address(self) -> str:
        """That of the head, for RAY_ADDRESS."""
        return f"{_ADDRESS}.1:{_PORT}"

    def join(self, number: int, cpus: int, hides: Path | None = None) -> None:
        """Start a node, without waiting until it has joined; in the place of the folder `hides` it has an empty one."""
        self._start(number, [f"--address={self.address}"], cpus, hides)

    def sweep(self, *arguments: str, log: Path, **environment: str) -> "subprocess.Popen[bytes]":
        """Start `vlm-rm sweep` on the head's machine."""
        with log.open("ab") as output:
            process = subprocess.Popen(
                self._within(1, [sys.executable, "-c", "from vlm_rm_sweeps.cli import main; main()", "sweep", *arguments]),
                env=self._environment() | {"RAY_ADDRESS": self.address} | environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._sweeps.append(process)
        return process

    def run(self, number: int, *command: str, log: Path) -> "subprocess.Popen[bytes]":
        """Start any program on a node's machine."""
        with log.open("ab") as output:
            process = subprocess.Popen(
                self._within(number, list(command)), stdout=output, stderr=output, start_new_session=True
            )
        self._sweeps.append(process)
        return process

    def processes(self, number: int, name: str) -> list[psutil.Process]:
        """List the processes on a node whose command line has this text."""
        listed = subprocess.run(["ip", "netns", "pids", self._namespace(number)], capture_output=True, text=True, check=True)
        found = []
        for pid in map(int, listed.stdout.split()):
            try:
                if name in " ".join((process := psutil.Process(pid)).cmdline()):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def node_of(self, name: str) -> int | None:
        """Return the first node that has such a process."""
        return next((number for number in self._namespaces if self.processes(number, name)), None)

    def kill_raylet(self, number: int) -> None:
        """Kill what manages a node; its workers end with it."""
        for process in self.processes(number, "raylet/raylet"):
            process.kill()

    def cut_off(self, number: int) -> None:
        """Unplug a node's network; its processes go on."""
        _ip("-n", self._namespace(number), "link", "set", "eth0", "down")

    def stop(self) -> None:
        """End all processes on all nodes, and take their networks away."""
        for number in self._namespaces:
            for process in self.processes(number, ""):
                try:
                    process.kill()
                except psutil.Error:
                    continue
        for started in (*self._started.values(), *self._sweeps):
            started.wait(timeout=60)
        for number in self._namespaces:
            _ip("netns", "del", self._namespace(number))
        _ip("netns", "del", self._switch)

    def _start(self, number: int, arguments: list[str], cpus: int, hides: Path | None = None) -> None:
        namespace, address = self._namespace(number), f"{_ADDRESS}.{number}"
        _ip("netns", "add", namespace)
        self._namespaces.append(number)
        _ip("-n", self._switch, "link", "add", f"port{number}", "type", "veth", "peer", "name", "eth0", "netns", namespace)
        _ip("-n", self._switch, "link", "set", f"port{number}", "master", "bridge", "up")
        _ip("-n", namespace, "addr", "add", f"{address}/24", "dev", "eth0")
        for link in ("eth0", "lo"):
            _ip("-n", namespace, "link", "set", link, "up")
        # Ray asks the routes for its own address.
        _ip("-n", namespace, "route", "add", "default", "via", f"{_ADDRESS}.254")
        command = [
            _RAY,
            "start",
            *arguments,
            f"--node-ip-address={address}",
            f"--num-cpus={cpus}",
            f"--node-name=node{number}",
            "--block",
        ]
        if hides is not None:
            command = ["unshare", "--mount", "sh", "-c", f'mount -t tmpfs none "{hides}" && exec "$@"', "sh", *command]
        with (self._logs / f"node{number}.log").open("wb") as output:
            self._started[number] = subprocess.Popen(
                self._within(number, command), env=self._environment(), stdout=output, stderr=output, start_new_session=True
            )
        ends = time.monotonic() + _START_S
        while not self.processes(number, "raylet/raylet"):
            assert self._started[number].poll() is None, (self._logs / f"node{number}.log").read_text()
            assert time.monotonic() < ends
            time.sleep(0.2)

    def _namespace(self, number: int) -> str:
        return f"{self._prefix}-node{number}"

    def _within(self, number: int, command: list[str]) -> list[str]:
        return ["ip", "netns", "exec", self._namespace(number), *command]

    def _environment(self) -> dict[str, str]:
        others = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        return others | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self._token} | _SHORT_PATIENCE


def wait_for(process: "subprocess.Popen[bytes]", log: Path, timeout_s: float = 400) -> None:
    """Wait until a program has ended well."""
    try:
        status = process.wait(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGINT)
        raise
    assert status == 0, log.read_text()[-4000:]
