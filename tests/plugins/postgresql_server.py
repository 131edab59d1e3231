"""A PostgreSQL server on the loopback address, for tests, where Debian's binaries are installed."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

USER, PASSWORD = "anna", "s3cret-of-anna"


def programs() -> Path | None:
    """The folder of `initdb` and `pg_ctl`; None if they are not installed."""
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    found = shutil.which("pg_ctl")
    return installed[-1].parent if installed else Path(found).resolve().parent if found else None


@contextmanager
def postgresql() -> Iterator[str]:
    """Run a server with an empty database, and yield what follows the scheme in its address."""
    binaries = programs()
    assert binaries is not None
    # It refuses to run as root, and other users cannot enter pytest's folders.
    user = "postgres" if os.getuid() == 0 else None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place, socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
        free.close()
        folder, secret = Path(place), Path(place) / "password"
        secret.write_text(PASSWORD)
        if user:
            shutil.chown(folder, user)
            shutil.chown(secret, user)

        def call(program: str, *arguments: str) -> None:
            command = [str(binaries / program), *arguments]
            subprocess.run(command, cwd=folder, user=user, check=True, stdout=subprocess.DEVNULL, timeout=120)

        data = str(folder / "data")
        call("initdb", "-D", data, "-U", USER, "--pwfile", str(secret), "--auth", "scram-sha-256", "--no-sync")
        options = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories={folder} -c fsync=off"
        call("pg_ctl", "-D", data, "-w", "-l", str(folder / "log"), "-o", options, "start")
        try:
            yield f"{USER}:{PASSWORD}@127.0.0.1:{port}/postgres"
        finally:
            call("pg_ctl", "-D", data, "-m", "immediate", "stop")
