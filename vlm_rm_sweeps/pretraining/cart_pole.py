"""CartPole for pretraining: states over the whole circle and track, with frames and captions."""

import math
from dataclasses import dataclass

import numpy as np

from vlm_rm_sweeps.frames import FrameFormat
from vlm_rm_sweeps.pretraining.captions import Buckets, bucket, pick
from vlm_rm_sweeps.tasks.cart_pole import UprightCartPole
from vlm_rm_sweeps.tasks.rendering import render_frame

ANGLE_NOISE_DEGREES = 35.0
"""Scale of the captions' Laplace noise. With a single scale the log-probability of a goal caption falls linearly with the
angle. A second, smaller scale would make it convex, and models would learn more of that the larger they are."""

_POLES = ("a pole", "the pole", "pole", "a brown pole", "a thin pole", "the thin brown pole", "one pole")
_CARTS = ("a cart", "the cart", "a black cart", "the moving cart", "a small cart")
_SCENES = (
    "{pole} on {cart}",
    "{cart} with {pole}",
    "{pole} attached to {cart}",
    "{pole} hinged to {cart}",
    "a cart pole",
    "{cart} and its pole",
    "{cart} carrying {pole}",
    "a picture of {cart} with {pole}",
    "a drawing of {pole} and of {cart}",
)
_BY_ANGLE: Buckets = (
    # Upper limits in degrees from upright. {side} is left or right; {pole} and {cart} are drawn for each caption. About half of the
    # wordings for far states name a side, also at the bottom: if only states between top and bottom named one, a pole that hangs
    # straight down would look closer to the goal than a pole on its way down.
    (
        5.0,
        (
            "{pole} standing upright on {cart}",
            "{pole} standing vertically on top of {cart}",
            "{pole} perfectly upright",
            "{pole} balanced upright on top of {cart}",
            "{pole} is exactly vertical and on top of {cart}",
            "an upright pole on {cart}",
            "{pole} straight up above {cart}",
            "a vertical pole balanced above {cart}",
            "{cart} balancing {pole} upright",
            "{cart} with {pole} standing straight up",
            "{pole} vertically above {cart}",
            "{pole} held upright by {cart}",
            "{pole} pointing straight up",
            "{pole} in balance, upright, at the goal",
        ),
    ),
    (
        15.0,
        (
            "{pole} almost upright on {cart}",
            "{pole} nearly vertical, leaning a little to the {side}",
            "{pole} on top of {cart}, leaning slightly to the {side}",
            "an almost upright pole above {cart}",
            "{pole} tipping slightly {side}",
            "{cart} with {pole} close to upright",
        ),
    ),
    (
        35.0,
        (
            "{pole} leaning to the {side} on {cart}",
            "{pole} tilted on {cart}",
            "{cart} with {pole} tilted {side}",
            "a tilted pole, still above {cart}",
            "{pole} starting to fall",
            "{pole} out of balance, tipped to the {side}",
        ),
    ),
    (
        65.0,
        (
            "{pole} leaning far to the {side}",
            "{pole} falling off {cart}",
            "{cart} with {pole} falling over to the {side}",
            "a diagonal pole, pointing up and sideways",
            "{pole} tilted strongly to the {side}",
            "{pole} far out of balance",
        ),
    ),
    (
        110.0,
        (
            "{pole} lying horizontal to the {side} of {cart}",
            "{pole} horizontal, pointing {side}",
            "{cart} with {pole} fallen to the {side}",
            "a horizontal pole beside {cart}",
            "{pole} has fallen over",
            "{pole} flat, level with {cart}",
        ),
    ),
    (
        150.0,
        (
            "{pole} pointing down and to the {side}",
            "{pole} hanging to the {side} below {cart}",
            "{pole} drooping to the lower {side} of {cart}",
            "{cart} with {pole} swinging below it",
            "a fallen pole, half below {cart}",
            "{pole} half hanging under {cart}",
        ),
    ),
    (
        180.0,
        (
            "{pole} hanging below {cart}",
            "{pole} hanging all the way down from {cart}, on the {side}",
            "{pole} upside down under {cart}",
            "{pole} pointing down, to the {side} of the bottom",
            "{pole} dangling underneath {cart}, to the {side}",
            "{cart} with {pole} hanging underneath",
            "{pole} at the very bottom, under {cart}",
            "{pole} swinging at the bottom, on the {side}",
        ),
    ),
)
_BY_POSITION: Buckets = (
    # Upper limits in metres from the centre.
    (0.3, ("in the middle of the track", "in the centre", "at the centre of the picture")),
    (1.2, ("a little to the {side} of the centre", "{side} of the middle")),
    (2.0, ("on the {side}", "towards the {side} end of the track", "far {side} of the centre")),
    (2.4, ("at the {side} end of the track", "at the {side} edge of the picture")),
)


@dataclass(frozen=True)
class CartPoleState:
    """A state of CartPole at rest.

    Attributes:
        position: In metres, -2.4 to 2.4.
        angle: In radians; 0 is upright, positive leans right.
    """

    position: float
    angle: float

    def caption(self, rng: np.random.Generator) -> str:
        """Draw a caption: the angle in words (most often) or degrees, with or without the position, or the scene alone.

        Args:
            rng: Draws the neighbouring state, the level of detail and the wording.

        Returns:
            For example "a pole almost upright on the cart".
        """
        noise = math.radians(rng.laplace(scale=ANGLE_NOISE_DEGREES))
        # Clipped at straight down: noise that wraps around would blur the order of the states near it.
        degrees = math.degrees(np.clip(math.remainder(self.angle, 2 * math.pi) + noise, -math.pi, math.pi))
        level = rng.random()
        if level < 0.08:
            return pick(rng, _SCENES).format(pole=pick(rng, _POLES), cart=pick(rng, _CARTS))
        if level < 0.13:
            return f"{pick(rng, _CARTS)} {_worded(rng, _BY_POSITION, self.position)}"
        if level < 0.23:
            side = "right" if degrees > 0 else "left"
            tilted = f"{pick(rng, _POLES)} tilted {5 * round(abs(degrees) / 5)} degrees"
            return tilted if rng.random() < 0.5 else f"{tilted} to the {side}"
        caption = _worded(rng, _BY_ANGLE, degrees)
        if level < 0.38:
            caption += f", {_worded(rng, _BY_POSITION, self.position)}"
        return caption


def _worded(rng: np.random.Generator, buckets: Buckets, value: float) -> str:
    side = "right" if value > 0 else "left"
    return pick(rng, bucket(buckets, abs(value))).format(pole=pick(rng, _POLES), cart=pick(rng, _CARTS), side=side)


def sample_states(count: int, rng: np.random.Generator) -> list[CartPoleState]:
    """Sample states over the whole track and circle, a third of them near upright, where the reward matters most.

    Args:
        count: Number of states.
        rng: The same generator state gives the same states.

    Returns:
        `count` states.
    """
    track = UprightCartPole().x_threshold
    positions = rng.uniform(-track, track, count)
    anywhere = rng.uniform(-math.pi, math.pi, count)
    near_upright = np.clip(rng.laplace(scale=math.radians(15), size=count), -math.pi, math.pi)
    angles = np.where(rng.random(count) < 1 / 3, near_upright, anywhere)
    return [CartPoleState(float(x), float(angle)) for x, angle in zip(positions, angles, strict=True)]


def render_states(states: list[CartPoleState], frame_format: FrameFormat) -> np.ndarray:
    """Render states, with the renderer that the tasks use.

    Args:
        states: N states.
        frame_format: Size of the frames.

    Returns:
        uint8 (N, H, W, 3).
    """
    env = UprightCartPole()
    env.reset(seed=0)
    frames = []
    for state in states:
        env.state = np.array([state.position, 0.0, state.angle, 0.0])
        frames.append(render_frame(env, frame_format))
    env.close()
    return np.stack(frames)
