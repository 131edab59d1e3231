"""Sweep files as overlays of other ones, and overrides of the command line: what comes out, and one message for what is wrong."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.sweeping.config.screening import Screening, load_plan
from vlm_rm_sweeps.sweeping.config.sweep import load_sweep
from vlm_rm_sweeps.sweeping.config.yaml_file import apply_overrides, read_sweep_keys

SWEEPS = Path(__file__).parents[3] / "sweeps"
KEYS: dict[str, Any] = {
    "name": "good",
    "task": "cartpole-upright",
    "models": ["embedded/tiny"],
    "alphas": [0.0, 0.5],
    "prompts": [{"id": "mine", "goal": "an upright pole", "baseline": "a pole"}],
    "steps": 1_000,
    "settings": {"gamma": 0.9, "hidden": [16, 16]},
}


def write(file: Path, keys: dict[str, Any]) -> Path:
    file.parent.mkdir(exist_ok=True)
    file.write_text(yaml.safe_dump(keys, sort_keys=False))
    return file


@pytest.mark.parametrize(
    ("overlay", "changed"),
    [
        pytest.param({}, {}, id="nothing"),
        pytest.param({"steps": 5}, {"steps": 5}, id="scalar"),
        pytest.param({"alphas": [1.0]}, {"alphas": [1.0]}, id="a list is replaced"),
        pytest.param({"settings": {"gamma": 0.5}}, {"settings": {"gamma": 0.5, "hidden": [16, 16]}}, id="mappings are merged"),
        pytest.param({"settings": {"envs": 4}}, {"settings": KEYS["settings"] | {"envs": 4}}, id="a key more in a mapping"),
        pytest.param({"pool": {"servers": 2}}, {"pool": {"servers": 2}}, id="a key more"),
        pytest.param({"settings": {"hidden": None}}, {"settings": {"gamma": 0.9}}, id="null removes a key in a mapping"),
        pytest.param({"settings": 3}, {"settings": 3}, id="a scalar in the place of a mapping"),
        pytest.param({"alphas": {"a": 1}}, {"alphas": {"a": 1}}, id="a mapping in the place of a list"),
        pytest.param({"setings": None}, {"setings": None}, id="null of a misspelt key stays, to be found"),
    ],
)
def test_an_overlay_says_what_differs(overlay: dict[str, Any], changed: dict[str, Any], tmp_path: Path) -> None:
    write(tmp_path / "base.yaml", KEYS)
    assert read_sweep_keys(write(tmp_path / "sweep.yaml", {"base": "base.yaml"} | overlay)) == KEYS | changed


def test_null_removes_the_bases_key(tmp_path: Path) -> None:
    write(tmp_path / "base.yaml", KEYS)
    keys = read_sweep_keys(write(tmp_path / "sweep.yaml", {"prompts": None, "base": "base.yaml"}))
    assert keys == {key: value for key, value in KEYS.items() if key != "prompts"}


def test_a_path_is_relative_to_the_file_that_names_it_and_bases_have_bases(tmp_path: Path) -> None:
    write(tmp_path / "root.yaml", KEYS)
    write(tmp_path / "poses" / "middle.yaml", {"base": "../root.yaml", "steps": 5, "settings": {"gamma": 0.5}})
    file = write(tmp_path / "top.yaml", {"base": "poses/middle.yaml", "steps": 7})
    assert read_sweep_keys(file) == KEYS | {"steps": 7, "settings": {"gamma": 0.5, "hidden": [16, 16]}}


def test_an_overlay_is_checked_and_stored_as_if_it_were_one_file(tmp_path: Path) -> None:
    write(tmp_path / "base.yaml", KEYS)
    overlaid = load_sweep(write(tmp_path / "sweep.yaml", {"base": "base.yaml", "steps": 7}), ["settings.envs=4"])
    whole = load_sweep(write(tmp_path / "whole.yaml", KEYS | {"steps": 7, "settings": KEYS["settings"] | {"envs": 4}}))
    assert overlaid == whole
    assert "base" not in overlaid.model_dump()


def message_of(file: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_sweep(file)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_missing_base_is_named_with_the_files_that_lead_to_it(tmp_path: Path) -> None:
    middle = write(tmp_path / "middle.yaml", {"base": "none.yaml"})
    top = write(tmp_path / "top.yaml", {"base": "middle.yaml"})
    none = tmp_path / "none.yaml"
    assert message_of(top).startswith(f"{top}: base: {middle}: base: {none}: cannot be read (No such file or directory)")


def test_a_cycle_is_named_with_its_files(tmp_path: Path) -> None:
    first = write(tmp_path / "first.yaml", {"base": "second.yaml"})
    second = write(tmp_path / "second.yaml", {"base": "./first.yaml"})
    assert message_of(first).startswith(f"{first}: base: {second}: base: {first}: is its own base")
    alone = write(tmp_path / "alone.yaml", KEYS | {"base": "alone.yaml"})
    assert message_of(alone).startswith(f"{alone}: base: {alone}: is its own base")


@pytest.mark.parametrize("name", [3, None, ["a.yaml"]])
def test_a_base_that_is_no_path_is_refused(name: Any, tmp_path: Path) -> None:
    message = message_of(write(tmp_path / "sweep.yaml", KEYS | {"base": name}))
    assert f"base = {name!r}: expected the path of another sweep file" in message


def test_what_is_wrong_with_an_overlay_is_said_of_the_file_that_was_asked_for(tmp_path: Path) -> None:
    write(tmp_path / "base.yaml", KEYS)
    top = write(tmp_path / "sweep.yaml", {"base": "base.yaml", "alpas": [0]})
    assert message_of(top).startswith(f"{top}: unknown key 'alpas' (value [0]): did you mean 'alphas'?")


@pytest.mark.parametrize(
    ("override", "changed"),
    [
        ("steps=2000", {"steps": 2000}),
        ("alphas=[0, 0.5]", {"alphas": [0, 0.5]}),
        ("trial.cpus=2", {"trial": {"cpus": 2}}),
        ("settings.gamma=0.5", {"settings": {"gamma": 0.5, "hidden": [16, 16]}}),
        ("settings.hidden.1=8", {"settings": {"gamma": 0.9, "hidden": [16, 8]}}),
        ("prompts.0.goal=a pole", {"prompts": [KEYS["prompts"][0] | {"goal": "a pole"}]}),
        ("settings={envs: 4}", {"settings": {"envs": 4}}),
        ("name=b=c", {"name": "b=c"}),
        ("videos=false", {"videos": False}),
    ],
)
def test_an_override_sets_one_value(override: str, changed: dict[str, Any]) -> None:
    assert apply_overrides(KEYS, [override]) == KEYS | changed


def test_overrides_follow_each_other_and_leave_the_keys_of_the_file_alone() -> None:
    keys = apply_overrides(KEYS, ["settings.hidden.0=8", "settings.gamma=null", "prompts=null", "steps=1", "steps=2"])
    assert keys == {key: value for key, value in KEYS.items() if key != "prompts"} | {
        "steps": 2,
        "settings": {"hidden": [8, 16]},
    }
    assert KEYS["settings"] == {"gamma": 0.9, "hidden": [16, 16]}


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("steps", "expected key.path=value, such as --set steps=2000"),
        ("steps=", "expected key.path=value"),
        ("=3", "expected key.path=value"),
        ("trial..cpus=3", "expected key.path=value"),
        ("alphas=[0", "the value is not YAML"),
        ("pool={gpus: 1, gpus: 2}", "the value: key 'gpus' stands there 2 times"),
        ("steps.x=3", "steps is 1000, which has no keys"),
        ("prompts.1.goal=x", "'1' is no entry of a list of 1: expected one of 0"),
        ("prompts.first.goal=x", "'first' is no entry of a list of 1: expected one of 0"),
    ],
)
def test_a_bad_override_gets_one_message(override: str, part: str) -> None:
    with pytest.raises(UserError) as caught:
        apply_overrides(KEYS, [override])
    assert str(caught.value).startswith(f"--set {override!r}: ")
    assert part in str(caught.value)


def test_an_unknown_key_of_an_override_is_found_when_the_keys_are_checked(tmp_path: Path) -> None:
    file = write(tmp_path / "sweep.yaml", KEYS)
    with pytest.raises(UserError, match=r"unknown key 'trial.cpu' \(value 2\): did you mean 'cpus'\?"):
        load_sweep(file, ["trial.cpu=2"])


def test_a_screening_takes_overrides_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(SWEEPS.parent)
    plan = load_plan(SWEEPS / "screen_cartpole.yaml", ["screen.keep=1", "steps=77"])
    assert isinstance(plan, Screening)
    assert (plan.settings.keep, plan.plan.sweep.steps, plan.keys["steps"]) == (1, 77, 77)
