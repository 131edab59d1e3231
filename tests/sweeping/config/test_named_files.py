"""What a sweep file names is relative to the file, in every process and from every working folder."""

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from vlm_rm_sweeps import user_modules
from vlm_rm_sweeps.sweeping.config.named_files import absolute_paths, folder_of
from vlm_rm_sweeps.sweeping.config.screening import load_plan
from vlm_rm_sweeps.sweeping.config.yaml_file import read_sweep_keys


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with files, and with a name that a URL would take apart."""
    folder = tmp_path / "my 100% project? #1 ü"
    (folder / "data").mkdir(parents=True)
    for name in ("weights.pt", "robot.xml", "goals.txt", "openai"):
        (folder / name).touch()
    return folder


def write(file: Path, keys: dict[str, Any]) -> Path:
    file.write_text(yaml.safe_dump(keys, allow_unicode=True))
    return file


NAMED: dict[str, Any] = {
    "models": ["ViT-B-32/weights.pt", "own:Model/./weights.pt", "ViT-B-32/laion2b_s34b_b79k", "embedded/tiny"],
    "only": [{"model": "ViT-B-32/weights.pt", "alpha": 0, "prompt": "a"}],
    "audit": {"models": "ViT-B-32/weights.pt"},
    "env": {
        "id": "Robot-v0",
        "kwargs": {"xml_file": "./robot.xml", "other": "half_cheetah.xml", "parts": ["robot.xml"], "mode": "data"},
    },
    "prompts": "goals.txt",
    "epic_states": {"states": "data"},
    "screen": {"states": "data", "keep": 1},
}


def test_each_file_is_found_beside_the_sweep_file(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    keys = read_sweep_keys(write(project / "sweep.yaml", NAMED))
    weights, robot = f"{project}/weights.pt", f"{project}/robot.xml"
    assert keys == {
        "models": [f"ViT-B-32/{weights}", f"own:Model/{weights}", "ViT-B-32/laion2b_s34b_b79k", "embedded/tiny"],
        "only": [{"model": f"ViT-B-32/{weights}", "alpha": 0, "prompt": "a"}],
        "audit": {"models": f"ViT-B-32/{weights}"},
        "env": {"id": "Robot-v0", "kwargs": {"xml_file": robot, "other": "half_cheetah.xml", "parts": [robot], "mode": "data"}},
        "prompts": f"{project}/goals.txt",
        "epic_states": {"states": f"{project}/data"},
        "screen": {"states": f"{project}/data", "keep": 1},
    }
    # As stored in a results folder, which may lie anywhere.
    assert read_sweep_keys(write(elsewhere / "sweep.yaml", keys)) == keys


def test_an_overlay_in_another_folder_leaves_the_bases_files_where_they_are(project: Path, tmp_path: Path) -> None:
    write(project / "base.yaml", {"models": ["ViT-B-32/weights.pt"]})
    keys = read_sweep_keys(write(tmp_path / "sweep.yaml", {"base": f"{project.name}/base.yaml", "steps": 1}))
    assert keys["models"] == [f"ViT-B-32/{project}/weights.pt"]


def test_the_command_line_names_files_in_the_working_folder(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    file = write(tmp_path / "sweep.yaml", {"models": ["embedded/tiny"]})
    assert read_sweep_keys(file, ["models=[ViT-B-32/weights.pt]"])["models"] == [f"ViT-B-32/{project}/weights.pt"]


def test_a_data_set_may_lie_in_the_working_folder(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    file = write(tmp_path / "sweep.yaml", {"screen": {"states": "data"}})
    assert read_sweep_keys(file)["screen"]["states"] == f"{project}/data"


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "loop", "", "/", 3, None])
def test_a_name_that_no_file_has_is_left_to_the_checks_that_follow(name: Any, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    keys = {"models": [name, f"ViT-B-32/{name}"], "env": {"kwargs": {"xml_file": f"./{name}"}}, "only": [name], "audit": name}
    if name not in ("", "/"):
        assert absolute_paths(keys, tmp_path) == keys
    absolute_paths(keys | {"prompts": name, "screen": {"states": name}}, tmp_path)


def test_what_a_pipe_names_is_in_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert folder_of(Path("/dev/stdin")) == tmp_path
    assert folder_of(Path("sweep.yaml")) == tmp_path


def test_modules_beside_a_base_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_modules, "_folders", [])  # or later tests would ship them to Ray
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "beside_the_base.py").write_text(
        "from vlm_rm_sweeps.tasks.cart_pole import CARTPOLE_UPRIGHT as MINE\n"
    )
    keys = {"name": "a", "task": "beside_the_base:MINE", "models": ["embedded/tiny"], "alphas": [0], "steps": 100}
    keys["prompts"] = [{"id": "up", "goal": "a pole # stands", "baseline": "a cart"}]
    write(tmp_path / "shared" / "base.yaml", keys)
    plan = load_plan(write(tmp_path / "sweep.yaml", {"base": "shared/base.yaml"}))
    assert "  up: goal 'a pole # stands', baseline 'a cart'" in plan.describe().splitlines()


def test_a_folder_of_a_model_is_found_beside_the_sweep_file(tmp_path: Path) -> None:
    (tmp_path / "mine" / "clip").mkdir(parents=True)
    (tmp_path / "mine" / "clip" / "open_clip_config.json").touch()
    named = ["mine/clip", "./mine/clip", "local-dir:mine/clip", "mine/other", "hf-hub:org/name", ""]
    found = absolute_paths({"models": named}, tmp_path)["models"]
    folder = str(tmp_path / "mine" / "clip")
    assert found == [folder, folder, f"local-dir:{folder}", "mine/other", "hf-hub:org/name", ""]


def test_files_for_wrappers_own_rewards_and_own_algorithms_are_beside_the_sweep_file_too(project: Path) -> None:
    keys: dict[str, Any] = {
        "env": {
            "id": "Robot-v0",
            "wrappers": ["FlattenObservation", {"name": "own:Stats", "kwargs": {"stats": "./robot.xml"}}],
        },
        "rewards": [{"kind": "own:Table", "table": "robot.xml"}, {"kind": "softmax", "negatives": ["robot.xml"]}],
        "settings": {"pretrained": "weights.pt", "entropy": "auto"},
    }
    found = absolute_paths(keys, project)
    assert found["env"]["wrappers"] == [
        "FlattenObservation",
        {"name": "own:Stats", "kwargs": {"stats": f"{project}/robot.xml"}},
    ]
    assert found["rewards"][0] == {"kind": "own:Table", "table": f"{project}/robot.xml"}
    assert found["rewards"][1] == keys["rewards"][1]
    assert found["settings"] == {"pretrained": f"{project}/weights.pt", "entropy": "auto"}


def test_a_path_in_the_users_own_folder_is_there(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(project))
    found = absolute_paths({"epic_states": {"states": "~/data"}, "env": {"kwargs": {"xml_file": "~/robot.xml"}}}, tmp_path)
    assert found == {"epic_states": {"states": f"{project}/data"}, "env": {"kwargs": {"xml_file": f"{project}/robot.xml"}}}
