"""The held-out sets of the embedded family, fixed before its training: states, wordings and cameras that no training uses.

The truth of a state is a number that the reward should follow: for CartPole minus the pole's angle from upright, for
MountainCar minus the car's distance from the flag, for the humanoid whether the state passes a task's success test. Rewards are
computed for the paper's own prompts, none of which is a training caption.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from vlm_rm_sweeps.frames import FrameFormat
from vlm_rm_sweeps.pretraining import cart_pole, humanoid, mountain_car
from vlm_rm_sweeps.pretraining.captions import pick
from vlm_rm_sweeps.pretraining.cart_pole import CartPoleState
from vlm_rm_sweeps.pretraining.humanoid import HumanoidState, View
from vlm_rm_sweeps.pretraining.mountain_car import FLAG, LEFT_END, RIGHT_END, MountainCarState
from vlm_rm_sweeps.tasks.humanoid.env import Humanoid
from vlm_rm_sweeps.tasks.humanoid.poses import POSES, Pose, interpolated, perturbed
from vlm_rm_sweeps.tasks.humanoid.success import SUCCESS_TESTS
from vlm_rm_sweeps.tasks.rendering import Rendering

SEED = 987_654_321
"""Far from the small seeds of trainings, so that no state is shared."""
STATES = 1_000
"""Number of states of CartPole, and of MountainCar."""
STATES_OF_A_POSE = 40
STATES_BETWEEN_POSES = 300
STATES_VISITED = 300


@dataclass(frozen=True)
class HeldOut:
    """A held-out set.

    Attributes:
        frames: uint8 (N, H, W, 3).
        truths: By task, the truth of each state, float (N,).
    """

    frames: np.ndarray
    truths: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Retrieval:
    """Frames of clear cases, to be matched with held-out wordings.

    Attributes:
        frames: uint8 (N, H, W, 3).
        kinds: Kind of each frame, N names.
        wordings: By kind, wordings that no training caption uses.
    """

    frames: np.ndarray
    kinds: Sequence[str]
    wordings: Mapping[str, tuple[str, ...]]


def held_out_cart_pole(frame_format: FrameFormat) -> HeldOut:
    """Make the set of CartPole: states uniform over the circle and the track.

    Args:
        frame_format: Size of the frames.

    Returns:
        The set, with the truth of `cartpole-upright`.
    """
    rng = np.random.default_rng(SEED)
    track = 2.4
    states = [CartPoleState(rng.uniform(-track, track), rng.uniform(-math.pi, math.pi)) for _ in range(STATES)]
    closeness = np.array([-abs(state.angle) for state in states])
    return HeldOut(cart_pole.render_states(states, frame_format), {"cartpole-upright": closeness})


def held_out_mountain_car(frame_format: FrameFormat, textures: str = "modified") -> HeldOut:
    """Make a set of MountainCar: positions uniform over the track.

    Args:
        frame_format: Size of the frames.
        textures: Textures of the scene, `modified` or `original`.

    Returns:
        The set, with the truth of `mountaincar-summit`.
    """
    rng = np.random.default_rng(SEED)
    states = [MountainCarState(rng.uniform(LEFT_END, RIGHT_END), textures) for _ in range(STATES)]
    closeness = np.array([-abs(state.position - FLAG) for state in states])
    return HeldOut(mountain_car.render_states(states, frame_format), {"mountaincar-summit": closeness})


def held_out_humanoid(frame_format: FrameFormat, unseen_cameras: bool = False) -> HeldOut:
    """Make a set of the humanoid: noisy reference poses, states between poses, and states of policies; modified textures.

    Args:
        frame_format: Size of the frames.
        unseen_cameras: Instead of the paper's camera, use another one for each state, 40 to 80 degrees to the side and up to 40
            degrees from above; trainings use at most 30 and 25 degrees.

    Returns:
        The set, with the truths of all humanoid tasks.
    """
    rng = np.random.default_rng(SEED)
    names = list(POSES)
    positions = [_placed(perturbed(POSES[name], rng, 5.0), rng) for name in names for _ in range(STATES_OF_A_POSE)]
    for _ in range(STATES_BETWEEN_POSES):
        between = interpolated(POSES[pick(rng, names)], POSES[pick(rng, names)], rng.uniform(0, 1))
        positions.append(_placed(perturbed(between, rng, 5.0), rng))
    positions += humanoid.visited_positions(STATES_VISITED, rng)
    states = [HumanoidState.of(qpos) for qpos in positions]
    if unseen_cameras:
        states = [replace(state, view=_unseen_view(rng)) for state in states]
    return HeldOut(humanoid.render_states(states, frame_format), _successes(positions))


def _placed(pose: Pose, rng: np.random.Generator) -> np.ndarray:
    return pose.qpos(rng.normal(0, 12), (rng.normal(0, 0.1), rng.normal(0, 0.1)))


def _unseen_view(rng: np.random.Generator) -> View:
    side = 1 if rng.random() < 0.5 else -1
    return View(180 + side * rng.uniform(40, 80), rng.uniform(-40, 0), rng.uniform(3.0, 4.2))


def _successes(positions: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    env = Humanoid(Rendering())
    successes = np.empty((len(positions), len(SUCCESS_TESTS)))
    for row, qpos in zip(successes, positions, strict=True):
        env.set_state(qpos, np.zeros(env.model.nv))
        row[:] = [is_success(env.data) for is_success in SUCCESS_TESTS.values()]
    env.close()
    return dict(zip(SUCCESS_TESTS, successes.T, strict=True))


_CASES = 40
# Eight wordings of the first version are gone, because the second one's grammar can produce them.
_CART_POLE_CASES = {
    # Centre and half width in degrees from upright, and wordings.
    "upright": (
        0,
        3,
        ("the cart keeps its pole vertical and upright", "the pole balanced vertically, straight above the cart"),
    ),
    "leaning": (26, 5, ("the pole is tilted, some way from vertical", "a leaning pole, still pointing up")),
    "horizontal": (90, 10, ("the pole has fallen and lies horizontal", "a pole pointing horizontally away from its cart")),
    "hanging": (175, 5, ("the pole hangs upside down below its cart", "a cart with the pole dangling straight below")),
}
_MOUNTAIN_CAR_CASES = {
    # Centre and half width of the position, and wordings.
    "left": (
        -1.05,
        0.1,
        ("the car on the slope at the left, on the wrong side", "on the far left slope, across from the flag"),
    ),
    "valley": (-0.52, 0.08, ("the car sits down at the bottom, in the valley", "at the lowest point between both slopes")),
    "half way": (0.05, 0.06, ("climbing the mountain, half way to the flag",)),
    "flag": (0.45, 0.03, ("the car has reached the flag at the top",)),
}
_POSE_WORDINGS = {
    "standing": ("the robot is standing upright on its two legs, arms down", "standing straight and still"),
    "arms raised": ("the robot holds its raised hands above its head", "both arms raised up into the air"),
    "arms out": ("the robot's arms are spread wide to both sides", "both arms stretched out horizontally"),
    "hands on hips": ("the robot is holding its hands at the hips", "both hands resting at the waist"),
    "arms crossed": ("the robot has its arms folded across the chest", "both arms crossed in front of its body"),
    "kneeling": ("the robot is on the floor on both its knees",),
    "kneeling on the heels": ("the robot is kneeling low and resting on its heels",),
    "on one knee": ("down on only one knee",),
    "one leg": ("the robot is balancing, one foot lifted", "standing on one foot, one knee raised"),
    "side splits": (
        "the robot's legs are stretched wide in the side splits",
        "gymnastics on the floor, legs spread to both sides",
    ),
    "front splits": ("the robot does a front split on the floor", "one leg ahead and one leg behind on the floor"),
    "sitting": ("the robot is seated upright with straight legs", "sitting down, both legs stretched forwards"),
    "lotus": ("seated on the floor to meditate with crossed legs",),
    "squatting": ("the robot is crouching low in a deep squat", "squatting with deeply bent knees"),
    "bowing": ("the robot is bent forwards at the hips, bowing", "bowing, its upper body far forwards"),
    "lying on the back": ("lying on the floor with its face up",),
    "lying on the front": ("lying on the floor with its face down",),
    "walking": ("the robot is taking a step forwards, walking", "in the middle of walking, one leg in front"),
}


def retrieval_cart_pole(frame_format: FrameFormat) -> Retrieval:
    """Make clear cases of pole angles, to both sides.

    Args:
        frame_format: Size of the frames.

    Returns:
        Four kinds of states.
    """
    rng = np.random.default_rng(SEED)
    kinds = [kind for kind in _CART_POLE_CASES for _ in range(_CASES)]
    states = []
    for kind in kinds:
        centre, width, _ = _CART_POLE_CASES[kind]
        degrees = rng.choice((-1, 1)) * (centre + rng.uniform(-width, width))
        states.append(CartPoleState(rng.uniform(-2.4, 2.4), math.radians(degrees)))
    wordings = {kind: case[2] for kind, case in _CART_POLE_CASES.items()}
    return Retrieval(cart_pole.render_states(states, frame_format), kinds, wordings)


def retrieval_mountain_car(frame_format: FrameFormat) -> Retrieval:
    """Make clear cases of car positions, with modified textures.

    Args:
        frame_format: Size of the frames.

    Returns:
        Four kinds of states.
    """
    rng = np.random.default_rng(SEED)
    kinds = [kind for kind in _MOUNTAIN_CAR_CASES for _ in range(_CASES)]
    states = []
    for kind in kinds:
        centre, width, _ = _MOUNTAIN_CAR_CASES[kind]
        states.append(MountainCarState(centre + rng.uniform(-width, width), "modified"))
    wordings = {kind: case[2] for kind, case in _MOUNTAIN_CAR_CASES.items()}
    return Retrieval(mountain_car.render_states(states, frame_format), kinds, wordings)


def retrieval_humanoid(frame_format: FrameFormat) -> Retrieval:
    """Make clear cases of all reference poses: little noise, the paper's camera.

    Args:
        frame_format: Size of the frames.

    Returns:
        A kind of states for each pose.
    """
    rng = np.random.default_rng(SEED)
    kinds = [name for name in POSES for _ in range(_CASES)]
    positions = [_placed(perturbed(POSES[name], rng, 3.0), rng) for name in kinds]
    states = [HumanoidState.of(qpos) for qpos in positions]
    return Retrieval(humanoid.render_states(states, frame_format), kinds, _POSE_WORDINGS)
