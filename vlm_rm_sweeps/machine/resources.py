"""What this process may use of the machine: cores, memory, disk. In a container that is less than the machine has."""

import os
import shutil
from pathlib import Path

GB = 1e9
_CGROUP = Path("/sys/fs/cgroup")


def cores() -> float:
    """Return the number of CPU cores that this process may use, a fraction where a container limits its time."""
    allowed = float(len(os.sched_getaffinity(0)))
    quota, _, period = _first_line(_CGROUP / "cpu.max").partition(" ")
    return min(allowed, int(quota) / int(period)) if quota.isdigit() and period.isdigit() else allowed


def free_memory() -> float:
    """Return the bytes of memory that this process may still use without swapping."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    (available,) = (int(line.split()[1]) * 1024.0 for line in lines if line.startswith("MemAvailable"))
    limit, used = _first_line(_CGROUP / "memory.max"), _first_line(_CGROUP / "memory.current")
    # What files occupy counts as used, but is given back when it is needed.
    files = {key: value for key, _, value in (line.partition(" ") for line in _lines(_CGROUP / "memory.stat"))}
    if limit.isdigit() and used.isdigit():
        available = min(available, float(int(limit) - int(used) + int(files.get("inactive_file", 0))))
    return available


def free_disk(folder: Path) -> float:
    """Return the free bytes of the disk that a folder is on, or will be."""
    return float(shutil.disk_usage(existing(folder)).free)


def existing(path: Path) -> Path:
    """Return a path itself, or its nearest parent that exists."""
    return next(each for each in (path.absolute(), *path.absolute().parents) if each.exists())


def _first_line(file: Path) -> str:
    return next(iter(_lines(file)), "")


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except OSError:  # no such limit
        return []
