"""The command line as a user runs it, in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

from typer.testing import CliRunner

from vlm_rm_sweeps.cli import app

REPOSITORY = Path(__file__).parent.parent
QUICKSTART = REPOSITORY / "sweeps" / "quickstart.yaml"


def vlm_rm(*arguments: str, cwd: Path = REPOSITORY) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "vlm-rm"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=cwd, env=os.environ | {"COLUMNS": "120"})


def test_help_names_every_command() -> None:
    shown = vlm_rm("--help")
    assert shown.returncode == 0
    for command in ("sweep", "tasks", "poses", "models", "pretrain"):
        assert command in shown.stdout


def in_process(*arguments: str) -> str:
    """What a command prints, run here: starting a process would load open_clip anew."""
    shown = CliRunner().invoke(app, arguments)
    assert shown.exit_code == 0, shown.output
    return shown.output


def test_tasks_show_their_prompts_and_success() -> None:
    shown = in_process("tasks")
    assert "cartpole-upright" in shown
    assert "pole vertically upright on top of the cart" in shown
    assert "12 degrees" in shown


def test_poses_prints_the_matrix_and_writes_it(tmp_path: Path) -> None:
    shown = in_process("poses", "--out", str(tmp_path / "poses"), "--samples", "2", "--degrees", "1")
    assert "hands-on-hips" in shown
    assert "2 perturbed states (noise of 1 degrees)" in shown
    assert (tmp_path / "poses" / "poses.csv").read_text().splitlines()[1].startswith("standing,0.000,0.000,1.000")
    assert (tmp_path / "poses" / "poses.png").stat().st_size > 10_000


def test_models_lists_the_embedded_family_and_open_clips() -> None:
    shown = in_process("models")
    assert "embedded/small  (0.52 M parameters" in shown
    assert "ViT-bigG-14/laion2b_s39b_b160k" in shown
    only = in_process("models", "bigG")
    assert "embedded" not in only
    assert "ViT-bigG-14/laion2b_s39b_b160k" in only


def test_dry_run_prints_the_trials_and_their_resources_and_starts_nothing(tmp_path: Path) -> None:
    shown = vlm_rm("sweep", str(QUICKSTART), "--dry-run", "--results", str(tmp_path / "results"))
    assert shown.returncode == 0, shown.stderr
    assert "9 trials of" in shown.stdout
    assert "embedded/small, alpha 0.5, prompt paper, seed 0" in shown.stdout
    assert "each trial reserves 1 CPUs and 0 GPUs" in shown.stdout
    assert "0.52 M parameters" in shown.stdout
    assert not (tmp_path / "results").exists()


def test_bad_input_is_one_message_and_exit_status_2(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(QUICKSTART.read_text().replace("seeds:", "seed:"))
    shown = vlm_rm("sweep", str(file), cwd=tmp_path)
    assert shown.returncode == 2
    assert shown.stdout == ""
    assert shown.stderr.count("\n") == 1
    assert shown.stderr.startswith(f"vlm-rm: {file}: unknown key 'seed' (value [0]): did you mean 'seeds'?")
    assert list(tmp_path.iterdir()) == [file]


def test_a_misspelt_option_is_exit_status_2() -> None:
    assert CliRunner().invoke(app, ["sweep", str(QUICKSTART), "--dryrun"]).exit_code == 2
