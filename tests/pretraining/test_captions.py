"""Captions: never a task's own prompt, decided by the generator alone, and true of the frame that they describe."""

import math

import numpy as np
import pytest

from vlm_rm_sweeps.frames import FrameFormat
from vlm_rm_sweeps.pretraining import captions as captions_module
from vlm_rm_sweeps.pretraining.captions import HELD_OUT_CAPTIONS, CartPoleState, caption_batch
from vlm_rm_sweeps.pretraining.dataset import build_dataset, render_cart_pole, sample_cart_pole_states
from vlm_rm_sweeps.tasks.task import TASKS


def captions_of(state: CartPoleState, count: int = 2_000) -> list[str]:
    return caption_batch([state] * count, np.random.default_rng(0))


def share(captions: list[str], *words: str) -> float:
    return sum(any(word in caption for word in words) for caption in captions) / len(captions)


def test_no_caption_is_a_tasks_prompt() -> None:
    rng = np.random.default_rng(0)
    states = sample_cart_pole_states(4_000, rng)
    captions = {" ".join(caption.lower().split()) for _ in range(5) for caption in caption_batch(states, rng)}
    assert len(captions) > 1_000
    for task in TASKS.values():
        assert {task.goal_prompt, task.baseline_prompt} <= HELD_OUT_CAPTIONS
        assert task.goal_prompt.lower() not in captions
        assert task.baseline_prompt.lower() not in captions


def test_held_out_caption_is_drawn_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    common = "a cart pole"
    assert common in captions_of(CartPoleState(0.0, 0.0))
    monkeypatch.setattr(captions_module, "HELD_OUT_CAPTIONS", frozenset({common}))
    captions = captions_of(CartPoleState(0.0, 0.0))
    assert common not in captions
    assert len(captions) == 2_000


def test_captions_are_decided_by_the_generator() -> None:
    states = sample_cart_pole_states(200, np.random.default_rng(0))
    assert caption_batch(states, np.random.default_rng(1)) == caption_batch(states, np.random.default_rng(1))
    assert caption_batch(states, np.random.default_rng(1)) != caption_batch(states, np.random.default_rng(2))


def test_words_for_upright_fade_with_the_angle_over_the_whole_circle() -> None:
    # This is what gives the reward a slope everywhere: the noise is wide enough to reach "straight up" from afar.
    words = ("straight up", "perfectly upright", "exactly vertical", "balanced upright")
    shares = [share(captions_of(CartPoleState(0.0, math.radians(angle)), 4_000), *words) for angle in (0, 20, 60, 120)]
    assert shares == sorted(shares, reverse=True)
    assert len(set(shares)) == 4
    assert shares[-1] > 0


def test_hanging_pole_is_said_to_hang() -> None:
    words = ("straight down", "upside down", "hanging below", "underneath")
    assert share(captions_of(CartPoleState(0.0, math.pi)), *words) > 0.3
    assert share(captions_of(CartPoleState(0.0, -math.pi)), *words) > 0.3
    assert share(captions_of(CartPoleState(0.0, 0.0)), *words) < 0.02


@pytest.mark.parametrize(("side", "other", "sign"), [("right", "left", 1), ("left", "right", -1)])
def test_sides_are_those_of_the_frame(side: str, other: str, sign: int) -> None:
    leaning, displaced = CartPoleState(0.0, sign * math.radians(85)), CartPoleState(sign * 1.8, 0.0)
    frame = render_cart_pole([leaning], FrameFormat(400, "bicubic", "shortest"))[0].astype(int)
    brown = np.abs(frame - (202, 152, 101)).sum(axis=-1) < 30
    assert sign * (np.nonzero(brown)[1].mean() - 300) > 20
    frame = render_cart_pole([displaced], FrameFormat(400, "bicubic", "shortest"))[0].astype(int)
    cart = frame[290:310].sum(axis=(0, 2)).argmin()
    assert sign * (int(cart) - 300) > 150

    captions = captions_of(leaning)
    assert share(captions, f"the {side}") > 3 * share(captions, f"the {other}")
    assert share(captions, f"degrees to the {side} of upright") > 3 * share(captions, f"degrees to the {other} of upright")
    ends = f"towards the {side} end of the track", f"on the {side}"
    assert share(captions_of(displaced), f"a cart {ends[0]}", f"a cart {ends[1]}") > 0
    assert share(captions_of(displaced), f"towards the {other} end of the track") == 0


def test_dataset_covers_circle_and_track_and_is_decided_by_its_seed() -> None:
    frame_format = FrameFormat(32)
    dataset, again, other = (build_dataset(60, seed, frame_format) for seed in (3, 3, 4))
    assert dataset.frames.shape == (60, 32, 32, 3)
    assert dataset.frames.dtype == np.uint8
    assert dataset.states == again.states
    np.testing.assert_array_equal(dataset.frames, again.frames)
    assert dataset.states != other.states
    states = sample_cart_pole_states(3_000, np.random.default_rng(0))
    positions, angles = np.array([state.position for state in states]), np.array([state.angle for state in states])
    assert np.abs(positions).max() <= 2.4
    assert np.abs(angles).max() <= math.pi
    assert np.histogram(positions, bins=12, range=(-2.4, 2.4))[0].min() > 150
    assert np.histogram(angles, bins=12, range=(-math.pi, math.pi))[0].min() > 100
    near_upright = (np.abs(angles) < math.radians(15)).mean()
    assert 0.2 < near_upright < 0.4
