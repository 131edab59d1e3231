"""The entry point: what every command shares, as a user starts it."""

import subprocess
import sys
from pathlib import Path

import pytest

from vlm_rm_sweeps.cli import main

SCRIPT = Path(sys.executable).parent / "vlm-rm"
HEAVY = ("torch", "ray", "mlflow", "open_clip", "sklearn")
RUN_AND_LIST_HEAVY = f"""
import runpy, sys
del sys.argv[0]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    print(*sorted(set({HEAVY}) & sys.modules.keys()))
"""


def test_help_names_every_command() -> None:
    shown = subprocess.run([SCRIPT, "--help"], capture_output=True, text=True, timeout=300)
    assert shown.returncode == 0
    for command in ("sweep", "tasks", "poses", "models", "pretrain", "render", "states", "label", "epic", "landscape"):
        assert command in shown.stdout


def test_bad_input_is_one_message_and_exit_status_2_before_anything_heavy_is_imported(tmp_path: Path) -> None:
    command = [sys.executable, "-c", RUN_AND_LIST_HEAVY, str(SCRIPT), "label", str(tmp_path)]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert shown.returncode == 2
    assert shown.stderr == (
        f"vlm-rm: {tmp_path} has nothing to label: expected a data set of states, a folder of .mp4 files, or that of a "
        "sweep with videos\n"
    )
    assert shown.stdout == "\n"


def test_an_interruption_is_said_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("vlm_rm_sweeps.cli.app", interrupted)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 130
    assert capsys.readouterr().err == "vlm-rm: interrupted\n"
