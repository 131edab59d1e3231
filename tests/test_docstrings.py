"""Docstrings are complete: what ruff's pydocstyle rules (`D`) cannot check, for all files for which pyproject.toml has them on."""

import ast
import fnmatch
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
FOLDERS = ("vlm_rm_sweeps", "analysis", "benchmarks")
LONGEST_FIRST_LINE = 120
_SECTION = re.compile(r"^(\w+):\n((?:[ \t]+.*\n?|\n)*)", re.MULTILINE)
_ENTRY = re.compile(r"^    \*{0,2}(\w+)(?: \([^)]*\))?:", re.MULTILINE)
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Documented:
    """A public function or method, or a constructor, with the docstring that documents its parameters."""

    name: str
    node: Function
    docstring: str

    @property
    def parameters(self) -> set[str]:
        arguments = self.node.args
        named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
        return {each.arg for each in named if each is not None} - {"self", "cls"}

    @property
    def sections(self) -> dict[str, str]:
        return dict(_SECTION.findall(self.docstring))

    @property
    def is_one_line(self) -> bool:
        return len(self.docstring.splitlines()) == 1

    @property
    def is_command(self) -> bool:
        """Whether it is a command of the command line: options have help texts, and the docstring is the command's own."""
        return "typer." in ast.unparse(self.node.args)

    @property
    def is_property(self) -> bool:
        return any("property" in ast.unparse(decorator) for decorator in self.node.decorator_list)

    @property
    def returns_a_value(self) -> bool:
        return self.node.returns is not None and ast.unparse(self.node.returns) not in ("None", "NoReturn", "Never")

    @property
    def raises_user_error(self) -> bool:
        return any(isinstance(each, ast.Raise) and each.exc and _is_user_error(each.exc) for each in _own_nodes(self.node))


def _is_user_error(raised: ast.expr) -> bool:
    return ast.unparse(raised.func if isinstance(raised, ast.Call) else raised) == "UserError"


def _own_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Walk a function's body without the functions that are defined in it."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, Function | ast.Lambda | ast.ClassDef):
            yield child
            yield from _own_nodes(child)


def problems_of(documented: Documented) -> list[str]:
    """List what a docstring lacks."""
    if documented.is_command:
        return []
    found, sections = [], documented.sections
    if not documented.is_one_line and set(_ENTRY.findall(sections.get("Args", ""))) != documented.parameters:
        found.append(f"`Args:` must name exactly {', '.join(sorted(documented.parameters)) or 'nothing'}")
    wants_returns = documented.returns_a_value and not documented.is_property
    if not documented.is_one_line and wants_returns and not {"Returns", "Yields"} & sections.keys():
        found.append("`Returns:` is missing")
    if documented.raises_user_error and "UserError" not in _ENTRY.findall(sections.get("Raises", "")):
        found.append("`Raises:` must name UserError")
    return found


def public_docstrings(source: str) -> Iterator[tuple[str, str]]:
    """Yield name and docstring of everything public in a module, its own first. What has none is left to ruff."""
    module = ast.parse(source)
    yield "module", ast.get_docstring(module) or ""
    for name, node in _public(module.body):
        yield name, ast.get_docstring(node) or ""


def documented_functions(source: str) -> Iterator[Documented]:
    """Yield the public functions of a module that have docstrings."""
    for name, node in _public(ast.parse(source).body):
        docstring = ast.get_docstring(node)
        if isinstance(node, ast.ClassDef):
            yield from _constructor(name, node)
        elif docstring:
            yield Documented(name, node, docstring)


def _constructor(name: str, node: ast.ClassDef) -> Iterator[Documented]:
    """A constructor is documented by its own docstring or by that of its class, and need not be if both are one line."""
    for each in node.body:
        if isinstance(each, Function) and each.name == "__init__":
            of_class, own = (f"{ast.get_docstring(part) or ''}\n" for part in (node, each))
            docstring = own if "Args:\n" in own or "Args:\n" not in of_class else of_class
            yield Documented(f"{name}.__init__", each, docstring.strip())


def _public(body: list[ast.stmt], prefix: str = "") -> Iterator[tuple[str, Function | ast.ClassDef]]:
    for node in body:
        if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_"):
            if any(ast.unparse(decorator) in ("override", "overload") for decorator in node.decorator_list):
                continue
            yield prefix + node.name, node
            if isinstance(node, ast.ClassDef):
                yield from _public(node.body, f"{prefix}{node.name}.")


def checked_files() -> list[str]:
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["ruff"]["lint"]
    left_out = [each for pattern, rules in settings["per-file-ignores"].items() if "D" in rules for each in _expanded(pattern)]
    files = sorted(str(file.relative_to(REPOSITORY)) for folder in FOLDERS for file in (REPOSITORY / folder).rglob("*.py"))
    return [file for file in files if not any(fnmatch.fnmatch(file, pattern) for pattern in left_out)]


def _expanded(pattern: str) -> list[str]:
    """`a/{b,c}.py` as `a/b.py` and `a/c.py`."""
    before, opening, rest = pattern.partition("{")
    inner, _, after = rest.partition("}")
    return [before + each + after for each in inner.split(",")] if opening else [pattern]


@pytest.mark.parametrize("file", checked_files())
def test_docstrings_are_complete(file: str) -> None:
    source = (REPOSITORY / file).read_text(encoding="utf-8")
    found = [f"{each.name}: {problem}" for each in documented_functions(source) for problem in problems_of(each)]
    for name, docstring in public_docstrings(source):
        if len(docstring.partition("\n")[0]) > LONGEST_FIRST_LINE:
            found.append(f"{name}: the first line has more than {LONGEST_FIRST_LINE} characters")
    assert not found, "\n".join([file, *found])


COMPLETE = '''
def f(a: int, *b: int) -> int:
    """Add.

    Args:
        a: One number.
        *b: More numbers,
            as many as you like.

    Returns:
        The sum.

    Raises:
        UserError: There is none.
    """
    raise UserError("none")
'''


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (("", ""), None),
        (("*b: More", "*c: More"), "`Args:` must name exactly a, b"),
        (("        a: One number.\n", ""), "`Args:` must name exactly a, b"),
        (("Args:", "Arguments are"), "`Args:` must name exactly a, b"),
        (("Returns:", "Gives"), "`Returns:` is missing"),
        (("UserError: There", "OSError: There"), "`Raises:` must name UserError"),
    ],
)
def test_a_gap_is_found(change: tuple[str, str], problem: str | None) -> None:
    (documented,) = documented_functions(COMPLETE.replace(*change))
    assert problems_of(documented) == ([] if problem is None else [problem])


def test_one_line_and_commands_need_no_sections_and_a_constructor_may_use_its_class() -> None:
    source = '''
def one(a: int) -> int:
    """Add one."""
    return a + 1

def command(a: Annotated[int, typer.Option(help="A number.")]) -> None:
    """Do it.

    And more.
    """
    raise UserError("no")

class Pair:
    """Two numbers.

    Args:
        a: The first.
        b: The second.
    """

    def __init__(self, a: int, b: int) -> None:
        pass
'''
    assert [problems_of(each) for each in documented_functions(source)] == [[], [], []]
    (_, _, constructor) = documented_functions(source.replace("        b: The second.\n", ""))
    assert problems_of(constructor) == ["`Args:` must name exactly a, b"]


def test_the_style_covers_the_core_modules() -> None:
    assert {"vlm_rm_sweeps/errors.py", "vlm_rm_sweeps/evaluation/epic.py", "analysis/runs.py"} <= set(checked_files())
