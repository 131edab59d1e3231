"""The command line: a module for each group of commands. Heavy libraries are imported by the commands that use them."""

import errno
import logging
import os
import re
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from vlm_rm_sweeps.cli.distilling import distill
from vlm_rm_sweeps.cli.heads import reward_app
from vlm_rm_sweeps.cli.inventory import models, poses, render, rewards, schema, tasks
from vlm_rm_sweeps.cli.machine import demo, doctor, fit
from vlm_rm_sweeps.cli.measuring import confusion, epic, landscape
from vlm_rm_sweeps.cli.pretraining import pretrain_app
from vlm_rm_sweeps.cli.states import label, labels, states_app
from vlm_rm_sweeps.cli.sweeps import dashboard, evaluate, report, status, sweep
from vlm_rm_sweeps.cli.terminal import EXIT_BAD_INPUT, EXIT_INTERRUPTED, keep_streams
from vlm_rm_sweeps.errors import UserError, reason_of
from vlm_rm_sweeps.files import DISK_ERRORS
from vlm_rm_sweeps.process_defaults import prepare_mlflow
from vlm_rm_sweeps.registry import import_module, place_in_users_module
from vlm_rm_sweeps.storage import StoreError
from vlm_rm_sweeps.user_modules import import_file, make_importable

_LONG_WORD = re.compile(r"(\S{150})\S{150,}(\S{100})")
_NAMES_NO_FILE_HAS = (errno.ENAMETOOLONG, errno.ELOOP)
_NOT_WRITTEN = ("Error while serializing: I/O error", "PytorchStreamWriter failed", "unexpected pos")
"""What safetensors and torch, which have exceptions of their own, say of a file that could not be written."""
_OF_RIGHTS = (errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EIO)

app = typer.Typer(
    help="Train policies from one sentence: CLIP scores the frames, an RL agent learns from the scores, and sweeps over prompts, "
    "models and alpha show which reward can be trusted.",
    epilog="Exit status: 0 if all is done; 1 if a trial failed, doctor found a problem, or a sweep does not fit; 2 if the input cannot "
    "be right; 130 if interrupted. NO_COLOR=1 turns colours off.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"vlm-rm {version('vlm-rm-sweeps')}")
        raise typer.Exit


@app.callback()
def before_any_command(
    module: Annotated[
        list[str],
        typer.Option(
            metavar="FILE.py",
            help="Python file, or an installed module such as my_package.tasks, to import first, for reward models, rewards, tasks and "
            "algorithms that it registers or defines; may be repeated.",
        ),
    ] = [],  # noqa: B006
    _: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version, and exit.")
    ] = False,
) -> None:
    """Import what `--module` names, and make modules in the working directory available as `module:Class`."""
    make_importable(Path.cwd())
    for named in module:
        # A file in a package would be imported under another name than the one by which checkpoints know it.
        if named.endswith(".py") or "/" in named:
            import_file(Path(named))
        else:
            import_module(named)


for _command in (
    sweep,
    status,
    fit,
    demo,
    doctor,
    dashboard,
    evaluate,
    report,
    schema,
    tasks,
    poses,
    models,
    rewards,
    render,
    label,
    labels,
    epic,
    confusion,
    landscape,
    distill,
):
    app.command()(_command)
app.add_typer(states_app, name="states")
app.add_typer(reward_app, name="reward")
app.add_typer(pretrain_app, name="pretrain")


def main() -> None:
    """Run the command line; bad input gives one message on standard error and exit status 2."""
    keep_streams()
    prepare_mlflow()  # before its import, which would store an installation id
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # where it keeps what it knows of fonts is no matter of the user's
    os.environ["MPLBACKEND"] = "agg"  # figures are written to files, whatever notebooks on this machine show them with
    try:
        app()
    except (UserError, StoreError) as error:
        print(f"vlm-rm: {_without_long_words(str(error))}", file=sys.stderr)
        sys.exit(EXIT_BAD_INPUT)
    except KeyboardInterrupt:  # before the first trial; later ones are handled by Tune
        print("vlm-rm: interrupted", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
    except BaseException as error:
        explained = _explained(error)
        if explained is None:
            raise
        print(f"vlm-rm: {_without_long_words(explained)}", file=sys.stderr)
        sys.exit(EXIT_BAD_INPUT)


def _explained(error: BaseException) -> str | None:
    """Explain an error that is no fault of this package: of the user's own code, or of the disk; None for any other."""
    if place := place_in_users_module(error):
        return f"{place}: {reason_of(error)}: this is a module that you named: mend it there"
    if not isinstance(error, OSError):
        if any(words in str(error) for words in _NOT_WRITTEN):
            return f"a file cannot be written ({reason_of(error)}): is the disk full?"
        return None
    if error.errno in _NAMES_NO_FILE_HAS:
        return f"{error.filename}: {error.strerror}: expected the path of a file or folder"
    if error.errno in DISK_ERRORS:
        return f"{error.filename or 'a file'} cannot be written: {error.strerror}: free some disk space"
    if error.errno in _OF_RIGHTS and error.filename is not None:
        return f"{error.filename}: {error.strerror}: expected a place that this process may read and write"
    return None


def _without_long_words(message: str) -> str:
    """Shorten what nobody reads: a name or value of hundreds of letters, which a message may quote more than once."""
    return _LONG_WORD.sub(r"\1...\2", message)
