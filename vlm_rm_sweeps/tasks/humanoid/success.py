"""The humanoid's success tests: one for each task, from the simulator's state.

The tests turn the paper's criteria for human labellers (its appendix on evaluation) into heights, angles and distances. "On the
floor" is a clearance below a threshold, not a contact, as a person would judge from a picture. Where joint limits rule out a
criterion, the threshold is what the model can reach:

- *lotus*: the hips turn outwards by 60 degrees at most, so the knees stay about 0.2 m above the floor;
- *hands on hips*: the hands end about 0.05 m from the surface of the hips;
- *arms crossed*: the forearms cross in front of the body, but do not lie on the chest.
"""

import math
from collections.abc import Callable

import mujoco
import numpy as np

from vlm_rm_sweeps.tasks.humanoid import body

# Clearances of a body part's lowest point from the floor, in metres. Those of knees and stretched legs are the smallest with
# which 95 % of a task's own poses with 3 degrees of noise on each joint still count.
FOOT_DOWN = 0.08
FOOT_LIFTED = 0.2
KNEE_DOWN = 0.11
LEG_DOWN = 0.26
PELVIS_DOWN = 0.15
LOTUS_KNEE_DOWN = 0.3

# Tilt of the torso from the vertical, in degrees. A robot that stands or kneels loses its balance beyond it.
UPRIGHT = 30.0
UPRIGHT_SEATED = 45.0

STANDING_PELVIS_HEIGHT = 0.65
"""Least height of the pelvis's centre, in metres; it is 0.87 with straight legs."""

BALANCED = 0.3
"""Largest horizontal distance in metres from the centre of mass to the foot that carries it."""

# Bend of the knees, in degrees; 0 is straight.
KNEELING_BEND = 60.0
LOTUS_BEND = 100.0
STRAIGHT_BEND = 20.0

KNEES_APART = 0.55
"""Least distance in metres between the knees in the lotus."""
FEET_TOGETHER = 0.4
"""Largest distance in metres between the centres of the feet in the lotus."""

SPLITS_ANGLE = 90.0
"""Least angle between the legs, from hip to foot, in degrees. Joint limits allow 115 in a side split."""
SPLITS_SIDEWAYS = 0.6
"""Least component of a leg's direction that points to its own side of the pelvis (0 to 1)."""

HAND_AT_HIP = 0.12
"""Largest distance in metres between the surfaces of a hand and of the hips."""
HIP_HEIGHTS = (0.0, 0.2)
"""Range of the hands' height above the pelvis's centre, in metres: below it hands hang, above it they are at the chest."""

CROSSED = 0.02
"""Least distance in metres by which each hand is past the middle of the torso."""
CROSSED_IN_FRONT = 0.1
"""Least distance in metres of the hands in front of the torso's centre."""
CROSSED_HEIGHTS = (-0.45, 0.1)
"""Range of the hands' height above the torso's centre, in metres: between hips and throat."""


def kneeling(data: mujoco.MjData) -> bool:
    """Decide success: both knees on the floor and bent, the pelvis off the floor, the torso upright."""
    knees = all(body.knee_clearance(data, side) <= KNEE_DOWN and body.bend(data, side) >= KNEELING_BEND for side in body.SIDES)
    return knees and body.clearance(data, "butt") > PELVIS_DOWN and body.tilt(data) <= UPRIGHT


def lotus(data: mujoco.MjData) -> bool:
    """Decide success: seated on the floor, both knees low, bent and facing out, the feet inward."""
    legs = all(
        body.knee_clearance(data, side) <= LOTUS_KNEE_DOWN
        and body.bend(data, side) >= LOTUS_BEND
        and body.clearance(data, f"{side}_foot") <= FOOT_LIFTED
        for side in body.SIDES
    )
    knees_apart = body.distance(*(body.knee(data, side) for side in body.SIDES)) >= KNEES_APART
    feet_together = body.distance(*(body.foot(data, side) for side in body.SIDES)) <= FEET_TOGETHER
    seated = body.clearance(data, "butt") <= PELVIS_DOWN and body.tilt(data) <= UPRIGHT_SEATED
    return legs and knees_apart and feet_together and seated


def standing(data: mujoco.MjData) -> bool:
    """Decide success: upright on straight enough legs, on one foot or both, not in the air."""
    on_a_foot = min(body.clearance(data, f"{side}_foot") for side in body.SIDES) <= FOOT_DOWN
    return on_a_foot and body.position(data, "pelvis")[2] >= STANDING_PELVIS_HEIGHT and body.tilt(data) <= UPRIGHT


def arms_raised(data: mujoco.MjData) -> bool:
    """Decide success: standing, both hands above the head and both elbows above the shoulders."""
    head = data.geom("head")
    top = head.xpos[2] + body.radius(data, "head")
    hands = all(body.hand(data, side)[2] >= top for side in body.SIDES)
    elbows = all(body.elbow(data, side)[2] >= body.position(data, f"{side}_upper_arm")[2] for side in body.SIDES)
    return standing(data) and hands and elbows


def splits(data: mujoco.MjData) -> bool:
    """Decide success: seated, both legs straight, on the floor and stretched far out to their sides."""
    directions = {side: body.unit(body.foot(data, side) - body.position(data, f"{side}_thigh")) for side in body.SIDES}
    to_the_left = body.axes(data, "pelvis")[:, 1]
    sideways = all(body.OUTWARDS[side] * float(directions[side] @ to_the_left) >= SPLITS_SIDEWAYS for side in body.SIDES)
    wide = math.degrees(math.acos(np.clip(directions["right"] @ directions["left"], -1, 1))) >= SPLITS_ANGLE
    stretched = all(
        body.bend(data, side) <= STRAIGHT_BEND
        and body.knee_clearance(data, side) <= LEG_DOWN
        and body.clearance(data, f"{side}_foot") <= LEG_DOWN
        for side in body.SIDES
    )
    seated = body.clearance(data, "butt") <= PELVIS_DOWN and body.tilt(data) <= UPRIGHT_SEATED
    return sideways and wide and stretched and seated


def hands_on_hips(data: mujoco.MjData) -> bool:
    """Decide success: standing, each hand at its hip and not at the chest, the elbows pointing out."""
    return standing(data) and all(_hand_on_hip(data, side) for side in body.SIDES)


def one_leg(data: mujoco.MjData) -> bool:
    """Decide success: standing, balanced over one foot, the other one lifted."""
    lifted, carrying = sorted(body.SIDES, key=lambda side: -body.clearance(data, f"{side}_foot"))
    balanced = body.distance(data.subtree_com[1][:2], body.foot(data, carrying)[:2]) <= BALANCED
    return standing(data) and balanced and body.clearance(data, f"{lifted}_foot") >= FOOT_LIFTED


def arms_crossed(data: mujoco.MjData) -> bool:
    """Decide success: standing, the forearms crossed in front of the torso, each hand on the other arm's side."""
    return standing(data) and all(_hand_crossed(data, side) for side in body.SIDES)


SUCCESS_TESTS: dict[str, Callable[[mujoco.MjData], bool]] = {
    "humanoid-kneeling": kneeling,
    "humanoid-lotus": lotus,
    "humanoid-standing": standing,
    "humanoid-arms-raised": arms_raised,
    "humanoid-splits": splits,
    "humanoid-hands-on-hips": hands_on_hips,
    "humanoid-one-leg": one_leg,
    "humanoid-arms-crossed": arms_crossed,
}
"""The success test of each task, by the task's name. A state's kinematics must be up to date."""

FULFILLING_POSES: dict[str, tuple[str, ...]] = {
    "humanoid-kneeling": ("kneeling", "kneeling on the heels"),
    "humanoid-lotus": ("lotus",),
    "humanoid-standing": (
        *("standing", "arms raised", "arms out", "hands on hips", "arms crossed"),
        *("one leg", "walking"),
    ),
    "humanoid-arms-raised": ("arms raised",),
    "humanoid-splits": ("side splits",),
    "humanoid-hands-on-hips": ("hands on hips",),
    "humanoid-one-leg": ("one leg",),
    "humanoid-arms-crossed": ("arms crossed",),
}
"""The reference poses that fulfil each task, by the task's name. The others do not. The first is the task's own pose.

The paper's criterion for standing is "without falling", whatever arms and legs do, so all poses on foot fulfil it.
"""


def _hand_on_hip(data: mujoco.MjData, side: str) -> bool:
    hand = body.in_frame_of(data, "pelvis", body.hand(data, side))
    elbow = body.in_frame_of(data, "pelvis", body.elbow(data, side))
    elbow_out = body.OUTWARDS[side] * (elbow[1] - hand[1]) >= 0
    lowest, highest = HIP_HEIGHTS
    return elbow_out and lowest <= hand[2] <= highest and body.gap_to_hips(data, side) <= HAND_AT_HIP


def _hand_crossed(data: mujoco.MjData, side: str) -> bool:
    x, y, z = body.in_frame_of(data, "torso", body.hand(data, side))
    lowest, highest = CROSSED_HEIGHTS
    return -body.OUTWARDS[side] * y >= CROSSED and x >= CROSSED_IN_FRONT and lowest <= z <= highest
