"""Draws Gymnasium's classic control environments, which use pygame, faster than their own `render`.

Gymnasium spends most of a frame's time copying the transposed surface. With an unknown render mode it draws and returns
nothing; the pixels are then read in memory order.
"""

from collections.abc import Callable
from typing import Any

import gymnasium  # noqa: F401 - before pygame, whose banner it hides
import numpy as np
import pygame

from vlm_rm_sweeps.frames import FrameFormat, resize_frames
from vlm_rm_sweeps.process_defaults import prepare_pygame

_BLUE_GREEN_RED_UNUSED = (4, (0xFF0000, 0xFF00, 0xFF, 0))
"""Bytes for each pixel of pygame's usual surfaces, and their masks of red, green, blue and alpha. In memory, blue comes first."""


def draw(env: Any, render: Callable[[], Any]) -> pygame.Surface:
    """Let Gymnasium draw the current state, without the copy.

    Args:
        env: A classic control environment.
        render: Gymnasium's own `render` method of `env`.

    Returns:
        The surface that was drawn on. It belongs to the environment.
    """
    prepare_pygame()
    mode, env.render_mode = env.render_mode, "draw"
    try:
        render()
    finally:
        env.render_mode = mode
    surface: pygame.Surface = env.screen
    return surface


def bytes_of(surface: pygame.Surface) -> np.ndarray:
    """Return the memory of a surface as an array that may be written, uint8 (bytes,). Its pixels are in rows from the top."""
    return np.asarray(surface.get_view("0")).view(np.uint8)


def to_frame(surface: pygame.Surface, frame_format: FrameFormat | None = None) -> np.ndarray:
    """Copy the pixels of a surface into a frame.

    Args:
        surface: The surface, of 24 or 32 bits for each pixel.
        frame_format: Format to which the frame is resized; None for the surface's own size.

    Returns:
        The frame, uint8 (H, W, 3), equal to `resize_frames` of the frame of the surface's own size.
    """
    width, height = surface.get_size()
    if frame_format is not None and (surface.get_bytesize(), surface.get_masks()) == _BLUE_GREEN_RED_UNUSED:
        # Four channels are resized in place of three, and reordered where they are few: faster than to copy the whole surface.
        pixels = bytes_of(surface).reshape(1, height, width, 4)
        return np.ascontiguousarray(resize_frames(pixels, frame_format)[0, :, :, 2::-1])
    frame = np.frombuffer(pygame.image.tobytes(surface, "RGB"), np.uint8).reshape(height, width, 3).copy()
    return frame if frame_format is None else resize_frames(frame[None], frame_format)[0]
