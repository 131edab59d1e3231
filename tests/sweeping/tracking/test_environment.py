"""What is told of a machine: its kind, and nothing that names it."""

import os
import platform
from pathlib import Path

import pytest

from vlm_rm_sweeps.sweeping.tracking import environment


def test_processor_cores_and_gpus_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = tmp_path / "cpuinfo"
    cpu.write_text("processor\t: 0\nmodel name\t: Some  CPU @ 2 GHz\nprocessor\t: 1\nmodel name\t: Some CPU @ 2 GHz\n")
    for number in range(2):
        gpu = tmp_path / "gpus" / str(number) / "information"
        gpu.parent.mkdir(parents=True)
        gpu.write_text(f"Model: \t\t Some GPU\nGPU UUID: \t secret-{number}\n")
    monkeypatch.setattr(environment, "_CPU_FILE", cpu)
    monkeypatch.setattr(environment, "_GPU_FILES", tmp_path / "gpus")
    cores = str(len(os.sched_getaffinity(0)))
    expected = {"machine_cpu": "Some CPU @ 2 GHz", "machine_cores": cores, "machine_gpus": "Some GPU, Some GPU"}
    assert environment.machine_params() == expected


def test_a_machine_that_says_nothing_is_described_by_its_architecture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "_CPU_FILE", tmp_path / "gone")
    monkeypatch.setattr(environment, "_GPU_FILES", tmp_path / "gone")
    assert environment.machine_params()["machine_cpu"] == platform.machine()
    assert platform.node() not in environment.machine_params().values()
