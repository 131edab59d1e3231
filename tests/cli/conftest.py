"""Commands run in the process of the tests: a process for each would import torch and Ray again."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from vlm_rm_sweeps.cli import app
from vlm_rm_sweeps.errors import UserError

Command = Callable[..., str]


@pytest.fixture(scope="session")
def vlm_rm() -> Command:
    """Run a command that must succeed; returns its output."""

    def run(*arguments: str | Path) -> str:
        shown = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert shown.exit_code == 0, shown.output
        return shown.output

    return run


@pytest.fixture(scope="session")
def json_of() -> Callable[..., Any]:
    """Run a command with `--json`, of which standard output must be JSON and nothing else; returns what it says."""

    def run(*arguments: str | Path) -> Any:
        shown = CliRunner().invoke(app, [*map(str, arguments), "--json"])
        assert shown.exit_code == 0, shown.output
        return json.loads(shown.stdout)

    return run


@pytest.fixture(scope="session")
def refusal() -> Command:
    """Run a command that must refuse its input; returns the message that `main` prints before exit status 2."""

    def run(*arguments: str | Path) -> str:
        shown = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert isinstance(shown.exception, UserError), shown.output
        return str(shown.exception)

    return run


@pytest.fixture(scope="module")
def dataset(vlm_rm: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of 40 states of cartpole-upright."""
    folder = tmp_path_factory.mktemp("cli") / "states"
    printed = vlm_rm("states", "sample", "cartpole-upright", "--count", "40", "--output", folder)
    assert "40 states of cartpole-upright (40 uniform)" in printed
    return folder
