"""MuJoCo as it is imported here: what it warns of is logged once, and leaves no file behind."""

import logging
from pathlib import Path

import gymnasium as gym
import pytest

from vlm_rm_sweeps.tasks.mujoco_import import mujoco

UNSTABLE = "<mujoco><worldbody><body><joint type='hinge'/><geom size='.1'/></body></worldbody></mujoco>"


def test_a_deprecated_attribute_of_gymnasiums_file_is_not_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    gym.make("HalfCheetah-v5").close()
    assert capfd.readouterr().err == ""
    assert not list(tmp_path.iterdir())


def test_other_warnings_are_logged_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    model = mujoco.MjModel.from_xml_string(UNSTABLE)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            data = mujoco.MjData(model)
            data.qpos[0] = float("nan")
            mujoco.mj_checkPos(model, data)
    assert len([record for record in caplog.records if "QPOS" in record.getMessage()]) == 1
    assert not list(tmp_path.iterdir())
