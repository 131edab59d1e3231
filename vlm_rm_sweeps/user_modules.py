"""The user's own modules: reward models, tasks or algorithms beside the sweep file, which Ray's workers import too."""

import os
import sys
from collections.abc import Iterable
from pathlib import Path

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.registry import import_module, search_also

_folders: list[Path] = []


def make_importable(folder: Path) -> None:
    """Let this process import the modules in a folder, such as that of the sweep file.

    The folder is searched last, so a file in it never hides an installed module; see `search_also`.

    Args:
        folder: The folder; a relative path is resolved now.
    """
    folder = folder.resolve()
    if folder not in _folders:
        _folders.append(folder)
    search_also(folder)


def import_file(file: Path) -> None:
    """Import a user's Python file, which may register reward models, tasks and algorithms.

    Args:
        file: The file. Its folder becomes importable.

    Raises:
        UserError: It is not a Python file, importing it fails, or its name belongs to another module.
    """
    if file.suffix != ".py" or not file.is_file():
        raise UserError(f"module {str(file)!r}: expected a Python file, such as my_tasks.py")
    make_importable(file.parent)
    imported = getattr(import_module(file.stem), "__file__", None)
    if imported is None or Path(imported).resolve() != file.resolve():
        raise UserError(
            f"module {str(file)!r}: {file.stem!r} is already the name of {imported or 'a built-in module'}: rename the file"
        )


def imported_user_modules() -> tuple[Path, ...]:
    """List the files and packages imported from folders made importable, which Ray must copy to other processes."""
    # As text first: there are thousands of modules, and comparing paths takes a hundred times as long.
    found = {
        _top_level(Path(file), folder)
        for folder in _folders
        for file in _module_files()
        if file.startswith(os.path.join(folder, "")) and _belongs(Path(file), folder)
    }
    return tuple(sorted(found))


def _module_files() -> Iterable[str]:
    files = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
    return [file for file in files if file]


def _belongs(file: Path, folder: Path) -> bool:
    """Whether a module lies in a folder and was found through it: not this package, and nothing installed below the folder."""
    installed = {Path(prefix).resolve() for prefix in (sys.prefix, sys.base_prefix)} | {Path(__file__).resolve().parent}
    # Where links lead to: an environment may be linked into the folder.
    real = file.resolve()
    return (
        file.is_relative_to(folder)
        and not any(real.is_relative_to(each) for each in installed)
        and not {"site-packages", "dist-packages"}.intersection(file.relative_to(folder).parts)
    )


def _top_level(file: Path, folder: Path) -> Path:
    """Name the file itself, or the package in the folder that it belongs to."""
    return folder / file.relative_to(folder).parts[0]
