"""Check that the humanoid's success tests accept their own reference poses and no others."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from vlm_rm_sweeps.files import new_output
from vlm_rm_sweeps.tasks.humanoid.poses import POSES, perturbed
from vlm_rm_sweeps.tasks.humanoid.scene import humanoid_model
from vlm_rm_sweeps.tasks.humanoid.success import FULFILLING_POSES, SUCCESS_TESTS
from vlm_rm_sweeps.tasks.mujoco_import import mujoco


def success_by_pose(samples: int, degrees: float, seed: int) -> pd.DataFrame:
    """Measure how often each task's success test accepts noisy reference poses.

    Besides noise on the joints and on the torso's pitch, each sample has a random yaw and a position within 0.5 m of the centre
    along each axis.

    Args:
        samples: Noisy states of each pose.
        degrees: Standard deviation of the normal noise.
        seed: The same seed gives the same table.

    Returns:
        Share of accepted states, 0 to 1; a row for each pose, a column for each task.
    """
    model = humanoid_model("original")
    data = mujoco.MjData(model)
    rng = np.random.default_rng(seed)
    accepted = np.zeros((len(POSES), len(SUCCESS_TESTS)))
    for counts, pose in zip(accepted, POSES.values(), strict=True):
        for _ in range(samples):
            x, y = rng.uniform(-0.5, 0.5, 2)
            data.qpos[:] = perturbed(pose, rng, degrees).qpos(rng.uniform(0, 360), (x, y))
            mujoco.mj_forward(model, data)
            counts += [is_success(data) for is_success in SUCCESS_TESTS.values()]
    return pd.DataFrame(accepted / samples, index=pd.Index(POSES, name="pose"), columns=list(SUCCESS_TESTS))


def expected_success() -> pd.DataFrame:
    """List which pose fulfils which task, as a table of booleans in the shape of `success_by_pose`."""
    return pd.DataFrame(
        {task: [pose in poses for pose in POSES] for task, poses in FULFILLING_POSES.items()}, index=list(POSES)
    )


def write_success_by_pose(shares: pd.DataFrame, out: Path) -> tuple[Path, Path]:
    """Write a table of `success_by_pose` as `poses.csv` and `poses.png`, which frames the cells where success is expected.

    Args:
        shares: As `success_by_pose` returns it.
        out: Folder; made if it does not exist.

    Returns:
        Paths of the table and of the picture.
    """
    csv, picture = out / "poses.csv", out / "poses.png"
    with new_output(csv) as unfinished:
        shares.to_csv(unfinished, float_format="%.3f")
    figure = Figure(figsize=(8, 8), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(
        range(shares.shape[1]), [task.removeprefix("humanoid-") for task in shares.columns], rotation=30, ha="right"
    )
    axes.set_yticks(range(shares.shape[0]), shares.index)
    axes.set_xlabel("success test of the task")
    axes.set_title("Share of perturbed reference poses that count as success\n(framed: should be 1, all others 0)")
    expected = expected_success().to_numpy()
    for (row, column), share in np.ndenumerate(shares.to_numpy()):
        axes.text(column, row, f"{share:.2f}", ha="center", va="center", color="white" if share > 0.5 else "0.4")
        if expected[row, column]:
            axes.add_patch(Rectangle((column - 0.48, row - 0.48), 0.96, 0.96, fill=False, edgecolor="tab:orange", linewidth=2))
    with new_output(picture) as unfinished:
        figure.savefig(unfinished, dpi=120)
    return csv, picture
