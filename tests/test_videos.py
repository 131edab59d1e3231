"""Videos, read back."""

import gc
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
from disk import full_disk

from vlm_rm_sweeps.errors import DamagedFileError, UserError
from vlm_rm_sweeps.videos import VIDEO_SUFFIXES, film_strip, read_video, write_video

# Odd edges, and one brightness for each frame.
FRAMES = [np.full((65, 33, 3), brightness, np.uint8) for brightness in (0, 60, 120, 180, 240)]


@pytest.mark.parametrize(("suffix", "plugin"), [(".mp4", "pyav"), (".gif", "pillow")])
def test_every_frame_is_there_in_order(tmp_path: Path, suffix: str, plugin: str) -> None:
    file = tmp_path / f"video{suffix}"
    write_video(FRAMES, file, frames_per_second=5)
    read = iio.imread(file, plugin=plugin)
    assert len(read) == len(FRAMES)
    assert [round(float(frame[..., :3].mean()) / 60) for frame in read] == [0, 1, 2, 3, 4]


def test_a_film_strip_has_evenly_spaced_frames(tmp_path: Path) -> None:
    file = tmp_path / "video.mp4"
    write_video(FRAMES, file)
    for count, expected in ((1, [120]), (2, [60, 180]), (5, [0, 60, 120, 180, 240])):
        strip = film_strip(read_video(file), count)
        width = strip.shape[1] + 4
        assert (strip.shape[0], width % count) == (66, 0)
        middles = [strip[30, width // count * part + 16].mean() for part in range(count)]
        assert middles == pytest.approx(expected, abs=8)


@pytest.mark.parametrize("content", [b"", b"no video", bytes(5000)])
def test_a_film_strip_of_a_damaged_video_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "video.mp4"
    file.write_bytes(content)
    with pytest.raises(DamagedFileError, match=r"video\.mp4 cannot be read"):
        read_video(file)


def test_another_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the format '\.avi' is not supported: .*\.mp4 or \.gif$"):
        write_video(FRAMES, tmp_path / "video.avi")


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("suffix", VIDEO_SUFFIXES)
def test_on_a_full_disk_the_video_before_stays(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"video{suffix}"
    file.write_bytes(b"before")
    noise = list(np.random.default_rng(0).integers(0, 255, (4, 64, 64, 3), np.uint8))
    with full_disk(room=200), pytest.raises(OSError, match="too large"):
        write_video(noise, file)
    gc.collect()  # nothing that imageio left behind fails once more
    assert file.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [file]
