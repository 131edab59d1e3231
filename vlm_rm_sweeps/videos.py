"""Pictures and videos of frames, written through imageio."""

from collections.abc import Sequence
from pathlib import Path

import imageio.v3 as iio
import numpy as np

from vlm_rm_sweeps.errors import UserError

VIDEO_SUFFIXES = (".mp4", ".gif")
PICTURE_SUFFIX = ".png"


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
