"""The table of success by pose: its shape, its seed, and that noise changes it."""

from pathlib import Path

import pandas as pd
import pytest

from vlm_rm_sweeps.evaluation.poses import expected_success, success_by_pose, write_success_by_pose
from vlm_rm_sweeps.tasks.humanoid.poses import POSES
from vlm_rm_sweeps.tasks.humanoid.success import SUCCESS_TESTS


def test_rows_are_poses_and_columns_tasks_and_the_seed_decides() -> None:
    shares = success_by_pose(samples=4, degrees=12.0, seed=3)
    assert list(shares.index) == list(expected_success().index) == list(POSES)
    assert list(shares.columns) == list(expected_success().columns) == list(SUCCESS_TESTS)
    pd.testing.assert_frame_equal(shares, success_by_pose(samples=4, degrees=12.0, seed=3))
    assert (shares != success_by_pose(samples=4, degrees=12.0, seed=4)).any(axis=None)
    # Large noise leaves the goals: a matrix that no noise changes would measure nothing.
    assert (shares.to_numpy()[expected_success().to_numpy()] < 1).any()


def test_what_is_written_can_be_read_again(tmp_path: Path) -> None:
    shares = success_by_pose(samples=1, degrees=0.0, seed=0)
    csv, picture = write_success_by_pose(shares, tmp_path / "new" / "folder")
    read = pd.read_csv(csv, index_col="pose")
    assert read.loc["lotus", "humanoid-lotus"] == pytest.approx(1.0)
    pd.testing.assert_frame_equal(read, shares)
    assert picture.read_bytes().startswith(b"\x89PNG")
