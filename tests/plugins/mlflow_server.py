"""An MLflow server on the loopback address, for tests."""

import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path


class MlflowServer:
    """An MLflow server that can be started again at the same address.

    Args:
        database: Its database, of SQLite.
        *options: More of the command line.
        certificate: With its key in one file: the server speaks https.
        environment: More variables.
    """

    def __init__(
        self, database: Path, *options: str, certificate: Path | None = None, environment: Mapping[str, str] | None = None
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self._database, self._options, self._certificate = database, options, certificate
        self._environment = os.environ | dict(environment or {})

    @property
    def url(self) -> str:
        return f"http{'s' if self._certificate else ''}://127.0.0.1:{self.port}"

    def start(self) -> None:
        arguments = ["--backend-store-uri", f"sqlite:///{self._database}", "--host", "127.0.0.1", "--port", str(self.port)]
        arguments += ["--artifacts-destination", str(self._database.parent / "served")]
        if self._certificate:
            arguments += ["--uvicorn-opts", f"--ssl-keyfile {self._certificate} --ssl-certfile {self._certificate}"]
        command = [sys.executable, "-m", "mlflow", "server", *arguments, "--workers", "1", *self._options]
        self._process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, env=self._environment
        )
        context = ssl.create_default_context(cafile=str(self._certificate)) if self._certificate else None
        until = time.monotonic() + 180
        while True:
            try:
                urllib.request.urlopen(f"{self.url}/health", timeout=5, context=context).read()
                return
            except OSError:
                assert time.monotonic() < until, "the MLflow server does not start"
                time.sleep(0.5)

    def stop(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
