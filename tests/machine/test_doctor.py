"""What `vlm-rm doctor` finds, each check at a machine that it is made to see."""

import json
import socket
from pathlib import Path

import pytest
from typer.testing import CliRunner

from vlm_rm_sweeps.cli import app
from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.machine import doctor
from vlm_rm_sweeps.machine.doctor import Level


def test_checks_that_need_nothing_else_are_in_order_here(tmp_path: Path) -> None:
    for check in (doctor.check_python, doctor.check_frames, doctor.check_write_access):
        level, found, advice = check(tmp_path / "not" / "there")
        assert (level, advice) == (Level.OK, ""), found
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"


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
