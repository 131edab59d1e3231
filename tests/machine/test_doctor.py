"""What `vlm-rm doctor` finds, each check at a machine that it is made to see."""

import json
import os
import re
import socket
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from vlm_rm_sweeps.cli import app
from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.machine import doctor
from vlm_rm_sweeps.machine.doctor import Level
from vlm_rm_sweeps.machine.resources import GB
from vlm_rm_sweeps.tasks.opengl import BACKENDS

SCRIPT = Path(sys.executable).parent / "vlm-rm"


def finding(monkeypatch: pytest.MonkeyPatch, check: doctor.Check) -> doctor.Finding:
    """What is shown of a check, also of one that raises an error."""
    monkeypatch.setattr(doctor, "CHECKS", {"it": check})
    (found,) = doctor.examine(Path())
    return found


def test_checks_that_need_nothing_else_are_in_order_here(tmp_path: Path) -> None:
    for check in (doctor.check_python, doctor.check_frames, doctor.check_write_access):
        level, found, advice = check(tmp_path / "not" / "there")
        assert (level, advice) == (Level.OK, ""), found
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"


def test_packages_are_listed_with_their_versions(tmp_path: Path) -> None:
    level, found, advice = doctor.check_packages(tmp_path)
    assert (level, advice) == (Level.OK, "")
    assert found.startswith(f"vlm-rm-sweeps {version('vlm-rm-sweeps')}, torch {version('torch')}, torchvision ")


def test_a_package_that_is_missing_or_does_not_load_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(doctor, "_PACKAGES", ("torch", "a-package-that-nobody-has"))
        missing = finding(patch, doctor.check_packages)
    monkeypatch.setitem(sys.modules, "torchvision", None)  # its import fails
    unloaded = finding(monkeypatch, doctor.check_packages)
    assert (missing.level, unloaded.level) == (Level.PROBLEM, Level.PROBLEM)
    assert "a-package-that-nobody-has" in missing.found
    assert "torchvision" in unloaded.found
    assert missing.advice == unloaded.advice == "install the package anew, with the versions of requirements.lock"


def test_no_gpu_is_in_order_and_one_that_torch_cannot_use_is_a_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    device = tmp_path / "nvidiactl"
    asked = []

    def instead(path: str) -> Path:
        asked.append(path)
        return device

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(doctor, "Path", instead)
    level, found, advice = doctor.check_gpu(tmp_path)
    assert (level, found, advice) == (Level.OK, f"none, torch {torch.__version__} computes on the CPU", "")
    device.touch()
    level, found, advice = doctor.check_gpu(tmp_path)
    assert level == Level.WARNING
    assert found.startswith("there is an NVIDIA device, but torch ")
    assert "nvidia-smi" in advice
    assert asked == ["/dev/nvidiactl"] * 2


def test_every_gpu_has_to_compute_something(monkeypatch: pytest.MonkeyPatch) -> None:
    used, ones = [], torch.ones

    def computed(size: int, device: str) -> torch.Tensor:
        used.append(device)
        if device in broken:
            raise RuntimeError("CUDA error: no kernel image is available for execution on the device")
        return ones(size)

    def properties(index: int) -> Any:
        return SimpleNamespace(name=f"GPU {index}", total_memory=(24 + index) * GB)

    broken: set[str] = set()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", properties)
    monkeypatch.setattr(torch, "ones", computed)
    fine = finding(monkeypatch, doctor.check_gpu)
    assert (fine.level, fine.advice) == (Level.OK, "")
    assert fine.found == f"GPU 0 with 24 GB, GPU 1 with 25 GB, CUDA {torch.version.cuda}"
    assert used == ["cuda:0", "cuda:1"]
    broken.add("cuda:1")
    failed = finding(monkeypatch, doctor.check_gpu)
    assert failed.level == Level.PROBLEM
    assert "no kernel image" in failed.found


def test_the_humanoid_is_drawn(opengl: None, tmp_path: Path) -> None:
    level, found, advice = doctor.check_opengl(tmp_path)
    assert (level, advice) == (Level.OK, "")
    shown = re.fullmatch(r"(\w+), (on a GPU|in software): a frame of the humanoid in \d+ ms(; \w+ works, too)?", found)
    assert shown, found
    assert shown[1] in BACKENDS


@pytest.mark.parametrize(
    ("works", "on_gpu", "expected"),
    [
        ({"egl", "osmesa"}, True, "egl, on a GPU: a frame of the humanoid in 5 ms; osmesa works, too"),
        ({"egl"}, False, "egl, in software: a frame of the humanoid in 5 ms"),
    ],
)
def test_what_draws_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, works: set[str], on_gpu: bool, expected: str
) -> None:
    monkeypatch.setattr("vlm_rm_sweeps.tasks.opengl.choose_backend", lambda: "egl")
    monkeypatch.setattr("vlm_rm_sweeps.tasks.opengl.backend_works", works.__contains__)
    monkeypatch.setattr("vlm_rm_sweeps.tasks.opengl.draws_on_gpu", lambda: on_gpu)
    monkeypatch.setattr(doctor, "_drawing_ms", lambda task: {"humanoid-kneeling": 5.0}[task])
    assert doctor.check_opengl(tmp_path) == (Level.OK, expected, "")


def test_no_opengl_is_a_warning_that_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def none() -> str:
        raise UserError("MuJoCo finds no OpenGL: install one")

    monkeypatch.setattr("vlm_rm_sweeps.tasks.opengl.choose_backend", none)
    level, found, advice = doctor.check_opengl(tmp_path)
    assert (level, advice) == (Level.WARNING, "MuJoCo finds no OpenGL: install one")
    assert found == "none: MuJoCo tasks (the humanoid) cannot be drawn, all others can"


def test_a_frame_of_one_colour_is_no_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlm_rm_sweeps.tasks.rendering.render_frame", lambda *_: np.zeros((64, 64, 3), np.uint8))
    shown = finding(monkeypatch, doctor.check_frames)
    assert shown.level == Level.PROBLEM
    assert shown.found.startswith("a frame of cartpole-upright has one colour: ")


@pytest.mark.parametrize(
    ("free", "shared", "level", "found", "advice"),
    [
        (20.0, 4.0, Level.OK, "20.0 GB free, 2.5 CPU cores", ""),
        (20.0, None, Level.OK, "20.0 GB free, 2.5 CPU cores", ""),
        (20.0, 0.06, Level.WARNING, "20.0 GB free, 2.5 CPU cores, but {} has 0.06 GB", "--shm-size"),
        (4.0, 4.0, Level.WARNING, "4.0 GB free, 2.5 CPU cores", "close other programs"),
        (2.0, 4.0, Level.PROBLEM, "2.0 GB free, 2.5 CPU cores", "close other programs"),
    ],
)
def test_too_little_memory_is_a_problem_and_little_of_it_or_of_shared_memory_is_a_warning(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    free: float,
    shared: float | None,
    level: Level,
    found: str,
    advice: str,
) -> None:
    place = tmp_path / "none" if shared is None else tmp_path
    sizes = {} if shared is None else {place: shared * GB}
    monkeypatch.setattr(doctor, "_SHARED_MEMORY", place)
    monkeypatch.setattr(doctor, "free_disk", sizes.__getitem__)
    monkeypatch.setattr(doctor, "free_memory", lambda: free * GB)
    monkeypatch.setattr(doctor, "cores", lambda: 2.5)
    shown = doctor.check_memory(Path())
    assert shown[:2] == (level, found.format(place))
    assert advice in shown[2]
    assert bool(shown[2]) == (level != Level.OK)


def test_a_port_that_is_taken_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        monkeypatch.setattr(doctor, "_PORTS", {port: "a page"})
        level, found, _ = doctor.check_ports(tmp_path)
    assert (level, found) == (Level.WARNING, f"taken on 127.0.0.1: {port} (a page)")


def test_too_little_disk_is_a_problem_and_little_is_a_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for least, good, expected in ((0.0, 0.0, Level.OK), (0.0, 1e30, Level.WARNING), (1e30, 1e30, Level.PROBLEM)):
        monkeypatch.setattr(doctor, "_LEAST_DISK", least)
        monkeypatch.setattr(doctor, "_GOOD_DISK", good)
        level, _, advice = doctor.check_disk(tmp_path)
        assert level == expected
        assert bool(advice) == (level != Level.OK)


def test_a_hub_that_does_not_answer_is_a_warning_because_embedded_models_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for variable in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    level, found, advice = doctor.check_hub(tmp_path)
    assert (level, found) == (Level.WARNING, "http://127.0.0.1:9 does not answer")
    assert "models that ship with the package" in advice


def test_ray_is_started_and_used(ray_cluster: None, tmp_path: Path) -> None:
    level, found, _ = doctor.check_ray(tmp_path)
    assert level == Level.OK
    assert "CPUs" in found


def test_a_problem_is_exit_status_1_and_a_check_that_raises_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_: Path) -> doctor.Verdict:
        raise UserError("there is no [bold]disk: buy one")

    def broken(_: Path) -> doctor.Verdict:
        raise ImportError("libc is missing")

    fine = {"fine": lambda _: (Level.OK, "all", ""), "odd": lambda _: (Level.WARNING, "odd", "look at it")}
    monkeypatch.setattr(doctor, "CHECKS", fine)
    shown = CliRunner().invoke(app, ["doctor"])
    assert shown.exit_code == 0
    assert [line.rstrip() for line in shown.output.splitlines()] == [
        "ok       fine  all",
        "warning  odd   odd",
        "               look at it",
    ]
    monkeypatch.setattr(doctor, "CHECKS", fine | {"disk": refused, "broken": broken})
    shown = CliRunner().invoke(app, ["doctor", "--json"])
    assert shown.exit_code == 1
    found = {each["check"]: each for each in json.loads(shown.output)}
    assert [each["level"] for each in found.values()] == ["ok", "warning", "problem", "problem"]
    assert found["disk"]["found"] == "there is no [bold]disk: buy one"
    assert found["broken"]["found"] == "ImportError: libc is missing"


@pytest.mark.sweeps
def test_all_of_it_runs_on_this_machine(tmp_path: Path) -> None:
    """In a new process, as a user runs it. Warnings (no model hub, a port that is taken) are of the machine."""
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    ran = subprocess.run([SCRIPT, "doctor"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    width = max(map(len, doctor.CHECKS))
    lines = [line for line in ran.stdout.splitlines() if line.strip()]
    of_checks = [re.fullmatch(rf"(ok|warning) +(.{{{width}}})  \S.*", line) for line in lines if not line.startswith(" ")]
    assert all(of_checks), ran.stdout
    assert [found[2].rstrip() for found in of_checks if found] == list(doctor.CHECKS)
    levels = [found[1] for found in of_checks if found]
    advice = [line for line in lines if line.startswith(" " * (width + 11))]
    assert len(advice) == levels.count("warning"), "each warning says beneath what to do, and nothing else is shown"
    assert len(lines) == len(levels) + len(advice)
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"
