"""The command line as a user runs it, in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import imageio.v3 as iio
import pytest
from typer.testing import CliRunner

from vlm_rm_sweeps.cli import app
from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.rewards.catalog import find_model
from vlm_rm_sweeps.sweeping.folder import SweepFolder
from vlm_rm_sweeps.sweeping.journal import Journal
from vlm_rm_sweeps.sweeping.spec import load_sweep

REPOSITORY = Path(__file__).parent.parent
QUICKSTART = REPOSITORY / "sweeps" / "quickstart.yaml"


def vlm_rm(*arguments: str, cwd: Path = REPOSITORY) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "vlm-rm"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=cwd, env=os.environ | {"COLUMNS": "120"})


def test_help_names_every_command() -> None:
    shown = vlm_rm("--help")
    assert shown.returncode == 0
    for command in ("sweep", "tasks", "poses", "models", "pretrain", "render"):
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


def test_render_shows_what_the_model_sees(tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    shown = in_process("render", "mountaincar-summit", "-o", str(picture), "--textures", "original", "--model", "embedded/tiny")
    assert "1 frame(s) of mountaincar-summit" in shown
    assert "original textures" in shown
    edge = find_model("embedded/tiny").preprocessing.size
    assert iio.imread(picture).shape == (edge, edge, 3)


def test_render_takes_a_sweep_file_with_an_environment_of_its_own(tmp_path: Path) -> None:
    file, video = tmp_path / "sweep.yaml", tmp_path / "video.gif"
    file.write_text(
        "{name: x, env: {id: Acrobot-v1, episode_steps: 4}, models: [embedded/tiny], alphas: [0], steps: 10,"
        " prompts: [{id: up, goal: an arm standing up, baseline: an arm}]}"
    )
    assert "4 frame(s) of Acrobot-v1" in in_process("render", str(file), "-o", str(video))
    assert len(iio.imread(video)) == 4


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["cartpole-upright", "-o", "there.png"], "there.png exists already: choose another name, or replace it with --force"),
        (["cartpole-upright", "-o", "x.jpg"], "x.jpg: expected a name that ends in .png, .mp4 or .gif"),
        (["cartpole-upright", "-o", "no/x.png"], "there is no folder no"),
        (["cartpol", "-o", "x.png"], "did you mean 'cartpole-upright'?"),
        (["cartpole-upright", "-o", "x.png", "--textures", "modified"], "unknown textures 'modified'"),
        (["cartpole-upright", "-o", "x.png", "--model", "embedded/tin"], "did you mean 'embedded/tiny'?"),
        (["missing.yaml", "-o", "x.png"], "missing.yaml: cannot be read"),
    ],
)
def test_render_refuses_with_one_message(
    arguments: list[str], part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.png").write_text("mine")
    with pytest.raises(UserError) as caught:
        CliRunner().invoke(app, ["render", *arguments], catch_exceptions=False)
    assert part in str(caught.value)
    assert [file.read_text() for file in tmp_path.iterdir()] == ["mine"]


def test_render_replaces_a_file_only_when_told(tmp_path: Path) -> None:
    file = tmp_path / "x.png"
    file.write_text("mine")
    in_process("render", "cartpole-upright", "-o", str(file), "--force")
    assert iio.imread(file).ndim == 3


def interrupted_sweep(results: Path, file: Path) -> None:
    """What a killed driver leaves of a sweep of which one trial was finished."""
    plan = load_sweep(file)
    folder = SweepFolder(results / f"{plan.name}-20260101-120000")
    folder.create(plan)
    Journal(folder.journal).append("end", 0, trial=plan.trials()[0].trial_id, status="FINISHED", tags={})


def refusal(*arguments: str) -> str:
    shown = CliRunner().invoke(app, arguments)
    assert isinstance(shown.exception, UserError), shown.output
    return str(shown.exception)


def test_an_interrupted_sweep_is_neither_continued_nor_left_unasked(tmp_path: Path) -> None:
    interrupted_sweep(tmp_path, QUICKSTART)
    message = refusal("sweep", str(QUICKSTART), "--results", str(tmp_path))
    assert "was interrupted, with 1 of 9 trials finished: --resume (or --yes) goes on with it, --new starts another" in message


def test_a_changed_sweep_file_is_not_resumed_and_the_change_is_shown(tmp_path: Path) -> None:
    interrupted_sweep(tmp_path, QUICKSTART)
    changed = tmp_path / "changed.yaml"
    changed.write_text(QUICKSTART.read_text().replace("steps: 8000", "steps: 9000"))
    assert "-steps: 8000\n+steps: 9000" in refusal("sweep", str(changed), "--results", str(tmp_path), "--resume")


def test_a_sweep_that_another_process_runs_is_left_alone(tmp_path: Path) -> None:
    interrupted_sweep(tmp_path, QUICKSTART)
    found = SweepFolder.newest(load_sweep(QUICKSTART), tmp_path)
    assert found is not None
    with found.locked():
        assert "in use by another process" in refusal("sweep", str(QUICKSTART), "--results", str(tmp_path), "--resume")


def test_evaluate_says_what_is_not_a_checkpoint(tmp_path: Path) -> None:
    assert "is not a checkpoint" in refusal("evaluate", str(tmp_path))
    assert "is not a checkpoint" in refusal("evaluate", str(tmp_path / "missing"))


def test_a_misspelt_option_is_exit_status_2() -> None:
    assert CliRunner().invoke(app, ["sweep", str(QUICKSTART), "--dryrun"]).exit_code == 2
