"""The registry behind reward models, tasks and algorithms: entries are found by name or by `module:Class`.

A registered entry is the object itself or a reference to it, which is imported on first use. So listing names is cheap, and no
other file has to know what is registered.
"""

import importlib
import inspect
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Generic, TypeVar

from vlm_rm_sweeps.errors import PASSED_ON, UserError, reason_of, shown, unknown_name

Entry = TypeVar("Entry")
Base = TypeVar("Base")

_PACKAGE = __name__.partition(".")[0]
_REFERENCE = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_.]*")


def is_reference(name: str) -> bool:
    """Whether a name is of the form `module:attribute`, such as `my_models:Redness`."""
    return _REFERENCE.fullmatch(name) is not None


_trusted_modules: set[str] = set()
_searched: list[str] = []
"""Folders in which modules that the user names are looked for."""


def is_trusted(reference: str) -> bool:
    """Whether the user named the module of `module:attribute` in this process: in a sweep file or on the command line."""
    return reference.partition(":")[0] in _trusted_modules


def trust(reference: str) -> None:
    """Trust the module of `module:attribute`, which the user named: names in data may refer to its contents."""
    _trusted_modules.add(reference.partition(":")[0])


def refuse_untrusted(kind: str, reference: str) -> None:
    """Refuse a name that was read from data if its module would be imported for it.

    Args:
        kind: What is named, such as "task".
        reference: For example `my_tasks:PENDULUM`.

    Raises:
        UserError: The user has not named the module in this process; the message says how to.
    """
    if not is_trusted(reference):
        module = reference.partition(":")[0]
        is_file = "." not in module and module not in sys.stdlib_module_names
        raise UserError(
            f"{kind} {reference!r} is named by data, which imports no modules: if you trust {module}, import it first with "
            f"--module {module}{'.py' if is_file else ''}"
        )


def place_in_users_module(error: BaseException) -> str | None:
    """Say where an error came out of a module that the user named.

    Args:
        error: As it was caught.

    Returns:
        File, line and function; None if no such module was involved, so that the error is one of this package.
    """
    place = None
    for frame, line in traceback.walk_tb(error.__traceback__):
        module = frame.f_globals.get("__name__", "")
        if module in _trusted_modules and module.partition(".")[0] != _PACKAGE:
            place = f"{Path(frame.f_code.co_filename).name}, line {line}, in {frame.f_code.co_name}"
    return place


def search_also(folder: Path) -> None:
    """Look for modules that the user names in a folder, too, after all others.

    It is put on Python's path when the first module is named, and not before: libraries try to import optional packages, and a file
    of such a name, in a folder that only holds data, must not run.

    Args:
        folder: An absolute path.
    """
    if str(folder) not in _searched:
        _searched.append(str(folder))


def import_module(name: str) -> ModuleType:
    """Import a module that the user named, and trust it from then on: names in data may refer to its contents.

    Args:
        name: For example `my_models`.

    Returns:
        The module.

    Raises:
        UserError: It cannot be found, needs a package that is not installed, or raises an error while it is imported.
    """
    module = _imported(name)
    _trusted_modules.add(name)
    return module


def _imported(name: str) -> ModuleType:
    """Import a module without trusting it from then on."""
    sys.path += [folder for folder in _searched if folder not in sys.path]
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise UserError(
                f"there is no module {error.name!r}: expected one beside the sweep file, in the working folder, or installed"
            ) from error
        raise UserError(f"module {name!r} needs a package that is not installed: {error}") from error
    except PASSED_ON:
        raise
    except BaseException as error:  # a user's module may raise anything, or be a script
        raise UserError(f"module {name!r} cannot be imported: {reason_of(error)}") from error
    return module


def import_object(reference: str) -> object:
    """Import the object that `module:attribute` names, and trust its module from then on.

    Only for references that the user gave. A name that was read from data must not import anything: see `Registry.find_known`.

    Args:
        reference: For example `my_models:Redness`, or `package.module:Class`.

    Returns:
        Whatever the attribute is.

    Raises:
        UserError: The module cannot be imported, or has no such attribute.
    """
    return _object_in(reference, import_module)


def _object_in(reference: str, load: Callable[[str], ModuleType]) -> object:
    module_name, _, attribute = reference.partition(":")
    try:
        found: object = load(module_name)
    except UserError as error:
        raise UserError(f"{reference!r}: {error}") from error
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError as error:
            known = [name for name in dir(found) if not name.startswith("_")]
            raise UserError(f"{reference!r}: " + unknown_name(f"name in {module_name}", part, known)) from error
        except PASSED_ON:
            raise
        except ModuleNotFoundError as error:  # a module may import a part of it on first use
            raise UserError(f"{reference!r} needs a package that is not installed: {error}") from error
        except BaseException as error:
            raise UserError(f"{reference!r} cannot be imported: {reason_of(error)}") from error
    return found


def complete_class(
    kind: str, name: str, found: object, base: type[Base], expected: str, attributes: Sequence[str] = ()
) -> type[Base]:
    """Check that what was found under a name is a class that can be instantiated.

    Args:
        kind: What it is, for messages: `reward`, `algorithm`.
        name: The name.
        found: Anything.
        base: The class that it must derive from.
        expected: That class in words.
        attributes: What it must define besides the abstract methods.

    Returns:
        `found`.

    Raises:
        UserError: It is something else, lacks methods or attributes, or has methods that cannot be called as they will be.
    """
    if not (isinstance(found, type) and issubclass(found, base)):
        raise UserError(f"{kind} {name!r} is {found!r}: expected a subclass of {expected}")
    missing = sorted(getattr(found, "__abstractmethods__", ())) + [each for each in attributes if not hasattr(found, each)]
    if missing:
        raise UserError(f"{kind} {name!r} is not complete: its class must define {', '.join(missing)}")
    check_methods(kind, name, found)
    for parameter, field in getattr(found, "model_fields", {}).items():
        if isinstance(field.default, FunctionType | property):
            raise UserError(
                f"{kind} {name!r}: {parameter} is a parameter, and its class makes a method of it: expected a default, as in "
                f"`{parameter}: int = 8`"
            )
    return found


def check_methods(kind: str, name: str, found: type) -> None:
    """Refuse methods that cannot be called as those of this package which they replace.

    Args:
        kind: What it is, for messages.
        name: Its name.
        found: A class of the user's.

    Raises:
        UserError: A method takes other arguments.
    """
    inherited = [parent for parent in found.__mro__[1:] if parent.__module__.partition(".")[0] == _PACKAGE]
    for method, theirs in [entry for parent in inherited for entry in vars(parent).items()]:
        own = inspect.getattr_static(found, method)
        if method.startswith("_") or not isinstance(theirs, FunctionType | classmethod | staticmethod):
            continue
        # A built-in function does not become a method: it would be called without the object.
        if inspect.isbuiltin(own) or (not callable(own) and not isinstance(own, classmethod | staticmethod)):
            raise UserError(f"{kind} {name!r}: its {method} is {shown(own)}: expected a method")
        if isinstance(own, classmethod | staticmethod) or not inspect.isfunction(theirs):
            continue
        arguments = inspect.signature(theirs).parameters
        try:
            takes = inspect.signature(own)
        except ValueError:  # some that are written in C do not say
            continue
        try:
            takes.bind(*arguments)
        except TypeError as error:
            raise UserError(
                f"{kind} {name!r}: its method {method} is called with {', '.join(arguments)}, and takes "
                f"{', '.join(takes.parameters) or 'nothing'}: expected the same arguments"
            ) from error


def check_sentences(what: str, found: object) -> list[str]:
    """Refuse anything but a list of sentences from a user's class: of a text alone each letter would be a remark.

    Args:
        what: What returned it, for the message.
        found: Anything.

    Returns:
        The sentences.

    Raises:
        UserError: It is something else.
    """
    if not isinstance(found, list | tuple) or not all(isinstance(each, str) for each in found):
        raise UserError(f"{what} returned {shown(found)}: expected a list of sentences")
    return list(found)


class Registry(Generic[Entry]):
    """Entries of one kind by name, in the order in which they were registered.

    Args:
        kind: What an entry is, for messages: `task`, `algorithm`, `reward model`.
        trusts: Whether the modules of entries that are registered as references are trusted once they are imported. Not where this
            package has registered what others ship: data may name the entries, and nothing else of their modules.
    """

    def __init__(self, kind: str, trusts: bool = True) -> None:
        self.kind = kind
        self._trusts = trusts
        self._entries: dict[str, Entry | str] = {}

    def register(self, name: str, entry: Entry | str) -> None:
        """Register an entry under a name.

        Args:
            name: What a sweep file calls it.
            entry: The entry, or a reference to it (`module:attribute`), which is imported on first use.

        Raises:
            UserError: The name is empty or has a colon, or another entry has it.
        """
        if not name or ":" in name:
            raise UserError(f"{self.kind} {name!r}: expected a name without a colon, which stands for `module:Class`")
        if self._entries.get(name, entry) != entry:
            raise UserError(f"{self.kind} {name!r} is registered already: choose another name")
        self._entries[name] = entry

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def find(self, name: str, hint: str = "") -> Entry:
        """Find an entry by its name, or import it by reference.

        Args:
            name: A registered name, or `module:attribute`.
            hint: Appended to the message if there is no such entry.

        Returns:
            The entry itself; its type is not checked.

        Raises:
            UserError: There is no such entry, with the nearest names, or it cannot be imported.
        """
        if name in self._entries:
            entry = self._entries[name]
            if isinstance(entry, str):
                load = import_module if self._trusts else _imported
                entry = self._entries[name] = _object_in(entry, load)  # type: ignore[assignment]  # callers check its type
            return entry  # type: ignore[return-value]  # no longer a reference
        if is_reference(name):
            return import_object(name)  # type: ignore[return-value]  # callers check its type
        raise UserError(unknown_name(self.kind, name, self._entries, f", or `module:Class`{hint}"))

    def find_known(self, name: str) -> Entry:
        """Find an entry by a name that was read from data, such as a checkpoint.

        Unlike `find`, it imports no module that only the data names.

        Args:
            name: A registered name, or `module:attribute` of a module that the user named in this process.

        Returns:
            The entry itself; its type is not checked.

        Raises:
            UserError: There is no such entry, or the user has not named its module.
        """
        if name not in self._entries and is_reference(name):
            refuse_untrusted(self.kind, name)
        return self.find(name, "; if it is your own, import the module that registers it with --module FILE")
