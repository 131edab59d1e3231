"""The JSON schema of sweep files: it accepts what the command accepts, refuses what it can see, and the written copies are true."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from vlm_rm_sweeps.sweeping.config.schema import keys_as_markdown, sweep_schema

REPOSITORY = Path(__file__).parents[3]
SWEEPS = sorted((REPOSITORY / "sweeps").glob("*.yaml"))
GOOD: dict[str, Any] = {
    "name": "good",
    "task": "cartpole-upright",
    "models": ["embedded/tiny"],
    "alphas": [0.0, 0.5],
    "steps": 1_000,
}
REWARDED: dict[str, Any] = {key: value for key, value in GOOD.items() if key != "alphas"} | {
    "rewards": [
        "history",
        {"kind": "softmax", "negatives": "lying", "name": "mine"},
        {"kind": "mixed", "of": [{"weight": 2, "reward": {"kind": "threshold", "above": 0.3}}]},
        {"kind": "my_module:Mine", "anything": [1]},
    ]
}
PROMPT = {"id": "mine", "goal": "an upright pole", "baseline": "a pole"}


class Yaml12Loader(yaml.SafeLoader):
    """Reads plain values as editors do: in YAML 1.2, 8_000 and `yes` are texts."""


Yaml12Loader.yaml_implicit_resolvers = {}
for _kind, _pattern, _first in (
    ("bool", r"true|false", "tf"),
    ("null", r"null|~|", "n~"),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
):
    Yaml12Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(f"(?:{_pattern})$"), [*_first, ""])


@pytest.fixture(scope="module")
def problems() -> Callable[[Any], list[str]]:
    """What an editor would mark in the keys of a file."""
    validator = Draft202012Validator(sweep_schema())
    return lambda keys: [error.message for error in validator.iter_errors(keys)]


def test_it_is_a_schema() -> None:
    Draft202012Validator.check_schema(sweep_schema())


@pytest.mark.parametrize("file", SWEEPS, ids=lambda file: file.stem)
def test_an_editor_finds_nothing_wrong_with_a_shipped_file(file: Path, problems: Callable[[Any], list[str]]) -> None:
    text = file.read_text()
    assert text.startswith("# yaml-language-server: $schema=schema.json\n")
    assert problems(yaml.load(text, Yaml12Loader)) == []
    assert problems(yaml.safe_load(text)) == []


@pytest.mark.parametrize(
    "keys",
    [
        pytest.param(GOOD, id="the least"),
        pytest.param({key: value for key, value in GOOD.items() if key != "name"}, id="named as its file"),
        pytest.param({"base": "other.yaml"}, id="an overlay"),
        pytest.param(
            {"base": "other.yaml", "settings": {"gamma": None}, "audit": None, "screen": None}, id="an overlay that removes"
        ),
        pytest.param({"base": "other.yaml", "env": {"episode_steps": 3}}, id="an overlay of a section"),
        pytest.param(GOOD | {"prompts": [PROMPT, PROMPT | {"goal": ["up", "upright"]}]}, id="a sentence or a list of them"),
        pytest.param(GOOD | {"prompts": "goals.txt", "screen": {"states": "results/states"}}, id="a screening"),
        pytest.param(GOOD | {"audit": {"models": "largest"}}, id="an audit by the largest model"),
        pytest.param(GOOD | {"audit": {"models": ["embedded/large"], "every": 50}}, id="an audit by named models"),
        pytest.param(GOOD | {"epic_states": {"states": "results/states", "truth": "raters"}}, id="labelled states"),
        pytest.param(GOOD | {"settings": {"tau": 0.1, "entropy": "auto"}}, id="settings of SAC"),
        pytest.param(GOOD | {"settings": {"double_q": False}}, id="settings of DQN"),
        pytest.param(GOOD | {"steps": "10_000"}, id="underscores, which YAML 1.2 reads as text"),
        pytest.param(REWARDED, id="rewards"),
        pytest.param(GOOD | {"profile": None}, id="the machine's own profile"),
    ],
)
def test_what_the_command_accepts_is_accepted(keys: dict[str, Any], problems: Callable[[Any], list[str]]) -> None:
    assert problems(keys) == []


@pytest.mark.parametrize(
    "keys",
    [
        pytest.param({key: value for key, value in GOOD.items() if key != "steps"}, id="missing key"),
        pytest.param(GOOD | {"stepz": 1}, id="unknown key"),
        pytest.param(GOOD | {"pool": {"server": 2}}, id="unknown key in a section"),
        pytest.param(GOOD | {"prompts": [PROMPT | {"gaol": "x"}]}, id="unknown key in a prompt"),
        pytest.param(GOOD | {"prompts": [{"id": "mine", "goal": "x"}]}, id="missing key in a prompt"),
        pytest.param(GOOD | {"steps": "many"}, id="steps a word"),
        pytest.param(GOOD | {"steps": -5}, id="negative steps"),
        pytest.param(GOOD | {"models": "embedded/tiny"}, id="no list"),
        pytest.param(GOOD | {"pool": {"precision": "fp64"}}, id="unknown precision"),
        pytest.param(GOOD | {"settings": {"double_q": True, "tau": 0.1}}, id="settings of two algorithms"),
        pytest.param(REWARDED | {"rewards": [{"kind": "sofmax"}]}, id="unknown kind of reward"),
        pytest.param(REWARDED | {"rewards": [{"kind": "history", "frame": 3}]}, id="unknown parameter of a reward"),
        pytest.param(GOOD | {"base": 3}, id="a base that is no path"),
        pytest.param(GOOD | {"screen": {"states": "x", "keep": 0}}, id="a screening that keeps nothing"),
    ],
)
def test_what_an_editor_can_see_is_refused(keys: dict[str, Any], problems: Callable[[Any], list[str]]) -> None:
    assert problems(keys)


def test_every_key_is_explained_in_the_tables() -> None:
    rows = [line.split(" | ") for line in keys_as_markdown().splitlines() if line.startswith("| `")]
    assert {"| `base`", "| `pool`", "| `timeout_s`", "| `learning_rate`", "| `keep`"} <= {row[0] for row in rows}
    assert [row[0] for row in rows if not row[1].endswith(".")] == []


def test_the_shipped_schema_is_what_the_command_prints() -> None:
    assert json.loads((REPOSITORY / "sweeps" / "schema.json").read_text()) == sweep_schema(), "run `make schema`"
