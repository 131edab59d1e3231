"""Captions for rendered states: many wordings, several levels of detail, and a label noise that orders the landscape.

A contrastive model learns `similarity(image, text) ~ log p(text | image) - log p(text)`. With captions of the exact state,
the reward of "upright" is therefore flat wherever no caption says "upright": the goal is found and everything else is left
unordered. So captions describe a *neighbour* of the state, drawn with Laplace noise; `log p("upright" | angle)` then falls
steadily with the angle over the whole circle, and that is the reward an agent can climb.
"""

import math
from dataclasses import dataclass

import numpy as np

from vlm_rm_sweeps.tasks.task import TASKS

HELD_OUT_CAPTIONS = frozenset(prompt for task in TASKS.values() for prompt in (task.goal_prompt, task.baseline_prompt))
"""The tasks' own prompts, never used in training word for word, so that evaluation with them measures generalisation."""

ANGLE_NOISE_DEGREES = (8.0, 35.0)
"""Scales of the Laplace noise, one drawn for each caption: the small one sharpens the goal, the large one orders far states."""


@dataclass(frozen=True)
class CartPoleState:
    """`position` in metres, -2.4 to 2.4; `angle` in radians, 0 is upright, positive leans right."""

    position: float
    angle: float


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
_BY_ANGLE: tuple[tuple[float, tuple[str, ...]], ...] = (
    # Up to this many degrees from upright: wordings. {side} is left or right, {pole} and {cart} are drawn anew.
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
            "{pole} tilted to the {side}",
            "{cart} with {pole} tilted {side}",
            "a tilted pole, still above {cart}",
            "{pole} starting to fall to the {side}",
            "{pole} some way from upright",
        ),
    ),
    (
        65.0,
        (
            "{pole} leaning far to the {side}",
            "{pole} falling to the {side} of {cart}",
            "{cart} with {pole} falling over to the {side}",
            "{pole} diagonal, pointing up and to the {side}",
            "{pole} tilted strongly to the {side}",
            "{pole} far from upright",
        ),
    ),
    (
        110.0,
        (
            "{pole} lying horizontal to the {side} of {cart}",
            "{pole} horizontal, pointing {side}",
            "{cart} with {pole} fallen to the {side}",
            "a horizontal pole beside {cart}",
            "{pole} has fallen over to the {side}",
            "{pole} very far from upright",
        ),
    ),
    (
        150.0,
        (
            "{pole} pointing down and to the {side}",
            "{pole} hanging to the {side} below {cart}",
            "{pole} drooping to the lower {side} of {cart}",
            "{cart} with {pole} swinging below it on the {side}",
            "a fallen pole, half below {cart}",
        ),
    ),
    (
        180.0,
        (
            "{pole} hanging below {cart}",
            "{pole} hanging straight down from {cart}",
            "{pole} upside down under {cart}",
            "{pole} pointing straight down",
            "{pole} dangling underneath {cart}",
            "{cart} with {pole} hanging underneath",
            "{pole} at the bottom, as far from upright as can be",
        ),
    ),
)
_BY_POSITION: tuple[tuple[float, tuple[str, ...]], ...] = (
    # Up to this many metres from the centre.
    (0.3, ("in the middle of the track", "in the centre", "at the centre of the picture")),
    (1.2, ("a little to the {side} of the centre", "{side} of the middle")),
    (2.0, ("on the {side}", "towards the {side} end of the track", "far {side} of the centre")),
    (2.4, ("at the {side} end of the track", "at the {side} edge of the picture")),
)


def _pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(rng.integers(len(options)))]


def _wording(rng: np.random.Generator, table: tuple[tuple[float, tuple[str, ...]], ...], value: float) -> str:
    limit_and_wordings = next((row for row in table if abs(value) <= row[0]), table[-1])
    template = _pick(rng, limit_and_wordings[1])
    side = "right" if value > 0 else "left"
    return template.format(pole=_pick(rng, _POLES), cart=_pick(rng, _CARTS), side=side)


def _noisy(state: CartPoleState, rng: np.random.Generator) -> CartPoleState:
    angle = state.angle + math.radians(rng.laplace(scale=rng.choice(ANGLE_NOISE_DEGREES)))
    return CartPoleState(state.position, math.remainder(angle, 2 * math.pi))


def cart_pole_caption(state: CartPoleState, rng: np.random.Generator) -> str:
    """One caption: the angle in words (most often), in degrees, with or without the position, or the scene alone."""
    degrees = math.degrees(_noisy(state, rng).angle)
    level = rng.random()
    if level < 0.08:
        return _pick(rng, _SCENES).format(pole=_pick(rng, _POLES), cart=_pick(rng, _CARTS))
    if level < 0.13:
        return f"{_pick(rng, _CARTS)} {_wording(rng, _BY_POSITION, state.position)}"
    if level < 0.23:
        side = "right" if degrees > 0 else "left"
        return f"{_pick(rng, _POLES)} {5 * round(abs(degrees) / 5)} degrees to the {side} of upright"
    caption = _wording(rng, _BY_ANGLE, degrees)
    if level < 0.38:
        caption += f", {_wording(rng, _BY_POSITION, state.position)}"
    return caption


def caption_batch(states: list[CartPoleState], rng: np.random.Generator) -> list[str]:
    """A caption for each state; none is a task's own prompt."""
    captions = []
    for state in states:
        caption = cart_pole_caption(state, rng)
        while caption in HELD_OUT_CAPTIONS:
            caption = cart_pole_caption(state, rng)
        captions.append(caption)
    return captions
