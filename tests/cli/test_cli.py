"""The entry point, and what all commands have in common."""

import errno
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from command_line import vlm_rm
from disk import full_disk
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from vlm_rm_sweeps.cli import _explained, main
from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.registry import is_trusted

Command = Callable[..., str]
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
    words = " ".join(shown.stdout.split())
    assert "130 if interrupted" in words
    assert "--install-completion" in words


def test_the_version_is_that_of_the_package() -> None:
    assert vlm_rm("--version").strip() == f"vlm-rm {version('vlm-rm-sweeps')}"


def test_colours_are_for_terminals_that_want_them() -> None:
    def shown(**environment: str) -> str:
        screen, of_command = os.openpty()
        cleared = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
        with subprocess.Popen(
            [SCRIPT, "--help"], stdout=of_command, stderr=of_command, env=cleared | {"TERM": "xterm-256color"} | environment
        ) as running:
            os.close(of_command)
            text = b""
            with suppress(OSError):  # how a terminal says that the command has ended
                while part := os.read(screen, 65_536):
                    text += part
            os.close(screen)
            assert running.wait(300) == 0
        return text.decode()

    colour = re.compile(r"\x1b\[[0-9;]*3[0-7]m")
    assert colour.search(shown())
    assert not colour.search(shown(NO_COLOR="1"))


def test_help_imports_nothing_heavy() -> None:
    code = "import sys, vlm_rm_sweeps.cli; print([name for name in sys.argv[1:] if name in sys.modules])"
    command = [sys.executable, "-c", code, *HEAVY, "pydantic", "pandas", "numpy"]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert shown.stdout == "[]\n", shown.stderr


def test_bad_input_is_one_message_and_exit_status_2_before_anything_heavy_is_imported(tmp_path: Path) -> None:
    command = [sys.executable, "-c", RUN_AND_LIST_HEAVY, str(SCRIPT), "label", str(tmp_path)]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert shown.returncode == 2
    assert shown.stderr == (
        f"vlm-rm: {tmp_path} has nothing to label: expected a data set of states, a folder of .mp4 files, or a "
        "sweep's folder with videos\n"
    )
    assert shown.stdout == "\n"


def test_an_interruption_is_reported_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("vlm_rm_sweeps.cli.app", interrupted)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 130
    assert capsys.readouterr().err == "vlm-rm: interrupted\n"


WRITERS = {
    "poses": ("poses", "--out"),
    "render": ("render", "cartpole-upright", "--output"),
    "epic": ("epic", "states", "--model", "embedded/tiny", "--output"),
    "landscape": ("landscape", "--task", "cartpole-upright", "--model", "embedded/tiny", "--output"),
    "states sample": ("states", "sample", "cartpole-upright", "--output"),
    "states rollouts": ("states", "rollouts", "results", "--output"),
    "states images": ("states", "images", "pictures", "--task", "cartpole-upright", "--output"),
    "labels": ("labels", "states", "--output"),
    "report": ("report", "results", "--output"),
    "pretrain": ("pretrain", "--out"),
    "sweep": ("sweep", "sweep.yaml", "--results"),
    "dashboard": ("dashboard", "--results"),
}


@pytest.mark.parametrize("command", WRITERS)
def test_an_unwritable_output_is_refused_before_the_work(refusal: Command, command: str, tmp_path: Path) -> None:
    """It is checked even before the other arguments, none of which exist."""
    (tmp_path / "file").write_text("mine")
    below = tmp_path / "file" / "new" / "x.png"
    assert refusal(*WRITERS[command], below) == (
        f"{below} cannot be written: {tmp_path / 'file'} is not a folder; choose another path"
    )
    assert "cannot be written (File name too long)" in refusal(*WRITERS[command], tmp_path / ("x" * 300))
    assert refusal(*WRITERS[command], " ") == "' ': expected the name of a file or folder to write to"
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_that_is_read_only_is_not_written_to(
    refusal: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def not_for_you(place: Path, mode: int) -> bool:  # the tests may run as root, who may write everywhere
        asked.append(place)
        return False

    monkeypatch.setattr(os, "access", not_for_you)
    message = refusal("poses", "--out", tmp_path / "new" / "poses")
    assert f"you have no permission to write to the folder {tmp_path}" in message
    assert asked == [tmp_path]


def test_a_folder_in_the_place_of_a_file_is_refused(refusal: Command, tmp_path: Path) -> None:
    assert refusal("render", "cartpole-upright", "--force", "-o", tmp_path) == (
        f"{tmp_path} is a folder: expected the path of a file"
    )


def test_a_module_in_a_package_is_named_as_checkpoints_name_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    package = tmp_path / "named_package"
    package.mkdir()
    (package / "parts.py").write_text("print('imported as', __name__)")
    monkeypatch.syspath_prepend(tmp_path)
    for name, message in (("named_package.parts", ""), ("named_package.others", "there is no module 'named_package.others'")):
        monkeypatch.setattr(sys, "argv", ["vlm-rm", "--module", name, "poses", "cartpole-upright", "--help"])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == (2 if message else 0)
        assert message in capsys.readouterr().err
    assert is_trusted("named_package.parts:Mine")


@pytest.mark.parametrize(
    "command",
    [
        "poses --seed 4294967296",
        "poses --samples 1000001",
        "render cartpole-upright -o x.mp4 --steps 100001",
        "render cartpole-upright -o x.png --seed 4294967296",
        "evaluate nowhere --seed 4294967296",
        "evaluate nowhere --episodes 100001",
        "states sample cartpole-upright -o x --count 1000001",
        "states sample cartpole-upright -o x --seed 4294967296",
        "states rollouts nowhere -o x --episodes 100001",
        "landscape --task cartpole-upright --model embedded/tiny -o x --points 10001",
        "landscape --task cartpole-upright --model embedded/tiny -o x --points 1001 --variable theta --variable x",
        "pretrain --threads 9223372036854775808",
    ],
)
def test_a_number_for_which_no_machine_has_time_or_memory_is_refused(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["vlm-rm", *command.split()])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    shown = " ".join(capsys.readouterr().err.replace("\u2502", " ").split())  # typer draws a frame
    assert re.search(r"less than or equal to|not in the range|expected at most 1,000,000 states in all", shown), shown
    assert not list(tmp_path.iterdir())


def test_a_cluster_that_does_not_answer_is_said_before_the_plan_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{free.getsockname()[1]}")
    quickstart = str(Path(__file__).parents[2] / "sweeps" / "quickstart.yaml")
    command = [sys.executable, "-c", RUN_AND_LIST_HEAVY, str(SCRIPT), "sweep", quickstart]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert shown.returncode == 2
    assert "nothing answers there" in shown.stderr
    assert shown.stderr.count("\n") == 1
    assert shown.stdout == "\n"  # nothing heavy was imported


@pytest.mark.parametrize("command", ["states show", "evaluate", "report", "pretrain evaluate"])
def test_a_name_of_thousands_of_letters_is_shortened_in_the_message(command: str) -> None:
    with pytest.raises(UserError) as refused:
        vlm_rm(*command.split(), "/".join(["x" * 200] * 18))
    assert "..." in str(refused.value)
    assert len(str(refused.value)) < 1_000


def test_weights_that_a_full_disk_stops_are_explained_and_damaged_ones_are_not(tmp_path: Path) -> None:
    """safetensors and torch have exceptions of their own for it."""
    weights = {"a": torch.zeros(9_999)}
    for write in (lambda: save_file(weights, tmp_path / "a.safetensors"), lambda: torch.save(weights, tmp_path / "a.pt")):
        with full_disk(1_000), pytest.raises(Exception, match=r".") as stopped:
            write()
        assert not isinstance(stopped.value, OSError)
        assert "a file cannot be written" in str(_explained(stopped.value))
    (tmp_path / "damaged.safetensors").write_bytes(b"nonsense" * 9)
    with pytest.raises(SafetensorError) as damaged:
        load_file(tmp_path / "damaged.safetensors")
    assert _explained(damaged.value) is None


def test_a_place_that_may_not_be_written_is_explained() -> None:
    refused = PermissionError(errno.EACCES, "Permission denied", "/sys/cache")
    assert _explained(refused) == "/sys/cache: Permission denied: expected a place that this process may read and write"
    assert _explained(ValueError("a fault")) is None
