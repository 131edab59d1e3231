"""Frames and their resizing: the one function that environments and reward models share.

A frame is one rendered image, `uint8 (H, W, 3)`. Environments resize early (fewer bytes to move) and reward models resize
what still has another size; both call `resize_frames`, so a frame's reward does not depend on who did it.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    import torch  # imported where it computes: what only reads data sets or lists tasks starts seconds sooner without it

Interpolation = Literal["bicubic", "bilinear"]
ResizeMode = Literal["longest", "squash"]


@dataclass(frozen=True)
class FrameFormat:
    """What a reward model wants a frame resized to, before it adds bars.

    `size` is the edge in pixels of the model's square input. `resize_mode` is open_clip's word: `squash` ignores the aspect
    ratio, `longest` brings the longer edge to `size` (the rest is filled with bars). Nothing is ever cropped.
    """

    size: int
    interpolation: Interpolation = "bicubic"
    resize_mode: ResizeMode = "squash"

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """The (height, width) that a frame of the given height and width is resized to."""
        if self.resize_mode == "squash":
            return self.size, self.size
        edge = max(height, width)
        return round(self.size * height / edge), round(self.size * width / edge)


def frames_to_tensor(frames: np.ndarray) -> "torch.Tensor":
    """`uint8 (N, H, W, 3)` frames as a tensor `(N, 3, H, W)`, without a copy where that is possible.

    It is not for views that run backwards (MuJoCo's frames) and read-only arrays (from Ray's object store).
    """
    import torch

    return torch.from_numpy(np.require(frames, requirements=["C", "W"])).permute(0, 3, 1, 2)


def resize_frames(frames: np.ndarray, frame_format: FrameFormat) -> np.ndarray:
    """Resize `uint8 (N, H, W, 3)` frames, antialiased, as PIL (and so open_clip's own transform) does.

    The function that torchvision's `resize` calls for uint8 tensors. It is called directly because importing torchvision costs
    every trial's process several seconds.
    """
    from torch.nn import functional

    height, width = frame_format.resized(*frames.shape[1:3])
    if (height, width) == frames.shape[1:3]:
        return frames
    resized = functional.interpolate(frames_to_tensor(frames), (height, width), mode=frame_format.interpolation, antialias=True)
    return resized.permute(0, 2, 3, 1).contiguous().numpy()
