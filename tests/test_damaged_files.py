"""Whatever has happened to a stored file, its reader returns what the file holds or raises one `UserError` that names it."""

import json
import os
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from damaged_files import KINDS, ODD_VALUES, OF_REPORTS, READERS, copy_of, damage, places_in, write_results
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.labelling.scales import YES_NO
from vlm_rm_sweeps.labelling.store import LabelStore
from vlm_rm_sweeps.sweeping.tracking.report import write_report
from vlm_rm_sweeps.sweeping.tracking.runs_file import read_runs_file
from vlm_rm_sweeps.training.checkpoints import Checkpoint, read_checkpoint

QUICK = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def intact(saved_policy: Callable[..., Checkpoint], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("intact")
    write_results(root, saved_policy)
    return root


def is_read_or_refused(reader: Callable[[Path], object], file: Path) -> None:
    with suppress(UserError):
        reader(file)


@pytest.mark.parametrize("name", [name for name in READERS if name not in OF_REPORTS])
@QUICK
@given(kind=st.sampled_from(KINDS), place=st.integers(0, 100_000))
@example(kind="not utf-8", place=65_531)  # SQLite's own message is not UTF-8
def test_a_damaged_file_is_read_or_refused(intact: Path, tmp_path: Path, name: str, kind: str, place: int) -> None:
    file = copy_of(intact, tmp_path) / name
    damage(file, kind, place)
    is_read_or_refused(READERS[name], file)


@pytest.mark.parametrize("name", OF_REPORTS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_report_is_written_or_refused_whatever_has_happened_to_its_files(
    intact: Path, tmp_path: Path, name: str, kind: str
) -> None:
    file = copy_of(intact, tmp_path) / name
    damage(file, kind, 60)
    is_read_or_refused(READERS[name], file)


@pytest.mark.parametrize("name", READERS)
def test_no_reader_waits_for_somebody_to_write_to_a_pipe(intact: Path, tmp_path: Path, name: str) -> None:
    file = copy_of(intact, tmp_path) / name
    damage(file, "pipe", 0)
    is_read_or_refused(READERS[name], file)


@pytest.mark.parametrize("name", [name for name in READERS if name.endswith(".json")])
@settings(QUICK, max_examples=80)
@given(data=st.data())
def test_a_wrong_value_is_read_or_refused(intact: Path, tmp_path: Path, name: str, data: st.DataObject) -> None:
    file = copy_of(intact, tmp_path) / name
    content = json.loads(file.read_text())
    *above, key = data.draw(st.sampled_from(places_in(content)))
    inner = content
    for each in above:
        inner = inner[each]
    if data.draw(st.booleans()):
        inner[key] = data.draw(st.sampled_from(ODD_VALUES))
    else:
        del inner[key]
    file.write_text(json.dumps(content))
    is_read_or_refused(READERS[name], file)


@pytest.mark.parametrize("column", ["trial_id", "alpha", "status", "true_return", "seed"])
@pytest.mark.parametrize("value", ["", "x", "1_0", "nan", "inf", "../..", '"', "1,2,3"])
def test_a_wrong_cell_is_read_or_refused(intact: Path, tmp_path: Path, column: str, value: str) -> None:
    file = copy_of(intact, tmp_path) / "sweep" / "trials.csv"
    header, row = file.read_text().splitlines()
    cells = row.split(",")
    cells[header.split(",").index(column)] = value
    file.write_text(f"{header}\n{','.join(cells)}\n")
    is_read_or_refused(lambda file: write_report(file.parent), file)


@pytest.mark.parametrize("value", ["'x'", "2.0", "x'ff'", "1e999"])
def test_a_wrong_label_is_refused_with_its_value(intact: Path, tmp_path: Path, value: str) -> None:
    file = copy_of(intact, tmp_path) / "labels.sqlite"
    with sqlite3.connect(file) as connection:
        connection.execute(f"UPDATE labels SET value = {value}")
    connection.close()
    with pytest.raises(UserError, match=r"labels\.sqlite is damaged: label.*value = "):
        LabelStore(file, YES_NO).table()


def test_the_message_names_file_key_and_value(intact: Path, tmp_path: Path) -> None:
    file = copy_of(intact, tmp_path) / "checkpoint" / "checkpoint.json"
    content = json.loads(file.read_text())
    content["reward"]["alpha"] = float("nan")
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"checkpoint\.json is damaged: reward\.alpha = nan: input should be"):
        read_checkpoint(file.parent)


@pytest.mark.parametrize(
    "damaged", ["figures/overoptimisation_by_model.csv", "figures/curve.png", "trials/*/video/episode.json"]
)
def test_a_report_leaves_out_what_is_damaged_and_says_so(intact: Path, tmp_path: Path, damaged: str) -> None:
    folder = copy_of(intact, tmp_path) / "sweep"
    (folder / "figures" / "curve.png").write_bytes(b"a picture")
    assert "Left out" not in write_report(folder).read_text(encoding="utf-8")
    (file,) = folder.glob(damaged)
    file.unlink()
    if file.suffix == ".png":
        file.mkdir()
    else:
        file.write_bytes(b"\xff\n{")
    page = write_report(folder).read_text(encoding="utf-8")
    assert "Left out" in page
    assert str(file) in page


def test_a_file_without_permission_is_refused(intact: Path, tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read every file")
    file = copy_of(intact, tmp_path) / "sweep" / "mlflow.json"
    file.chmod(0)
    with pytest.raises(UserError, match="cannot be read"):
        read_runs_file(file)
