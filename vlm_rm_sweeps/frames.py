"""Frames and how they are resized, for environments and reward models alike.

A frame is one rendered image, uint8 (H, W, 3). Environments resize early, so that fewer bytes move; reward models resize frames
of any other size. Both call `resize_frames`, so a frame's reward does not depend on which of them did it.
"""

from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from vlm_rm_sweeps.errors import UserError, shown

if TYPE_CHECKING:
    import torch  # imported only inside functions: commands that never resize start seconds sooner

Interpolation = Literal["bicubic", "bilinear"]
ResizeMode = Literal["longest", "squash"]


@dataclass(frozen=True)
class FrameFormat:
    """The size to which a reward model has frames resized, before it pads them to a square.

    Nothing is ever cropped.

    Attributes:
        size: Edge of the model's square input, in pixels.
        interpolation: Filter for resizing; antialiasing is always on.
        resize_mode: As in open_clip: `squash` ignores the aspect ratio, `longest` scales the longer edge to `size` and leaves
            the rest to be padded.
    """

    size: int
    interpolation: Interpolation = "bicubic"
    resize_mode: ResizeMode = "squash"

    def __post_init__(self) -> None:
        if not isinstance(self.size, Integral) or not 1 <= self.size <= _LARGEST_EDGE:
            raise UserError(
                f"frame format: size is {shown(self.size)}: expected a number of pixels from 1 to {_LARGEST_EDGE:,}"
            )
        for kind, value, known in (
            ("interpolation", self.interpolation, get_args(Interpolation)),
            ("resize_mode", self.resize_mode, get_args(ResizeMode)),
        ):
            if value not in known:
                raise UserError(f"frame format: {kind} is {shown(value)}: expected {' or '.join(map(repr, known))}")

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """Compute the size of a resized frame.

        Args:
            height: Height of the original frame, in pixels.
            width: Width of the original frame, in pixels.

        Returns:
            Height and width in pixels after resizing.
        """
        if self.resize_mode == "squash":
            return self.size, self.size
        edge = max(height, width)
        # At least a pixel: of a very long frame nothing would be left.
        return max(1, round(self.size * height / edge)), max(1, round(self.size * width / edge))


_LARGEST_EDGE = 2**14
"""Of a frame, in pixels: what OpenGL draws at most on most machines."""


def frames_to_tensor(frames: np.ndarray) -> "torch.Tensor":
    """Convert frames to a tensor with channels first, without a copy where possible.

    Views with negative strides (MuJoCo's frames) and read-only arrays (from Ray's object store) have to be copied.

    Args:
        frames: uint8 (N, H, W, 3).

    Returns:
        uint8 (N, 3, H, W).
    """
    import torch

    if min(frames.strides) < 0:  # also of a single frame, which NumPy calls contiguous nevertheless
        frames = frames.copy()
    return torch.from_numpy(np.require(frames, requirements=["C", "W"])).permute(0, 3, 1, 2)


def check_frames(frames: Any) -> None:
    """Refuse what does not hold frames, whose rewards would be meaningless.

    Args:
        frames: Anything. No frames (N = 0) are frames, too.

    Raises:
        UserError: It is not uint8 (N, H, W, 3) with at least one pixel in each frame, or the frames are larger than any renderer's.
    """
    expected = "expected RGB images from 0 to 255, uint8 (N, height, width, 3)"
    if not isinstance(frames, np.ndarray):
        raise UserError(f"frames are {type(frames).__name__}, not a NumPy array: {expected}")
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape[1:]:
        raise UserError(f"frames of shape {frames.shape} and type {frames.dtype}: {expected}")
    if max(frames.shape[1:3]) > _LARGEST_EDGE:
        raise UserError(f"frames of shape {frames.shape}: expected at most {_LARGEST_EDGE:,} pixels in height and width")


def resize_frames(frames: np.ndarray, frame_format: FrameFormat) -> np.ndarray:
    """Resize frames with antialiasing.

    Square frames are resized by PIL, as in open_clip's own transform, to the bit. Others are fitted whole, which open_clip does
    not do. They are resized by the function behind torchvision's `resize` for uint8 tensors, which takes a seventh of the time; of
    a render a few pixels in a thousand differ from PIL's by one level, because its weights have fewer bits.

    Args:
        frames: uint8 (N, H, W, 3); not changed.
        frame_format: The target size, interpolation and resize mode.

    Returns:
        uint8 (N, H', W', 3); `frames` itself if it already has the right size.
    """
    height, width = frames.shape[1:3]
    size = frame_format.resized(height, width)
    if size == (height, width):
        return frames
    if height == width:
        return _resized_by_pil(frames, frame_format)
    from torch.nn import functional  # importing torchvision would cost the process of each trial several seconds

    resized = functional.interpolate(frames_to_tensor(frames), size, mode=frame_format.interpolation, antialias=True)
    return resized.permute(0, 2, 3, 1).contiguous().numpy()


def _resized_by_pil(frames: np.ndarray, frame_format: FrameFormat) -> np.ndarray:
    """Resize square frames, uint8 (N, H, H, 3), to uint8 (N, size, size, 3)."""
    from PIL import Image

    method = Image.Resampling[frame_format.interpolation.upper()]
    resized = np.empty((len(frames), frame_format.size, frame_format.size, 3), np.uint8)
    for frame, smaller in zip(frames, resized, strict=True):
        smaller[:] = np.asarray(Image.fromarray(frame).resize((frame_format.size, frame_format.size), method))
    return resized
