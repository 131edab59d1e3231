"""Options that several commands have, and how their values are read."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from vlm_rm_sweeps.errors import UserError


def new_file(path: Path | None) -> Path | None:
    """Of an option that names a file to write, as its callback: UserError if no file can be made there, before the work."""
    if path is not None:
        nearest = _nearest_that_exists(path)
        if nearest.is_dir() and nearest == path:
            raise UserError(f"{path} is a folder: expected the name of a file")
        _refuse_unwritable(path, path.parent if nearest == path else nearest)
    return path


def new_folder(path: Path | None) -> Path | None:
    """Of an option that names a folder to write into, as its callback: UserError if it can be neither used nor made."""
    if path is not None:
        _refuse_unwritable(path, _nearest_that_exists(path))
    return path


def _nearest_that_exists(path: Path) -> Path:
    """The path, or the nearest above it that exists."""
    try:
        return next(place for place in (path, *path.absolute().parents) if place.exists())
    except OSError as error:  # a name that is too long, or a folder that may not be read
        raise UserError(f"{path} cannot be written ({error.strerror}): choose another place") from error


def _refuse_unwritable(path: Path, folder: Path) -> None:
    if not folder.is_dir():
        raise UserError(f"{path} cannot be written: {folder} is no folder; choose another place")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"{path} cannot be written: the folder {folder} is not writable for you; choose another place")


Models = Annotated[list[str], typer.Option("--model", "--models", help="Model ids; repeat it, or separate them by commas.")]
Alphas = Annotated[list[str], typer.Option("--alpha", "--alphas", help="Strengths from 0 to 1, separated by commas.")]
Prompts = Annotated[
    list[str],
    typer.Option(
        "--prompt", "--prompts", help="A goal, or a .txt or .yaml file of goals; may be repeated. By default the task's own."
    ),
]
Baseline = Annotated[
    str | None, typer.Option(help="Baseline prompt of all goals that have none of their own; by default the task's.")
]
DatasetFolder = Annotated[Path, typer.Argument(help="A data set of states, as `vlm-rm states` makes it.")]
NewDataset = Annotated[
    Path, typer.Option("--output", "-o", callback=new_folder, help="Folder of the new data set; it must not exist yet.")
]
ImageFormatOption = Annotated[str, typer.Option(help="png, or webp (lossless, smaller, slower).")]
Overrides = Annotated[
    list[str],
    typer.Option(
        "--set",
        metavar="KEY.PATH=VALUE",
        help="Change a key of the sweep file, such as steps=2000 or trial.cpus=2; may be repeated. Values are YAML.",
    ),
]
RenderedTextures = Annotated[str | None, typer.Option(help="Textures of the task; by default its first.")]
RenderedCamera = Annotated[str | None, typer.Option(help="Camera of the task; by default its first.")]


def listed(option: str, values: list[str]) -> list[str]:
    """Values of an option that may be repeated, and may hold several separated by commas: at least one, each once."""
    found = [value.strip() for each in values for value in each.split(",") if value.strip()]
    _check_listed(option, found, values)
    return found


def read_alphas(values: list[str]) -> list[float]:
    """The numbers of `--alpha`; their range is checked where a reward spec is made of them."""
    try:
        numbers = [float(value) for value in listed("--alpha", values)]
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"--alpha {','.join(values)}: expected numbers from 0 to 1, such as 0,0.25,0.5") from error
    _check_listed("--alpha", numbers, values)
    return numbers


def _check_listed(option: str, found: Sequence[object], given: list[str]) -> None:
    if not found or len(set(found)) < len(found):
        raise UserError(f"{option} {','.join(given)!r}: expected at least one value, and each of them once")


def refuse_to_overwrite(path: Path) -> None:
    """UserError if there is something at `path` already: said before the work, not after it."""
    if path.exists():
        raise UserError(f"{path} exists already and is not overwritten: choose another name")
