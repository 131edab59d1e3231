"""Options that several commands have, and how their values are read."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from vlm_rm_sweeps.errors import UserError

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
NewDataset = Annotated[Path, typer.Option("--output", "-o", help="Folder of the new data set; it must not exist yet.")]
ImageFormatOption = Annotated[str, typer.Option(help="png, or webp (lossless, smaller, slower).")]
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
