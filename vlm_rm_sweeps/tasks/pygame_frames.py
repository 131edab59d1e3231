"""Draws Gymnasium's classic control environments, which use pygame, faster than their own `render`.

Gymnasium spends most of a frame's time copying the transposed surface. With an unknown render mode it draws and returns
nothing; the pixels are then read in memory order.
"""

from collections.abc import Callable
from typing import Any

import gymnasium  # noqa: F401 - before pygame, whose banner it hides
import numpy as np
import pygame

from vlm_rm_sweeps.process_defaults import prepare_pygame


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


def to_frame(surface: pygame.Surface) -> np.ndarray:
    """Copy the pixels of a surface into a frame, uint8 (H, W, 3)."""
    width, height = surface.get_size()
    return np.frombuffer(pygame.image.tobytes(surface, "RGB"), np.uint8).reshape(height, width, 3).copy()
