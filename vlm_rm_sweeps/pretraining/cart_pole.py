"""CartPole for pretraining: states over the whole track and circle, rendered as in the task, with captions."""

import math
from dataclasses import dataclass, replace

import numpy as np

from vlm_rm_sweeps.frames import FrameFormat
from vlm_rm_sweeps.pretraining.captions import NEGATIONS, Buckets, bucket_of, expand, far_bucket, pick
from vlm_rm_sweeps.tasks.cart_pole import UprightCartPole
from vlm_rm_sweeps.tasks.rendering import render_frame

ANGLE_NOISE_DEGREES = 35.0
"""Scale of the captions' Laplace noise. With a single scale the log-probability of a goal caption falls linearly with the
angle. A second, smaller scale would make it convex, and models would learn more of that the larger they are."""

_WORDS = {
    "pole": "{a|the|the|one|} {|||thin |brown |thin brown |long }pole",
    "cart": "{a|the|the|its} {|||black |moving |small }cart",
    "bit": "{slightly|a little|a bit|somewhat}",
    "nearly": "{almost|nearly|not quite|close to}",
    "straight": "{straight|directly|vertically}",
    "below": "{below|under|underneath|beneath}",
    "above": "{above|over|on top of}",
    "tip": "{tip|end|upper end|free end|top}",
}
_SCENES = (
    "{pole} on {cart}",
    "{cart} with {pole}",
    "{pole} {attached|hinged} to {cart}",
    "a cart pole",
    "{cart} and its pole",
    "{cart} carrying {pole}",
    "a {picture|drawing} of {cart} {with|and} {pole}",
)
_BY_ANGLE: Buckets = (
    # Upper limits in degrees from upright. Each wording follows "is" or "is not".
    (
        5.0,
        (
            "{|perfectly |exactly |fully |completely |vertically }upright{|| on {cart}}",
            "{vertical|exactly vertical}, {pointing up|its {tip} up|{above} {cart}}",
            "pointing {{straight} |exactly |}up",
            "standing {straight|vertically|upright|up|straight up}{| on {cart}| {above} {cart}}",
            "{straight} {above} {cart}",
            "balanced {|upright |vertically }{on|{above}} {cart}",
            "at the {very |}top{| of its circle}",
            "{in balance|held up|held upright|held vertical}{| by {cart}| on {cart}}",
        ),
    ),
    (
        15.0,
        (
            "{nearly} {upright|vertical|straight up}{|| on {cart}}",
            "{pointing |}up, {bit} to the {side}",
            "{leaning|tilted|tipped} {bit} to the {side}{|, {above} {cart}}",
            "{upright|vertical} but for a {small|little} tilt{| to the {side}}",
            "{bit} {tilted|off vertical|out of balance}",
            "close to {the top|balance|upright}, {bit} {side} of it",
        ),
    ),
    (
        35.0,
        (
            "{leaning|tilted|tipped|inclined} {clearly |}to the {side}{|, still {above} {cart}}",
            "pointing up and {bit} to the {side}",
            "{still |}{above} {cart}, {leaning|tilted} {side}",
            "{starting|beginning} to fall {over |}to the {side}",
            "losing its balance{|, {leaning|tipping} {side}}",
            "some way from {upright|vertical|straight up}",
        ),
    ),
    (
        60.0,
        (
            "pointing {diagonally |}up and to the {side}",
            "half way between {upright|straight up|vertical} and {horizontal|level|flat}",
            "{leaning|tilted|tipped} {far|strongly|a long way} to the {side}",
            "falling {over |}to the {side}",
            "far {out of balance|from vertical}",
            "diagonal, its {tip} up and {side}",
        ),
    ),
    (
        80.0,
        (
            "{nearly} {horizontal|level|flat}, {pointing |}{bit} up{| and to the {side}}",
            "fallen {most of the way|almost all the way} {over |}to the {side}",
            "low above the {side} of {cart}",
            "tilted {very far|almost all the way} to the {side}",
        ),
    ),
    (
        100.0,
        (
            "{horizontal|level|flat|lying flat|lying on its side}{|, pointing {straight |directly |}to the {side}}",
            "pointing {straight|directly|horizontally|exactly} to the {side}",
            "fallen over {completely |}to the {side}",
            "level with {cart}{|, on the {side}}",
            "{straight|directly} beside {cart}{|, on the {side}}",
            "half way between {straight up|the top|upright} and {straight down|the bottom|upside down}",
        ),
    ),
    (
        120.0,
        (
            "pointing {bit} down and to the {side}",
            "{nearly} {horizontal|level}, {bit} {below} {cart}",
            "fallen {past|below|beyond} the horizontal{| on the {side}}",
            "drooping to the {side}",
        ),
    ),
    (
        145.0,
        (
            "pointing {diagonally |}down and to the {side}",
            "half way between {horizontal|level|flat} and {straight down|hanging|upside down}",
            "hanging {far|a long way} to the {side}",
            "swinging far out to the {side}, {below} {cart}",
            "diagonal, its {tip} down and {side}",
        ),
    ),
    (
        168.0,
        (
            "{nearly} {straight down|the bottom|upside down}",
            "hanging {bit} to the {side}{|, {below} {cart}}",
            "pointing down, {bit} to the {side}",
            "{below} {cart}, {bit} to the {side}",
            "{dangling|swinging} {bit} to the {side} of the bottom",
        ),
    ),
    (
        180.0,
        (
            "{hanging|pointing|dangling} {{straight} |exactly |}down{|| from {cart}}",
            "{straight} {below} {cart}",
            "{|perfectly |exactly |fully |completely |vertically }upside down{|| {below} {cart}}",
            "{vertical|exactly vertical}, {hanging|its {tip} down|{below} {cart}}",
            "at the {very |}bottom{| of its circle}",
            "hanging {straight|vertically|still} {below} {cart}",
        ),
    ),
)
_BY_HEIGHT: Buckets = (
    # Upper limits of the height of the pole's end, as a share of its length.
    (-0.97, ("as {low|far down|far below {cart}} as it {can be|goes}", "at its lowest point")),
    (-0.6, ("{far|deep|a long way} {below} {cart}", "low {below} {cart}")),
    (-0.2, ("{bit} {below} {cart}", "lower than {cart}")),
    (0.2, ("level with {cart}", "as high as {cart}", "neither {above} nor {below} {cart}")),
    (0.6, ("{bit} above {cart}", "higher than {cart}")),
    (0.97, ("{far|high|a long way} above {cart}", "high over {cart}")),
    (1.0, ("as {high|far up|far above {cart}} as it {can be|goes}", "at its highest point")),
)
_BY_POSITION: Buckets = (
    # Upper limits in metres from the centre.
    (0.3, ("in the {middle|centre} of the {track|picture}", "in the {middle|centre}")),
    (1.2, ("{bit} to the {side} of the {middle|centre}", "{side} of the {middle|centre}")),
    (2.0, ("on the {side}", "towards the {side} end of the track", "far {side} of the {middle|centre}")),
    (2.4, ("at the {side} end of the track", "at the {side} edge of the {track|picture}")),
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
        """Draw a caption: the angle in words (most often) or numbers, what it is not, the cart's position, or the scene alone.

        Args:
            rng: Draws the neighbouring state, the level of detail and the wording.

        Returns:
            For example "a pole almost upright on the cart".
        """
        noise = math.radians(rng.laplace(scale=ANGLE_NOISE_DEGREES))
        # Clipped at straight down: noise that wraps around would blur the order of the states near it.
        degrees = math.degrees(np.clip(math.remainder(self.angle, 2 * math.pi) + noise, -math.pi, math.pi))
        level = rng.random()
        words = _WORDS | {"side": "right" if degrees > 0 else "left"}
        at = {**_WORDS, "side": "right" if self.position > 0 else "left"}
        if level < 0.05:
            return expand(rng, pick(rng, _SCENES), _WORDS)
        where = expand(rng, pick(rng, _BY_POSITION[bucket_of(_BY_POSITION, abs(self.position))][1]), at)
        if level < 0.09:
            return f"{expand(rng, '{cart}', _WORDS)} {where}"
        caption = expand(rng, _angle_template(rng, degrees), words)
        return f"{caption}, {where}" if rng.random() < 0.12 else caption

    def foil(self, rng: np.random.Generator) -> "CartPoleState":
        """Draw a state with the pole elsewhere, at least 40 degrees away, or on the cart's other side; the cart stays."""
        turn = rng.uniform(40, 320)
        angle = -self.angle if rng.random() < 0.25 else self.angle + math.radians(turn)
        return replace(self, angle=float(angle))


def _angle_template(rng: np.random.Generator, degrees: float) -> str:
    """Compose a template that describes an angle, in one of several forms."""
    form, angle = rng.random(), abs(degrees)
    true = pick(rng, _BY_ANGLE[bucket_of(_BY_ANGLE, angle)][1])
    if form < 0.5:
        return f"{{pole}} {{|is }}{true}" if rng.random() < 0.8 else f"{{cart}} with {{pole}} {true}"
    if form < 0.72:
        false = pick(rng, far_bucket(rng, _BY_ANGLE, angle))
        return pick(rng, NEGATIONS).replace("{subject}", "{pole}").replace("{true}", true).replace("{false}", false)
    if form < 0.84:
        height = math.cos(math.radians(angle))
        return f"{{pole}}{{|,}} its {{tip}} {pick(rng, _BY_HEIGHT[bucket_of(_BY_HEIGHT, height)][1])}"
    if form < 0.92:
        return _numbered(rng, angle)
    if rng.random() < 0.5:
        return f"{{pole}} {{|is }}{_distance(angle)} {{upright|straight up|the top|vertical|balance}}"
    return f"{{pole}} {{|is }}{_distance(180 - angle)} {{hanging|straight down|the bottom|upside down}}"


def _distance(degrees: float) -> str:
    """Return a template for how far the pole is from a place on its circle."""
    if degrees < 25:
        return "{very |}{close to|near}"
    return "{some way|not far} from" if degrees < 70 else "{very |}{far|a long way} from"


def _numbered(rng: np.random.Generator, angle: float) -> str:
    from_top = 5 * round(angle / 5)
    if rng.random() < 0.6:
        from_upright = f"{from_top} degrees from {{upright|vertical|the top|straight up}}"
        return f"{{pole}} {{|is }}{{tilted {from_top} degrees|{from_upright}}}{{| to the {{side}}}}"
    from_bottom = f"{180 - from_top} degrees from {{straight down|the bottom|hanging|upside down}}"
    return f"{{pole}} {{|is }}{from_bottom}{{| to the {{side}}}}"


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
