"""The command line in this process, as a shell sees it: a process for each command would import torch and Ray again."""

import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

import typer

from vlm_rm_sweeps.cli import app, main
from vlm_rm_sweeps.cli.terminal import EXIT_BAD_INPUT
from vlm_rm_sweeps.errors import UserError


def vlm_rm(*arguments: str) -> str:
    """Run `vlm-rm` with these arguments.

    Returns:
        What it printed on standard output, if it ended with exit status 0.

    Raises:
        UserError: It ended with status 2; the message is what it printed on standard error.
        AssertionError: It ended with any other status.
    """
    output, errors = io.StringIO(), io.StringIO()
    before, sys.argv = sys.argv, ["vlm-rm", *arguments]
    status: object = 0
    try:
        with redirect_stdout(output), redirect_stderr(errors):
            main()
    except SystemExit as ended:
        status = ended.code or 0
    finally:
        sys.argv = before
    if status == EXIT_BAD_INPUT:
        raise UserError(errors.getvalue())
    assert status == 0, f"exit status {status}: {errors.getvalue()[-500:]}"
    assert "Traceback" not in errors.getvalue(), errors.getvalue()
    return output.getvalue()


def find_command(words: list[str]) -> tuple[Any, str, list[str]]:
    """Find the command that these words call, its name, and what is left of the words."""
    command: Any = typer.main.get_command(app)
    name, rest = "vlm-rm", words
    while rest[:1] == ["--module"]:
        rest = rest[2:]
    while rest and rest[0] in getattr(command, "commands", {}):
        name, *rest = rest
        command = command.commands[name]
    assert name != "vlm-rm" or not rest, f"there is no command {words}"
    return command, name, rest


def parse(words: list[str]) -> None:
    """Fail if the command line would refuse these words: a command, its arguments and its options."""
    command, name, rest = find_command(words)
    command.make_context(name, list(rest))
