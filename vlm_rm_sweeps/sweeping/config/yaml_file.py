"""Reads the keys of a sweep file before validation: resolves `base` and applies command-line overrides.

A file with `base: other.yaml` is an overlay. The path is relative to the file that names it, and that file may have a base too.
Mappings are merged key by key; everything else, lists included, replaces what the base has. `key: null` removes the base's key,
so that its default applies. Overrides (`--set trial.cpus=2`) come last and follow the same rules, except that mappings replace
those of the file.
"""

import re
from collections.abc import Callable, Iterable
from copy import deepcopy
from pathlib import Path
from typing import Any

from vlm_rm_sweeps.errors import UserError, shown
from vlm_rm_sweeps.files import read_text
from vlm_rm_sweeps.sweeping.config.named_files import absolute_paths, folder_of
from vlm_rm_sweeps.sweeping.config.yaml_text import parse_yaml

BASE = "base"
"""The key that names the sweep file to overlay."""
SCREEN = "screen"
"""The key that makes a sweep file a screening, which needs no Ray."""
_MOST_BASES = 20
_MOST_PARTS = 20
_OVERRIDE = re.compile(r"(?P<path>[^\s.=]+(?:\.[^\s.=]+)*)=(?P<value>.*\S.*)", re.DOTALL)


def read_sweep_keys(
    path: Path, overrides: Iterable[str] = (), visit: Callable[[Path], object] = lambda folder: None
) -> dict[str, Any]:
    """Read a sweep file, resolve its `base` and apply overrides, without validating the keys.

    Args:
        path: The sweep file.
        overrides: Values of `--set`, such as `trial.cpus=2`; later ones win.
        visit: Called with the folder of each file that is read.

    Returns:
        The merged keys, without `base`. Names of files are absolute paths: see `absolute_paths`.

    Raises:
        UserError: A file cannot be read, is not YAML or is its own base (the message has the chain of files that leads to it);
            or an override cannot be applied.
    """
    overrides = list(overrides)
    keys = apply_overrides(_resolved(path, (), visit), overrides)
    # The command line names files relative to the working folder.
    changed = {override.partition("=")[0].partition(".")[0] for override in overrides}
    return keys | absolute_paths({key: keys[key] for key in changed & keys.keys()}, Path.cwd())


def _resolved(path: Path, overlays: tuple[Path, ...], visit: Callable[[Path], object]) -> dict[str, Any]:
    # Before its name is resolved, which a loop of links would prevent.
    keys = read_yaml(path)
    if path.resolve() in overlays:
        raise UserError(f"{path}: is its own base: expected a chain of files that ends in one without `{BASE}`")
    if len(overlays) > _MOST_BASES:
        raise UserError(f"{path}: is the base of {len(overlays)} files, one after the other: expected at most {_MOST_BASES}")
    folder = folder_of(path)
    visit(folder)
    keys = absolute_paths(keys, folder)
    if BASE not in keys:
        return keys
    name = keys.pop(BASE)
    if not isinstance(name, str):
        raise UserError(f"{path}: {BASE} = {name!r}: expected the path of another sweep file, such as `{BASE}: other.yaml`")
    try:
        base = _resolved(folder / name, (*overlays, path.resolve()), visit)
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
        UserError: The file cannot be read, is not YAML (see `parse_yaml`), or is not a mapping.
    """
    text = read_text(path, "a sweep file, such as sweeps/quickstart.yaml")
    try:
        data = parse_yaml(text)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
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
        path = matched["path"].split(".")
        if len(path) > _MOST_PARTS:
            raise UserError(f"--set {shown(override, 80)}: a path of {len(path)} keys: expected at most {_MOST_PARTS}")
        try:
            value = parse_yaml(matched["value"])
        except UserError as error:
            raise UserError(
                f"--set {shown(override)}: the value{'' if str(error).startswith('is') else ':'} {error}"
            ) from error
        try:
            _set(changed, path, value)
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
