"""Frames of Gymnasium's classic control environments, which draw with pygame, at lower cost than by their own `render`.

Gymnasium spends most of a frame's time on copying the transposed surface. With a render mode that it does not know it draws
and returns nothing; the pixels are then read in the order in which they lie.
"""

from collections.abc import Callable
from typing import Any

import gymnasium  # noqa: F401 - before pygame, whose banner it hides
import numpy as np
import pygame

from vlm_rm_sweeps.process_defaults import prepare_pygame


def draw(env: Any, render: Callable[[], Any]) -> pygame.Surface:
    """The surface on which `render`, Gymnasium's own method of `env`, has drawn."""
    prepare_pygame()
    mode, env.render_mode = env.render_mode, "draw"
    try:
        render()
    finally:
        env.render_mode = mode
    surface: pygame.Surface = env.screen
    return surface


def to_frame(surface: pygame.Surface) -> np.ndarray:
    """The pixels of a surface, uint8 (H, W, 3)."""
    width, height = surface.get_size()
    return np.frombuffer(pygame.image.tobytes(surface, "RGB"), np.uint8).reshape(height, width, 3).copy()
