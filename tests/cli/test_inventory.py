"""Listing tasks, models and poses, and showing what a model sees."""

import json
from collections.abc import Callable
from pathlib import Path

import imageio.v3 as iio
import pytest

from vlm_rm_sweeps.registry import Registry
from vlm_rm_sweeps.rewards import registry
from vlm_rm_sweeps.rewards.open_clip_models import embedded_sizes
from vlm_rm_sweeps.rewards.registry import find_reward_model
from vlm_rm_sweeps.rewards.reward_model import RewardModel
from vlm_rm_sweeps.sweeping.config.schema import keys_as_markdown, sweep_schema

Command = Callable[..., str]


def test_tasks_show_their_prompts_and_success(vlm_rm: Command) -> None:
    shown = vlm_rm("tasks")
    assert "cartpole-upright" in shown
    assert "pole vertically upright on top of the cart" in shown
    assert "12 degrees" in shown


def test_poses_prints_the_matrix_and_writes_it(vlm_rm: Command, tmp_path: Path) -> None:
    shown = vlm_rm("poses", "--out", tmp_path / "poses", "--samples", "2", "--degrees", "1")
    assert "hands-on-hips" in shown
    assert "2 perturbed states (noise of 1 degrees)" in shown
    assert (tmp_path / "poses" / "poses.csv").read_text().splitlines()[1].startswith("standing,0.000,0.000,1.000")
    assert (tmp_path / "poses" / "poses.png").stat().st_size > 10_000


def test_models_lists_the_embedded_family_and_open_clips(vlm_rm: Command) -> None:
    shown = vlm_rm("models")
    for size in embedded_sizes():
        millions = find_reward_model(f"embedded/{size}").parameters / 1e6
        assert f"embedded/{size}  ({millions:.2f} M parameters" in shown
    assert "ViT-bigG-14/laion2b_s39b_b160k" in shown
    assert "\nViT-B-16-SigLIP/webli  [hf]\n" in shown
    assert "models marked [hf] need" in shown
    assert "needs OPENAI_API_KEY for OpenAI's own endpoint, OPENAI_BASE_URL for another" in shown
    assert "ViT-B-32/openai\n" in shown
    only = vlm_rm("models", "bigG")
    assert "embedded" not in only
    assert "ViT-bigG-14/laion2b_s39b_b160k" in only


def test_models_lists_registered_ones(vlm_rm: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    models: Registry[type[RewardModel]] = Registry("reward model")
    monkeypatch.setattr(registry, "_MODELS", models)
    registry.register_reward_model("brightness", "own_rewards:Brightness")
    assert "brightness  (registered)\n" in vlm_rm("models", "bright")


def test_render_shows_what_a_model_of_ones_own_sees(vlm_rm: Command, tmp_path: Path) -> None:
    shown = vlm_rm("render", "cartpole-upright", "-o", tmp_path / "x.png", "--model", "own_rewards:Brightness")
    assert "as own_rewards:Brightness sees them, 16 x 16 pixels" in shown
    assert iio.imread(tmp_path / "x.png").shape == (16, 16, 3)


def test_schema_prints_the_json_schema_or_tables(vlm_rm: Command) -> None:
    assert json.loads(vlm_rm("schema")) == sweep_schema()
    assert vlm_rm("schema", "--markdown") == keys_as_markdown() + "\n"


def test_render_shows_what_the_model_sees(vlm_rm: Command, tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    shown = vlm_rm("render", "mountaincar-summit", "-o", picture, "--textures", "original", "--model", "embedded/tiny")
    assert "1 frame(s) of mountaincar-summit" in shown
    assert "original textures" in shown
    edge = find_reward_model("embedded/tiny").frame_format.size
    assert iio.imread(picture).shape == (edge, edge, 3)


def test_render_takes_a_sweep_file_with_an_environment_of_its_own(vlm_rm: Command, tmp_path: Path) -> None:
    file, video = tmp_path / "sweep.yaml", tmp_path / "video.gif"
    file.write_text(
        "{name: x, env: {id: Acrobot-v1, episode_steps: 4}, models: [embedded/tiny], alphas: [0], steps: 10,"
        " prompts: [{id: up, goal: an arm standing up, baseline: an arm}]}"
    )
    assert "4 frame(s) of Acrobot-v1 as embedded/tiny sees them" in vlm_rm("render", file, "-o", video)
    assert len(iio.imread(video)) == 4
    assert "3 frame(s)" in vlm_rm("render", file, "-o", tmp_path / "short.gif", "--set", "env.episode_steps=3")


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
        (
            ["cartpole-upright", "-o", "x.png", "--set", "steps=3"],
            "--set 'steps=3' changes a sweep file, and 'cartpole-upright'",
        ),
    ],
)
def test_render_refuses_with_one_message(
    refusal: Command, arguments: list[str], part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.png").write_text("mine")
    assert part in refusal("render", *arguments)
    assert [file.read_text() for file in tmp_path.iterdir()] == ["mine"]


def test_render_replaces_a_file_only_when_told(vlm_rm: Command, tmp_path: Path) -> None:
    file = tmp_path / "x.png"
    file.write_text("mine")
    vlm_rm("render", "cartpole-upright", "-o", file, "--force")
    assert iio.imread(file).ndim == 3
