"""An MLflow server on the loopback address, for tests."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path


class MlflowServer:
    """An MLflow server that can be started again at the same address."""

    def __init__(self, database: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self._database = database

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        arguments = ["--backend-store-uri", f"sqlite:///{self._database}", "--host", "127.0.0.1", "--port", str(self.port)]
        arguments += ["--artifacts-destination", str(self._database.parent / "served")]
        command = [sys.executable, "-m", "mlflow", "server", *arguments, "--workers", "1"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        until = time.monotonic() + 180
        while True:
            try:
                urllib.request.urlopen(f"{self.url}/health", timeout=5).read()
                return
            except OSError:
                assert time.monotonic() < until, "the MLflow server does not start"
                time.sleep(0.5)

    def stop(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
