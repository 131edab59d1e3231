"""MountainCar for pretraining: positions over the whole track, with original and modified textures, and captions."""

from dataclasses import dataclass, replace

import numpy as np

from vlm_rm_sweeps.frames import FrameFormat
from vlm_rm_sweeps.pretraining.captions import NEGATIONS, Buckets, bucket_of, expand, far_bucket, pick
from vlm_rm_sweeps.tasks.mountain_car import SummitMountainCar
from vlm_rm_sweeps.tasks.rendering import render_frame

POSITION_NOISE = 0.4
"""Scale of the captions' Laplace noise; a single scale, for the reason given in `cart_pole`."""

LEFT_END, RIGHT_END = -1.2, 0.52
"""Range of positions: the car stops at the flag (0.45), overshooting by at most one step of 0.07."""
FLAG = 0.45
"""Position of the flag."""

_WORDS = {
    "car": "{a|the|the|one} {||small |little }{car|car|car|vehicle}",
    "flag": "the {|yellow }flag",
    "peak": "the {top|peak|summit|highest point}{|| of the {mountain|hill|right slope}}",
    "valley": "the {bottom|valley|lowest point}",
    "bit": "{slightly|a little|a bit|somewhat}",
    "nearly": "{almost|nearly|not quite}",
    "near": "{next to|beside|by|right beside}",
}
_PAINTED = _WORDS | {"car": "{a|the|the|one} {||small |red |little }{car|car|car|vehicle}"}
_SCENES = (
    "{car} in a valley between two slopes",
    "a mountain landscape with {car}",
    "{car} and a mountain with a {|yellow }flag",
    "a hilly road with {car}",
    "{car} on a mountain road",
    "a {picture|drawing} of {car} in the mountains",
    "{car} driving in the mountains",
    "a valley, {car} and a {|yellow }flag",
)
_STYLES: dict[str, tuple[str, ...]] = {
    "modified": ("under a blue sky", "in a green valley with a snowy top", "on a sunny day", "with clouds in the sky"),
    "original": ("in a line drawing", "drawn with thin black lines", "on a white background", "in a simple sketch"),
}
_BY_POSITION: Buckets = (
    # Upper limits of the position. Each wording follows "is" or "is not".
    (
        -1.0,
        (
            "{high|far} up {on |}the {left|opposite|wrong} slope",
            "at the {left|far left} {edge|end}{| of the {road|valley|track}}",
            "at the {top|highest point} of the {left|opposite|wrong} slope",
            "as far {left|to the left} as it can be",
            "as far from {flag} as it can be",
        ),
    ),
    (
        -0.75,
        (
            "{half way|part of the way} up the {left|opposite|wrong} slope",
            "on the {left|opposite|wrong} {slope|side|hillside}",
            "{far|a long way} {to the left of|left of} {valley}",
            "on the slope {opposite|across from} the mountain",
        ),
    ),
    (
        -0.6,
        (
            "low on the {left|opposite} slope",
            "{bit} {above|left of} {valley}, on the left",
            "near {valley}, on the {left|opposite} side",
        ),
    ),
    (
        -0.42,
        (
            "at {{the very |the }bottom{| of the {valley|mountain}}|the lowest point{| of the road}|the foot of {the mountain|both "
            "slopes}}",
            "{down|deep|low|far down} in the valley",
            "between the {two |}slopes",
            "in the middle of the valley",
            "{far|a long way|deep} below {the {top|peak|summit}|{flag}}",
            "stuck in the valley",
        ),
    ),
    (
        -0.15,
        (
            "low on the {right slope|mountain|mountain with the flag}",
            "{bit} above {valley}, on the right",
            "{starting|beginning} to climb {the mountain|the right slope|towards {flag}}",
            "near {valley}, on the right side",
        ),
    ),
    (
        0.1,
        (
            "half way up the {mountain|right slope|hill}",
            "in the middle of the right slope",
            "half way between {valley} and {{flag}|the {top|peak|summit}}",
            "on the steep {part of the mountain|slope on the right}",
            "climbing towards {{flag}|the {top|peak|summit}}, half way up",
        ),
    ),
    (
        0.25,
        (
            "{high|far} up {on |}the {mountain|right slope}",
            "{more than|over} half way up the {mountain|right slope|hill}",
            "some way below {{flag}|the {top|peak|summit}}",
            "climbing high above {valley}",
        ),
    ),
    (
        0.38,
        (
            "{nearly} at {{peak}|{flag}}",
            "{just|a short way|{bit}} below {{flag}|the {top|peak|summit}}",
            "{near|close to} {{peak}|{flag}}",
            "high on the {mountain|right slope}, {just|{bit}} below {flag}",
        ),
    ),
    (
        RIGHT_END,
        (
            "{at|on} {peak}",
            "at the very top{| of the mountain}",
            "{near} {flag}",
            "{at|on} the {top|peak|summit}{| of the mountain}, {near} {flag}",
            "{standing|parked|stopped} {at|by|beside} {flag}{| on the {top|peak|summit}}",
            "on top of the mountain",
            "at the goal{|, on the highest point}",
            "as high {up |}as it can be, {at|by} {flag}",
        ),
    ),
)
_BY_CLIMB: Buckets = (
    # Upper limits of the position. Each wording follows "has" or "has not".
    (-0.75, ("{climbed|driven|gone} up the {left|opposite|wrong} {slope|side}", "{driven|gone} away from {flag}")),
    (-0.3, ("{rolled|driven|gone} {down |}into the valley", "{stayed|stopped} at {valley}")),
    (-0.05, ("climbed {bit} {up the mountain|above {valley}|towards {flag}}", "{just |}{left {valley}|begun to climb}")),
    (0.15, ("climbed half way {up the mountain|to the {top|peak|summit}|to {flag}}",)),
    (
        0.32,
        ("climbed {almost|nearly} all the way {up the mountain|to the {top|peak|summit}|to {flag}}", "come close to {flag}"),
    ),
    (
        RIGHT_END,
        (
            "climbed {all the way|right} up {the mountain|to {peak}|to {flag}}",
            "{reached|arrived at|come to} {{peak}|{flag}|the goal}",
            "got to {{peak}|{flag}}",
        ),
    ),
)
_BY_DISTANCE: Buckets = (
    # Upper limits of the distance to the flag. Each wording fits the car and the flag as subject.
    (0.08, ("{right |}beside", "next to", "right at")),
    (0.25, ("{close to|near}", "a short way from")),
    (0.55, ("some way from", "not {very |}far from")),
    (0.95, ("far from", "a long way from")),
    (1.65, ("{very far|far away} from", "a very long way from", "nowhere near")),
)


@dataclass(frozen=True)
class MountainCarState:
    """A state of MountainCar at rest.

    Attributes:
        position: -1.2 to 0.52; the flag is at 0.45.
        textures: Textures of the scene.
    """

    position: float
    textures: str

    def caption(self, rng: np.random.Generator) -> str:
        """Draw a caption: the place in words (most often) or as a share of the way, with or without style, or the scene alone.

        Args:
            rng: Draws the neighbouring state, the level of detail and the wording.

        Returns:
            For example "a small car half way up the mountain, in a line drawing".
        """
        noise = rng.laplace(scale=POSITION_NOISE)
        position = float(np.clip(self.position + noise, LEFT_END, RIGHT_END))
        words = _PAINTED if self.textures == "modified" else _WORDS
        style, level = pick(rng, _STYLES[self.textures]), rng.random()
        if level < 0.05:
            return expand(rng, pick(rng, _SCENES), words)
        if level < 0.08:
            return expand(rng, f"{{car}} {style}", words)
        caption = expand(rng, _place_template(rng, position), words)
        return f"{caption}, {style}" if rng.random() < 0.1 else caption

    def foil(self, rng: np.random.Generator) -> "MountainCarState":
        """Draw a state with the car elsewhere, at least 0.4 away."""
        while True:
            position = float(rng.uniform(LEFT_END, RIGHT_END))
            if abs(position - self.position) >= 0.4:
                return replace(self, position=position)


def _place_template(rng: np.random.Generator, position: float) -> str:
    """Compose a template that describes a position, in one of several forms."""
    form = rng.random()
    true = pick(rng, _BY_POSITION[bucket_of(_BY_POSITION, position)][1])
    if form < 0.4:
        return f"{{car}} {{|is }}{true}"
    if form < 0.6:
        false = pick(rng, far_bucket(rng, _BY_POSITION, position))
        return pick(rng, NEGATIONS).replace("{subject}", "{car}").replace("{true}", true).replace("{false}", false)
    if form < 0.72:
        return f"{{car}} has {pick(rng, _BY_CLIMB[bucket_of(_BY_CLIMB, position)][1])}"
    if form < 0.78:
        at_all = position < -0.3 and rng.random() < 0.5
        return "{car} has not " + ("climbed {at all|yet}" if at_all else pick(rng, far_bucket(rng, _BY_CLIMB, position)))
    if form < 0.9:
        distance = pick(rng, _BY_DISTANCE[bucket_of(_BY_DISTANCE, abs(position - FLAG))][1])
        return f"{{car}} {{|is }}{distance} {{flag}}" if rng.random() < 0.7 else f"{{flag}} {{|is }}{distance} {{car}}"
    # Positions beyond the flag count as 100 percent.
    percent = 10 * round(10 * float(np.clip((position - LEFT_END) / (FLAG - LEFT_END), 0, 1)))
    return f"{{car}} {percent} percent of the way {{up the road|to {{flag}}}}"


def sample_states(count: int, rng: np.random.Generator) -> list[MountainCarState]:
    """Sample positions over the whole track, a quarter of them near the flag, half of them with modified textures.

    Args:
        count: Number of states.
        rng: The same generator state gives the same states.

    Returns:
        `count` states.
    """
    anywhere = rng.uniform(LEFT_END, RIGHT_END, count)
    near_flag = np.clip(rng.normal(FLAG, 0.1, count), LEFT_END, RIGHT_END)
    positions = np.where(rng.random(count) < 0.25, near_flag, anywhere)
    painted = rng.random(count) < 0.5
    return [
        MountainCarState(float(x), "modified" if paint else "original") for x, paint in zip(positions, painted, strict=True)
    ]


def render_states(states: list[MountainCarState], frame_format: FrameFormat) -> np.ndarray:
    """Render states, with the renderer that the tasks use.

    Args:
        states: N states.
        frame_format: Size of the frames.

    Returns:
        uint8 (N, H, W, 3).
    """
    frames = []
    environments = {textures: SummitMountainCar(textures) for textures in {state.textures for state in states}}
    for env in environments.values():
        env.reset(seed=0)
    for state in states:
        env = environments[state.textures]
        env.state = np.array([state.position, 0.0], np.float32)
        frames.append(render_frame(env, frame_format))
    for env in environments.values():
        env.close()
    return np.stack(frames)
