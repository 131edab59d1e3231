"""Every command, sweep file and Python block of the README and the documentation works, or says what it needs."""

import argparse
import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import find_command, parse, vlm_rm
from pages import PAGES, REPOSITORY, Block, blocks_of, text_of, without_blocks

from vlm_rm_sweeps import user_modules
from vlm_rm_sweeps.sweeping.config.screening import load_plan
from vlm_rm_sweeps.tasks import registry

LANGUAGES = {"console", "yaml", "python", "text", "bibtex"}
OF_OTHERS = {"apt", "cd", "docker", "export", "git", "kubectl", "mkdir", "openssl", "pip", "ray", "sbatch", "source"}
"""First words of commands that are nobody's here; their blocks say what they need."""
_ELSEWHERE = {"browser", "minutes", "running sweep"}
"""What keeps a command from being run by these tests, but not from being run by others."""
RUN_BY = {
    ("confusion",): "tests/cli/test_measuring.py",
    ("demo",): "tests/demo/test_page.py",
    ("distill",): "tests/cli/test_distilling.py",
    ("doctor",): "tests/machine/test_doctor.py",
    ("fit",): "tests/sweeping/execution/test_fit.py",
    ("label",): "tests/cli/test_states.py",
    ("labels",): "tests/cli/test_states.py",
    ("render",): "tests/cli/test_inventory.py",
    ("report",): "tests/cli/test_cli.py",
    ("reward", "train"): "tests/cli/test_heads.py",
    ("states", "rollouts"): "tests/cli/test_states.py",
    ("states", "sample"): "tests/cli/test_states.py",
    ("sweep",): "tests/cli/test_sweeps.py",
}
"""The tests that run such a command of `vlm-rm`, smaller."""
NEEDS = {"browser", "cluster", "gpu", "minutes", "network", "opengl", "results", "root", "running sweep"}
"""What keeps a command from being run here. Those that need `results` alone are run by `test_commands_on_results.py`."""
MADE_FIRST = "results/states/cartpole"
"""The data set that the pages make first."""
_CHEAP = ("tasks", "schema")
_INLINE = re.compile(r"(?<!`)`(?:\.venv/bin/)?((?:vlm-rm|make|python|bash)(?: |\n *)[^`\n]+(?:\n[^`\n]+)?)`(?!`)")
"""A command in a sentence, which may be wrapped over a line."""
MAKEFILE = text_of("Makefile")
MODEL_CARDS = sorted(str(card.relative_to(REPOSITORY)) for card in REPOSITORY.glob("vlm_rm_sweeps/**/MODEL_CARD.md"))


def pages_with(*languages: str) -> list[str]:
    return [page for page in PAGES if any(blocks_of(page, language) for language in languages)]


def commands_of(page: str) -> Iterator[tuple[Block, str]]:
    """Yield each command of a page, with its block."""
    for block in blocks_of(page, "console"):
        for line in block.text.splitlines():
            for command in line.split(" && "):
                yield block, command


def commands_in_sentences(text: str) -> list[str]:
    """Return the commands in backticks. A line break within one is a space, as where it is shown."""
    return [re.sub(r"\s*\n\s*", " ", found) for found in _INLINE.findall(text)]


def run_here(block: Block, command: str) -> list[str]:
    """Return the words with which `vlm-rm` is run for a command; none if it is not run. Sweeps are planned, not run."""
    program, *words = shlex.split(command)
    if program == "make" and words[0] == "sweep":
        given = dict(word.split("=", 1) for word in words[1:])
        changes = [part for change in given.get("SET", "").split() for part in ("--set", change)]
        return ["sweep", given.get("SWEEP", "sweeps/quickstart.yaml"), *changes, "--dry-run"]
    if not program.endswith("vlm-rm"):
        return []
    if words[0] == "sweep":
        return [*words, *(["--dry-run"] if "--dry-run" not in words else [])]
    name = words[2] if words[0] == "--module" else words[0]
    return words if block.runs or "--help" in words or name in _CHEAP else []


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`MADE_FIRST`, smaller."""
    folder = tmp_path_factory.mktemp("states") / "cartpole"
    vlm_rm("states", "sample", "cartpole-upright", "--count", "10", "-o", str(folder))
    return folder


@pytest.fixture
def folder(tmp_path: Path, states: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder like the repository's, in which nothing that a page does is left behind."""
    for name in ("sweeps", "examples", "deploy"):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    (tmp_path / MADE_FIRST).parent.mkdir(parents=True)
    (tmp_path / MADE_FIRST).symlink_to(states)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(user_modules, "_folders", [])
    monkeypatch.setattr(registry._REGISTRY, "_entries", dict(registry._REGISTRY._entries))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None) or ""
        if Path(file).parent in (tmp_path, REPOSITORY / "examples"):
            del sys.modules[name]


def save_named_blocks(page: str, folder: Path) -> None:
    for block in blocks_of(page):
        if block.file:
            (folder / block.file).write_text(block.text, encoding="utf-8")


@pytest.mark.parametrize("page", PAGES)
def test_every_block_says_what_it_is(page: str) -> None:
    found = blocks_of(page)
    assert {block.language for block in found} <= LANGUAGES
    assert len(re.findall(r"^\s*```", text_of(page), re.MULTILINE)) == 2 * len(found)
    of_text = [line for block in found if block.language == "text" for line in block.text.splitlines()]
    commands = re.compile(r"(\.venv/bin/)?(vlm-rm|make|python|bash|ray) ")
    usages = re.compile(r"vlm-rm [\w -]*\[OPTIONS\]")
    assert [line for line in of_text if commands.match(line) and not usages.match(line)] == []


@pytest.mark.parametrize("page", pages_with("yaml"))
def test_sweep_files_are_accepted(page: str, folder: Path) -> None:
    save_named_blocks(page, folder)
    for number, block in enumerate(blocks_of(page, "yaml")):
        file = folder / (block.file or f"block-{number}.yaml")
        file.write_text(block.text, encoding="utf-8")
        load_plan(file)


@pytest.mark.parametrize("page", pages_with("python"))
def test_python_runs(page: str, folder: Path) -> None:
    for block in blocks_of(page, "python"):
        names: dict[str, Any] = {"__name__": "page", "frames": np.zeros((2, 64, 96, 3), np.uint8)}
        exec(compile(block.text, page, "exec"), names)
        if "rewards" in names:
            assert np.isfinite(names["rewards"]).all()


@pytest.mark.parametrize("page", pages_with("console"))
def test_commands_exist_with_their_options_and_files(page: str, folder: Path) -> None:
    save_named_blocks(page, folder)
    for block, command in commands_of(page):
        check_command(command, block.needs)


@pytest.mark.parametrize("page", pages_with("console"))
def test_every_command_runs_or_says_what_it_needs(page: str) -> None:
    tested = {*re.findall(r"^make (\S+)$", text_of(".ci/run"), re.MULTILINE), "help"}
    for block, command in commands_of(page):
        assert {each for each in block.needs.split(", ") if each} <= NEEDS, block.needs
        program, *words = shlex.split(command)
        by_another_test = (program == "make" and words[0] in tested) or program == "python"  # which `check_command` looks for
        made = words[:2] == ["states", "sample"] and words[-1] == MADE_FIRST
        assert block.needs or run_here(block, command) or by_another_test or made, f"{command}: no test runs it"


@pytest.mark.parametrize("page", pages_with("console"))
def test_a_command_that_is_not_run_here_is_run_by_another_test(page: str) -> None:
    for block, command in commands_of(page):
        program, *words = shlex.split(command)
        if _ELSEWHERE & set(block.needs.split(", ")) and program.endswith("vlm-rm"):
            *_, rest = find_command(words)
            called = tuple(words[: len(words) - len(rest)])
            assert called in RUN_BY, f"{command}: name the test that runs it in RUN_BY"


@pytest.mark.parametrize("called", RUN_BY, ids=" ".join)
def test_the_test_that_runs_a_command_is_one_of_every_run(called: tuple[str, ...]) -> None:
    test = text_of(RUN_BY[called])
    assert not re.search(r"pytestmark = pytest\.mark\.(slow|browser|cluster|fuzz)", test)
    assert re.search(r",\s+".join(f'"{word}"' for word in called), test)


@pytest.mark.parametrize("page", pages_with("console"))
def test_commands_run(page: str, folder: Path) -> None:
    save_named_blocks(page, folder)
    for block, command in commands_of(page):
        words = run_here(block, command)
        if words and words[-1] != MADE_FIRST:
            assert vlm_rm(*words)


@pytest.mark.parametrize("page", PAGES)
def test_commands_in_sentences_exist_with_their_options(page: str) -> None:
    for inline in commands_in_sentences(without_blocks(page)):
        program, *words = shlex.split(inline)
        if program == "make":
            check_make(words)
        elif program == "python":
            check_script(words)
        elif program == "bash":
            assert (REPOSITORY / words[0]).is_file(), inline
        elif words[0].islower():  # else a placeholder, such as COMMAND
            check_options(words)
            shipped = [word for word in words if word.startswith(("sweeps/", "examples/", "analysis/")) and "*" not in word]
            assert [word for word in shipped if "<" not in word and not (REPOSITORY / word).exists()] == [], inline


def test_a_command_that_is_wrapped_over_a_line_is_found() -> None:
    written = "With `vlm-rm sweep a.yaml --set\n  'models=[a]'` and `x`,\n`make\nhelp` or `vlm-rm fit\n\na paragraph`."
    assert commands_in_sentences(written) == ["vlm-rm sweep a.yaml --set 'models=[a]'", "make help"]
    assert [each for each in commands_in_sentences(text_of("docs/how-to/rewards.md")) if "--set 'models=[" in each]


@pytest.mark.parametrize("card", MODEL_CARDS)
def test_commands_of_model_cards_exist_with_their_options(card: str) -> None:
    commands = re.findall(r"^vlm-rm (.+)$", text_of(card), re.MULTILINE)
    assert commands
    for command in commands:
        check_options(shlex.split(command))


@pytest.mark.parametrize("file", sorted(file.name for file in (REPOSITORY / "sweeps").glob("*.yaml")))
def test_commands_in_the_headers_of_sweep_files(file: str, folder: Path) -> None:
    commands = re.findall(r"^# {2,}((?:vlm-rm|make) .*?)(?: {2,}.*)?$", text_of(f"sweeps/{file}"), re.MULTILINE)
    assert commands
    for command in commands:
        check_command(command, "")


def check_command(line: str, needs: str) -> None:
    program, *words = shlex.split(line)
    if program == "make":
        check_make(words)
    elif program.endswith("vlm-rm"):
        if "--help" not in words:
            parse(words)
        check_files(words)
    elif program == "python" and words[0].startswith("analysis/"):
        assert (Path(__file__).parents[1] / "analysis" / f"test_{Path(words[0]).name}").is_file(), line
        check_script(words)
    elif program == "python" and words[0].startswith("benchmarks/"):
        assert f'"{Path(words[0]).name}"' in text_of("tests/test_benchmarks.py"), line
        assert (REPOSITORY / words[0]).is_file(), line
        check_files(words[1:])
    elif program == "python":
        assert words[0].removeprefix("examples/").removesuffix(".py") in text_of("tests/test_examples.py"), line
        check_files(words)
    else:
        assert program in OF_OTHERS, line
        assert needs, f"{line}: say what it needs"
        check_files([word for word in words if not word.startswith("/")])  # else one of another machine
        if "vlm-rm" in words:  # as in `ray job submit -- vlm-rm sweep`
            parse(words[words.index("vlm-rm") + 1 :])


def check_options(words: list[str]) -> None:
    command, _, rest = find_command(words)
    known = {spelled for each in command.params for spelled in (*each.opts, *each.secondary_opts)} | {"--help"}
    assert {word for word in rest if re.match(r"--\w|-\w$", word)} <= known, words


class _ParsedError(Exception):
    """The script has read its arguments, and is not run any further."""


def check_script(words: list[str]) -> None:
    """A script of the repository takes these arguments."""
    script, parse_arguments = REPOSITORY / words[0], argparse.ArgumentParser.parse_args

    def parsed(*given: Any, **named: Any) -> None:
        try:
            parse_arguments(*given, **named)
        except SystemExit as refused:
            raise AssertionError(words) from refused
        raise _ParsedError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", parsed)
        patch.setattr(sys, "argv", words)
        patch.setattr(sys, "path", [str(script.parent), *sys.path])
        with pytest.raises(_ParsedError):
            runpy.run_path(str(script), run_name="__main__")


def check_make(words: list[str]) -> None:
    targets = [word for word in words if "=" not in word]
    variables = dict(word.split("=", 1) for word in words if "=" in word)
    assert [target for target in targets if not re.search(rf"^{target}:.*##", MAKEFILE, re.MULTILINE)] == []
    assert [name for name in variables if f"$({name})" not in MAKEFILE] == []
    check_files([variables.get("SWEEP", "")])


def check_files(words: list[str]) -> None:
    """What ends like a file that people write must exist, unless it is an output."""
    inputs = [word for before, word in pairwise(["", *words]) if before not in ("-o", "--output")]
    named = [word for word in inputs if Path(word).suffix in (".yaml", ".py", ".txt") and "<" not in word]
    assert [word for word in named if not Path(word).exists()] == []


@pytest.mark.parametrize(
    "line",
    [
        "vlm-rm swep my.yaml",
        "vlm-rm sweep sweeps/quickstart.yaml --dry",
        "vlm-rm sweep gone.yaml",
        "make swep",
        "python analysis/predictive.py results/a --witin-prompts",
        "python analysis/predictive.py",
        "ls",
    ],
)
def test_what_is_wrong_is_found(line: str, folder: Path) -> None:
    with pytest.raises(Exception):  # noqa: B017, PT011 - click's, or an assertion
        check_command(line, "")
