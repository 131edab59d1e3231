"""What `--help` shows of each command is what the reference says of it: Rich takes what stands in square brackets for markup."""

import re

import pytest
import typer
from pages import text_of
from typer.testing import CliRunner

from vlm_rm_sweeps.cli import app

_SECTION = re.compile(r"^## `(vlm-rm[^`]*)`\n(.*?)(?=^## |^<!-- end of commands -->)", re.MULTILINE | re.DOTALL)
_ROW = re.compile(r"^\| (`.+?`) \| (.*) \| .*\|$", re.MULTILINE)
_ALSO_READ = re.compile(r" Also read from `(\w+)`\.$")
SECTIONS = dict(_SECTION.findall(text_of("docs/reference/command-line.md")))


def shown_by(application: typer.Typer, *words: str) -> str:
    """The help without the frames that are drawn around it, on a terminal so wide that no text of a table is broken."""
    shown = CliRunner().invoke(application, [*words, "--help"], env={"COLUMNS": "2000", "NO_COLOR": "1"})
    assert shown.exit_code == 0, shown.output
    return one_line(re.sub(r"[╭╮╰╯─│]", " ", shown.output))


def one_line(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("command", SECTIONS)
def test_help_shows_every_word_of_the_reference(command: str) -> None:
    purpose, _, rest = SECTIONS[command].partition("```text\n")
    shown = shown_by(app, *command.split()[1:])
    rows = _ROW.findall(rest.partition("|---|---|---|\n")[2])
    assert len(rows) == max(0, len(re.findall(r"^\|", rest, re.MULTILINE)) - 2), "each row is read"
    meanings = [meaning.replace(r"\|", "|") for _, meaning in rows]
    expected = [purpose, *(_ALSO_READ.sub(r" [env var: \1]", each) for each in meanings)]
    assert [each for each in map(one_line, expected) if each not in shown] == []
    names = [name for spelled, _ in rows for name in re.findall(r"`(.+?)`", spelled)]
    assert [name for name in names if name.lower() not in shown.lower()] == []  # Typer decides on the case of arguments


def test_the_reference_has_every_command() -> None:
    def below(name: str, command: object) -> list[str]:
        inner = getattr(command, "commands", {})
        return [name, *(each for word, one in inner.items() for each in below(f"{name} {word}", one))]

    assert list(SECTIONS) == below("vlm-rm", typer.main.get_command(app))


def test_what_rich_takes_for_markup_would_be_missed() -> None:
    application = typer.Typer()

    @application.command()
    def command(option: str = typer.Option("", help="YAML such as {negatives: [lying down]}.")) -> None:
        """Do nothing."""

    assert "{negatives: [lying down]}" not in shown_by(application)
    assert "{negatives: }" in shown_by(application)
