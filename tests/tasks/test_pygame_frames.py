"""Frames of pygame's environments: resized while they are read, and yet the same."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pygame
import pytest

from vlm_rm_sweeps.frames import FrameFormat, resize_frames
from vlm_rm_sweeps.tasks.cart_pole import UprightCartPole
from vlm_rm_sweeps.tasks.mountain_car import SummitMountainCar
from vlm_rm_sweeps.tasks.pygame_frames import to_frame

FORMATS = [FrameFormat(64), FrameFormat(224, "bilinear", "longest"), FrameFormat(600, "bicubic", "longest")]


@pytest.mark.parametrize("frame_format", FORMATS, ids=lambda each: f"{each.size}-{each.resize_mode}")
@pytest.mark.parametrize(
    "make",
    [
        UprightCartPole,
        lambda each=None: SummitMountainCar("modified", each),
        lambda each=None: SummitMountainCar("original", each),
    ],
    ids=["cart pole", "painted mountain car", "mountain car"],
)
def test_an_environment_draws_at_the_models_size_what_would_be_resized_to_it(
    make: Callable[..., Any], frame_format: FrameFormat
) -> None:
    whole, resized = make(), make(frame_format)
    for env in (whole, resized):
        env.reset(seed=0)
    for _ in range(5):
        np.testing.assert_array_equal(resized.render(), resize_frames(whole.render()[None], frame_format)[0])
        action = whole.action_space.sample()
        for env in (whole, resized):
            env.step(action)


@pytest.mark.parametrize("depth", [24, 32])
@pytest.mark.parametrize("transparent", [False, True])
def test_surfaces_of_any_byte_order_give_the_same_frame(depth: int, transparent: bool) -> None:
    """A user's task may draw on a surface of another kind than Gymnasium's."""
    if transparent and depth == 24:
        pytest.skip("24 bits have no room for alpha")
    surface = pygame.Surface((30, 20), pygame.SRCALPHA if transparent else 0, depth)
    pygame.draw.circle(surface, (200, 100, 50), (10, 8), 6)
    frame = to_frame(surface)
    np.testing.assert_array_equal(frame[8, 10], [200, 100, 50])
    np.testing.assert_array_equal(to_frame(surface, FrameFormat(8)), resize_frames(frame[None], FrameFormat(8))[0])
