"""The label file: each label is on disk at once, is one for each rater and item under concurrent writes, and is never lost."""

import re
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.labelling import store as store_module
from vlm_rm_sweeps.labelling.scales import SHARE, YES_NO
from vlm_rm_sweeps.labelling.store import ConflictingLabelError, LabelStore


@pytest.fixture
def store(tmp_path: Path) -> LabelStore:
    return LabelStore(tmp_path / "labels.sqlite", YES_NO)


def test_labels_are_read_by_another_store_at_once(store: LabelStore) -> None:
    store.add("anna", "a", 1.0)
    store.add("anna", "b", None)
    store.add("bert", "a", 0.0)
    other = LabelStore(store.file, YES_NO)
    assert [(label.item, label.value) for label in other.standing("anna")] == [("a", 1.0), ("b", None)]
    table = other.table()
    assert table["rater"].tolist() == ["anna", "anna", "bert"]
    np.testing.assert_array_equal(table["value"], [1.0, np.nan, 0.0])


def test_the_same_answer_twice_is_one_label(store: LabelStore) -> None:
    first = store.add("anna", "a", 1.0)
    assert store.add("anna", "a", 1.0) == first
    skipped = store.add("anna", "b", None)
    assert store.add("anna", "b", None) == skipped
    assert len(store.table()) == 2


@pytest.mark.parametrize(("before", "after"), [(1.0, 0.0), (None, 1.0), (1.0, None)])
def test_another_answer_is_refused_and_changes_nothing(store: LabelStore, before: float | None, after: float | None) -> None:
    standing = store.add("anna", "a", before)
    with pytest.raises(ConflictingLabelError) as caught:
        store.add("anna", "a", after)
    assert caught.value.standing == standing
    assert store.standing("anna") == [standing]


def test_undo_takes_back_exactly_one_label_of_that_rater_and_keeps_its_trace(store: LabelStore) -> None:
    first, second = store.add("anna", "a", 1.0), store.add("anna", "b", 1.0)
    store.undo("bert", second.number)
    assert len(store.standing("anna")) == 2
    for _ in range(2):
        store.undo("anna", second.number)
        assert store.standing("anna") == [first]
    assert store.add("anna", "b", 0.0).value == 0.0
    with sqlite3.connect(store.file) as connection:
        assert connection.execute("SELECT value FROM labels WHERE undone_at IS NOT NULL").fetchall() == [(1.0,)]


def test_skipped_items_can_be_asked_again(store: LabelStore) -> None:
    store.add("anna", "a", None)
    store.add("anna", "b", 1.0)
    store.add("bert", "a", None)
    store.undo_skips("anna")
    assert [label.item for label in store.standing("anna")] == ["b"]
    assert len(store.standing("bert")) == 1


def test_many_writers_at_once_lose_and_double_nothing(store: LabelStore) -> None:
    """Two tabs of each of two raters, as threads with stores of their own, answer the same 20 items."""

    def tab(rater: str) -> None:
        own = LabelStore(store.file, YES_NO)
        for index in range(20):
            own.add(rater, f"item{index}", float(index % 2))

    with ThreadPoolExecutor(4) as tabs:
        list(tabs.map(tab, ["anna", "anna", "bert", "bert"]))
    counts = store.table().groupby("rater")["item"].agg(["size", "nunique"])
    assert counts.to_numpy().tolist() == [[20, 20], [20, 20]]


def test_a_killed_process_loses_no_label_that_was_acknowledged(store: LabelStore) -> None:
    script = f"""
import os, sys
from pathlib import Path
from vlm_rm_sweeps.labelling.scales import YES_NO
from vlm_rm_sweeps.labelling.store import LabelStore
store = LabelStore(Path({str(store.file)!r}), YES_NO)
for index in range(30):
    print(store.add("anna", str(index), 1.0).number, flush=True)
os.kill(os.getpid(), 9)
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert ended.returncode == -9
    acknowledged = [int(line) for line in ended.stdout.split()]
    assert [label.number for label in store.standing("anna")] == acknowledged == list(range(1, 31))


def test_scales_are_not_mixed(store: LabelStore) -> None:
    with pytest.raises(UserError, match="of the scale 'yes-no', expected 'share'"):
        LabelStore(store.file, SHARE)


def test_labels_can_be_read_while_another_process_writes(store: LabelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading needs no write access, as in a folder that only others may write."""
    store.add("anna", "a", 1.0)
    monkeypatch.setattr("vlm_rm_sweeps.labelling.store._WAIT_SECONDS", 0.1)
    with closing(sqlite3.connect(store.file)) as writing:
        writing.execute("BEGIN IMMEDIATE")
        assert LabelStore(store.file, YES_NO).table()["item"].tolist() == ["a"]


def test_a_file_that_is_no_label_file_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "labels.sqlite"
    file.write_text("my notes, " * 100)
    with pytest.raises(UserError, match="cannot be used as a label file"):
        LabelStore(file, YES_NO)
    assert file.read_text().startswith("my notes")


ENDLESS = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT n AS scale FROM c"


@pytest.mark.parametrize(
    ("statements", "message"),
    [
        (["DROP TABLE about", f"CREATE VIEW about AS {ENDLESS}"], "it has a view, 'about'"),
        (["DROP TABLE labels", f"CREATE VIEW labels AS {ENDLESS}"], "it has a view, 'labels'"),
        (["CREATE TRIGGER t AFTER INSERT ON labels BEGIN DELETE FROM labels; END"], "it has a trigger, 't'"),
        (["UPDATE labels SET item = CAST(x'eda080ff' AS TEXT)"], "cannot be used as a label file (Could not decode to UTF-8"),
    ],
)
def test_a_file_from_somebody_else_computes_nothing(store: LabelStore, statements: list[str], message: str) -> None:
    store.add("anna", "a", 1.0)
    with closing(sqlite3.connect(store.file)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()
    with pytest.raises(UserError, match=re.escape(message)):
        LabelStore(store.file, YES_NO).table()


@pytest.mark.parametrize("name", ["", "a/b", "../anna", "anna bert", "a" * 41, ".anna", "änna"])
def test_names_of_raters_are_plain(store: LabelStore, name: str) -> None:
    with pytest.raises(UserError, match="rater"):
        store.add(name, "a", 1.0)


def test_another_program_that_writes_is_named_so(store: LabelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "_WAIT_SECONDS", 0.1)
    with closing(sqlite3.connect(store.file)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(UserError, match="is being written by another program: finish or close that, and try again"):
            store.check_writable()
