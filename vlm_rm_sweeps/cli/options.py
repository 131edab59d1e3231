"""Options shared by several commands, and the reading of their values."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.files import new_output, refuse_address
from vlm_rm_sweeps.storage import place_named

if TYPE_CHECKING:
    import pandas as pd

    from vlm_rm_sweeps.rewards.functions.base import RewardFunction
    from vlm_rm_sweeps.rewards.reward_model import RewardSpec
    from vlm_rm_sweeps.sweeping.config.sections import Prompt


def new_file(path: Path | None) -> Path | None:
    """Check an output file before the work starts; the callback of options that name one.

    Args:
        path: Value of the option; None: not given.

    Returns:
        The path, unchanged.

    Raises:
        UserError: The path is an address or a folder, or no file can be created there.
    """
    if path is not None:
        refuse_address(path)
        nearest = _nearest_that_exists(path)
        if nearest.is_dir() and nearest == path:
            raise UserError(f"{path} is a folder: expected the path of a file")
        _refuse_unwritable(path, path.parent if nearest == path else nearest)
    return path


def new_folder(path: Path | None) -> Path | None:
    """Check an output folder before the work starts; the callback of options that name one.

    Args:
        path: Value of the option; None: not given.

    Returns:
        The path, unchanged.

    Raises:
        UserError: The path is an address, or the folder is not writable and cannot be created.
    """
    if path is not None:
        refuse_address(path)
        _refuse_unwritable(path, _nearest_that_exists(path))
    return path


def folder_here(path: Path) -> Path:
    """Refuse an address as a folder in which labels are kept; the callback of arguments that name one.

    Args:
        path: Value of the argument.

    Returns:
        The path, unchanged.

    Raises:
        UserError: It is an address.
    """
    refuse_address(
        path,
        "and labels are kept in a folder, which several raters may share: the one that `vlm-rm label ADDRESS --into FOLDER` named",
    )
    return path


def new_results(text: str) -> str:
    """Check where results are to be written before the work starts; the callback of options that name a folder or an address.

    Args:
        text: Value of the option.

    Returns:
        The text, unchanged; `place_named` makes a path or a folder in a store of it.

    Raises:
        UserError: It is an address that is refused, or a folder that is not writable and cannot be created.
    """
    place = place_named(text)
    if isinstance(place, Path):
        new_folder(place)
    return text


def _nearest_that_exists(path: Path) -> Path:
    """Find the path itself or its nearest parent that exists."""
    if not str(path).strip():
        raise UserError(f"{str(path)!r}: expected the name of a file or folder to write to")
    try:
        if path.is_symlink() and not path.exists():
            raise UserError(f"{path} cannot be written: it is a link that leads nowhere; choose another path")
        return next(each for each in (path, *path.absolute().parents) if each.exists())
    except OSError as error:  # for example, a name that is too long or a folder without permission to read
        raise UserError(f"{path} cannot be written ({error.strerror}): choose another path") from error


def _refuse_unwritable(path: Path, folder: Path) -> None:
    if not folder.is_dir():
        raise UserError(f"{path} cannot be written: {folder} is not a folder; choose another path")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(
            f"{path} cannot be written: you have no permission to write to the folder {folder}; choose another path"
        )


LARGEST_SEED = 2**32 - 1
"""As in a sweep file: NumPy and Gymnasium take larger ones, torch and RLlib do not."""
MOST_STATES = 1_000_000
MOST_STEPS = 100_000
"""Of one episode, whose frames are kept in memory, and of episodes in one evaluation."""
MOST_POINTS = 10_000
MOST_THREADS = 1_024
Models = Annotated[list[str], typer.Option("--model", "--models", help="Model ids, separated by commas; may be repeated.")]
Alphas = Annotated[
    list[str],
    typer.Option("--alpha", "--alphas", help="Alphas of goal-baseline regularisation in [0, 1], separated by commas."),
]
Rewards = Annotated[
    list[str],
    typer.Option(
        "--reward",
        "--rewards",
        help="Another reward, beside or instead of --alpha: a kind of `vlm-rm rewards`, or YAML such as '{kind: threshold, above: "
        "0.3}'; may be repeated.",
    ),
]
Prompts = Annotated[
    list[str],
    typer.Option(
        "--prompt",
        "--prompts",
        help="A goal prompt, or a .txt or .yaml file of them; may be repeated. Default: the task's own.",
    ),
]
Baseline = Annotated[str | None, typer.Option(help="Baseline prompt for goals without their own. Default: the task's.")]
NewResults = Annotated[
    str,
    typer.Option(
        "--results",
        callback=new_results,
        help="Results folder, in which each sweep gets a folder of its own, or an address, such as s3://bucket/results.",
    ),
]
DatasetFolder = Annotated[Path, typer.Argument(help="Folder of a data set of states, made with `vlm-rm states`.")]
NewDataset = Annotated[
    Path, typer.Option("--output", "-o", callback=new_folder, help="Folder for the new data set; must not exist yet.")
]
Overrides = Annotated[
    list[str],
    typer.Option(
        "--set",
        metavar="KEY.PATH=VALUE",
        help="Change a key of the sweep file, such as steps=2000 or trial.cpus=2; may be repeated. Values are YAML.",
    ),
]
JsonOutput = Annotated[bool, typer.Option("--json", help="Print JSON, for programs, in the place of text.")]
ImageFormatOption = Annotated[str, typer.Option(help="png, or webp (lossless too; smaller and slower).")]
RenderedTextures = Annotated[str | None, typer.Option(help="Textures of the task. Default: its first.")]
RenderedCamera = Annotated[str | None, typer.Option(help="Camera of the task. Default: its first.")]


def listed(option: str, values: list[str]) -> list[str]:
    """Split the values of an option that may be repeated and may hold several values separated by commas.

    Args:
        option: Its name, for messages.
        values: As given on the command line.

    Returns:
        At least one value, all different.

    Raises:
        UserError: There is no value, or a duplicate.
    """
    found = [value.strip() for each in values for value in each.split(",") if value.strip()]
    _check_listed(option, found, values)
    return found


def read_alphas(values: list[str]) -> list[float]:
    """Read the values of `--alpha`. Their range is checked when reward specs are made from them.

    Args:
        values: As given on the command line.

    Returns:
        At least one number, all different.

    Raises:
        UserError: A value is not a number, there is none, or there is a duplicate.
    """
    try:
        numbers = [float(value) for value in listed("--alpha", values)]
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"--alpha {','.join(values)!r}: expected numbers in [0, 1], such as 0,0.25,0.5") from error
    _check_listed("--alpha", numbers, values)
    return numbers


def read_rewards(
    alphas: list[str], default: str, rewards: list[str], prompts: "Sequence[Prompt]"
) -> "dict[tuple[float | str, str], RewardSpec]":
    """Read the values of `--alpha` and `--reward`.

    Args:
        alphas: Values of `--alpha`.
        default: Values of `--alpha` that are meant if there is neither option.
        rewards: Values of `--reward`.
        prompts: The prompts, each of which is scored by each reward.

    Returns:
        Specs by alpha, or label of the reward, and prompt id.

    Raises:
        UserError: A value is none, or two rewards are the same.
    """
    from vlm_rm_sweeps.rewards.functions.registry import make_reward
    from vlm_rm_sweeps.sweeping.config.yaml_text import parse_yaml

    given = alphas or ([] if rewards else [default])
    found: list[tuple[float | str, RewardFunction | None]] = [(alpha, None) for alpha in (read_alphas(given) if given else ())]
    for text in rewards:
        try:
            function = make_reward(parse_yaml(text))
        except UserError as error:
            raise UserError(f"--reward {text!r}: {error}") from error
        found.append((function.label, function))
    _check_listed("--reward", [key for key, _ in found], rewards)
    return {(key, each.id): each.spec(0.0 if function else float(key), function) for key, function in found for each in prompts}


def _check_listed(option: str, found: Sequence[object], given: list[str]) -> None:
    if not found or len(set(found)) < len(found):
        raise UserError(f"{option} {','.join(given)!r}: expected at least one value and no duplicates")


def write_table(path: Path, table: "pd.DataFrame") -> None:
    """Write a table as CSV to an output file.

    Args:
        path: Value of the option; its folder is made if it does not exist.
        table: The table.

    Raises:
        UserError: The file exists or cannot be written.
    """
    with new_output(path, replaces=False) as unfinished:
        table.to_csv(unfinished, index=False)


def refuse_to_overwrite(path: Path) -> None:
    """Refuse an output path that exists, before the work starts.

    Args:
        path: File or folder to write.

    Raises:
        UserError: It exists.
    """
    if path.exists():
        raise UserError(f"{path} exists already and is not overwritten: choose another name")
