"""Reads the keys of a sweep file before validation: resolves `base` and applies command-line overrides.

A file with `base: other.yaml` is an overlay. The path is relative to the file that names it, and that file may have a base too.
Mappings are merged key by key; everything else, lists included, replaces what the base has. `key: null` removes the base's key,
so that its default applies. Overrides (`--set trial.cpus=2`) come last and follow the same rules, except that mappings replace
those of the file.
"""

import re
from collections.abc import Iterable
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

from vlm_rm_sweeps.errors import UserError

BASE = "base"
"""The key that names the sweep file to overlay."""
_OVERRIDE = re.compile(r"(?P<path>[^\s.=]+(?:\.[^\s.=]+)*)=(?P<value>.*\S.*)", re.DOTALL)


class _StrictLoader(yaml.SafeLoader):
    """YAML's safe loader, but refuses duplicate keys, of which it would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.YAMLError(
                    f"key {key!r} stands there {keys.count(key)} times: expected each key once{node.start_mark}"
                )
        return super().construct_mapping(node, deep)


def read_sweep_keys(path: Path, overrides: Iterable[str] = ()) -> dict[str, Any]:
    """Read a sweep file, resolve its `base` and apply overrides, without validating the keys.

    Args:
        path: The sweep file.
        overrides: Values of `--set`, such as `trial.cpus=2`; later ones win.

    Returns:
        The merged keys, without `base`.

    Raises:
        UserError: A file cannot be read, is not YAML or is its own base (the message has the chain of files that leads to it);
            or an override cannot be applied.
    """
    return apply_overrides(_resolved(path, ()), overrides)


def _resolved(path: Path, overlays: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in overlays:
        raise UserError(f"{path}: is its own base: expected a chain of files that ends in one without `{BASE}`")
    keys = read_yaml(path)
    if BASE not in keys:
        return keys
    name = keys.pop(BASE)
    if not isinstance(name, str):
        raise UserError(f"{path}: {BASE} = {name!r}: expected the path of another sweep file, such as `{BASE}: other.yaml`")
    try:
        base = _resolved(path.parent / name, (*overlays, path.resolve()))
    except UserError as error:
        raise UserError(f"{path}: {BASE}: {error}") from error
    return _merged(base, keys)


def _merged(base: dict[str, Any], overlay: dict[str, Any]) -> dict[str, Any]:
    """Merge two mappings: the base's keys in their order, with changed values, then the overlay's own."""
    merged = dict(base)
    for key, value in overlay.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            merged[key] = _merged(base[key], value)
        else:
            _put(merged, key, value)
    return merged


def _put(keys: dict[str, Any], key: str, value: Any) -> None:
    if value is None and key in keys:
        del keys[key]
    else:
        keys[key] = value  # also null for a missing key: it may be misspelt, which validation reports


def read_yaml(path: Path) -> dict[str, Any]:
    """Read the keys of one YAML file.

    Args:
        path: A text file in UTF-8 that holds a mapping.

    Returns:
        The keys of the file, unchanged.

    Raises:
        UserError: The file cannot be read, is not YAML, has duplicate keys, or is not a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not a text file in UTF-8: {error}") from error
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); expected a sweep file, such as sweeps/quickstart.yaml"
        ) from error
    try:
        data = yaml.load(text, _StrictLoader)
    # ValueError: a value that looks like a date but is not one.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: is not YAML: {error}") from error
    if not isinstance(data, dict):
        raise UserError(f"{path}: expected keys such as `name`, `task` and `models`, found {type(data).__name__}")
    return data


def apply_overrides(keys: dict[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Set values by the paths of their keys.

    Args:
        keys: The keys of a sweep file; they are not changed.
        overrides: Each `key.path=value`. Values are YAML: `alphas=[0,0.5]`, `trial.cpus=2`, `audit=null` (removes the key). A
            number in a path is an index into a list, from 0: `prompts.0.goal=a pole`. Missing mappings are created; whether a
            key exists is left to validation.

    Returns:
        The changed keys.

    Raises:
        UserError: An override is not of this form, its value is not YAML, or its path leads through a value without keys.
    """
    changed = deepcopy(keys)
    for override in overrides:
        matched = _OVERRIDE.fullmatch(override)
        if matched is None:
            raise UserError(
                f"--set {override!r}: expected key.path=value, such as --set steps=2000, --set alphas=[0,0.5] or --set trial.cpus=2"
            )
        try:
            value = yaml.load(matched["value"], _StrictLoader)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise UserError(f"--set {override!r}: the value is not YAML: {error}") from error
        try:
            _set(changed, matched["path"].split("."), value)
        except UserError as error:
            raise UserError(f"--set {override!r}: {error}") from error
    return changed


def _set(keys: dict[str, Any], path: list[str], value: Any) -> None:
    place: Any = keys
    for depth, part in enumerate(path[:-1], start=1):
        place = place.setdefault(part, {}) if isinstance(place, dict) else place[_index(place, part)]
        if not isinstance(place, dict | list):
            raise UserError(f"{'.'.join(path[:depth])} is {place!r}, which has no keys")
    if isinstance(place, dict):
        _put(place, path[-1], value)
    else:
        place[_index(place, path[-1])] = value


def _index(entries: list[Any], part: str) -> int:
    known = [str(index) for index in range(len(entries))]
    if part not in known:
        raise UserError(f"{part!r} is no entry of a list of {len(known)}: expected one of {', '.join(known) or 'none'}")
    return int(part)
