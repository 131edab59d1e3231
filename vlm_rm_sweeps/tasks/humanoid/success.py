"""The humanoid's success tests: one for each task, from the simulator's state.

The tests turn the paper's criteria for human labellers (its appendix on evaluation) into heights, angles and distances. "On the
floor" is a clearance below a threshold, not a contact, as a person would judge from a picture. Where joint limits rule out a
criterion, the threshold is what the model can reach:

- *lotus*: the hips turn outwards by 60 degrees at most, so the knees stay about 0.2 m above the floor;
- *hands on hips*: the hands end about 0.05 m from the surface of the hips;
- *arms crossed*: the forearms cross in front of the body, but do not lie on the chest.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial

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


Conditions = Iterator[tuple[str, bool]]
"""The conditions of a success test, each with its name and whether a state meets it."""


def _kneeling(data: mujoco.MjData) -> Conditions:
    yield "knees on the floor", all(body.knee_clearance(data, side) <= KNEE_DOWN for side in body.SIDES)
    yield "knees bent", all(body.bend(data, side) >= KNEELING_BEND for side in body.SIDES)
    yield "pelvis off the floor", body.clearance(data, "butt") > PELVIS_DOWN
    yield "torso upright", body.tilt(data) <= UPRIGHT


def _lotus(data: mujoco.MjData) -> Conditions:
    yield "knees low", all(body.knee_clearance(data, side) <= LOTUS_KNEE_DOWN for side in body.SIDES)
    yield "knees bent", all(body.bend(data, side) >= LOTUS_BEND for side in body.SIDES)
    yield "feet low", all(body.clearance(data, f"{side}_foot") <= FOOT_LIFTED for side in body.SIDES)
    yield "knees apart", body.distance(*(body.knee(data, side) for side in body.SIDES)) >= KNEES_APART
    yield "feet together", body.distance(*(body.foot(data, side) for side in body.SIDES)) <= FEET_TOGETHER
    yield from _seated(data)


def _standing(data: mujoco.MjData) -> Conditions:
    yield "on a foot", min(body.clearance(data, f"{side}_foot") for side in body.SIDES) <= FOOT_DOWN
    yield "legs straight enough", body.position(data, "pelvis")[2] >= STANDING_PELVIS_HEIGHT
    yield "torso upright", body.tilt(data) <= UPRIGHT


def _arms_raised(data: mujoco.MjData) -> Conditions:
    yield from _standing(data)
    top = data.geom("head").xpos[2] + body.radius(data, "head")
    yield "hands above the head", all(body.hand(data, side)[2] >= top for side in body.SIDES)
    shoulders = {side: body.position(data, f"{side}_upper_arm")[2] for side in body.SIDES}
    yield "elbows above the shoulders", all(body.elbow(data, side)[2] >= shoulders[side] for side in body.SIDES)


def _splits(data: mujoco.MjData) -> Conditions:
    directions = {side: body.unit(body.foot(data, side) - body.position(data, f"{side}_thigh")) for side in body.SIDES}
    to_the_left = body.axes(data, "pelvis")[:, 1]
    outwards = (body.OUTWARDS[side] * float(directions[side] @ to_the_left) for side in body.SIDES)
    yield "legs to their sides", all(each >= SPLITS_SIDEWAYS for each in outwards)
    angle = math.degrees(math.acos(np.clip(directions["right"] @ directions["left"], -1, 1)))
    yield "legs wide apart", angle >= SPLITS_ANGLE
    yield "legs straight", all(body.bend(data, side) <= STRAIGHT_BEND for side in body.SIDES)
    yield "knees low", all(body.knee_clearance(data, side) <= LEG_DOWN for side in body.SIDES)
    yield "feet low", all(body.clearance(data, f"{side}_foot") <= LEG_DOWN for side in body.SIDES)
    yield from _seated(data)


def _hands_on_hips(data: mujoco.MjData) -> Conditions:
    yield from _standing(data)
    lowest, highest = HIP_HEIGHTS
    hands = {side: body.in_frame_of(data, "pelvis", body.hand(data, side)) for side in body.SIDES}
    elbows = {side: body.in_frame_of(data, "pelvis", body.elbow(data, side)) for side in body.SIDES}
    yield "elbows out", all(body.OUTWARDS[side] * (elbows[side][1] - hands[side][1]) >= 0 for side in body.SIDES)
    yield "hands as high as the hips", all(lowest <= hand[2] <= highest for hand in hands.values())
    yield "hands at the hips", all(body.gap_to_hips(data, side) <= HAND_AT_HIP for side in body.SIDES)


def _one_leg(data: mujoco.MjData) -> Conditions:
    yield from _standing(data)
    lifted, carrying = sorted(body.SIDES, key=lambda side: -body.clearance(data, f"{side}_foot"))
    yield "balanced", body.distance(data.subtree_com[1][:2], body.foot(data, carrying)[:2]) <= BALANCED
    yield "a foot lifted", body.clearance(data, f"{lifted}_foot") >= FOOT_LIFTED


def _arms_crossed(data: mujoco.MjData) -> Conditions:
    yield from _standing(data)
    lowest, highest = CROSSED_HEIGHTS
    hands = {side: body.in_frame_of(data, "torso", body.hand(data, side)) for side in body.SIDES}
    yield "hands past the middle", all(-body.OUTWARDS[side] * hand[1] >= CROSSED for side, hand in hands.items())
    yield "hands in front", all(hand[0] >= CROSSED_IN_FRONT for hand in hands.values())
    yield "hands between hips and throat", all(lowest <= hand[2] <= highest for hand in hands.values())


def _seated(data: mujoco.MjData) -> Conditions:
    yield "seated", body.clearance(data, "butt") <= PELVIS_DOWN
    yield "torso upright", body.tilt(data) <= UPRIGHT_SEATED


CONDITIONS: dict[str, Callable[[mujoco.MjData], Conditions]] = {
    "humanoid-kneeling": _kneeling,
    "humanoid-lotus": _lotus,
    "humanoid-standing": _standing,
    "humanoid-arms-raised": _arms_raised,
    "humanoid-splits": _splits,
    "humanoid-hands-on-hips": _hands_on_hips,
    "humanoid-one-leg": _one_leg,
    "humanoid-arms-crossed": _arms_crossed,
}
"""What each task asks of a state whose kinematics are up to date, by the task's name. It is a success if all is met:

- *kneeling*: both knees on the floor and bent, the pelvis off the floor, the torso upright;
- *lotus*: seated on the floor, both knees low, bent and facing out, the feet inward;
- *standing*: upright on straight enough legs, on one foot or both, not in the air;
- *arms raised*: standing, both hands above the head and both elbows above the shoulders;
- *splits*: seated, both legs straight, on the floor and stretched far out to their sides;
- *hands on hips*: standing, each hand at its hip and not at the chest, the elbows pointing out;
- *one leg*: standing, balanced over one foot, the other one lifted;
- *arms crossed*: standing, the forearms crossed in front of the torso, each hand on the other arm's side.
"""


def _all_met(conditions: Callable[[mujoco.MjData], Conditions], data: mujoco.MjData) -> bool:
    return all(met for _, met in conditions(data))


SUCCESS_TESTS: dict[str, Callable[[mujoco.MjData], bool]] = {
    name: partial(_all_met, conditions) for name, conditions in CONDITIONS.items()
}
"""The success test of each task, by the task's name."""

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
