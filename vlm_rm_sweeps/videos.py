"""Writes frames as pictures and videos with imageio, and describes the episode that a video shows."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import imageio.v3 as iio
import numpy as np
from pydantic import Field, TypeAdapter
from typing_extensions import TypedDict

from vlm_rm_sweeps.errors import DamagedFileError, UserError, reason_of
from vlm_rm_sweeps.files import file_inside, read_json, write_whole, written_whole
from vlm_rm_sweeps.metrics import CLIP_RETURN, GOAL_FRACTION, SUCCESS, TRUE_RETURN

VIDEO_SUFFIXES = (".mp4", ".gif")
PICTURE_SUFFIX = ".png"
VIDEO_FOLDER = "video"
"""The folder of a trial's videos, in the trial's folder."""
RECORDED_VIDEO = "episode.mp4"
"""The video of a trial's best policy, with its reward."""
PLAIN_VIDEO = "plain.mp4"
"""A trial's video for raters: it shows neither reward nor prompt."""
_EPISODE = "episode.json"
_GAP = 4
"""White pixels between the frames of a film strip."""
EPISODE_NUMBERS = (CLIP_RETURN, TRUE_RETURN, GOAL_FRACTION, SUCCESS)
"""Metrics in `episode.json` (null where unknown); it also holds the task, the seed and the training steps of the policy."""
_Number = Annotated[float, Field(allow_inf_nan=False)]
_Count = Annotated[int, Field(ge=0)]


class EpisodeContent(TypedDict):
    """Content of `episode.json`: the episode that a video shows. None: unknown, or does not apply.

    Args:
        task: Name of the task.
        env_steps: Environment steps that the policy was trained for.
        seed: Seed of the episode.
        clip_return: See `metrics`, as are the next three.
        true_return: The environment's own return.
        goal_fraction: Share of the steps in the goal, 0 to 1.
        success: Whether the episode is a success.
    """

    task: str
    env_steps: _Count
    seed: _Count
    clip_return: _Number | None
    true_return: _Number | None
    goal_fraction: Annotated[float, Field(ge=0, le=1)] | None
    success: bool | None


_CONTENT = TypeAdapter(EpisodeContent)


def write_picture(frame: np.ndarray, path: Path) -> None:
    """Write a frame, uint8 (H, W, 3), as PNG. The file is there as a whole or not at all."""
    with written_whole(path) as unfinished:
        unfinished.write_bytes(iio.imwrite("<bytes>", frame, extension=PICTURE_SUFFIX))


def write_video(frames: Sequence[np.ndarray], path: Path, frames_per_second: int = 25) -> None:
    """Write frames as a video, in the format that the file's suffix names.

    Args:
        frames: uint8 (H, W, 3) each, all of one size.
        path: Ends in `.mp4` (H.264, plays in browsers) or `.gif` (repeats).
        frames_per_second: Playback speed.

    Raises:
        UserError: The suffix is neither of these.
        OSError: The file cannot be written; what was there before is still there.
    """
    if path.suffix not in VIDEO_SUFFIXES:
        raise UserError(
            f"{path}: the format {path.suffix!r} is not supported: choose a name that ends in {' or '.join(VIDEO_SUFFIXES)}"
        )
    stacked = np.stack(frames)
    # Into memory: on a full disk imageio would print a traceback when it forgets the file.
    if path.suffix == ".gif":
        shown = iio.imwrite("<bytes>", stacked, extension=".gif", plugin="pillow", duration=1000 / frames_per_second, loop=0)
    else:
        # yuv420p, which browsers play, halves the resolution of colour and needs even edges: the last row or column is repeated.
        height, width = stacked.shape[1:3]
        even = np.pad(stacked, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        options: dict[str, Any] = {"codec": "libx264", "fps": frames_per_second, "out_pixel_format": "yuv420p"}
        shown = iio.imwrite("<bytes>", even, extension=".mp4", plugin="pyav", **options)
    with written_whole(path) as unfinished:
        unfinished.write_bytes(shown)


def read_video(video: Path) -> np.ndarray:
    """Read all frames of a video.

    Args:
        video: A video that `write_video` wrote.

    Returns:
        uint8 (T, H, W, 3).

    Raises:
        DamagedFileError: The video cannot be read.
    """
    try:
        frames = iio.imread(video, plugin="pyav")
    except Exception as error:  # whatever the decoder makes of damaged bytes
        raise DamagedFileError(f"{video} cannot be read ({reason_of(error)}): record it again, or remove it") from error
    return frames


def film_strip(frames: np.ndarray, count: int) -> np.ndarray:
    """Lay evenly spaced frames of a video side by side: what it shows where no video can play.

    Args:
        frames: uint8 (T, H, W, 3).
        count: Number of frames; those in the middle of as many equal parts.

    Returns:
        One picture, uint8 (H, count * W + gaps, 3).
    """
    chosen = [frames[int((part + 0.5) * len(frames) / count)] for part in range(count)]
    gap = np.full((frames.shape[1], _GAP, 3), 255, np.uint8)
    return np.hstack([part for frame in chosen for part in (gap, frame)][1:])


def write_episode(folder: Path, about: EpisodeContent) -> None:
    """Write the description of the episode that the videos in a folder show.

    Args:
        folder: The folder of the videos.
        about: The description.

    Raises:
        OSError: It cannot be written.
    """
    write_whole(folder / _EPISODE, json.dumps(about, indent=2) + "\n")


def read_episode(video: Path) -> EpisodeContent | None:
    """Read the description that `write_episode` left beside a video.

    Args:
        video: Path of a video, which need not exist.

    Returns:
        The description; None if there is none.

    Raises:
        DamagedFileError: The description is damaged.
        UserError: It is a link that leads out of the folder.
    """
    file = file_inside(video.parent, _EPISODE)
    if not file.exists():
        return None
    return read_json(file, _CONTENT, "remove it to continue without a description of the video")
