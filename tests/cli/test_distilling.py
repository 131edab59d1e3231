"""Distillation on the command line, and a sweep that names the student."""

from collections.abc import Callable
from pathlib import Path

import yaml

from vlm_rm_sweeps.rewards.distilled import STUDENT_FILE, read_description

Command = Callable[..., str]


def test_a_student_is_distilled_and_serves_the_scene_that_it_has_seen(
    vlm_rm: Command, refusal: Command, tmp_path: Path
) -> None:
    states, folder, sweep = tmp_path / "states", tmp_path / "student", tmp_path / "sweep.yaml"
    vlm_rm("states", "sample", "mountaincar-summit", "--textures", "original", "--count", "5", "--output", states)
    asked = ("distill", "embedded/base", "--task", "mountaincar-summit", "--student", "embedded/tiny", "--images", "100")
    printed = vlm_rm(*asked, "--epochs", "1", "-o", folder)
    assert f"its model id is distilled/{folder / STUDENT_FILE}" in printed
    assert read_description(folder / STUDENT_FILE).scenes == (("modified", "default"),)
    # Refused before anything is embedded.
    assert "exists already" in refusal(*asked, "-o", folder)
    assert "unknown textures 'none'" in refusal(*asked, "--textures", "none", "-o", tmp_path / "new")
    both = tmp_path / "both"
    vlm_rm(*asked, "--epochs", "1", "--states", states, "-o", both)
    assert read_description(both / STUDENT_FILE).scenes == (("modified", "default"), ("original", "default"))

    def planned(of: Path, **changes: object) -> tuple[str, Path, str]:
        keys = {"name": "s", "task": "mountaincar-summit", "models": [f"distilled/{of / STUDENT_FILE}"], "alphas": [0.5]}
        sweep.write_text(yaml.safe_dump(keys | {"steps": 1_000} | changes))
        return "sweep", sweep, "--dry-run"

    assert "reward server(s) of distilled/" in vlm_rm(*planned(folder))
    assert "reward server(s) of distilled/" in vlm_rm(*planned(both, textures=["modified", "original"]))
    assert "drawn with modified textures and default camera, alone" in refusal(
        *planned(folder, textures=["modified", "original"])
    )
    student = f"distilled/{folder / STUDENT_FILE}"
    judged = {"models": ["embedded/tiny"], "audit": {"models": [student]}}
    for changes in ({}, judged):
        message = refusal(*planned(folder, task="cartpole-upright", **changes))
        assert f"{student} has seen states of mountaincar-summit" in message
        assert "these would be of cartpole-upright" in message
