"""Preprocessing of frames for CLIP models: each checkpoint's own resizing and normalisation, on batches."""

from dataclasses import dataclass
from typing import get_args

import numpy as np
import torch
from torchvision.transforms.v2 import functional as transforms

from vlm_rm_sweeps.frames import FrameFormat, Interpolation, ResizeMode, frames_to_tensor, resize_frames


@dataclass(frozen=True)
class Preprocessing:
    """One checkpoint's preprocessing, in open_clip's terms (`open_clip.transform.PreprocessCfg`).

    It processes batches of uint8 tensors as open_clip's PIL transform processes single images. Checkpoints differ: ViT-L-14
    laion2b is normalised by mean and standard deviation 0.5, others by OpenAI's; some squash, others keep the aspect ratio.

    Attributes:
        size: Edge of the model's square input, in pixels.
        mean: Mean of each colour channel, from 0 to 1.
        std: Standard deviation of each colour channel, on the same scale.
        interpolation: Interpolation of the resizing.
        resize_mode: How frames that are not square are fitted.
        fill_color: Grey level of the padding bars, from 0 to 255.
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Interpolation
    resize_mode: ResizeMode
    fill_color: int = 0

    def check(self) -> None:
        """Check values that were read from a file.

        Raises:
            ValueError: A value is not of the kind, or in the range, that the attributes' descriptions say.
        """
        for name in ("mean", "std"):
            values = getattr(self, name)
            if len(values) != 3 or not all(isinstance(value, int | float) and 0 <= value <= 1 for value in values):
                raise ValueError(f"{name} is {list(values)!r}, expected three numbers from 0 to 1")
        if 0 in self.std:
            raise ValueError(f"std is {list(self.std)!r}, expected numbers above 0")
        for name, kinds in (("interpolation", Interpolation), ("resize_mode", ResizeMode)):
            if getattr(self, name) not in get_args(kinds):
                raise ValueError(f"{name} is {getattr(self, name)!r}, expected one of {', '.join(get_args(kinds))}")
        if not isinstance(self.fill_color, int) or not 0 <= self.fill_color <= 255:
            raise ValueError(f"fill_color is {self.fill_color!r}, expected a grey level from 0 to 255")

    @property
    def frame_format(self) -> FrameFormat:
        """Size and resizing of frames, for environments that render for this checkpoint."""
        return FrameFormat(self.size, self.interpolation, self.resize_mode)

    def __call__(self, frames: np.ndarray) -> torch.Tensor:
        """Turn frames, uint8 (N, H, W, 3) of any height and width, into the model's input, float32 (N, 3, size, size)."""
        return self.write(frames, torch.empty(len(frames), 3, self.size, self.size, memory_format=torch.channels_last))

    def write(self, frames: np.ndarray, inputs: torch.Tensor) -> torch.Tensor:
        """Write the model's input for frames into a tensor that exists.

        Large tensors are cheaper to reuse than to allocate. Pixels move to the tensor's device as bytes, and are normalised there.

        Args:
            frames: uint8 (N, H, W, 3), of any height and width.
            inputs: float32 (N, 3, size, size), on any device, which is overwritten.

        Returns:
            `inputs`.
        """
        mean, std = torch.tensor(self.mean), torch.tensor(self.std)
        scale, shift = (self._along_a_row(values).to(inputs.device) for values in (1 / (255 * std), mean / std))
        return inputs.copy_(self._squared(frames).to(inputs.device)).mul_(scale).sub_(shift)

    def _along_a_row(self, values: torch.Tensor) -> torch.Tensor:
        """Repeat a value for each channel along a row of pixels, (1, 3, 1, size).

        Broadcast over three channels, which are next to each other in memory, torch would compute three numbers at a time.
        """
        return values.view(1, 3, 1, 1).expand(1, 3, 1, self.size).contiguous(memory_format=torch.channels_last)

    def visible(self, frames: np.ndarray) -> np.ndarray:
        """Resize and pad frames, uint8 (N, H, W, 3), to what the model sees, uint8 (N, size, size, 3)."""
        return self._squared(frames).permute(0, 2, 3, 1).contiguous().numpy()

    def _squared(self, frames: np.ndarray) -> torch.Tensor:
        pixels_nchw = frames_to_tensor(resize_frames(frames, self.frame_format))
        height, width = pixels_nchw.shape[2:]
        if (height, width) != (self.size, self.size):
            missing_rows, missing_columns = self.size - height, self.size - width
            top, left = missing_rows // 2, missing_columns // 2
            bars = [left, top, missing_columns - left, missing_rows - top]
            pixels_nchw = transforms.pad(pixels_nchw, bars, fill=self.fill_color)
        return pixels_nchw
