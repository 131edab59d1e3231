"""Preprocessing of batches agrees with open_clip's own transform of single PIL images."""

import numpy as np
import pytest
import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.transform import image_transform
from PIL import Image

from vlm_rm_sweeps.frames import Interpolation, ResizeMode, resize_frames
from vlm_rm_sweeps.rewards.preprocessing import Preprocessing
from vlm_rm_sweeps.tasks.cart_pole import UprightCartPole

Colour = tuple[float, float, float]
HALF: Colour = (0.5, 0.5, 0.5)
NORMALISATIONS = [
    pytest.param(OPENAI_DATASET_MEAN, OPENAI_DATASET_STD, id="openai"),
    pytest.param(HALF, HALF, id="half"),
]


def noise(height: int, width: int, count: int = 2) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), np.uint8)


def cart_pole_frames() -> np.ndarray:
    env = UprightCartPole()
    env.reset(seed=0)
    frames = []
    for x, theta in ((-2.4, 0.1), (0.0, 2.0)):
        env.state = np.array([x, 0.0, theta, 0.0])
        frames.append(env.render())
    return np.stack(frames)


@pytest.mark.parametrize(("mean", "std"), NORMALISATIONS)
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("resize_mode", ["squash", "longest"])
@pytest.mark.parametrize("size", [64, 224])
@pytest.mark.parametrize(
    "frames",
    [
        pytest.param(cart_pole_frames(), id="cart-pole"),
        pytest.param(noise(480, 480), id="square"),
        pytest.param(noise(480, 640), id="wide"),
        pytest.param(noise(50, 30), id="small and tall"),
        pytest.param(noise(224, 224), id="right size"),
    ],
)
def test_agrees_with_open_clip(
    frames: np.ndarray, size: int, resize_mode: ResizeMode, interpolation: Interpolation, mean: Colour, std: Colour
) -> None:
    transform = image_transform(
        size, is_train=False, mean=mean, std=std, resize_mode=resize_mode, interpolation=interpolation, fill_color=0
    )
    expected = torch.stack([transform(Image.fromarray(frame)) for frame in frames])
    pixels = Preprocessing(size, mean, std, interpolation, resize_mode)(frames)
    assert pixels.dtype == torch.float32
    assert pixels.shape == expected.shape == (len(frames), 3, size, size)
    # Those that are not square are resized by torch, whose weights have fewer bits.
    levels = 1e-4 if frames.shape[1] == frames.shape[2] else 2.01
    torch.testing.assert_close(pixels, expected, atol=levels / 255 / min(std), rtol=0)


def test_bars_have_the_fill_color() -> None:
    frames = np.full((1, 30, 60, 3), 200, np.uint8)
    preprocessing = Preprocessing(60, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "bicubic", "longest", fill_color=51)
    column = preprocessing(frames)[0, 0, :, 30]
    torch.testing.assert_close(column, torch.tensor([51 / 255] * 15 + [200 / 255] * 30 + [51 / 255] * 15))


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("resize_mode", ["squash", "longest"])
@pytest.mark.parametrize("shape", [(400, 600), (101, 77), (30, 50), (480, 480), (64, 64)])
def test_frame_resized_early_gives_the_same_tensor_to_the_bit(
    shape: tuple[int, int], resize_mode: ResizeMode, interpolation: Interpolation
) -> None:
    preprocessing = Preprocessing(64, OPENAI_DATASET_MEAN, OPENAI_DATASET_STD, interpolation, resize_mode)
    frames = np.random.default_rng(0).integers(0, 256, (9, *shape, 3), np.uint8)
    late = preprocessing(frames)
    early = resize_frames(frames, preprocessing.frame_format)
    assert torch.equal(preprocessing(early), late)
    # Environments resize one frame at a time.
    one_by_one = np.concatenate([resize_frames(frame[None], preprocessing.frame_format) for frame in frames])
    assert torch.equal(preprocessing(one_by_one), late)
    assert torch.equal(torch.cat([preprocessing(frame[None]) for frame in frames]), late)


def test_input_is_left_alone() -> None:
    frames = noise(64, 64)
    kept = frames.copy()
    Preprocessing(64, HALF, HALF, "bicubic", "squash")(frames)
    np.testing.assert_array_equal(frames, kept)


@pytest.mark.parametrize("resize_mode", ["squash", "longest"])
def test_what_is_shown_is_what_the_model_gets(resize_mode: ResizeMode) -> None:
    preprocessing = Preprocessing(64, HALF, HALF, "bicubic", resize_mode)
    frames = cart_pole_frames()
    shown = preprocessing.visible(frames)
    assert shown.dtype == np.uint8
    assert shown.shape == (2, 64, 64, 3)
    normalised = (torch.from_numpy(shown).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5
    torch.testing.assert_close(preprocessing(frames), normalised, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("mean", "std"), NORMALISATIONS)
@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
def test_a_pixel_is_scaled_and_shifted_alike_at_each_place(
    mean: Colour, std: Colour, memory_format: torch.memory_format
) -> None:
    # Every value of every channel, each at many places.
    frames = np.random.default_rng(0).integers(0, 256, (9, 32, 32, 3), np.uint8)
    inputs = torch.empty(9, 3, 32, 32, memory_format=memory_format)
    Preprocessing(32, mean, std, "bicubic", "squash").write(frames, inputs)
    scale, shift = (1 / (255 * torch.tensor(std))).numpy(), (torch.tensor(mean) / torch.tensor(std)).numpy()
    table = np.arange(256, dtype=np.float32)[:, None] * scale - shift
    expected = np.stack([table[frames[..., channel], channel] for channel in range(3)], axis=1)
    assert np.array_equal(inputs.numpy(), expected)
