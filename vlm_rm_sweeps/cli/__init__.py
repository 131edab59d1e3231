"""The command line: a module for each group of commands. Heavy libraries are imported where they are needed."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from vlm_rm_sweeps.cli.inventory import models, poses, render, schema, tasks
from vlm_rm_sweeps.cli.measuring import epic, landscape
from vlm_rm_sweeps.cli.pretraining import pretrain_app
from vlm_rm_sweeps.cli.states import label, labels, states_app
from vlm_rm_sweeps.cli.sweeps import dashboard, evaluate, report, sweep
from vlm_rm_sweeps.cli.terminal import EXIT_BAD_INPUT, EXIT_INTERRUPTED
from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.process_defaults import prepare_mlflow
from vlm_rm_sweeps.user_modules import import_file, make_importable

app = typer.Typer(
    help="Train policies from one sentence: CLIP scores the frames, an RL agent learns from the scores, and sweeps over prompts, "
    "models and alpha show which reward can be trusted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def before_any_command(
    module: Annotated[
        list[Path],
        typer.Option(
            metavar="FILE.py",
            help="Import a Python file of yours first: it may register reward models, tasks and algorithms, and data may name what it "
            "defines. May be repeated.",
        ),
    ] = [],  # noqa: B006
) -> None:
    """Import the user's own modules; those in the working folder can also be named as `module:Class`."""
    make_importable(Path.cwd())
    for file in module:
        import_file(file)


for _command in (sweep, dashboard, evaluate, report, schema, tasks, poses, models, render, label, labels, epic, landscape):
    app.command()(_command)
app.add_typer(states_app, name="states")
app.add_typer(pretrain_app, name="pretrain")


def main() -> None:
    """Entry point: bad input is one message on standard error and exit status 2."""
    prepare_mlflow()  # before it is imported: it gives the installation an id then
    try:
        app()
    except UserError as error:
        print(f"vlm-rm: {error}", file=sys.stderr)
        sys.exit(EXIT_BAD_INPUT)
    except KeyboardInterrupt:  # before the first trial; from then on Tune ends the sweep in order
        print("vlm-rm: interrupted", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
