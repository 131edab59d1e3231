"""Files that a sweep file names, as absolute paths: so they mean the same in every process and from every working folder.

A path is relative to the file that names it or, for a data set that is not there, to the working folder. What does not exist is
left as it is: it may be the name of something else, such as a tag of open_clip or a file that Gymnasium ships.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from vlm_rm_sweeps.rewards.model_folder import CONFIG_FILE, FOLDER_PREFIX

_REWARD_FILES = ("states", "head")
"""Parameters of rewards that name files or folders."""


def folder_of(file: Path) -> Path:
    """Return the folder that names in a file are relative to: its own, or the working folder for a pipe such as /dev/stdin."""
    return file.absolute().parent if os.path.isfile(file) else Path.cwd()


def absolute_paths(keys: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Replace the names of existing files in the keys of a sweep file by absolute paths.

    Args:
        keys: The keys, not validated yet.
        folder: What relative paths are relative to.

    Returns:
        The keys, with absolute paths for checkpoint files (the part of a model id after its first slash) and folders of models,
        data sets (also of rewards), prompt files, and files or folders among the arguments of an environment, its wrappers, rewards
        of the user's own, and an algorithm.
    """
    beside = _Beside(folder)
    changed = dict(keys)
    _change(changed, "models", beside.models)
    _change(changed, "prompts", beside.path)
    _change_in(changed, "epic_states", "states", beside.path)
    _change_in(changed, "screen", "states", beside.path)
    _change_in(changed, "audit", "models", beside.models)
    _change_in(changed, "env", "kwargs", beside.argument)
    _change_in(changed, "env", "wrappers", beside.wrappers)
    _change(changed, "settings", beside.argument)
    _change(changed, "rewards", beside.rewards)
    if isinstance(only := changed.get("only"), list):
        changed["only"] = [beside.combination(each) for each in only]
    return changed


def stored_name(now: str, stored: Iterable[str]) -> str:
    """Return the name under which a file is stored: version 0.1 stored paths as they stood, relative to the working folder.

    Args:
        now: A path or model id, with an absolute path if it names a file.
        stored: Names from a results folder.

    Returns:
        The one of `stored` that names the same file; else `now`.
    """
    return next((name for name in stored if _is_same_file(now, name)), now)


def with_stored_names(now: Any, stored: Any) -> Any:
    """Give files the names under which they are stored, so that only what else has changed differs.

    Args:
        now: Plain data, such as the keys of a sweep.
        stored: The same of a results folder.

    Returns:
        `now`, with the name from `stored` for each file that has another name at the same place there, see `stored_name`.
    """
    match now, stored:
        case dict(), dict():
            return {key: with_stored_names(value, stored.get(key)) for key, value in now.items()}
        case list(), list() if len(now) == len(stored):
            return [with_stored_names(*pair) for pair in zip(now, stored, strict=True)]
        case str(), str():
            return stored_name(now, [stored])
    return now


def _is_same_file(now: str, stored: str) -> bool:
    (name, file), (stored_as, stored_file) = (_named_file(each) for each in (now, stored))
    relative = os.path.isabs(file) and bool(stored_file) and not os.path.isabs(stored_file)
    return relative and name == stored_as and os.path.realpath(stored_file) == os.path.realpath(file)


def _named_file(named: str) -> tuple[str, str]:
    """Split a model id into what stands before its file, and the file; a path has nothing before it."""
    name, _, file = named.partition("/")
    return (name, file) if os.path.isabs(file) or os.path.isfile(file) else ("", named)


def _change(keys: dict[str, Any], key: str, change: Callable[[Any], Any]) -> None:
    if key in keys:
        keys[key] = change(keys[key])


def _change_in(keys: dict[str, Any], section: str, key: str, change: Callable[[Any], Any]) -> None:
    if isinstance(keys.get(section), dict):
        keys[section] = dict(keys[section])
        _change(keys[section], key, change)


def _has_kwargs(wrapper: Any) -> bool:
    return isinstance(wrapper, dict) and "kwargs" in wrapper


class _Beside:
    """Looks for files in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, named: Any) -> Any:
        """Return the absolute path of what is there: beside the file, else in the working folder; `~/` is the user's own."""
        if isinstance(named, str) and named.startswith("~/"):
            named = os.path.expanduser(named)
        for folder in (self._folder, Path.cwd()):
            # `os.path.exists` is false, and raises nothing, for a name that no file can have.
            if isinstance(named, str) and named and os.path.exists(folder / named):
                return os.path.normpath(folder / named)
        return named

    def models(self, named: Any) -> Any:
        return [self.model(each) for each in named] if isinstance(named, list) else self.model(named)

    def model(self, named: Any) -> Any:
        if not isinstance(named, str) or not named:
            return named
        prefix = FOLDER_PREFIX if named.startswith(FOLDER_PREFIX) else ""
        if os.path.isfile(self._folder / named.removeprefix(prefix) / CONFIG_FILE):
            return prefix + os.path.normpath(self._folder / named.removeprefix(prefix))
        name, separator, file = named.partition("/")
        return f"{name}/{self.path(file)}" if separator and os.path.isfile(self._folder / file) else named

    def combination(self, named: Any) -> Any:
        return named | {"model": self.model(named.get("model"))} if isinstance(named, dict) and "model" in named else named

    def rewards(self, named: Any) -> Any:
        """Return rewards with absolute paths in the parameters that name files, however deep they are."""
        match named:
            case dict() if ":" in str(named.get("kind")):  # one of the user's own, whose parameters may name any file
                return {key: value if key == "kind" else self.argument(value) for key, value in named.items()}
            case dict():
                return {key: self.path(value) if key in _REWARD_FILES else self.rewards(value) for key, value in named.items()}
            case list():
                return [self.rewards(value) for value in named]
        return named

    def wrappers(self, named: Any) -> Any:
        """Return wrappers with absolute paths in their arguments."""
        if not isinstance(named, list):
            return named
        return [each | {"kwargs": self.argument(each["kwargs"])} if _has_kwargs(each) else each for each in named]

    def argument(self, named: Any) -> Any:
        match named:
            case dict():
                return {key: self.argument(value) for key, value in named.items()}
            case list():
                return [self.argument(value) for value in named]
            case str() if "/" in named or "." in named.strip("."):
                return self.path(named)
        return named
