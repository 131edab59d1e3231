"""Whatever has happened to a stored file, its reader returns what the file holds or raises one `UserError` that names it."""

import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.evaluation.rollouts import load_policy, rendering_of, spec_of, task_of
from vlm_rm_sweeps.evaluation.states import Provenance, State, load_states, write_states
from vlm_rm_sweeps.labelling.scales import YES_NO
from vlm_rm_sweeps.labelling.store import LabelStore
from vlm_rm_sweeps.metrics import TrialStatus
from vlm_rm_sweeps.sweeping.config.plan import plan_of
from vlm_rm_sweeps.sweeping.execution.reward_metrics import known_measures, metrics_of
from vlm_rm_sweeps.sweeping.tracking.folder import SweepFolder
from vlm_rm_sweeps.sweeping.tracking.journal import Journal, ResultLogged, SweepStarted
from vlm_rm_sweeps.sweeping.tracking.mlflow_store import RunsFile, read_runs_file
from vlm_rm_sweeps.sweeping.tracking.report import write_report
from vlm_rm_sweeps.sweeping.tracking.results import TrialOutcome, results_table
from vlm_rm_sweeps.tasks.registry import find_task
from vlm_rm_sweeps.training.checkpoints import Checkpoint, TrialFolder, read_checkpoint
from vlm_rm_sweeps.videos import read_episode, write_episode, write_video

PLAN = plan_of({"name": "d", "task": "cartpole-upright", "models": ["embedded/tiny"], "alphas": [0.5], "steps": 100})
ODD = st.sampled_from([None, True, -1, 0, 1e400, float("nan"), 2.5, "", "x", "\0", "../..", [], ["x"], {}, {"x": None}, 10**30])
QUICK = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def intact(saved_policy: Callable[..., Checkpoint], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with one whole file of each format."""
    root = tmp_path_factory.mktemp("intact")
    folder = SweepFolder(root / "sweep")
    folder.create(PLAN.sweep)
    trial = PLAN.trials[-1]
    outcome = TrialOutcome(trial, TrialStatus.FINISHED, "", {"evaluation_true_return": 9.0, "evaluation_success": 0.5})
    results_table([outcome]).to_csv(folder.table, index=False)
    saved_policy(folder.trial(trial.trial_id)).folder.rename(root / "checkpoint")
    video = folder.trial(trial.trial_id) / "video"
    video.mkdir()
    write_video([np.zeros((16, 16, 3), np.uint8)] * 2, video / "episode.mp4")
    known: Any = {"clip_return": 1.0, "true_return": 2.0, "goal_fraction": 0.5, "success": True}
    write_episode(video, {"task": "cartpole-upright", "env_steps": 1, "seed": 0} | known)
    (folder.path / "figures").mkdir()
    (folder.path / "figures" / "overoptimisation_by_model.csv").write_text("model,alarms\nembedded/tiny,2\n")
    folder.epic.write_text(
        "model,alpha,prompt,textures,camera,truth,epic_distance,epic_low,epic_high\nembedded/tiny,0.5,task,a,b,success,0.1,0.0,0.2\n"
    )
    RunsFile(tracking_uri="sqlite:////gone.db", experiment_id="1", run_id="r").write(folder.mlflow)
    journal = Journal(folder.journal)
    journal.append(SweepStarted(id="s"))
    journal.append(ResultLogged(trial=trial.trial_id, step=3, metrics={"true_return": 1.0}))
    states = [State(np.full((8, 8, 3), shade, np.uint8), Provenance("uniform"), {"theta": shade / 9}) for shade in range(3)]
    write_states(root / "states", find_task("cartpole-upright"), states)
    LabelStore(root / "labels.sqlite", YES_NO).add("anna", "a", 1.0)
    return root


def of_a_checkpoint(file: Path) -> None:
    checkpoint = read_checkpoint(file.parent)
    task = task_of(checkpoint)
    load_policy(checkpoint, task)
    rendering_of(checkpoint, task)
    spec_of(checkpoint)
    shutil.copytree(file.parent, file.parent / "t" / "step-000000500", ignore=shutil.ignore_patterns("t"))
    TrialFolder(file.parent / "t").last()


def of_a_journal(file: Path) -> None:
    Journal(file).append(SweepStarted(id="next"))


def of_measures(file: Path) -> None:
    measures = known_measures(file)
    if measures is not None:
        metrics_of(measures, PLAN.trials[-1])


READERS: dict[str, Callable[[Path], object]] = {
    "checkpoint/checkpoint.json": of_a_checkpoint,
    "checkpoint/policy.safetensors": of_a_checkpoint,
    f"sweep/trials/{PLAN.trials[-1].trial_id}/video/episode.json": read_episode,
    "sweep/trials.csv": lambda file: write_report(file.parent),
    "sweep/sweep.yaml": lambda file: write_report(file.parent),
    "sweep/figures/overoptimisation_by_model.csv": lambda file: write_report(file.parent.parent),
    "sweep/mlflow.json": read_runs_file,
    "sweep/epic.csv": of_measures,
    "sweep/journal.jsonl": of_a_journal,
    "states/states.parquet": lambda file: load_states(file.parent).frame(0),
    "labels.sqlite": lambda file: LabelStore(file, YES_NO).table(),
}


def damaged_bytes(content: bytes, kind: str, place: int) -> bytes:
    place = place % max(1, len(content))
    match kind:
        case "cut":
            return content[:place]
        case "empty":
            return b""
        case "not utf-8":
            return content[:place] + b"\xff\xfe" + content[place + 1 :]
        case "zeros":
            return content[:place] + bytes(20) + content[place + 20 :]
    return content[:place] + b'",\n}' + content[place:]


def damage(file: Path, kind: str, place: int) -> None:
    if kind == "loop":
        file.unlink()
        file.symlink_to(file.name)
    elif kind == "gone":
        file.unlink()
    elif kind == "folder":
        file.unlink()
        file.mkdir()
    else:
        file.write_bytes(damaged_bytes(file.read_bytes(), kind, place))


def is_read_or_refused(reader: Callable[[Path], object], file: Path) -> None:
    with suppress(UserError):
        reader(file)


def copy_of(intact: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(intact, copy)
    return copy


@pytest.mark.parametrize("name", READERS)
@QUICK
@given(
    kind=st.sampled_from(["cut", "empty", "not utf-8", "zeros", "text", "loop", "gone", "folder"]),
    place=st.integers(0, 100_000),
)
def test_a_damaged_file_is_read_or_refused(intact: Path, tmp_path: Path, name: str, kind: str, place: int) -> None:
    file = copy_of(intact, tmp_path) / name
    damage(file, kind, place)
    is_read_or_refused(READERS[name], file)


def places_in(content: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """List the paths of all keys in a JSON value."""
    pairs = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return [path for key, value in pairs for path in [(*above, key), *places_in(value, (*above, key))]]


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
        inner[key] = data.draw(ODD)
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
