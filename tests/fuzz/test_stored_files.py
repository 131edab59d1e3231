"""Stored files, damaged once or several times, are read or refused by their readers."""

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from damaged_files import KINDS, ODD_VALUES, READERS, copy_of, damage, places_in
from hypothesis import strategies as st


@dataclass(frozen=True)
class WrongValue:
    """Another value for a key of a JSON file, or for a cell of a CSV file."""

    place: int
    value: Any

    def apply(self, file: Path) -> None:
        if file.suffix in (".json", ".jsonl"):
            self._change_json(file)
        elif file.suffix == ".csv":
            self._change_csv(file)

    def _change_json(self, file: Path) -> None:
        lines = file.read_text().splitlines() if file.suffix == ".jsonl" else [file.read_text()]
        contents = [json.loads(line) for line in lines]
        places = places_in(contents)
        *above, key = places[self.place % len(places)]
        inner = contents
        for each in above:
            inner = inner[each]
        inner[key] = self.value
        file.write_text("\n".join(map(json.dumps, contents)) + "\n")

    def _change_csv(self, file: Path) -> None:
        rows = [line.split(",") for line in file.read_text().splitlines()]
        cells = [(row, column) for row, line in enumerate(rows) for column in range(len(line))]
        row, column = cells[self.place % len(cells)]
        rows[row][column] = str(self.value)
        file.write_text("\n".join(map(",".join, rows)) + "\n")


@dataclass(frozen=True)
class Damage:
    """Bytes that are cut, gone or others; or a file that is none."""

    kind: str
    place: int

    def apply(self, file: Path) -> None:
        damage(file, self.kind, self.place)


values = st.sampled_from(ODD_VALUES) | st.text(max_size=9) | st.integers() | st.floats()
wrong_values = st.builds(WrongValue, st.integers(0, 500), values)
damages = st.builds(Damage, st.sampled_from(KINDS), st.integers(0, 100_000))
damaged_files = st.tuples(
    st.sampled_from(sorted(READERS)), st.lists(wrong_values, max_size=3), st.lists(damages, max_size=2)
).filter(lambda case: bool(case[1] or case[2]))


@pytest.mark.parametrize(("cases", "short"), [(30, True), pytest.param(2_000, False, marks=pytest.mark.fuzz)])
def test_damaged_files_are_read_or_refused(fuzzed: Any, results: Path, tmp_path: Path, cases: int, short: bool) -> None:
    def read(case: tuple[str, list[WrongValue], list[Damage]]) -> None:
        name, wrong, damaged = case
        file = copy_of(results, tmp_path) / name
        changes: list[WrongValue | Damage] = [*wrong, *damaged]
        for each in changes:
            with suppress(OSError):  # what is gone or a folder cannot be damaged further
                each.apply(file)
        READERS[name](file)

    for name, reader in READERS.items():  # the first time, each imports what it needs
        reader(copy_of(results, tmp_path) / name)
    fuzzed("stored files", cases, damaged_files, read, short)
