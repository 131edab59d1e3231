"""Checks whether this machine has what a sweep needs, by doing a little of everything: `vlm-rm doctor`."""

import os
import platform
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path

from vlm_rm_sweeps.errors import UserError, reason_of
from vlm_rm_sweeps.files import try_to_write
from vlm_rm_sweeps.machine.resources import GB, cores, existing, free_disk, free_memory

_PACKAGES = (
    "vlm-rm-sweeps",
    "torch",
    "torchvision",
    "open_clip_torch",
    "ray",
    "mlflow",
    "gymnasium",
    "mujoco",
    "numpy",
    "pandas",
)
_PORTS = {5000: "MLflow's page", 8265: "Ray's dashboard", 9090: "Prometheus", 3000: "Grafana"}
_LEAST_DISK, _GOOD_DISK = 1 * GB, 10 * GB
_LEAST_MEMORY, _GOOD_MEMORY = 3 * GB, 6 * GB
_GOOD_SHARED_MEMORY = 1 * GB
_SHARED_MEMORY = Path("/dev/shm")
_FRAME_EDGE = 64


class Level(StrEnum):
    """What a finding means for sweeps."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        check: Name of the check.
        level: Whether it is a problem.
        found: What was found, in a line.
        advice: What to do; empty if there is nothing to do.
    """

    check: str
    level: Level
    found: str
    advice: str = ""

    def as_json(self) -> dict[str, str]:
        """Return the finding as plain data."""
        return {key: str(value) for key, value in asdict(self).items()}


Verdict = tuple[Level, str, str]
Check = Callable[[Path], Verdict]


def check_python(_: Path) -> Verdict:
    """Check interpreter and system."""
    found = f"{platform.python_version()} on {platform.system()} ({sys.executable})"
    if sys.platform != "linux":
        return Level.WARNING, found, "the package is tested on Linux only"
    return Level.OK, found, ""


def check_packages(_: Path) -> Verdict:
    """Check that torch and torchvision go together, and list versions."""
    import torchvision  # noqa: F401  # fails if it was built for another torch

    return Level.OK, ", ".join(f"{name} {version(name)}" for name in _PACKAGES), ""


def check_gpu(_: Path) -> Verdict:
    """Compute something on each GPU that CUDA has."""
    import torch

    if not torch.cuda.is_available():
        if Path("/dev/nvidiactl").exists():
            built = torch.version.cuda or "no CUDA"
            advice = "compare `nvidia-smi` with the CUDA version, and update the driver or torch"
            return Level.WARNING, f"there is an NVIDIA device, but torch {torch.__version__} ({built}) cannot use it", advice
        return Level.OK, f"none, torch {torch.__version__} computes on the CPU", ""
    for index in range(torch.cuda.device_count()):
        torch.ones(8, device=f"cuda:{index}").sum().item()
    each = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    names = ", ".join(f"{one.name} with {one.total_memory / GB:.0f} GB" for one in each)
    return Level.OK, f"{names}, CUDA {torch.version.cuda}", ""


def check_frames(_: Path) -> Verdict:
    """Draw a frame of CartPole, for which no OpenGL is needed."""
    return Level.OK, f"a frame of CartPole in {_drawing_ms('cartpole-upright'):.1f} ms", ""


def check_opengl(_: Path) -> Verdict:
    """Draw a frame of the humanoid with the OpenGL that is chosen."""
    from vlm_rm_sweeps.tasks.opengl import BACKENDS, backend_works, choose_backend, draws_on_gpu

    try:
        chosen = choose_backend()
        milliseconds = _drawing_ms("humanoid-kneeling")
    except UserError as error:
        return Level.WARNING, "none: MuJoCo tasks (the humanoid) cannot be drawn, all others can", str(error)
    others = [name for name in BACKENDS if name not in (chosen, "glfw") and backend_works(name)]
    where = "on a GPU" if draws_on_gpu() else "in software"
    also = f"; {', '.join(others)} works, too" if others else ""
    return Level.OK, f"{chosen}, {where}: a frame of the humanoid in {milliseconds:.0f} ms{also}", ""


def _drawing_ms(task_name: str) -> float:
    """Draw two frames of a task; return the milliseconds of the second: the first one also loads textures."""
    from vlm_rm_sweeps.frames import FrameFormat
    from vlm_rm_sweeps.tasks.registry import find_task
    from vlm_rm_sweeps.tasks.rendering import machine_profile, render_frame

    task, frame_format = find_task(task_name), FrameFormat(_FRAME_EDGE)
    env = task.make_native_env(task.rendering(profile=machine_profile()), frame_format)
    try:
        env.reset(seed=0)
        render_frame(env, frame_format)
        started = time.perf_counter()
        frame = render_frame(env, frame_format)
        seconds = time.perf_counter() - started
    finally:
        env.close()
    if frame.min() == frame.max():
        raise UserError(f"a frame of {task_name} has one colour: update the graphics driver, or draw in software")
    return seconds * 1e3


def check_ray(_: Path) -> Verdict:
    """Start Ray as a sweep does, let it compute something, and shut it down again."""
    import ray

    from vlm_rm_sweeps.serving.cluster import ray_cluster

    started = time.perf_counter()
    with ray_cluster(lambda _: None):
        ray.get(ray.remote(num_cpus=0)(_answer).remote())
        resources = ray.cluster_resources()
    address = os.environ.get("RAY_ADDRESS")
    joined = f"the cluster at {address} answers" if address else "starts"
    has = f"{resources.get('CPU', 0):g} CPUs and {resources.get('GPU', 0):g} GPUs"
    return Level.OK, f"{joined} in {time.perf_counter() - started:.0f} s, with {has}", ""


def _answer() -> bool:
    return True  # Ray takes no built-in function


def check_ports(_: Path) -> Verdict:
    """Check that a port can be opened on the loopback address, and which of the usual ones are taken."""
    if _is_taken(0):
        return Level.PROBLEM, "no port can be opened on 127.0.0.1", "allow this in the container or sandbox: Ray needs it"
    taken = [f"{port} ({use})" for port, use in _PORTS.items() if _is_taken(port)]
    if taken:
        advice = "a sweep runs all the same; give the page that you want to see another port"
        return Level.WARNING, f"taken on 127.0.0.1: {', '.join(taken)}", advice
    return Level.OK, f"free on 127.0.0.1: {', '.join(map(str, _PORTS))}", ""


def _is_taken(port: int) -> bool:
    with socket.socket() as opened:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do, after one that has just ended
        try:
            opened.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def check_write_access(results: Path) -> Verdict:
    """Write a file where results go, or will go."""
    folder = existing(results)
    try:
        try_to_write(results)
    except OSError as error:
        return (
            Level.PROBLEM,
            f"{folder}: {error.strerror}",
            "name a folder of yours with --results, here and for `vlm-rm sweep`",
        )
    return Level.OK, f"{folder} can be written to", ""


def check_disk(results: Path) -> Verdict:
    """Check the free space where results, and where Ray's temporary files go."""
    places = {"results": results, "Ray's files": Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir())}
    free = {name: free_disk(folder) for name, folder in places.items()}
    found = ", ".join(f"{bytes_ / GB:.1f} GB for {name}" for name, bytes_ in free.items())
    advice = "free some disk space, or name another folder with --results, and RAY_TMPDIR for Ray's files"
    level = _level(min(free.values()), _LEAST_DISK, _GOOD_DISK)
    return level, f"{found} free", "" if level == Level.OK else advice


def check_memory(_: Path) -> Verdict:
    """Check free memory, and the shared memory through which Ray sends frames."""
    free = free_memory()
    found = f"{free / GB:.1f} GB free, {cores():g} CPU cores"
    level = _level(free, _LEAST_MEMORY, _GOOD_MEMORY)
    if level != Level.OK:
        return (
            level,
            found,
            "each process with torch and Ray needs about 1 GB: close other programs, or run fewer trials at once",
        )
    if _SHARED_MEMORY.is_dir() and free_disk(_SHARED_MEMORY) < _GOOD_SHARED_MEMORY:
        advice = "Ray uses the disk instead, which is slow: give the container more, such as `docker run --shm-size=4g`"
        return Level.WARNING, f"{found}, but {_SHARED_MEMORY} has {free_disk(_SHARED_MEMORY) / GB:.2f} GB", advice
    return Level.OK, found, ""


def check_hub(_: Path) -> Verdict:
    """Ask the Hugging Face Hub for a connection."""
    from huggingface_hub import constants

    from vlm_rm_sweeps.rewards.hub import answers

    advice = "models that ship with the package, and those in the cache, work without it"
    if constants.HF_HUB_OFFLINE:
        return Level.WARNING, "HF_HUB_OFFLINE is set: nothing is downloaded", advice
    if not answers():
        return Level.WARNING, f"{constants.ENDPOINT} does not answer", f"{advice}; HF_ENDPOINT names a mirror"
    return Level.OK, f"{constants.ENDPOINT} answers", ""


def _level(free: float, least: float, good: float) -> Level:
    return Level.PROBLEM if free < least else Level.WARNING if free < good else Level.OK


CHECKS: dict[str, Check] = {
    "python": check_python,
    "packages": check_packages,
    "gpu": check_gpu,
    "frames": check_frames,
    "opengl": check_opengl,
    "memory": check_memory,
    "disk": check_disk,
    "write access": check_write_access,
    "ports": check_ports,
    "model hub": check_hub,
    "ray": check_ray,
}
"""All checks by name, Ray's, which takes longest, last."""


def examine(results: Path) -> Iterator[Finding]:
    """Run all checks.

    Args:
        results: The results folder that sweeps would have, which need not exist.

    Yields:
        A finding for each check, as soon as it is known. A check that raises an error is a problem.
    """
    for name, check in CHECKS.items():
        try:
            yield Finding(name, *check(results))
        except UserError as error:  # says itself what to do
            yield Finding(name, Level.PROBLEM, str(error))
        except Exception as error:  # of a broken installation, anything
            yield Finding(
                name, Level.PROBLEM, reason_of(error), "install the package anew, with the versions of requirements.lock"
            )
