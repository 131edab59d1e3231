"""CartPole's captions are true of the frames that they describe, and its states cover circle and track."""

import math

import numpy as np
import pytest

from vlm_rm_sweeps.frames import FrameFormat
from vlm_rm_sweeps.pretraining.captions import caption_batch
from vlm_rm_sweeps.pretraining.cart_pole import CartPoleState, render_states, sample_states


def captions_of(state: CartPoleState, count: int = 2_000) -> list[str]:
    return caption_batch([state] * count, np.random.default_rng(0))


def share(captions: list[str], *words: str) -> float:
    return sum(any(word in caption for word in words) for caption in captions) / len(captions)


def affirmed(captions: list[str], *words: str) -> float:
    """Share of the captions that say so, without those that say what is not so."""
    denials = (" not ", "instead of", "rather than", "neither")
    return share([caption for caption in captions if not any(denial in caption for denial in denials)], *words)


def test_words_for_upright_fade_with_the_angle_over_the_whole_circle() -> None:
    # This is what gives the reward a slope everywhere: the noise is wide enough to reach "straight up" from afar.
    words = ("pointing straight up", "perfectly upright", "balanced upright", "standing upright")
    shares = [affirmed(captions_of(CartPoleState(0.0, math.radians(angle)), 4_000), *words) for angle in (0, 20, 60, 95)]
    assert shares == sorted(shares, reverse=True)
    assert len(set(shares)) == 4
    assert shares[-1] > 0


def test_hanging_pole_is_said_to_hang() -> None:
    words = ("straight down", "upside down", "hanging", "underneath", "beneath", "bottom", "below")
    assert affirmed(captions_of(CartPoleState(0.0, math.pi)), *words) > 0.4
    assert affirmed(captions_of(CartPoleState(0.0, -math.pi)), *words) > 0.4
    far = ("far from", "long way from")
    at_the_top = [each for each in captions_of(CartPoleState(0.0, 0.0)) if not any(word in each for word in far)]
    assert affirmed(at_the_top, *words) < 0.15


@pytest.mark.parametrize(("side", "other", "sign"), [("right", "left", 1), ("left", "right", -1)])
def test_sides_are_those_of_the_frame(side: str, other: str, sign: int) -> None:
    leaning, displaced = CartPoleState(0.0, sign * math.radians(85)), CartPoleState(sign * 1.8, 0.0)
    frame = render_states([leaning], FrameFormat(600, "bicubic", "longest"))[0].astype(int)
    brown = np.abs(frame - (202, 152, 101)).sum(axis=-1) < 30
    assert sign * (np.nonzero(brown)[1].mean() - 300) > 20
    frame = render_states([displaced], FrameFormat(600, "bicubic", "longest"))[0].astype(int)
    cart = frame[290:310].sum(axis=(0, 2)).argmin()
    assert sign * (int(cart) - 300) > 150

    captions = captions_of(leaning)
    assert share(captions, f"the {side}") > 3 * share(captions, f"the {other}")
    assert share(captions, f"{side}ways", f"to the {side}") > 3 * share(captions, f"to the {other}")
    assert share(captions_of(displaced), f"towards the {side} end of the track", f"on the {side}") > 0
    assert share(captions_of(displaced), f"towards the {other} end of the track") == 0


def test_states_cover_circle_and_track() -> None:
    states = sample_states(3_000, np.random.default_rng(0))
    positions, angles = np.array([state.position for state in states]), np.array([state.angle for state in states])
    assert np.abs(positions).max() <= 2.4
    assert np.abs(angles).max() <= math.pi
    assert np.histogram(positions, bins=12, range=(-2.4, 2.4))[0].min() > 150
    assert np.histogram(angles, bins=12, range=(-math.pi, math.pi))[0].min() > 100
    near_upright = (np.abs(angles) < math.radians(15)).mean()
    assert 0.2 < near_upright < 0.4
