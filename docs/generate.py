"""Write the parts of the reference pages that the code decides: `python docs/generate.py`, run by `make schema`.

A page is written by hand, except what is between `<!-- generated: NAME -->` and `<!-- end of NAME -->`.
"""

import ast
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import typer

import vlm_rm_sweeps
from vlm_rm_sweeps.cli import app
from vlm_rm_sweeps.metrics import METRICS
from vlm_rm_sweeps.sweeping.config.schema import keys_as_markdown

REPOSITORY = Path(__file__).parents[1]
REFERENCE = REPOSITORY / "docs" / "reference"
_PART = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end of \2 -->)", re.DOTALL)


def command_line() -> str:
    """Describe every command of `vlm-rm`: its purpose, arguments and options."""
    root = typer.main.get_command(app)
    return "\n".join(line for name, command in _commands("vlm-rm", root) for line in _described(name, command))


def metrics() -> str:
    """Describe every metric of a trial."""
    rows = [
        f"| `{each.name}{'...' if each.name.endswith('/') else ''}` | {each.unit} | {each.meaning} |"
        for each in METRICS.values()
    ]
    return "\n".join(["| metric | unit | meaning |", "|---|---|---|", *rows, ""])


def api() -> str:
    """List every public name with its first line, and say where mkdocstrings finds it."""
    homes = {name: f"vlm_rm_sweeps.{vlm_rm_sweeps._HOMES[name]}" for name in sorted(vlm_rm_sweeps.__all__, key=str.lower)}
    rows = [f"| [`{name}`](#{home}.{name}) | {_first_line(home, name)} |" for name, home in homes.items()]
    entries = [line for name, home in homes.items() for line in ("", f"::: {home}.{name}")]
    return "\n".join(["| name | what it is |", "|---|---|", *rows, *entries, ""])


PARTS: dict[str, Callable[[], str]] = {
    "commands": command_line,
    "keys": lambda: keys_as_markdown() + "\n",
    "metrics": metrics,
    "api": api,
}


def generated(page: str) -> str:
    """Write the generated parts of a page anew.

    Args:
        page: Text of the page.

    Returns:
        The page as it should be.
    """
    return _PART.sub(lambda found: f"{found[1]}\n{PARTS[found[2]]()}\n{found[3]}", page)


def _commands(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    """Yield a command and those below it. Typer has its own copy of click, so nothing of it is named here."""
    yield name, command
    for inner, each in getattr(command, "commands", {}).items():
        yield from _commands(f"{name} {inner}", each)


def _described(name: str, command: Any) -> list[str]:
    usage = " ".join([name, *_usage(command)])
    lines = [f"## `{name}`", "", inspect.cleandoc(command.help or ""), "", "```text", usage, "```", ""]
    if command.params:
        rows = [f"| {_spelled(each)} | {_help(each)} | {_default(each)} |" for each in command.params]
        lines += ["| argument | meaning | default |", "|---|---|---|", *rows, ""]
    return lines


def _usage(command: Any) -> Iterator[str]:
    yield "[OPTIONS]"
    for each in command.params:
        if each.param_type_name == "argument":
            name = each.name.upper() if each.required else f"[{each.name.upper()}]"
            yield f"{name}..." if each.nargs != 1 else name
    if hasattr(command, "commands"):
        yield "COMMAND [ARGS]..."


def _spelled(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{parameter.name.upper()}`"
    return ", ".join(f"`{each}`" for each in (*parameter.opts, *parameter.secondary_opts))


def _help(parameter: Any) -> str:
    variable = f" Also read from `{parameter.envvar}`." if parameter.envvar else ""
    return (str(getattr(parameter, "help", "") or "") + variable).replace("|", r"\|").replace("\n", " ")


def _default(parameter: Any) -> str:
    default, shown = parameter.default, getattr(parameter, "show_default", None)
    if parameter.required:
        return "required"
    if isinstance(shown, str):
        return f"`{shown}`"
    if default in (None, [], (), ""):
        return ""
    if isinstance(default, bool):
        return "" if not default and not getattr(parameter, "secondary_opts", ()) else "on" if default else "off"
    return f"`{','.join(map(str, default)) if isinstance(default, list | tuple) else default}`"


def _first_line(module: str, name: str) -> str:
    """Read the first line of a docstring without importing the module, which may need seconds."""
    tree = ast.parse((REPOSITORY / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8"))
    (node,) = (each for each in tree.body if isinstance(each, ast.ClassDef | ast.FunctionDef) and each.name == name)
    return (ast.get_docstring(node) or "").partition("\n")[0]


def main() -> None:
    """Write the generated parts of all reference pages anew."""
    for page in sorted(REFERENCE.glob("*.md")):
        page.write_text(generated(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
