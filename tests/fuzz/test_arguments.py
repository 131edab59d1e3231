"""Every command of `vlm-rm`, with odd and missing arguments: it does its work, or one message says what is wrong.

The commands and their options are read from the command line itself, so a new one is tried, too. Brakes keep those from their
work that would take minutes or go on until Ctrl-C: valid arguments are not what is tried here.
"""

import shutil
import socket
import warnings
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer.main
from command_line import vlm_rm
from hypothesis import strategies as st

from vlm_rm_sweeps.cli import app
from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.evaluation.states import load_states
from vlm_rm_sweeps.labelling.scales import YES_NO
from vlm_rm_sweeps.labelling.store import LabelStore

OUT = "out"
"""Folder for what commands write; there, and empty, at the start of each case."""
# fmt: off
# No path in which the user `root` could write by mistake.
ODD = ["", " ", "x", "-", "--", "-1", "0", "1", "2", "2.5", "nan", "inf", "1e3", "9" * 30, "-" + "9" * 30, "0x10", "\uff11",
        "a,b", ",", "a,a", "=", "x=1", "[", "{}", "%s", "é\u202e\U0001f916",
       "x" * 300, "x\ny", ".", "..", "~", "a/b/c", "a.yaml", "a.py", "json", "json:loads", "nowhere:Class", "module:", ":",
        "null", "*", "\x1b[31m"]
PATHS = ["sweep", "states", "checkpoint", "family", "sweep/sweep.yaml", "sweep/trials.csv", "labels.sqlite", "states/images",
        "empty", "gone", "sweeps", "sweeps/quickstart.yaml",
         "sweeps/screen_cartpole.yaml", "sweeps/prompts/cartpole_upright.txt", "loop", "nowhere", "\0", "x" * 5000, "/",
        "/dev/zero", "/dev/stdin", "/proc/self/mem", "./states/", "broken.py", "exits.py", "raises.py", "."]
NEW = ["out", "out/new", "out/new.csv", "out/a/b.csv", "out/x.png", "out/x.mp4", "out/x.gif", "out/x.html", "out/x.PNG",
        "sweep", "sweep/trials.csv", "loop", "/proc/x", "out/" + "x" * 300]
VALUES: dict[str, list[str]] = {
    "task": ["cartpole-upright", "mountaincar-summit", "humanoid-kneeling", "cartpole", "sweeps/quickstart.yaml",
        "sweeps/gone.yaml"],
    "model": ["embedded/tiny", "embedded/tiny", "embedded/tiny,embedded/small", "embedded/huge", "ViT-B-32/nobody",
        "ViT-B-32/sweep/trials.csv", "embedded/tiny,embedded/tiny", "own:Reward"],
    "alpha": ["0", "0.5", "0,1", "0,0.0", "1.5", "-0.1", "0;1"],
    "prompt": ["a pole", "sweeps/prompts/cartpole_upright.txt", "gone.txt", "sweep/sweep.yaml", "pole and cart", "a " * 200],
    "baseline": ["pole and cart", "a pole", "a " * 200],
    "truth": ["success", "raters", "rater:anna", "-abs(theta)", "theta**9**9**9", "10**4000000", "'a'*10**9", "1/0", "(",
        "theta < 0", "[theta]*3", "gone", "theta and", "()", "0", "theta.real", "max(theta)"],
    "variable": ["theta", "theta=-0.25:0.25", "theta=1:0", "theta=nan:1", "theta=0:1e400", "theta=a:b", "x", "theta=0:0",
        "theta=:", "x=0:1"],
    "textures": ["modified", "original", "none"], "camera": ["paper", "default", "none"], "image_format": ["png", "webp",
        "jpg"], "which": ["best", "last", "all"],
    "profile": ["fast", "full"], "policy": ["random", "zero"], "overrides": ["steps=5", "models=[]", "x.y=1", "steps", "=1"],
        "device": ["cpu", "cuda", "meta", "cuda:99", "tpu"],
    "sizes": ["tiny", "huge"], "episodes": ["1"], "every": ["5"], "count": ["2"], "samples": ["1"], "steps": ["2"],
        "points": ["3"], "seed": ["0", "7", str(2**32), str(2**63), str(2**64)], "tracking_uri": ["sqlite:///out/m.db",
        "nonsense://x", "sqlite:////proc/x.db", "http://", "file:///out", "sqlite://"],
    "teacher": ["embedded/small", "embedded/tiny", "embedded/huge", "distilled/family", "own:Reward", "ViT-B-32/nobody"],
    "student": ["embedded/tiny", "embedded/small", "ViT-B-32/nobody", "embedded/"], "hidden": ["0", "3", "64", "65"],
    "reward": ["goal_baseline", "softmax", "{kind: softmax, negatives: [a pole lying down]}", "{kind: threshold, above: .nan}",
        "{kind: history, of: x}", "own:Reward", "{kind: learned, head: sweep/trials.csv}", "{kind: learned, head: gone}", "[a"],
    "states": ["labelled", "states", "gone", "sweep", "empty", "loop", "/dev/zero"],
    "judge": ["embedded/tiny", "embedded/huge"], "criterion": ["is it up?"], "module": ["json", "broken.py", "exits.py",
        "raises.py", "gone.py", "nowhere", "os.path", "a b", "../x.py"],
}
# fmt: on
GOOD = {
    "file": "sweeps/quickstart.yaml",
    "checkpoint": "checkpoint",
    "dataset": "labelled",
    "datasets": "labelled",
    "states": "labelled",
    "sources": "checkpoint",
    "images": "states/images",
    "folders": "family",
    "containing": "embedded",
    "degrees": "3",
    "port": "0",
    "tracking_uri": "sqlite:///out/m.db",
    "variable": "theta",
}
"""For the other parameters, the first of `VALUES`."""
COUNTS = {"episodes", "every", "count", "samples", "steps", "points"}
"""Options that decide how long the work takes: always given, and small. `vlm-rm states sample --count 10000000` may take a day."""
SMALL = ["1", "2", "3", "4"]
SLOW = {("evaluate",), ("states", "rollouts")}
"""They run whole episodes."""
LEFT_OUT = {("doctor",)}
"""It starts Ray each time, and takes one argument, of which it reports whatever is odd."""
NEW_PATHS = {"output", "out", "results"}
Brakes = Mapping[tuple[str, ...], list[str]]


@dataclass(frozen=True)
class Command:
    """A command, its parameters, and those of the program itself."""

    path: tuple[str, ...]
    parameters: tuple[Any, ...]


def commands_in(command: Any, path: tuple[str, ...] = ()) -> Iterator[Command]:
    inner = getattr(command, "commands", {})
    if path and (command.params or not inner):
        yield Command(path, tuple(command.params))
    for name, each in inner.items():
        yield from commands_in(each, (*path, name))


PROGRAM: Any = typer.main.get_command(app)
COMMANDS = list(commands_in(PROGRAM))


def good_value(command: Command, parameter: Any) -> str:
    """Return a value with which the command does its work, if all others are good, too."""
    name = parameter.name
    if name in NEW_PATHS:
        return "out/x.png" if command.path == ("render",) else "out/new"
    if name == "folder":
        return {"report": "sweep", "status": "sweep", "label": "videos"}.get(command.path[0], "labelled")
    if name == "images" and command.path == ("distill",):
        return "100"  # a number; elsewhere it is a folder
    return GOOD[name] if name in GOOD else VALUES.get(name, ["1"])[0]


def good_arguments(command: Command) -> tuple[str, ...]:
    """Return arguments with which a command does its work."""
    given: list[str] = []
    for parameter in command.parameters:
        if not getattr(parameter, "is_flag", False) and (
            parameter.required or parameter.name in COUNTS or parameter.name in NEW_PATHS
        ):
            flag = [] if parameter.param_type_name == "argument" else [max(parameter.opts, key=len)]
            given += [*flag, good_value(command, parameter)]
    return (*command.path, *given)


def odd_value(parameter: Any) -> st.SearchStrategy[str]:
    """Generate values that a parameter may not expect."""
    name = parameter.name
    plausible = NEW if name in NEW_PATHS else SMALL if name in COUNTS else VALUES.get(name, [])
    if parameter.param_type_name == "argument" and not plausible:
        plausible = PATHS
    odd = st.sampled_from(ODD) | st.text(max_size=6).filter(lambda text: "/" not in text)
    if name in COUNTS:
        odd = st.sampled_from([text for text in ODD if not text.isdecimal()])
    return odd | st.sampled_from(plausible) if plausible else odd


@st.composite
def arguments(draw: st.DrawFn, command: Command) -> tuple[str, ...]:
    """Arguments of a command, of which one or two are odd, missing or too many."""
    given: list[str] = []
    odd = draw(st.lists(st.integers(0, max(0, len(command.parameters) - 1)), max_size=2))
    for place, parameter in enumerate(command.parameters):
        needed = parameter.required or parameter.name in COUNTS or parameter.name in NEW_PATHS
        if place not in odd and not needed and draw(st.integers(0, 5)):
            continue
        flag = [] if parameter.param_type_name == "argument" else [max(parameter.opts, key=len)]
        if getattr(parameter, "is_flag", False):
            given += flag if parameter.name != "video" else []  # a video of an episode takes longer than a case may
        elif place not in odd:
            given += [*flag, good_value(command, parameter)]
        elif draw(st.integers(0, 9)):
            given += [*flag, draw(odd_value(parameter))]
    if not draw(st.integers(0, 9)):
        given.insert(draw(st.integers(0, len(given))), draw(st.sampled_from([*ODD, "--gone", "-o", "--help", "--seed"])))
    program = draw(st.sampled_from(VALUES["module"])) if not draw(st.integers(0, 9)) else None
    return (*(["--module", program] if program else []), *command.path, *given)


@pytest.fixture(scope="module")
def workplace(results: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with stored files of all formats, sweep files, and modules that cannot be imported."""
    folder = tmp_path_factory.mktemp("arguments") / "work"
    shutil.copytree(results, folder)
    shutil.copytree(Path(__file__).parents[2] / "sweeps", folder / "sweeps")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        vlm_rm("states", "sample", "cartpole-upright", "--count", "40", "--output", "labelled")
        first = load_states(folder / "labelled").ids[0]
        LabelStore(folder / "labelled" / "labels.sqlite", YES_NO).add("anna", first, 1.0)
    (folder / "videos").mkdir()
    shutil.copy(next(folder.glob("sweep/trials/*/video/episode.mp4")), folder / "videos")
    (folder / "empty").touch()
    (folder / "loop").symlink_to("loop")
    (folder / "broken.py").write_text("def (:\n")
    (folder / "exits.py").write_text("import sys\nsys.exit(7)\n")
    (folder / "raises.py").write_text("{}['a']\n")
    return folder


@pytest.fixture(scope="module")
def brakes() -> Iterator[Brakes]:
    """Last arguments of commands, after which valid ones are refused."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        yield {
            ("sweep",): ["--dry-run"],
            ("label",): ["--no-open", "--port", str(taken.getsockname()[1])],
            ("pretrain",): ["--size", "none"],
            ("fit",): ["--set", "steps=-1"],
            ("demo",): ["--output", "sweep/trials.csv"],
            ("distill",): ["--output", "sweep"],
        }


@pytest.mark.parametrize(
    ("command", "cases", "short"),
    [
        pytest.param(command, cases, short, id=" ".join(command.path) + ("" if short else " (long)"), marks=marks)
        for command in COMMANDS
        if command.path not in LEFT_OUT
        for cases, short, marks in ((2, True, ()), (20 if command.path in SLOW else 100, False, pytest.mark.fuzz))
    ],
)
def test_odd_arguments_are_used_or_refused(
    fuzzed: Any, workplace: Path, brakes: Brakes, monkeypatch: pytest.MonkeyPatch, command: Command, cases: int, short: bool
) -> None:
    monkeypatch.chdir(workplace)
    monkeypatch.setenv("RAY_TMPDIR", str(workplace / "no-cluster"))
    monkeypatch.setenv("HOME", str(workplace))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")

    def run(given: tuple[str, ...]) -> None:
        shutil.rmtree(OUT, ignore_errors=True)
        Path(OUT).mkdir()
        with warnings.catch_warnings(action="ignore"):
            vlm_rm(*given, *brakes.get(command.path, ()))

    if not short:
        with suppress(UserError):
            run(good_arguments(command))  # so that no case has to import what it needs
    fuzzed(f"arguments: {' '.join(command.path)}", cases, arguments(command), run, short)
