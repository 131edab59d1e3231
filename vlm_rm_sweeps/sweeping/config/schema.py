"""The keys of a sweep file as a JSON schema for editors, and as tables for people.

Both are generated from the pydantic models that validate the file.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from vlm_rm_sweeps.rewards.functions.base import RewardFunction
from vlm_rm_sweeps.rewards.functions.registry import KIND, find_reward, reward_kinds
from vlm_rm_sweeps.sweeping.config.screening import ScreenSettings
from vlm_rm_sweeps.sweeping.config.sections import RewardSettings
from vlm_rm_sweeps.sweeping.config.sweep import Sweep
from vlm_rm_sweeps.sweeping.config.yaml_file import BASE, SCREEN
from vlm_rm_sweeps.training.algorithms.base import Algorithm
from vlm_rm_sweeps.training.algorithms.registry import algorithm_names, find_algorithm

Schema = dict[str, Any]

_BASE_KEY: Schema = {
    "type": "string",
    "description": "Another sweep file, relative to this one, of which this file changes keys: mappings are merged, all else is "
    "replaced, and `null` removes a key.",
}
_SCREEN_MEANING = (
    "Rank the grid on labelled states instead of training it; `prompts` may then be the name of a file of prompts, too."
)
_UNDERSCORED = r"^[0-9][0-9_]*$"


class _WithoutTitles(GenerateJsonSchema):
    """Leaves out the titles that pydantic derives from the names of keys."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def sweep_schema() -> Schema:
    """Build the JSON schema of a sweep file, for editors.

    Checks that need the machine (whether a model exists, a prompt is too long, an environment draws) are left to `vlm-rm
    sweep`.

    Returns:
        A JSON schema, draft 2020-12. A file with `base` needs no other key, and may remove keys with `null`.
    """
    schema, definitions = _described()
    keys, required = schema["properties"], schema.pop("required")
    for name, key in keys.items():
        if name != BASE:
            _allow(key, {"type": "null"})
    for section in _sections(keys, definitions):
        definitions[section].pop("required", None)  # the base may have them
        for key in _properties(definitions[section]).values():
            _allow(key, {"type": "null"})
    for part in _all_parts([schema, definitions]):
        _allow_underscores(part)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "Sweep file of vlm-rm-sweeps",
        "anyOf": [{"required": [BASE]}, {"required": required}],
        "$defs": definitions,
    }


def _algorithms() -> dict[str, type[Algorithm]]:
    return {name: find_algorithm(name) for name in algorithm_names()}


def _rewards() -> dict[str, type[RewardFunction]]:
    return {kind: find_reward(kind) for kind in reward_kinds()}


def _described() -> tuple[Schema, dict[str, Schema]]:
    """Return the schema of a whole sweep file and the definitions that it refers to, as pydantic generates them."""
    parts: tuple[type[BaseModel], ...] = (Sweep, ScreenSettings, *_algorithms().values(), *_rewards().values())
    references, described = models_json_schema([(part, "validation") for part in parts], schema_generator=_WithoutTitles)
    definitions = described["$defs"]
    schema = definitions.pop(Sweep.__name__)
    keys = {BASE: dict(_BASE_KEY), **schema["properties"]}
    keys["settings"] = {
        "anyOf": [references[settings, "validation"] for settings in _algorithms().values()],
        "description": keys["settings"]["description"],
    }
    keys["rewards"] = {
        "type": "array",
        "items": {"anyOf": _reward_schemas(references, definitions)},
        "description": keys["rewards"]["description"],
    }
    keys[SCREEN] = {**references[ScreenSettings, "validation"], "description": _SCREEN_MEANING}
    _allow(keys["prompts"], {"type": "string"})
    for key in keys.values():
        if isinstance(key.get("default"), Mapping):
            del key["default"]  # the keys in it have defaults of their own
    required = [name for name in schema["required"] if name != "name"]  # by default as the file
    return schema | {"properties": keys, "required": required}, definitions


def _reward_schemas(references: Mapping[Any, Schema], definitions: Mapping[str, Schema]) -> list[Schema]:
    """Describe a reward: a kind alone, each kind with its parameters, and a class of the user's own with any."""
    own = definitions[RewardSettings.__name__]
    kind, name = (own["properties"][key] for key in (KIND, "name"))
    schemas: list[Schema] = [{"type": "string"}]
    for each, function in _rewards().items():
        reference = references[function, "validation"]
        described = definitions[_definition(reference)]
        parameters = {key: _without_default_section(value) for key, value in _properties(described).items()}
        described["properties"] = {KIND: {"const": each, "description": kind["description"]}, "name": name} | parameters
        described["required"] = [KIND, *described.get("required", ())]
        schemas.append(reference)
    own["properties"][KIND] = kind | {"pattern": ":"}
    return [*schemas, {"$ref": f"#/$defs/{RewardSettings.__name__}"}]


def _without_default_section(key: Schema) -> Schema:
    """Leave out a default that is a mapping: its keys have defaults of their own."""
    return {part: value for part, value in key.items() if part != "default" or not isinstance(value, Mapping)}


def _properties(schema: Schema) -> dict[str, Schema]:
    found: dict[str, Schema] = schema.get("properties", {})
    return found


def _alternatives(key: Schema) -> list[Schema]:
    found: list[Schema] = key.get("anyOf", [key])
    return found


def _allow(key: Schema, alternative: Schema) -> None:
    if alternative not in _alternatives(key):
        value = {part: key.pop(part) for part in list(key) if part not in ("description", "default")}
        key["anyOf"] = [*_alternatives(value), alternative]


def _sections(keys: Mapping[str, Schema], definitions: Mapping[str, Schema]) -> set[str]:
    """Name the definitions of mappings in a sweep file, except those in lists, which an overlay replaces whole."""
    found = {_definition(each) for key in keys.values() for each in _alternatives(key) if "$ref" in each}
    return found.union(*(_sections(_properties(definitions[section]), definitions) for section in found))


def _definition(reference: Schema) -> str:
    return str(reference["$ref"]).rpartition("/")[2]


def _all_parts(schema: Any) -> Iterator[Schema]:
    if isinstance(schema, dict):
        yield schema
    for part in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        yield from _all_parts(part)


def _allow_underscores(part: Schema) -> None:
    """Accept 8_000, which this program reads as a number, and editors, which read YAML 1.2, as a string."""
    if part.get("type") == "integer":
        part |= {"type": ["integer", "string"], "pattern": _UNDERSCORED}


def keys_as_markdown() -> str:
    """Format all keys as Markdown tables: those of the file, of each section, and the settings of each algorithm."""
    schema, definitions = _described()
    lines = ["### Keys of the file", "", *_table(schema, definitions)]
    for name, section in _listed_sections(schema, definitions):
        lines += ["", f"### `{name}`", "", *_table(definitions[section], definitions)]
    lines += ["", "### `settings`", "", "With the default of each algorithm.", "", *_settings_table(definitions)]
    lines += ["", "### `rewards`", "", "By kind; `module:Class` is one of your own.", "", *_rewards_table(definitions)]
    return "\n".join(lines)


def _listed_sections(schema: Schema, definitions: Mapping[str, Schema]) -> Iterator[tuple[str, str]]:
    """Yield path and definition of each section, nested and in lists too, except the algorithms' settings."""
    for name, key in _properties(schema).items():
        if name == "settings":
            continue
        for each in _alternatives(key):
            reference = each.get("items", each)
            if "$ref" in reference:
                section = _definition(reference)
                yield name, section
                yield from ((f"{name}.{inner}", found) for inner, found in _listed_sections(definitions[section], definitions))


def _table(schema: Schema, definitions: Mapping[str, Schema]) -> list[str]:
    rows = ["| key | meaning | default |", "|---|---|---|"]
    for name, key in _properties(schema).items():
        default = "required" if name in schema.get("required", ()) else _default(key)
        meaning = _meaning(key) or _meaning(definitions[_definition(key)])
        rows.append(f"| `{name}` | {meaning} | {default} |")
    return rows


def _settings_table(definitions: Mapping[str, Schema]) -> list[str]:
    of_algorithms = {name: _properties(definitions[settings.__name__]) for name, settings in _algorithms().items()}
    rows = [f"| key | meaning | {' | '.join(of_algorithms)} |", "|---|---|" + "---|" * len(of_algorithms)]
    meanings = {name: _meaning(key) for keys in of_algorithms.values() for name, key in keys.items()}
    for name, meaning in meanings.items():
        defaults = (_default(keys[name]) if name in keys else "-" for keys in of_algorithms.values())
        rows.append(f"| `{name}` | {meaning} | {' | '.join(defaults)} |")
    return rows


def _rewards_table(definitions: Mapping[str, Schema]) -> list[str]:
    rows = ["| key | meaning | default |", "|---|---|---|"]
    for kind, function in _rewards().items():
        formula = function.formula.replace("|", r"\|")
        rows.append(f"| `{kind}` | {formula}. |  |")
        described = definitions[function.__name__]
        for name, key in _properties(described).items():
            if name not in (KIND, "name"):
                default = "required" if name in described["required"] else _default(key)
                rows.append(f"| `{kind}.{name}` | {_meaning(key)} | {default} |")
    return rows


def _meaning(key: Schema) -> str:
    values = [value for each in _alternatives(key) for value in each.get("enum", ())]
    choice = f" One of {', '.join(f'`{value}`' for value in values)}." if values else ""
    first_line = key.get("description", "").partition("\n")[0]
    return (first_line + choice).replace("|", r"\|").strip()


def _default(key: Schema) -> str:
    default = key.get("default")
    if default in (None, [], {}):
        return ""  # the meaning states it
    return f"`{default if isinstance(default, str) else json.dumps(default)}`"
