"""MountainCar for pretraining: positions over the whole track, with original and modified textures, and captions."""

from dataclasses import dataclass

import numpy as np

from vlm_rm_sweeps.frames import FrameFormat
from vlm_rm_sweeps.pretraining.captions import Buckets, bucket, pick
from vlm_rm_sweeps.tasks.mountain_car import SummitMountainCar
from vlm_rm_sweeps.tasks.rendering import render_frame

POSITION_NOISE = 0.4
"""Scale of the captions' Laplace noise; a single scale, for the reason given in `cart_pole`."""

LEFT_END, RIGHT_END = -1.2, 0.52
"""Range of positions: the car stops at the flag (0.45), overshooting by at most one step of 0.07."""
_CARS = ("a car", "the car", "a small car", "a vehicle", "the little car", "one car")
_PAINTED_CARS = (*_CARS, "a red car", "the red car")
_SCENES = (
    "{car} in a valley between two slopes",
    "a mountain landscape with {car}",
    "{car} and a mountain with a yellow flag",
    "a hilly road with {car}",
    "{car} on a mountain road",
    "a picture of {car} in the mountains",
    "{car} driving in the mountains",
    "a valley, {car} and a yellow flag",
)
_STYLES: dict[str, tuple[str, ...]] = {
    "modified": ("under a blue sky", "in a green valley with a snowy top", "on a sunny day", "with clouds in the sky"),
    "original": ("in a line drawing", "drawn with thin black lines", "on a white background", "in a simple sketch"),
}
_BY_POSITION: Buckets = (
    # Upper limits of the position. Wordings name the flag more often the nearer it is: words that far states share with the goal
    # raise their reward.
    (
        -1.0,
        (
            "{car} at the left edge",
            "{car} at the end of the left slope, on the wrong side",
            "{car} at the left end of the road",
            "{car} on the opposite side, as far left as can be",
            "{car} facing the valley from the far left",
        ),
    ),
    (
        -0.75,
        (
            "{car} on the left slope",
            "{car} part of the way up the slope on the left",
            "{car} on the hillside across the valley",
            "{car} far to the left of the valley",
            "{car} rolling on the left side of the valley",
        ),
    ),
    (
        -0.3,
        (
            "{car} at the bottom of the valley",
            "{car} down in the valley",
            "{car} at the lowest point of the road",
            "{car} at the foot of the mountain",
            "{car} in the middle of the valley, a long way below the flag",
            "{car} stuck down between the slopes",
            "{car} has not climbed at all",
        ),
    ),
    (
        -0.05,
        (
            "{car} starting to climb the right slope",
            "{car} on the lower right slope",
            "{car} a little above the valley, on the right",
            "{car} low on the mountain with the flag",
            "{car} beginning the climb towards the yellow flag",
        ),
    ),
    (
        0.15,
        (
            "{car} half way up the mountain",
            "{car} in the middle of the right slope",
            "{car} climbing the steep slope towards the flag",
            "{car} half way between the valley and the flag",
            "{car} on the steep part of the mountain",
        ),
    ),
    (
        0.32,
        (
            "{car} high on the right slope, below the flag",
            "{car} almost at the top of the mountain",
            "{car} near the summit",
            "{car} a short way below the yellow flag",
            "{car} close to the flag, still climbing",
            "{car} near the peak",
        ),
    ),
    (
        RIGHT_END,
        (
            "{car} at the top of the mountain, beside the yellow flag",
            "{car} on the summit, at the yellow flag",
            "{car} has reached the yellow flag",
            "{car} at the peak, right next to the flag",
            "{car} on top of the mountain",
            "{car} standing at the flag on the mountain top",
            "{car} at the mountain's peak with the yellow flag",
            "{car} next to the yellow flag",
            "{car} at the goal, on the highest point",
            "{car} parked by the yellow flag at the summit",
            "{car} has arrived at the peak of the mountain",
        ),
    ),
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
        car = pick(rng, _PAINTED_CARS if self.textures == "modified" else _CARS)
        level = rng.random()
        if level < 0.08:
            return pick(rng, _SCENES).format(car=car)
        if level < 0.12:
            return f"{car} {pick(rng, _STYLES[self.textures])}"
        if level < 0.2:
            # The flag is at 0.45; positions beyond it count as 100 percent.
            percent = 10 * round(10 * np.clip((position - LEFT_END) / (0.45 - LEFT_END), 0, 1))
            return f"{car} {percent} percent of the way up the road"
        caption = pick(rng, bucket(_BY_POSITION, position)).format(car=car)
        if level < 0.32:
            caption += f", {pick(rng, _STYLES[self.textures])}"
        return caption


def sample_states(count: int, rng: np.random.Generator) -> list[MountainCarState]:
    """Sample positions over the whole track, a quarter of them near the flag, half of them with modified textures.

    Args:
        count: Number of states.
        rng: The same generator state gives the same states.

    Returns:
        `count` states.
    """
    anywhere = rng.uniform(LEFT_END, RIGHT_END, count)
    near_flag = np.clip(rng.normal(0.45, 0.1, count), LEFT_END, RIGHT_END)
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
