"""Runs a script in a network of its own: a cluster that others may join listens on all interfaces."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

_UNSHARE = ("unshare", "--net", "--mount")
_LOOPBACK = ("ip", "link", "set", "lo", "up")

needs_namespaces = pytest.mark.skipif(
    any(shutil.which(program) is None for program in ("unshare", "ip"))
    or subprocess.run([*_UNSHARE, *_LOOPBACK], capture_output=True).returncode != 0,
    reason="it needs namespaces for networks and mounts",
)


def run_in_own_network(script: Path, text: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Write a Python script and run it with Ray's program at hand; other machines may join the Ray that it starts.

    Nothing of that Ray is left in the temporary folder: Ray would join it, or wait for it, from any script that names no cluster.
    """
    script.write_text(text)
    # Ray's program is beside this Python.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:
        return subprocess.run(
            [*_UNSHARE, "sh", "-c", f'{" ".join(_LOOPBACK)} && exec "$@"', "sh", sys.executable, str(script), *arguments],
            env=os.environ | {"PATH": path, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1", "RAY_ADDRESS": "", "RAY_TMPDIR": folder},
            capture_output=True,
            text=True,
            timeout=180,
            check=True,
        )
