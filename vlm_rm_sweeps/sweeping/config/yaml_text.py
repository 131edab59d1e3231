"""YAML as this package reads and writes it: what a value looks like is what it means.

PyYAML follows YAML 1.1, in which `0600` is 384, `yes` is true, `1:30` is 90 and `1e-3` is a word. Here a value that the two
versions of YAML read differently is refused, except `1e-3`, which is a number. Aliases are limited by what they stand for, and
tags, which choose a type by name, are refused. So are characters that only YAML 1.1 takes for line breaks, of which a comment or a
sentence ends where nobody sees it.
"""

import math
import re
from collections import Counter
from typing import Any

import yaml

from vlm_rm_sweeps.errors import UserError

_MOST_VALUES = 30_000
"""PyYAML takes about a second for them."""
_MOST_DEPTH = 50
_MOST_DIGITS = 40
_LARGEST = 10**18
_EXPONENT = re.compile(r"[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)[eE][-+]?[0-9]+$")
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9_]*|0x[0-9a-fA-F_]+)")
_BOOLEANS = {"true": True, "false": False}
_FLOAT = "tag:yaml.org,2002:float"
_OLD_LINE_BREAK = re.compile("[\\x85\\u2028\\u2029]")
"""Line breaks of YAML 1.1, ordinary characters of YAML 1.2."""


class _RefusedError(Exception):
    """The document is YAML, but has something that no sweep file should have."""


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, without what surprises."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = self._composed = 0

    def get_single_node(self) -> Any:
        node = super().get_single_node()
        if node is not None:
            _refuse_bomb(node)
        return node

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if getattr(event, "tag", None) is not None:
            raise _refused(event, f"the tag {_shortened(event.tag)}: expected a value without a tag")
        self._composed += 1
        if self._composed > _MOST_VALUES:
            raise _refused(event, f"more than {_MOST_VALUES:,} values")
        if self._depth >= _MOST_DEPTH:
            raise _refused(event, f"more than {_MOST_DEPTH} levels of lists and mappings")
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        for key, times in Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)).items():
            if times > 1:
                raise _refused(node, f"key {key!r} stands there {times} times: expected each key once")
        return super().construct_mapping(node, deep)

    def construct_text(self, node: yaml.ScalarNode) -> str:
        text: str = super().construct_yaml_str(node)
        try:
            # As JSON writes an emoji: as two halves.
            return text.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError as error:
            raise _refused(node, f"{_shortened(ascii(text))} has half of a character: expected whole ones") from error

    def construct_boolean(self, node: yaml.ScalarNode) -> bool:
        word = node.value.lower()
        if word not in _BOOLEANS:
            meant = str(yaml.SafeLoader.bool_values[word]).lower()
            raise _ambiguous(node, meant, f"{meant} for a choice", f"{node.value!r} for the word")
        return _BOOLEANS[word]

    def construct_integer(self, node: yaml.ScalarNode) -> int:
        _refuse_long(node)
        number = int(super().construct_yaml_int(node))
        if _INTEGER.fullmatch(node.value) is None:
            decimal = node.value.replace("_", "").lstrip("+-0")
            as_number = [f"{decimal} for the number"] if decimal.isdecimal() else []
            raise _ambiguous(node, str(number), *as_number, f"{node.value!r} for the text")
        if abs(number) > _LARGEST:
            raise _refused(node, f"{node.value} is too large: expected at most 10^18 in size")
        return number

    def construct_real(self, node: yaml.ScalarNode) -> float:
        _refuse_long(node)
        number = float(super().construct_yaml_float(node))
        if ":" in node.value:
            raise _ambiguous(node, str(number), f"{node.value!r} for the text")
        if math.isinf(number) and "inf" not in node.value.lower():
            raise _refused(node, f"{node.value} is too large for a number")
        return number

    def construct_date(self, node: yaml.ScalarNode) -> Any:
        raise _ambiguous(node, "a date", f"{node.value!r} for the text")


class _Dumper(yaml.SafeDumper):
    """PyYAML's safe dumper, which quotes a text that `_Loader` would read as a number, and escapes what it would refuse."""

    def represent_text(self, text: str) -> yaml.ScalarNode:
        return self.represent_scalar("tag:yaml.org,2002:str", text, style='"' if _OLD_LINE_BREAK.search(text) else None)


for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver(_FLOAT, _EXPONENT, list("-+.0123456789"))
for _kind, _construct in (
    ("str", _Loader.construct_text),
    ("value", _Loader.construct_text),  # a lone `=`
    ("merge", _Loader.construct_text),  # `<<` that is no key
    ("bool", _Loader.construct_boolean),
    ("int", _Loader.construct_integer),
    ("float", _Loader.construct_real),
    ("timestamp", _Loader.construct_date),
):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _construct)
_Dumper.add_representer(str, _Dumper.represent_text)


def parse_yaml(text: str) -> Any:
    """Parse one YAML document.

    Args:
        text: The document.

    Returns:
        Mappings, lists, texts, numbers, booleans and None.

    Raises:
        UserError: It is not YAML, has a duplicate key, a tag, or a value or character that versions of YAML read differently, or
            is larger or deeper than any sweep file. The message has line and column where they are known.
    """
    old_break = _OLD_LINE_BREAK.search(text)
    if old_break is not None:
        line = text.count("\n", 0, old_break.start()) + 1
        raise UserError(
            f"line {line} has the character U+{ord(old_break[0]):04X}, which is invisible, and a line break in YAML 1.1 only: delete "
            f"it, or write {ascii(old_break[0])[1:-1]} in double quotes"
        )
    try:
        return _unshared(yaml.load(text, _Loader))
    except _RefusedError as error:
        raise UserError(str(error)) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"is not YAML: {error}") from error


def _unshared(data: Any) -> Any:
    """Copy what aliases stand for, so that a change of one place does not change the others."""
    match data:
        case dict():
            return {key: _unshared(value) for key, value in data.items()}
        case list():
            return [_unshared(value) for value in data]
    return data


def to_yaml(data: dict[str, Any]) -> str:
    """Format data as readable YAML: keys in their given order, non-ASCII letters unescaped."""
    text: str = yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    return text


def _refused(part: Any, problem: str) -> _RefusedError:
    return _RefusedError(f"{problem} (line {part.start_mark.line + 1}, column {part.start_mark.column + 1})")


def _ambiguous(node: yaml.ScalarNode, meaning: str, *meant: str) -> _RefusedError:
    return _refused(
        node, f"{node.value} means {meaning} in YAML 1.1 and something else in YAML 1.2: write {', or '.join(meant)}"
    )


def _refuse_long(node: yaml.ScalarNode) -> None:
    """Refuse a number before it is converted, which takes minutes for a million digits."""
    if len(node.value) > _MOST_DIGITS:
        raise _refused(node, f"the number {_shortened(node.value)} is too long: expected at most {_MOST_DIGITS} characters")


def _shortened(text: str) -> str:
    return text if len(text) <= _MOST_DIGITS else f"{text[:_MOST_DIGITS]}..."


def _refuse_bomb(root: yaml.Node) -> None:
    """Refuse aliases that contain themselves, or stand for more values or levels than a sweep file has."""
    measured: dict[int, tuple[int, int]] = {}
    inside: set[int] = set()

    def measure(node: yaml.Node) -> tuple[int, int]:
        """Return the number of values and of levels."""
        if id(node) in inside:
            raise _refused(node, "an alias contains itself")
        if id(node) not in measured:
            inside.add(id(node))
            parts = node.value if isinstance(node, yaml.CollectionNode) else []
            sizes = [measure(each) for part in parts for each in (part if isinstance(part, tuple) else (part,))]
            inside.discard(id(node))
            measured[id(node)] = 1 + sum(values for values, _ in sizes), 1 + max((levels for _, levels in sizes), default=0)
            if measured[id(node)][0] > _MOST_VALUES or measured[id(node)][1] > _MOST_DEPTH:
                raise _refused(node, f"with its aliases more than {_MOST_VALUES:,} values or {_MOST_DEPTH} levels")
        return measured[id(node)]

    measure(root)
