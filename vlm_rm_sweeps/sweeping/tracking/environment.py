"""What results depend on besides the sweep file, as parameters of its MLflow run: commit, versions, machine.

Nothing here names a machine or a person.
"""

import platform
import re
import subprocess
from importlib.metadata import version
from pathlib import Path

from vlm_rm_sweeps.machine.resources import cores

COMMIT = "git_commit"
VERSION = "version_"
"""Prefix of the parameters with packages' versions."""
MACHINE = "machine_"
"""Prefix of the parameters with processor, cores and GPUs."""
UNKNOWN = "unknown"
_PACKAGES = ("vlm-rm-sweeps", "ray", "torch", "open_clip_torch", "gymnasium", "mujoco", "mlflow")
_CPU_FILE = Path("/proc/cpuinfo")
_GPU_FILES = Path("/proc/driver/nvidia/gpus")


def environment_params() -> dict[str, str]:
    """Return the git commit, the versions of the packages that affect results, and what `machine_params` does."""
    versions = {f"{VERSION}{each.replace('-', '_')}": version(each) for each in _PACKAGES}
    return {COMMIT: git_commit()} | versions | machine_params()


def git_commit() -> str:
    """Return the commit of the working directory, with `-dirty` if it has changes; `unknown` outside a repository."""
    command = ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        described = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return UNKNOWN
    return described.stdout.strip()


def machine_params() -> dict[str, str]:
    """Describe the machine of this process.

    Returns:
        `machine_cpu` (the processor's model), `machine_cores` (those that this process may use) and, if there are NVIDIA GPUs,
        `machine_gpus` (their models).
    """
    gpus = [found for file in sorted(_GPU_FILES.glob("*/information")) if (found := _line(file, "Model"))]
    described = {"cpu": _line(_CPU_FILE, "model name") or platform.machine(), "cores": f"{cores():g}"}
    if gpus:
        described["gpus"] = ", ".join(gpus)
    return {MACHINE + name: value for name, value in described.items()}


def _line(file: Path, name: str) -> str:
    """Return what a file of the system says of a name, in its first such line; empty if it says nothing."""
    try:
        found = re.search(rf"^{name}\s*:\s*(.+)$", file.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
    except OSError:
        return ""
    return " ".join(found[1].split()) if found else ""
