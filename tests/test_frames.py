"""Resizing agrees with PIL, which open_clip's own transform uses, and leaves frames of the right size alone."""

import warnings
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.frames import FrameFormat, Interpolation, ResizeMode, check_frames, resize_frames
from vlm_rm_sweeps.tasks.cart_pole import UprightCartPole

PIL_FILTER = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


def noise(height: int, width: int, count: int = 2) -> np.ndarray:
    # Away from 0 and 255: PIL and torch round and clip between their two passes, and the overshoot of bicubic would be clipped.
    return np.random.default_rng(0).integers(70, 186, (count, height, width, 3), np.uint8)


def cart_pole_frames() -> np.ndarray:
    env = UprightCartPole()
    env.reset(seed=0)
    env.state = np.array([0.7, 0.0, 0.4, 0.0])
    return env.render()[None]


@pytest.fixture
def strict_warnings() -> Iterator[None]:
    """Every warning is an error, also those that torch gives only once in a process."""
    always = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
    torch.set_warn_always(always)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [64, 224])
@pytest.mark.parametrize("frames", [cart_pole_frames(), noise(101, 77), noise(300, 200)], ids=["cart-pole", "small", "tall"])
def test_resizing_agrees_with_pil(frames: np.ndarray, size: int, interpolation: Interpolation) -> None:
    resized = resize_frames(frames, FrameFormat(size, interpolation, "squash"))
    expected = np.stack(
        [np.asarray(Image.fromarray(frame).resize((size, size), PIL_FILTER[interpolation])) for frame in frames]
    )
    assert resized.dtype == np.uint8
    assert resized.shape == expected.shape
    assert np.abs(resized.astype(int) - expected).max() <= 2


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_shrinking_is_antialiased(interpolation: Interpolation) -> None:
    checkerboard = np.indices((256, 256)).sum(axis=0) % 2 * np.uint8(255)
    frames = np.repeat(checkerboard[None, :, :, None], 3, axis=-1).astype(np.uint8)
    # Without antialiasing neighbouring samples fall on black or on white instead of on their average.
    resized = resize_frames(frames, FrameFormat(50, interpolation))
    assert np.abs(resized[:, 2:-2, 2:-2].astype(float) - 127.5).max() < 10


@pytest.mark.parametrize(
    ("mode", "height", "width", "expected"),
    [
        ("squash", 400, 600, (64, 64)),
        ("squash", 10, 3, (64, 64)),
        ("longest", 400, 600, (43, 64)),
        ("longest", 600, 400, (64, 43)),
        ("longest", 480, 480, (64, 64)),
    ],
)
def test_resized_size_by_mode(mode: ResizeMode, height: int, width: int, expected: tuple[int, int]) -> None:
    frame_format = FrameFormat(64, "bicubic", mode)
    assert frame_format.resized(height, width) == expected
    assert resize_frames(noise(height, width, count=1), frame_format).shape == (1, *expected, 3)


@settings(deadline=None)
@given(
    st.integers(20, 700),
    st.integers(20, 700),
    st.sampled_from([64, 224, 336]),
    st.sampled_from(["squash", "longest"]),
)
def test_resized_size_is_final(height: int, width: int, size: int, mode: ResizeMode) -> None:
    frame_format = FrameFormat(size, "bicubic", mode)
    resized = frame_format.resized(height, width)
    assert frame_format.resized(*resized) == resized
    if mode == "longest":
        assert max(resized) == size


@pytest.mark.parametrize(("mode", "shape"), [("squash", (64, 64)), ("longest", (43, 64))])
def test_frames_of_the_right_size_come_back_untouched(mode: ResizeMode, shape: tuple[int, int]) -> None:
    frames = noise(*shape)
    kept = frames.copy()
    resized = resize_frames(frames, FrameFormat(64, "bicubic", mode))
    assert resized is frames
    np.testing.assert_array_equal(resized, kept)


def test_resizing_leaves_its_input_alone() -> None:
    frames = noise(40, 60)
    kept = frames.copy()
    resize_frames(frames, FrameFormat(32))
    np.testing.assert_array_equal(frames, kept)


def test_flipped_views_are_resized() -> None:
    # Gymnasium's MuJoCo renderer returns its frames upside down in memory, as views with negative strides.
    frames = noise(40, 60)
    flipped = frames[:, ::-1]
    np.testing.assert_array_equal(
        resize_frames(flipped, FrameFormat(32)), resize_frames(np.ascontiguousarray(flipped), FrameFormat(32))
    )


@pytest.mark.usefixtures("strict_warnings")
def test_read_only_frames_are_resized_without_a_warning() -> None:
    # Arrays that come out of Ray's object store are read-only.
    frames = noise(40, 60)
    expected = resize_frames(frames, FrameFormat(32))
    frames.flags.writeable = False
    np.testing.assert_array_equal(resize_frames(frames, FrameFormat(32)), expected)


@pytest.mark.parametrize(
    "frames",
    [noise(4, 5) / 255, noise(4, 5)[0], noise(4, 5)[..., :1], noise(4, 5).transpose(0, 3, 1, 2)],
    ids=["from 0 to 1", "one frame", "grey", "channels first"],
)
def test_arrays_that_hold_no_frames_are_refused(frames: np.ndarray) -> None:
    check_frames(noise(4, 5))
    with pytest.raises(UserError, match=r"expected RGB images from 0 to 255, uint8 \(N, height, width, 3\)"):
        check_frames(frames)


def test_frames_larger_than_any_that_is_drawn_are_refused() -> None:
    drawn_by_none = np.broadcast_to(np.uint8(0), (1, 200_000, 100_000, 3))
    with pytest.raises(UserError, match=r"shape \(1, 200000, 100000, 3\): expected at most 16,384 pixels"):
        check_frames(drawn_by_none)


def test_of_a_very_long_frame_a_row_is_left() -> None:
    assert resize_frames(noise(1, 700), FrameFormat(224, resize_mode="longest")).shape == (2, 1, 224, 3)


def test_a_single_frame_upside_down_is_resized() -> None:
    """NumPy calls an array of one frame contiguous, whatever its strides."""
    frames = np.zeros((1, 4, 4, 3), np.uint8)[::-1]
    assert resize_frames(frames, FrameFormat(8)).shape == (1, 8, 8, 3)
