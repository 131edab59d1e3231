"""Labelling videos of trials: they are found in a sweep's folder, shown blind, and compared with the success test."""

import shutil
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.evaluation.label_jobs import describe_labels, label_job, stored_labels
from vlm_rm_sweeps.labelling.scales import SHARE
from vlm_rm_sweeps.labelling.store import LabelStore
from vlm_rm_sweeps.metrics import CLIP_RETURN, GOAL_FRACTION, SUCCESS, TRUE_RETURN
from vlm_rm_sweeps.tasks.registry import find_task
from vlm_rm_sweeps.videos import EpisodeContent, write_episode, write_video

TASK = find_task("cartpole-upright")


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("video") / "episode.mp4"
    write_video([np.zeros((16, 16, 3), np.uint8)] * 2, file)
    return file


@pytest.fixture
def sweep(tmp_path: Path, video: Path) -> Path:
    """The videos that a sweep leaves for three trials."""
    for name, in_goal in (("a", 1.0), ("b", 0.4), ("c", None)):
        folder = tmp_path / "sweep" / "trials" / name / "video"
        folder.mkdir(parents=True)
        for file in ("episode.mp4", "plain.mp4"):
            shutil.copyfile(video, folder / file)
        numbers: dict[str, Any] = {CLIP_RETURN: 1.0, TRUE_RETURN: 1.0, GOAL_FRACTION: in_goal, SUCCESS: None}
        write_episode(folder, cast(EpisodeContent, {"task": TASK.name, "env_steps": 100, "seed": 1} | numbers))
    return tmp_path / "sweep"


def test_a_sweeps_trials_are_judged_without_their_rewards(sweep: Path) -> None:
    job = label_job(sweep, None, None)
    assert [item.file.relative_to(sweep).as_posix() for item in job.items] == [
        f"trials/{name}/video/plain.mp4" for name in "abc"
    ]
    assert len({item.id for item in job.items}) == 3  # though all look the same
    assert (job.criterion, job.scale) == (TASK.success_criterion, SHARE)


def test_labels_are_compared_with_the_success_test(sweep: Path) -> None:
    items = label_job(sweep, None, None).items
    store = LabelStore(sweep / "labels.sqlite", SHARE)
    for item, value in zip(items, (75.0, 50.0, 0.0), strict=True):
        store.add("anna", item.id, value)
    store.add("bert", "f" * 16, 100.0)
    given = stored_labels(sweep)
    assert given.table["video"].tolist() == [f"trials/{name}/video/plain.mp4" for name in "abc"]
    assert given.table["goal_fraction"].tolist()[:2] == [1.0, 0.4]
    # Success from half of the time on: the first is by both, the second by the rater alone; shares are 25 and 10 points apart.
    assert describe_labels(given).splitlines() == [
        "anna: 1 0 %, 1 50 %, 1 75 %",
        "  compared with the success test on 2 videos: 50 % equal on success, shares differ by 18 percentage points on average",
        "left out: 1 labels of videos that are not in the folder",
    ]


def test_a_damaged_description_of_an_episode_is_refused(sweep: Path) -> None:
    (sweep / "trials" / "a" / "video" / "episode.json").write_text("{")
    with pytest.raises(UserError, match=r"episode\.json is damaged"):
        label_job(sweep, None, None)
