"""The training images of the embedded family: states of the supported environments, rendered as the tasks render them."""

import math
from dataclasses import dataclass

import numpy as np

from vlm_rm_sweeps.frames import FrameFormat
from vlm_rm_sweeps.pretraining.captions import CartPoleState
from vlm_rm_sweeps.tasks.cart_pole import UprightCartPole
from vlm_rm_sweeps.tasks.rendering import render_frame


@dataclass(frozen=True)
class CaptionedStates:
    """`frames`: uint8 (N, H, W, 3), kept as bytes because decoding and augmenting would cost more than the model;
    `states`: the N states that they show."""

    frames: np.ndarray
    states: list[CartPoleState]


def sample_cart_pole_states(count: int, rng: np.random.Generator) -> list[CartPoleState]:
    """States over the whole track and circle, a third of them near upright, where the reward is decided."""
    track = UprightCartPole().x_threshold
    positions = rng.uniform(-track, track, count)
    anywhere = rng.uniform(-math.pi, math.pi, count)
    near_upright = np.clip(rng.laplace(scale=math.radians(15), size=count), -math.pi, math.pi)
    angles = np.where(rng.random(count) < 1 / 3, near_upright, anywhere)
    return [CartPoleState(float(x), float(angle)) for x, angle in zip(positions, angles, strict=True)]


def render_cart_pole(states: list[CartPoleState], frame_format: FrameFormat) -> np.ndarray:
    """Frames uint8 (N, H, W, 3) of the given states, by the same renderer that training uses."""
    env = UprightCartPole()
    env.reset(seed=0)
    frames = []
    for state in states:
        env.state = np.array([state.position, 0.0, state.angle, 0.0])
        frames.append(render_frame(env, frame_format))
    env.close()
    return np.stack(frames)


def build_dataset(count: int, seed: int, frame_format: FrameFormat) -> CaptionedStates:
    """`count` states and their frames; the same seed gives the same data set."""
    states = sample_cart_pole_states(count, np.random.default_rng(seed))
    return CaptionedStates(render_cart_pole(states, frame_format), states)
