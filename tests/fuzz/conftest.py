"""The two forms of the fuzzer: some cases, always the same, with the fast tests; `make test-fuzz` tries 10 000, and writes a table.

`FUZZ_CASES` asks for more or fewer, `--hypothesis-seed` for the same ones again, and `FUZZ_TABLE` names the file of the table.
"""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from damaged_files import write_results
from fuzzing import LONGEST_S, Tally, fuzz, table_of

from vlm_rm_sweeps.training.checkpoints import Checkpoint

Fuzz = Callable[..., None]
_ALL_CASES = 10_000


@pytest.fixture(scope="session")
def tallies() -> Iterator[list[Tally]]:
    """What the long form has tried so far; its table is written when all is done."""
    tallies: list[Tally] = []
    started = time.monotonic()
    yield tallies
    if tallies:
        table = f"{table_of(tallies)}in {(time.monotonic() - started) / 60:.1f} min\n"
        print(f"\n{table}")
        if file := os.environ.get("FUZZ_TABLE"):
            Path(file).parent.mkdir(parents=True, exist_ok=True)
            Path(file).write_text(table)


@pytest.fixture
def fuzzed(tallies: list[Tally]) -> Fuzz:
    """Tries cases and fails with all faults that they found. `cases` is a share of 10 000 in the long form."""

    def run(kind: str, cases: int, strategy: Any, attempt: Callable[[Any], object], short: bool) -> None:
        if short:
            fuzz(kind, cases, strategy, attempt, None).check()
            return
        share = int(os.environ.get("FUZZ_CASES") or _ALL_CASES) / _ALL_CASES
        tally = fuzz(kind, round(cases * share), strategy, attempt, LONGEST_S)
        tallies.append(tally)
        tally.check()

    return run


@pytest.fixture(scope="session")
def results(saved_policy: Callable[..., Checkpoint], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a whole file of each stored format. Do not change it."""
    root = tmp_path_factory.mktemp("results")
    write_results(root, saved_policy)
    return root
