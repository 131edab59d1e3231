"""YAML means what it looks like, and is bounded before anything is built from it."""

from typing import Any

import pytest

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.sweeping.config.yaml_text import parse_yaml, to_yaml


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("8_000", 8000),
        ("0x10", 16),
        ("-3", -3),
        ("1e-3", 0.001),
        ("1.5E3", 1500.0),
        (".5", 0.5),
        ("1000000000000000000", 10**18),
        (".inf", float("inf")),
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("a pole", "a pole"),
        ("=", "="),
        ("<<", "<<"),
        ("[<<, =]", ["<<", "="]),
        ("{<<: {a: 1}, b: 2}", {"a": 1, "b": 2}),
        (r'"\u2028\x85"', "\u2028\x85"),
        ("'0600'", "0600"),
        ("'yes'", "yes"),
        ("&a [1, 2]", [1, 2]),
    ],
)
def test_a_value_is_what_it_looks_like(text: str, meaning: Any) -> None:
    assert parse_yaml(f"key: {text}") == {"key": meaning}


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("0600", ["0600 means 384 in YAML 1.1", "line 2, column 6", "600 for the number", "'0600' for the text"]),
        ("0b11", ["0b11 means 3 in YAML 1.1"]),
        ("1:30", ["1:30 means 90 in YAML 1.1", "'1:30' for the text"]),
        ("1:30.5", ["1:30.5 means 90.5 in YAML 1.1"]),
        ("yes", ["yes means true in YAML 1.1", "write true for a choice, or 'yes' for the word"]),
        ("Off", ["Off means false in YAML 1.1"]),
        ("2026-01-01", ["2026-01-01 means a date in YAML 1.1"]),
        ("!!int ''", ["the tag", "tag:yaml.org,2002:int", "line 2"]),
        ("!!timestamp abc", ["the tag"]),
        ("!!python/object/apply:os.system [ls]", ["the tag"]),
        ("1000000000000000001", ["1000000000000000001 is too large: expected at most 10^18", "line 2"]),
        ("9" * 1_000_000, ["is too long", "line 2"]),
        ("1" + ":30" * 100_000, ["is too long", "line 2"]),
        ("1e999", ["1e999 is too large for a number"]),
        ("&a [*a]", ["contains itself"]),
        ("[" * 1000 + "]" * 1000, ["more than 50 levels"]),
        ("[" * 400_000, ["more than 50 levels"]),
    ],
    ids=lambda each: each[:20] if isinstance(each, str) else "",
)
def test_what_surprises_is_refused_with_its_line(text: str, parts: list[str]) -> None:
    with pytest.raises(UserError) as refused:
        parse_yaml(f"first: 1\nkey: {text}")
    assert "is not YAML" not in str(refused.value)
    assert all(part in str(refused.value) for part in parts), refused.value
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize("letter", ["\u2028", "\u2029", "\x85"])
@pytest.mark.parametrize(
    "text", ["seeds: [0]\r\n# note{}seeds: [0, 1, 2]", "a: 1\ngoal: a pole{}upright", "a: 1\ngoal: 'a{}pole'"]
)
def test_a_line_break_of_one_version_of_yaml_only_is_refused(text: str, letter: str) -> None:
    with pytest.raises(
        UserError, match=rf"^line 2 has the character U\+{ord(letter):04X}, which is invisible.* in double quotes"
    ):
        parse_yaml(text.format(letter))


@pytest.mark.parametrize("use", ["[{}]", "{{<<: [{}]}}"], ids=["lists", "merged mappings"])
def test_aliases_are_bounded_by_what_they_stand_for(use: str) -> None:
    lines = ["a0: &a0 {x: 1}"]
    lines += [f"a{level}: &a{level} " + use.format(", ".join([f"*a{level - 1}"] * 10)) for level in range(1, 10)]
    with pytest.raises(UserError, match="with its aliases more than 30,000 values or 50 levels"):
        parse_yaml("\n".join(lines))


def test_a_chain_of_aliases_is_bounded_by_its_depth() -> None:
    lines = ["a0: &a0 [1]", *(f"a{level}: &a{level} [*a{level - 1}]" for level in range(1, 400))]
    with pytest.raises(UserError, match="50 levels"):
        parse_yaml("\n".join(lines))


@pytest.mark.parametrize(
    "value",
    [
        "1e-3",
        "yes",
        "0600",
        "1:30",
        "2026-01-01",
        "true",
        "null",
        "ünïcode",
        "1e3",
        "# no",
        "=",
        "<<",
        "a\u2028 b\x85",
        1e-5,
        1e16,
        None,
    ],
)
def test_what_is_written_is_read_again(value: Any) -> None:
    assert parse_yaml(to_yaml({"key": value, "keys": [value]})) == {"key": value, "keys": [value]}


def test_what_an_alias_stands_for_is_changed_in_one_place_only() -> None:
    parsed = parse_yaml("trial: &both {cpus: 1, gpus: [0]}\npool: *both\n")
    parsed["trial"]["gpus"].append(1)
    assert parsed["pool"] == {"cpus": 1, "gpus": [0]}


def test_characters_in_two_halves_as_json_has_them_are_whole_and_single_halves_refused() -> None:
    assert parse_yaml(r'goal: "\ud83e\udd38 pole"') == {"goal": "\U0001f938 pole"}
    with pytest.raises(UserError, match="has half of a character"):
        parse_yaml(r'goal: "\ud83e pole"')
