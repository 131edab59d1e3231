"""One file of each stored format, its reader, and ways in which files are damaged."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from small_heads import a_head

from vlm_rm_sweeps.evaluation.rollouts import load_policy, rendering_of, spec_of, task_of
from vlm_rm_sweeps.evaluation.states import Provenance, State, load_states, write_states
from vlm_rm_sweeps.labelling.scales import YES_NO
from vlm_rm_sweeps.labelling.store import LabelStore
from vlm_rm_sweeps.metrics import TrialStatus
from vlm_rm_sweeps.rewards.heads import read_head, write_head
from vlm_rm_sweeps.rewards.open_clip_models import EMBEDDED_FOLDER, embedded_manifest
from vlm_rm_sweeps.sweeping.config.plan import plan_of
from vlm_rm_sweeps.sweeping.execution.reward_metrics import known_measures, metrics_of
from vlm_rm_sweeps.sweeping.tracking.folder import SweepFolder
from vlm_rm_sweeps.sweeping.tracking.journal import Journal, ResultLogged, SweepStarted
from vlm_rm_sweeps.sweeping.tracking.report import write_report
from vlm_rm_sweeps.sweeping.tracking.results import TrialOutcome, results_table
from vlm_rm_sweeps.sweeping.tracking.runs_file import RunsFile, read_runs_file
from vlm_rm_sweeps.tasks.registry import find_task
from vlm_rm_sweeps.training.checkpoints import Checkpoint, TrialFolder, read_checkpoint
from vlm_rm_sweeps.videos import read_episode, write_episode, write_video

PLAN = plan_of({"name": "d", "task": "cartpole-upright", "models": ["embedded/tiny"], "alphas": [0.5], "steps": 100})
ODD_VALUES: list[Any] = [
    None,
    True,
    -1,
    0,
    1e400,
    float("nan"),
    2.5,
    "",
    "x",
    "\0",
    "../..",
    [],
    ["x"],
    {},
    {"x": None},
    10**30,
]
KINDS = ("cut", "empty", "not utf-8", "zeros", "text", "loop", "gone", "folder", "pipe")
"""Ways to damage a file of any format, see `damage`."""


def write_results(root: Path, saved_policy: Callable[..., Checkpoint]) -> None:
    """Write one whole file of each stored format into a folder."""
    folder = SweepFolder(root / "sweep")
    folder.create(PLAN.sweep)
    trial = PLAN.trials[-1]
    outcome = TrialOutcome(trial, TrialStatus.FINISHED, "", {"evaluation_true_return": 9.0, "evaluation_success": 0.5})
    results_table([outcome]).to_csv(folder.table, index=False)
    saved_policy(folder.trial(trial.trial_id)).folder.rename(root / "checkpoint")
    (root / "checkpoint" / "failure.json").write_text('{"env_steps": 5, "error": "an error"}\n')
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
    write_head(root / "head.safetensors", a_head(3))
    (root / "family").mkdir()
    shutil.copy(EMBEDDED_FOLDER / "manifest.json", root / "family")


def of_a_checkpoint(file: Path) -> None:
    checkpoint = read_checkpoint(file.parent)
    task = task_of(checkpoint)
    load_policy(checkpoint, task)
    rendering_of(checkpoint, task)
    spec_of(checkpoint)
    shutil.copytree(file.parent, file.parent / "t" / "step-000000500", ignore=shutil.ignore_patterns("t"))
    TrialFolder(file.parent / "t").last()


def of_a_family(file: Path) -> None:
    for size, entry in embedded_manifest(file.parent).items():
        f"{size} {entry['parameters']:,} {entry['sha256'][:9]} {entry['seed']:d}"  # as the model card does


def of_a_failure(file: Path) -> None:
    TrialFolder(file.parent).fails_again(5, "an error")


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
    "states/images/000000.png": lambda file: load_states(file.parent.parent).frame(0),
    "family/manifest.json": of_a_family,
    "checkpoint/failure.json": of_a_failure,
    "head.safetensors": read_head,
    "labels.sqlite": lambda file: LabelStore(file, YES_NO).table(),
}


OF_REPORTS = ("sweep/trials.csv", "sweep/sweep.yaml", "sweep/figures/overoptimisation_by_model.csv")
"""Those whose reader writes a report, which takes a second."""


def copy_of(intact: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(intact, copy)
    return copy


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
    elif kind == "pipe":
        file.unlink()
        os.mkfifo(file)
    elif file.is_file():
        file.write_bytes(damaged_bytes(file.read_bytes(), kind, place))


def places_in(content: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """List the paths of all keys in a JSON value."""
    pairs = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return [path for key, value in pairs for path in [(*above, key), *places_in(value, (*above, key))]]
