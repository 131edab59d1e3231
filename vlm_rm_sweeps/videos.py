"""Pictures and videos of frames, written through imageio, and what is known of the episode that a video shows."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.files import file_inside

VIDEO_SUFFIXES = (".mp4", ".gif")
PICTURE_SUFFIX = ".png"
PLAIN_VIDEO = "plain.mp4"
"""Of a trial: what people may judge, without its reward and prompt."""
_EPISODE = "episode.json"
EPISODE_NUMBERS = ("clip_return", "true_return", "goal_fraction", "success")
"""What `episode.json` says of an episode, beside task, seed and the environment steps its policy was trained for; null: unknown."""


def write_picture(frame: np.ndarray, path: Path) -> None:
    """Write a frame, uint8 (H, W, 3), as PNG."""
    iio.imwrite(path, frame, extension=PICTURE_SUFFIX)


def write_video(frames: Sequence[np.ndarray], path: Path, frames_per_second: int = 25) -> None:
    """Write frames, uint8 (H, W, 3) of one size, as H.264 in an mp4 or as a gif that repeats, by the suffix of `path`.

    Raises UserError for any other suffix.
    """
    stacked = np.stack(frames)
    if path.suffix == ".gif":
        iio.imwrite(path, stacked, plugin="pillow", duration=1000 / frames_per_second, loop=0)
    elif path.suffix == ".mp4":
        # The pixel format that browsers play halves the colour's resolution and so needs even edges: repeat the last row or column.
        height, width = stacked.shape[1:3]
        even = np.pad(stacked, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        iio.imwrite(path, even, plugin="pyav", codec="libx264", fps=frames_per_second, out_pixel_format="yuv420p")
    else:
        raise UserError(f"{path}: a video is written as one of {', '.join(VIDEO_SUFFIXES)}, not as {path.suffix!r}")


def write_episode(folder: Path, about: Mapping[str, Any]) -> None:
    """Write what is known of the episode that the videos in a folder show."""
    (folder / _EPISODE).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def read_episode(video: Path) -> dict[str, Any]:
    """What `write_episode` left beside a video; empty if nothing. UserError if it is damaged, or a link to elsewhere."""
    file = file_inside(video.parent, _EPISODE)
    if not file.is_file():
        return {}
    try:
        about: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return {name: about[name] for name in ("task", "env_steps", "seed", *EPISODE_NUMBERS)}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} is damaged ({error}): remove it, and what it says of its video is unknown") from error
