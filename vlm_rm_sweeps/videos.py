"""Writes frames as pictures and videos with imageio, and describes the episode that a video shows."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np

from vlm_rm_sweeps.errors import UserError, reason_of
from vlm_rm_sweeps.files import file_inside
from vlm_rm_sweeps.metrics import CLIP_RETURN, ENV_STEPS, GOAL_FRACTION, SUCCESS, TRUE_RETURN

VIDEO_SUFFIXES = (".mp4", ".gif")
PICTURE_SUFFIX = ".png"
VIDEO_FOLDER = "video"
"""The folder of a trial's videos, in the trial's folder."""
RECORDED_VIDEO = "episode.mp4"
"""The video of a trial's best policy, with its reward."""
PLAIN_VIDEO = "plain.mp4"
"""A trial's video for raters: it shows neither reward nor prompt."""
_EPISODE = "episode.json"
EPISODE_NUMBERS = (CLIP_RETURN, TRUE_RETURN, GOAL_FRACTION, SUCCESS)
"""Metrics in `episode.json` (null where unknown); it also holds the task, the seed and the training steps of the policy."""


def write_picture(frame: np.ndarray, path: Path) -> None:
    """Write a frame, uint8 (H, W, 3), as PNG."""
    iio.imwrite(path, frame, extension=PICTURE_SUFFIX)


def write_video(frames: Sequence[np.ndarray], path: Path, frames_per_second: int = 25) -> None:
    """Write frames as a video, in the format that the file's suffix names.

    Args:
        frames: uint8 (H, W, 3) each, all of one size.
        path: Ends in `.mp4` (H.264, plays in browsers) or `.gif` (repeats).
        frames_per_second: Playback speed.

    Raises:
        UserError: The suffix is neither of these.
    """
    stacked = np.stack(frames)
    if path.suffix == ".gif":
        iio.imwrite(path, stacked, plugin="pillow", duration=1000 / frames_per_second, loop=0)
    elif path.suffix == ".mp4":
        # yuv420p, which browsers play, halves the resolution of colour and needs even edges: the last row or column is
        # repeated.
        height, width = stacked.shape[1:3]
        even = np.pad(stacked, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        iio.imwrite(path, even, plugin="pyav", codec="libx264", fps=frames_per_second, out_pixel_format="yuv420p")
    else:
        raise UserError(
            f"{path}: the format {path.suffix!r} is not supported: choose a name that ends in {' or '.join(VIDEO_SUFFIXES)}"
        )


def write_episode(folder: Path, about: Mapping[str, Any]) -> None:
    """Write the description of the episode that the videos in a folder show.

    Args:
        folder: The folder of the videos.
        about: `task`, `env_steps`, `seed` and `EPISODE_NUMBERS`; JSON values.
    """
    (folder / _EPISODE).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def read_episode(video: Path) -> dict[str, Any]:
    """Read the description that `write_episode` left beside a video.

    Args:
        video: Path of a video, which need not exist.

    Returns:
        `task`, `env_steps`, `seed` and `EPISODE_NUMBERS`; empty if there is no description.

    Raises:
        UserError: The description is damaged, or a link that leads out of the folder.
    """
    file = file_inside(video.parent, _EPISODE)
    if not file.is_file():
        return {}
    try:
        about: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return {name: about[name] for name in ("task", ENV_STEPS, "seed", *EPISODE_NUMBERS)}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{file} is damaged ({reason_of(error)}): remove it to continue without a description of the video"
        ) from error
