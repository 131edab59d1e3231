"""The sweep files that ship, changed at random, are planned by `vlm-rm sweep FILE --dry-run` or refused."""

import math
import shutil
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_line import vlm_rm
from damaged_files import places_in
from hypothesis import strategies as st

from vlm_rm_sweeps.evaluation.states import load_states

SWEEPS = Path(__file__).parents[2] / "sweeps"
TEXTS = {file.name: file.read_text() for file in sorted(SWEEPS.glob("*.yaml"))}
KEYS: dict[str, Any] = {name: yaml.safe_load(text) for name, text in TEXTS.items()}
PLACES = [(name, place) for name, keys in KEYS.items() for place in places_in(keys)]
# fmt: off
TOKENS = [
    "\t", " ", "\n", ":", ": ", "- ", "-", "{", "}", "[", "]", ",", "&a ", "*a", "!!int ''", "!!timestamp abc",
        "!!python/name:os.system ",
    "%", "\0", "\ufeff", "<<: *a", "? ", "|", ">", "'", '"', "#", "---", "...", "1e999", "0x", "0777", "1:30:00",
        "2001-01-01", "yes",
    "\r", "\x85", "\u2028", "\ud7ff", "\U0001f916", "<<: [1]", "null", "~", ".nan", ".inf", "-", "9" * 50, "x" * 3000, "=",
        "@", "`",
]
ODD: list[Any] = [
    None, True, False, -1, 0, 1, 2, 10**18, 10**30, -(2**63), 2**32, 1e-320, 1e308, math.inf, math.nan, 2.5, "", " ", "x",
        "\0", "\n",
    "../..", "/dev/zero", "/dev/stdin", "~", "x" * 300, "é\u202e\U0001f916", "1", "1.0", "null", "no", "%s", "{}", "a:b",
        "a.b:C", ":", "json:loads",
    "embedded/tiny", "embedded/", "/", "ViT-B-32/openai", "cartpole-upright", "CartPole-v1", "mountaincar-summit", "Ant-v5",
        "cuda", "dqn",
    "paper", "auto", "obs[0] > 0", "-abs(theta)", "10**9**9", [], [[]], ["x"], [1, 1], [None], [0.5], ["x"] * 300, {},
        {"x": None}, {"id": 1},
    {"": ""}, {1: 2}, {"states": "results/states/cartpole", "truth": "success"}, {"id": "Pendulum-v1", "episode_steps": 5},
]
# fmt: on
NAMES = [
    "task",
    "env",
    "control",
    "models",
    "only",
    "wrappers",
    "kwargs",
    "base",
    "screen",
    "pool",
    "trial",
    "audit",
    "settings",
    "epic_states",
    "x",
]


ODD_PATHS = [*NAMES, "", ".", "a..b", "models.7", "x.y.z"]


@dataclass(frozen=True)
class Changed:
    """A sweep file after its changes, with what is given beside it."""

    name: str
    content: bytes
    overrides: tuple[str, ...] = ()


odd_values = st.one_of(
    st.sampled_from(ODD),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=5,
    ),
)


@st.composite
def changed_texts(draw: st.DrawFn) -> Changed:
    """A file with some of its text cut, repeated, or replaced."""
    name = draw(st.sampled_from(sorted(TEXTS)))
    content = TEXTS[name]
    for _ in range(draw(st.integers(1, 4))):
        # Most files begin with a long comment, in which nothing can go wrong.
        start = (
            draw(st.integers(0, len(content))) if draw(st.booleans()) else draw(st.integers(len(content) // 2, len(content)))
        )
        length = draw(st.sampled_from([0, 0, 1, 2, 5, 20, 200]))
        part = content[start : start + length]
        repeated = st.sampled_from(["", part * 2, part[::-1], part.upper()])
        inserted = draw(st.sampled_from(TOKENS)) if draw(st.booleans()) else draw(repeated)
        content = content[:start] + inserted + content[start + length :]
    encoded = content.encode(draw(st.sampled_from(["utf-8"] * 8 + ["utf-16", "utf-8-sig"])))
    return Changed(name, encoded)


def put(keys: Any, place: tuple[Any, ...], value: Any) -> None:
    for each in place[:-1]:
        keys = keys[each]
    keys[place[-1]] = value


def at(keys: Any, place: tuple[Any, ...]) -> Any:
    for each in place:
        keys = keys[each]
    return keys


@st.composite
def changed_keys(draw: st.DrawFn) -> Changed:
    """A file of which some values are odd, of another key, or gone; or some keys have another name, or are new."""
    name = draw(st.sampled_from(sorted(KEYS)))
    keys = yaml.safe_load(TEXTS[name])
    for _ in range(draw(st.integers(1, 3))):
        places = places_in(keys)
        if not places:
            break
        place = draw(st.sampled_from(places))
        match draw(st.sampled_from(["odd", "odd", "another's", "gone", "renamed", "new"])):
            case "odd":
                put(keys, place, deepcopy(draw(odd_values)))
            case "another's":
                other, its_place = draw(st.sampled_from(PLACES))
                put(keys, place, deepcopy(at(KEYS[other], its_place)))
            case "gone":
                del at(keys, place[:-1])[place[-1]]
            case "renamed":
                put(keys, (*place[:-1], draw(st.sampled_from(NAMES))) if isinstance(place[-1], str) else place, at(keys, place))
            case "new":
                keys[draw(st.sampled_from(NAMES))] = deepcopy(draw(odd_values))
    return Changed(
        name, yaml.safe_dump(keys, sort_keys=False, allow_unicode=draw(st.booleans())).encode("utf-8", "surrogatepass")
    )


@st.composite
def overridden(draw: st.DrawFn) -> Changed:
    """A whole file, and odd values of `--set`."""
    name, place = draw(st.sampled_from(PLACES))
    overrides = []
    for _ in range(draw(st.integers(1, 3))):
        path = ".".join(map(str, place)) if draw(st.booleans()) else draw(st.sampled_from(ODD_PATHS))
        if draw(st.booleans()):
            value = draw(st.sampled_from(TOKENS))
        else:
            its_own = at(KEYS[name], place)
            value = yaml.safe_dump(its_own if draw(st.booleans()) else draw(odd_values), default_flow_style=True)
        overrides.append(path + draw(st.sampled_from(["=", "=", "=", "", "==", " = "])) + value)
    return Changed(name, TEXTS[name].encode(), tuple(overrides))


@pytest.fixture(scope="module")
def workplace(results: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all sweep files and the data set that one of them names."""
    folder = tmp_path_factory.mktemp("sweeps")
    shutil.copytree(SWEEPS, folder / "sweeps")
    shutil.copytree(results / "states", folder / "results" / "states" / "cartpole")
    assert len(load_states(folder / "results" / "states" / "cartpole")) == 3
    return folder


@pytest.mark.parametrize(
    ("kind", "strategy", "cases", "short"),
    [
        ("sweep files: text", changed_texts(), 20, True),
        ("sweep files: keys and values", changed_keys(), 30, True),
        ("sweep files: --set", overridden(), 20, True),
        pytest.param("sweep files: text", changed_texts(), 1_540, False, marks=pytest.mark.fuzz),
        pytest.param("sweep files: keys and values", changed_keys(), 1_600, False, marks=pytest.mark.fuzz),
        pytest.param("sweep files: --set", overridden(), 620, False, marks=pytest.mark.fuzz),
    ],
)
def test_changed_sweep_files_are_planned_or_refused(
    fuzzed: Any, workplace: Path, monkeypatch: pytest.MonkeyPatch, kind: str, strategy: Any, cases: int, short: bool
) -> None:
    monkeypatch.chdir(workplace)

    def plan(changed: Changed) -> None:
        file = workplace / "sweeps" / changed.name
        file.write_bytes(changed.content)
        try:
            overrides = [part for each in changed.overrides for part in ("--set", each)]
            vlm_rm("sweep", str(file), "--dry-run", *overrides)
        finally:
            shutil.copy(SWEEPS / changed.name, file)

    vlm_rm("sweep", str(workplace / "sweeps" / "quickstart.yaml"), "--dry-run")  # so that no case has to import what it needs
    fuzzed(kind, cases, strategy, plan, short)
