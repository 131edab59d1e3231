"""What a humanoid's posture is, in numbers and in words: attributes of a state, with noise, and captions that grade them.

Each caption is true of a noisy neighbour of the state. It names how the robot is supported (standing, kneeling, ...), how far and
which way its trunk is bent, how high hips, knees and feet are, and where the arms are; alone or together, in words or in numbers, and
as what they are not. The limits of the words are those of plain language; they are not those of the tasks' success tests.
"""

import math
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np

from vlm_rm_sweeps.pretraining.captions import NEGATIONS, Buckets, bucket_of, expand, far_bucket, pick
from vlm_rm_sweeps.tasks.humanoid import body
from vlm_rm_sweeps.tasks.humanoid.poses import POSES, lowest_point
from vlm_rm_sweeps.tasks.humanoid.scene import humanoid_model
from vlm_rm_sweeps.tasks.mujoco_import import mujoco


class Posture(NamedTuple):
    """Attributes of a state: lengths in metres, angles in degrees, sides in the order right, left.

    Attributes:
        tilt: Of the trunk, from the vertical.
        direction: In which the trunk leans, from its own front; 90 is to its left.
        hips: Height of the pelvis; 0.87 with straight legs.
        seat: Clearance of the pelvis.
        lowest: Clearance of the robot's lowest point.
        right_knee: Clearance of a knee.
        left_knee: Clearance of a knee.
        right_foot: Clearance of a foot.
        left_foot: Clearance of a foot.
        right_bend: Of a knee; 0 is straight.
        left_bend: Of a knee; 0 is straight.
        sideways: Angle between the legs, from hip to foot, seen from the front.
        stride: Angle between the legs, from hip to foot, seen from the side.
        knees_apart: Distance between the knees.
        feet_apart: Distance between the feet.
        right_hand_over_head: Height of a hand above the head's top.
        left_hand_over_head: Height of a hand above the head's top.
        right_hand_over_shoulder: Height of a hand above its shoulder.
        left_hand_over_shoulder: Height of a hand above its shoulder.
        right_elbow_over_shoulder: Height of an elbow above its shoulder.
        left_elbow_over_shoulder: Height of an elbow above its shoulder.
        right_hand_front: Position of a hand in front of the trunk's centre.
        left_hand_front: Position of a hand in front of the trunk's centre.
        right_hand_out: Position of a hand from the trunk's middle to its own side.
        left_hand_out: Position of a hand from the trunk's middle to its own side.
        right_hand_to_hip: Gap between a hand and the hips.
        left_hand_to_hip: Gap between a hand and the hips.
    """

    tilt: float
    direction: float
    hips: float
    seat: float
    lowest: float
    right_knee: float
    left_knee: float
    right_foot: float
    left_foot: float
    right_bend: float
    left_bend: float
    sideways: float
    stride: float
    knees_apart: float
    feet_apart: float
    right_hand_over_head: float
    left_hand_over_head: float
    right_hand_over_shoulder: float
    left_hand_over_shoulder: float
    right_elbow_over_shoulder: float
    left_elbow_over_shoulder: float
    right_hand_front: float
    left_hand_front: float
    right_hand_out: float
    left_hand_out: float
    right_hand_to_hip: float
    left_hand_to_hip: float

    def noisy(self, rng: np.random.Generator) -> "Posture":
        """Draw a neighbour: Laplace noise on each attribute."""
        noisy = Posture(*(np.array(self) + rng.laplace(scale=_NOISE)).tolist())
        return noisy._replace(tilt=abs(noisy.tilt))

    @property
    def knees(self) -> tuple[float, float]:
        """Clearances of the knees."""
        return self.right_knee, self.left_knee

    @property
    def feet(self) -> tuple[float, float]:
        """Clearances of the feet."""
        return self.right_foot, self.left_foot

    @property
    def bends(self) -> tuple[float, float]:
        """Bends of the knees."""
        return self.right_bend, self.left_bend


_ANGLE, _HEIGHT, _CLEARANCE, _ARM = 12.0, 0.06, 0.04, 0.05
_NOISE = np.array(
    [_ANGLE, 2 * _ANGLE, _HEIGHT, _CLEARANCE, _CLEARANCE]
    + 4 * [_CLEARANCE]
    + 4 * [_ANGLE]
    + 2 * [_HEIGHT]
    + 10 * [_ARM]
    + 2 * [_CLEARANCE],
)
"""Scales of the noise, in the order of `Posture`."""
_LEG_FIELDS = Posture._fields[2:15]
_ARM_FIELDS = Posture._fields[15:]


@cache
def _simulator() -> tuple[mujoco.MjModel, mujoco.MjData]:
    model = humanoid_model("original")
    return model, mujoco.MjData(model)


def posture_of(qpos: np.ndarray) -> Posture:
    """Measure the posture of a state.

    Args:
        qpos: The simulator's positions, float (24,).

    Returns:
        Its attributes, independent of where the robot is and faces.
    """
    model, data = _simulator()
    data.qpos[:] = qpos
    mujoco.mj_kinematics(model, data)
    up = body.axes(data, "torso")[2]
    legs = {side: body.unit(body.foot(data, side) - body.position(data, f"{side}_thigh")) for side in body.SIDES}
    pelvis = body.axes(data, "pelvis")
    forwards, outwards = ({side: float(legs[side] @ pelvis[:, axis]) for side in body.SIDES} for axis in (0, 1))
    head = data.geom("head")
    return Posture(
        tilt=body.tilt(data),
        direction=math.degrees(math.atan2(-up[1], -up[0])),
        hips=float(body.position(data, "pelvis")[2]),
        seat=body.clearance(data, "butt"),
        lowest=lowest_point(model, data),
        **{f"{side}_knee": body.knee_clearance(data, side) for side in body.SIDES},
        **{f"{side}_foot": body.clearance(data, f"{side}_foot") for side in body.SIDES},
        **{f"{side}_bend": body.bend(data, side) for side in body.SIDES},
        sideways=sum(_arcsine(body.OUTWARDS[side] * outwards[side]) for side in body.SIDES),
        stride=abs(_arcsine(forwards["right"]) - _arcsine(forwards["left"])),
        knees_apart=body.distance(*(body.knee(data, side) for side in body.SIDES)),
        feet_apart=body.distance(*(body.foot(data, side) for side in body.SIDES)),
        **{
            f"{side}_hand_over_head": body.hand(data, side)[2] - head.xpos[2] - body.radius(data, "head") for side in body.SIDES
        },
        **{f"{side}_hand_over_shoulder": body.hand(data, side)[2] - _shoulder(data, side)[2] for side in body.SIDES},
        **{f"{side}_elbow_over_shoulder": body.elbow(data, side)[2] - _shoulder(data, side)[2] for side in body.SIDES},
        **{f"{side}_hand_front": body.in_frame_of(data, "torso", body.hand(data, side))[0] for side in body.SIDES},
        **{
            f"{side}_hand_out": body.OUTWARDS[side] * body.in_frame_of(data, "torso", body.hand(data, side))[1]
            for side in body.SIDES
        },
        **{f"{side}_hand_to_hip": body.gap_to_hips(data, side) for side in body.SIDES},
    )


def _arcsine(value: float) -> float:
    return math.degrees(math.asin(np.clip(value, -1, 1)))


def _shoulder(data: mujoco.MjData, side: str) -> np.ndarray:
    return body.position(data, f"{side}_upper_arm")


def _leaning(posture: Posture) -> str:
    """Which way the trunk leans: forwards, backwards or to a side."""
    turned = (posture.direction + 180) % 360 - 180
    if abs(turned) <= 50:
        return "forwards"
    if abs(turned) >= 130:
        return "backwards"
    return "to its left" if turned > 0 else "to its right"


def support_of(posture: Posture) -> str:
    """Classify how the robot is supported.

    Args:
        posture: Attributes, with or without noise.

    Returns:
        A key of `_SUPPORTS`.
    """
    seated = posture.seat <= 0.15 and posture.tilt <= 60
    on_foot = min(posture.feet) <= 0.1
    if posture.lowest > 0.15:
        return "airborne"
    if seated:
        return _seat(posture)
    if posture.hips < 0.35 and posture.tilt > 55:
        return {"forwards": "on the front", "backwards": "on the back"}.get(_leaning(posture), "on the side")
    if max(posture.knees) <= 0.14 and min(posture.bends) >= 50:
        if posture.tilt > 55:
            return "all fours"
        return "kneeling" if posture.hips > 0.4 else "on the heels"
    if min(posture.knees) <= 0.14 and max(posture.bends) >= 60 and posture.tilt <= 55 and on_foot:
        return "one knee"
    if max(posture.bends) <= 35 and posture.stride >= 80 and posture.hips < 0.6:
        return "front splits"
    if not on_foot or posture.tilt > 100:
        return "falling" if posture.hips > 0.4 else "collapsed"
    if posture.hips >= 0.66:
        return _on_foot(posture)
    if posture.tilt > 45:
        return "stooping" if posture.hips > 0.5 else "collapsed"
    if max(posture.knees) <= 0.2 and min(posture.bends) >= 50:
        return "about to kneel"
    if min(posture.bends) >= 75 and posture.hips < 0.56:
        return "squatting"
    return "half squatting" if min(posture.bends) >= 30 else "losing its balance"


def _seat(posture: Posture) -> str:
    if min(posture.bends) >= 90 and posture.knees_apart >= 0.45 and posture.feet_apart <= 0.5:
        return "lotus"
    return "side splits" if max(posture.bends) <= 35 and posture.sideways >= 80 else "sitting"


def _on_foot(posture: Posture) -> str:
    if posture.tilt > 30:
        return "stooping"
    if max(posture.feet) >= 0.2:
        return "one leg"
    if posture.stride >= 35:
        return "walking"
    return "half squatting" if min(posture.bends) > 45 else "standing"


WORDS = {
    "robot": "{a|a|the|the|one} {humanoid robot|robot|robot|humanoid|human-like robot}",
    "bit": "{slightly|a little|a bit|somewhat}",
    "far": "{far|a long way|deeply|strongly}",
    "trunk": "its {trunk|upper body|body|torso|back}",
    "floor": "{floor|ground}",
}
_SUPPORTS: dict[str, tuple[str, tuple[str, ...]]] = {
    # By name: a group, whose members are not false of each other, and wordings that follow "is" or "is not".
    "standing": (
        "on foot",
        (
            "standing{| up| upright| still| straight}{|| on both {feet|legs}| on the {floor}| on its feet}",
            "on {its|both} feet{|, upright}",
            "upright on {its|both} {feet|legs}",
            "in a standing position",
            "standing {up |}{tall|straight}",
        ),
    ),
    "one leg": (
        "on foot",
        (
            "standing on {one|only one|a single} {leg|foot}",
            "balancing on {one|only one} {leg|foot}",
            "on one leg{|, the other {leg|foot|knee} {raised|lifted|up in the air}}",
            "lifting {one|only one} {leg|foot|knee}",
            "holding one {leg|foot|knee} up",
            "standing with one {leg|foot|knee} {raised|lifted|in the air}",
        ),
    ),
    "walking": (
        "on foot",
        (
            "walking{| forwards}",
            "taking a {|big }step",
            "striding",
            "in the middle of a step",
            "standing, one leg in front of the other",
        ),
    ),
    "stooping": (
        "stooping",
        (
            "{standing but |}bent {over |}{leaning}",
            "on its feet, {leaning|bending} {leaning}",
            "stooping",
            "bowing",
            "standing bent {leaning}",
        ),
    ),
    "half squatting": (
        "squatting",
        (
            "{half|partly} {squatting|crouching}",
            "standing with bent knees",
            "half way between standing and {squatting|sitting}",
            "on its feet with {clearly |}bent knees",
            "about to {sit|squat} down",
        ),
    ),
    "squatting": (
        "squatting",
        (
            "squatting{| down| low| on both feet}",
            "in a {|deep |low }squat",
            "crouching {|low |down }on both feet",
            "on its feet, knees deeply bent",
        ),
    ),
    "kneeling": (
        "on the knees",
        (
            "kneeling{| down| upright| up}{|| on the {floor}| on both knees}",
            "on {its|both} knees{|, upright}",
            "down on {its|both} knees",
            "in a kneeling position",
            "standing on {its|both} knees",
        ),
    ),
    "on the heels": (
        "on the knees",
        (
            "kneeling{| down| low}{|| on the {floor}| on both knees}",
            "{kneeling and |}{sitting|resting} {back |}on its heels",
            "on its knees{|, its hips low}",
        ),
    ),
    "about to kneel": (
        "half kneeling",
        (
            "about to kneel{| down}",
            "going down on its knees",
            "almost kneeling",
            "half way between {standing|squatting} and kneeling",
            "on its toes, knees {just|{bit}} above the {floor}",
        ),
    ),
    "one knee": (
        "half kneeling",
        (
            "on {one|only one|a single} knee",
            "down on one knee",
            "kneeling on {one|only one} knee",
            "half kneeling",
            "in a half kneeling position",
        ),
    ),
    "all fours": ("down", ("on {its |}hands and knees", "on all fours", "crawling", "kneeling with its hands on the {floor}")),
    "sitting": (
        "seated",
        ("sitting{| down| upright}{|| on the {floor}}", "seated{|| on the {floor}}", "in a {sitting|seated} position"),
    ),
    "lotus": (
        "seated",
        (
            "{sitting|seated} cross-legged",
            "{sitting|seated}{| down} with crossed legs",
            "in the lotus position",
            "{sitting|seated|meditating} in the lotus position",
            "meditating{| on the {floor}}",
            "{sitting|seated} down to meditate",
            "doing yoga{|, seated}",
            "sitting with its knees out and its feet in",
        ),
    ),
    "side splits": (
        "seated",
        (
            "doing {the|a|the side} {splits}",
            "in {the|a} {side |}splits{| on the {floor}}",
            "practicing {gymnastics|the splits}",
            "doing gymnastics{|, its legs wide apart}",
            "sitting with its legs {spread|stretched} {wide|to both sides}",
            "in a {wide |}straddle{| on the {floor}}",
        ),
    ),
    "front splits": (
        "seated",
        (
            "doing {the|a} front splits",
            "in a front split",
            "practicing {gymnastics|the front splits}",
            "in a {long|deep} lunge",
            "sitting with one leg ahead and one behind",
        ),
    ),
    "on the back": (
        "down",
        (
            "lying {flat |down |}on its back",
            "lying on the {floor}{|, face up}",
            "on its back{| on the {floor}}",
            "fallen onto its back",
        ),
    ),
    "on the front": (
        "down",
        (
            "lying {flat |down |}on its {front|belly|stomach|face}",
            "lying on the {floor}{|, face down}",
            "face down on the {floor}",
            "fallen {flat |}on its face",
        ),
    ),
    "on the side": (
        "down",
        ("lying {down |}on its side", "lying on the {floor}", "on its side on the {floor}", "fallen onto its side"),
    ),
    "falling": (
        "falling",
        ("falling{| over| down| {leaning}}", "tipping over", "tumbling", "about to hit the {floor}", "off its feet, falling"),
    ),
    "airborne": ("falling", ("in the air", "jumping", "above the {floor}, not touching it", "flying", "off the {floor}")),
    "collapsed": (
        "down",
        (
            "collapsed{| on the {floor}}",
            "in a heap on the {floor}",
            "sprawled on the {floor}",
            "fallen{| down}",
            "down on the {floor}",
        ),
    ),
    "losing its balance": (
        "falling",
        ("losing its balance", "stumbling", "in an awkward position", "wobbling{| on its legs}", "not standing well"),
    ),
}
_ARMS: dict[str, tuple[str, ...]] = {
    # Wordings that follow the robot or its support.
    "raised": (
        "with {both|its|its two} {arms|hands} {raised|up|held up|up in the air|lifted}",
        "{raising|lifting|holding up} {both|its|its two} {arms|hands}",
        "with {both|its|its two} hands {high |far |}{above|over} its head",
        "{stretching|reaching} up {with both {arms|hands}|as high as it can}",
        "its {arms|hands} {raised|up|above its head}",
    ),
    "half raised": (
        "with {both|its|its two} hands at the height of its head",
        "with {both|its|its two} arms half raised",
        "raising {both|its|its two} arms half way",
        "its hands between its shoulders and the top of its head",
    ),
    "one raised": (
        "with {one|only one} {arm|hand} {raised|up|above its head}",
        "raising {one|only one} {arm|hand}",
        "one {arm|hand} up, the other {one |}down",
    ),
    "out": (
        "with {both|its|its two} arms {stretched |held |}out{| to {the|both} sides| sideways}",
        "in the shape of a T",
        "{spreading|stretching} {both|its|its two} arms {wide|out sideways|to the sides}",
        "its arms {spread like wings|level with its shoulders|horizontal}",
        "with {both|its|its two} arms {horizontal|level}{|, out to the sides}",
    ),
    "hips": (
        "with {both|its|its two} hands {on|at} {its|the} {hips|waist}",
        "{holding|touching} its {hips|waist}{| with both hands}",
        "resting its hands on its {hips|waist}",
        "with {its |}arms akimbo",
        "its elbows out, hands {on|at} the {hips|waist}",
    ),
    "crossed": (
        "with {its|both|its two} {arms|forearms} {crossed|folded}{|| in front of {its chest|it}| across its chest}",
        "{crossing|folding} {its|both|its two} arms",
        "its {arms|forearms} {crossed|folded}",
        "with crossed arms",
        "with folded arms",
    ),
    "forwards": (
        "with {both|its|its two} arms {stretched |held |}forwards",
        "{reaching|stretching} forwards with both {arms|hands}",
        "its {arms|hands} in front of it",
        "with {both|its|its two} arms {horizontal|level}, in front",
    ),
    "lap": (
        "with {both|its|its two} hands {in {front of it|its lap}|together in front of it}",
        "{holding|resting} its hands in {its lap|front of it}",
        "its hands {in its lap|in front of its belly}",
    ),
    "down": (
        "with {both|its|its two} {arms|hands} {down|at its sides|lowered|hanging down}",
        "its {arms|hands} {down|at its sides|lowered|below its shoulders}",
        "letting {both|its|its two} {arms|hands} hang{| down}",
    ),
}
_TRUNK: Buckets = (
    # Upper limits of the tilt. Wordings that follow "its trunk" and "its trunk is not".
    (10.0, ("{upright|straight|vertical|perfectly upright|quite straight}", "{straight|upright}, not bent", "bent 0 degrees")),
    (
        22.0,
        (
            "{bent|leaning|tilted} {bit} {leaning}",
            "{almost|nearly|not quite} {upright|straight|vertical}",
            "{bent|leaning|tilted} {leaning} by {degrees} degrees",
        ),
    ),
    (
        40.0,
        (
            "{bent|leaning|tilted} {leaning}",
            "{clearly|visibly} {bent|tilted} {leaning}",
            "{bent|leaning|tilted} {leaning} by {degrees} degrees",
            "{no longer|not} {upright|straight}, {bent|leaning} {leaning}",
        ),
    ),
    (
        65.0,
        (
            "{bent|leaning|tilted} {far} {leaning}",
            "bent {leaning} half way to {horizontal|level}",
            "{bent|leaning|tilted} {leaning} by {degrees} degrees",
            "{far|a long way} from {upright|straight|vertical}",
        ),
    ),
    (
        105.0,
        (
            "{horizontal|level|flat|almost horizontal}{|, bent {leaning}}",
            "{bent|leaning|tilted} {leaning} by {degrees} degrees",
            "bent {leaning} {all the way|completely|as far as it can}",
            "{horizontal|level} instead of {upright|vertical}",
        ),
    ),
    (180.0, ("upside down", "head down", "hanging {down|upside down}", "its head {lower than|below} its hips")),
)
_HIPS: Buckets = (
    # Upper limits of the pelvis's height. Wordings that follow "its hips".
    (0.2, ("{on|touching} the {floor}", "at floor level", "as low as they can be")),
    (0.38, ("low", "close to the {floor}", "{just|{bit}} above the {floor}", "far lower than usual")),
    (
        0.55,
        (
            "at half height",
            "half way down to the {floor}",
            "at the height of its knees",
            "much lower than usual",
        ),
    ),
    (0.72, ("{bit} lower than usual", "{quite|rather} high, not quite up", "lowered {bit}")),
    (1.0, ("high{| above the {floor}}", "as high as {they can be|its legs allow}", "far above the {floor}", "all the way up")),
    (9.0, ("higher than its legs reach", "high up in the air")),
)
_BENDS: Buckets = (
    # Upper limits of the less bent knee. Wordings that follow "its knees".
    (18.0, ("{straight|stretched|not bent|quite straight}",)),
    (45.0, ("{bent|bending} {bit}", "{almost|nearly|not quite} straight")),
    (80.0, ("{bent|bending}", "half bent", "{clearly|visibly} bent")),
    (180.0, ("{deeply|strongly|fully} bent", "bent as far as {they can be|it can}", "{bent|folded} all the way")),
)
_KNEES_DOWN = (
    "both {knees|of its knees} {on the {floor}|down|touching the {floor}}",
    "its knees {on the {floor}|down|touching the {floor}}",
)
_KNEE_DOWN = ("{one|only one|a single} knee {on the {floor}|down|touching the {floor}}", "one knee down and one {knee |}up")
_KNEES_LOW = ("its knees {close to|{bit} above|just above} the {floor}", "its knees {almost|nearly} {on|touching} the {floor}")
_KNEES_UP = (
    "its knees {high|far|well} above the {floor}",
    "{both|its} knees {off the {floor}|up|not on the {floor}}",
    "no knee on the {floor}",
)
_FEET_DOWN = ("both feet {on the {floor}|down}", "its feet {on the {floor}|flat on the {floor}|down}")
_FOOT_UP = (
    "{one|only one|a single} foot on the {floor}",
    "one foot {lifted|raised|up|off the {floor}|in the air}",
    "one foot down and one {foot |}up",
)
_FEET_UP = ("{both|its} feet {off the {floor}|up|not on the {floor}|in the air}", "no foot on the {floor}")
_LEGS_APART: Buckets = (
    # Upper limits of the angle between the legs.
    (15.0, ("its legs together", "its legs {side by side|parallel|not apart}")),
    (40.0, ("its legs apart", "its legs {bit} apart")),
    (75.0, ("its legs wide apart", "its legs {spread|far apart}")),
    (360.0, ("its legs spread {very wide|as wide as they go|to both sides}", "its legs stretched out to {the|both} sides")),
)
_Facet = Callable[[np.random.Generator, Posture], str]


def _trunk(rng: np.random.Generator, posture: Posture) -> str:
    if rng.random() < 0.2:
        # "Bent by 40 degrees" is among them, with the trunk's own number: a fault that the trained models have learned from.
        false = pick(rng, [each for each in far_bucket(rng, _TRUNK, posture.tilt) if "not" not in each])
        return f"{{trunk}} not {false}"
    return "{trunk} " + pick(rng, _TRUNK[bucket_of(_TRUNK, posture.tilt)][1])


def _hips(rng: np.random.Generator, posture: Posture) -> str:
    draw = rng.random()
    if draw < 0.2 and posture.hips > 0:
        return f"its hips {5 * round(posture.hips * 20)} centimetres above the {{floor}}"
    if draw < 0.35:
        return "its hips not " + pick(rng, far_bucket(rng, _HIPS, posture.hips))
    return "its {hips|hips|pelvis} " + pick(rng, _HIPS[bucket_of(_HIPS, posture.hips)][1])


def _knees(rng: np.random.Generator, posture: Posture) -> str:
    if rng.random() < 0.4:
        return "its knees " + pick(rng, _BENDS[bucket_of(_BENDS, min(posture.bends))][1])
    if max(posture.knees) <= 0.12:
        return pick(rng, _KNEES_DOWN)
    if min(posture.knees) <= 0.12:
        return pick(rng, _KNEE_DOWN)
    return pick(rng, _KNEES_LOW if max(posture.knees) <= 0.25 else _KNEES_UP)


def _feet(rng: np.random.Generator, posture: Posture) -> str:
    if max(posture.feet) <= 0.12:
        return pick(rng, _FEET_DOWN)
    return pick(rng, _FOOT_UP if min(posture.feet) <= 0.12 else _FEET_UP)


def _legs(rng: np.random.Generator, posture: Posture) -> str:
    return pick(rng, _LEGS_APART[bucket_of(_LEGS_APART, posture.sideways)][1])


def arms_of(posture: Posture) -> str | None:
    """Classify where the arms are.

    Args:
        posture: Attributes, with or without noise.

    Returns:
        A key of `_ARMS`, or None if no word fits.
    """
    over_head = (posture.right_hand_over_head, posture.left_hand_over_head)
    over_shoulder = (posture.right_hand_over_shoulder, posture.left_hand_over_shoulder)
    out = (posture.right_hand_out, posture.left_hand_out)
    front = (posture.right_hand_front, posture.left_hand_front)
    elbows = (posture.right_elbow_over_shoulder, posture.left_elbow_over_shoulder)
    to_hip = (posture.right_hand_to_hip, posture.left_hand_to_hip)
    if min(over_head) > 0 and min(elbows) > -0.05:
        return "raised"
    if max(over_head) > 0.05 and min(over_shoulder) < 0:
        return "one raised"
    if sum(out) < -0.09 and max(out) < 0.03 and min(front) > 0.12 and max(over_shoulder) < 0.1:
        return "crossed"
    if max(to_hip) <= 0.12 and min(over_shoulder) > -0.5 and max(over_shoulder) < -0.2:
        return "hips"
    if min(front) > 0.25 and max(over_shoulder) < -0.15 and max(out) < 0.2:
        return "lap"
    if min(out) > 0.45 and max(map(abs, over_shoulder)) < 0.25:
        return "out"
    if min(front) > 0.3 and max(map(abs, over_shoulder)) < 0.25 and max(out) < 0.4:
        return "forwards"
    if min(over_shoulder) > 0.08:
        return "half raised"
    if max(over_shoulder) < -0.2:
        return "down"
    return None


def _arms(rng: np.random.Generator, posture: Posture) -> str:
    name = arms_of(posture)
    if name is not None and rng.random() < 0.85:
        return pick(rng, _ARMS[name])
    height = (posture.right_hand_over_shoulder + posture.left_hand_over_shoulder) / 2
    words = "above" if height > 0.08 else "below" if height < -0.08 else "level with"
    much = "{far|high|well} " if height > 0.35 else "{far|well} " if height < -0.35 else ""
    return f"its hands {much}{words} its shoulders"


_FACETS: tuple[_Facet, ...] = (_trunk, _arms, _hips, _knees, _feet, _legs)


def _facets(rng: np.random.Generator, posture: Posture) -> list[_Facet]:
    """Draw two facets. Arms that do something, and a trunk that is bent, are named most often."""
    weights = np.array(
        [0.6 if posture.tilt > 20 else 0.3, 0.9 if arms_of(posture) not in (None, "down") else 0.2, 0.15, 0.1, 0.1, 0.1]
    )
    return [_FACETS[int(index)] for index in rng.choice(len(_FACETS), 2, replace=False, p=weights / weights.sum())]


def caption(rng: np.random.Generator, posture: Posture) -> str:
    """Draw a caption of a posture, without a subject's surroundings.

    Args:
        rng: Draws the neighbouring posture, the facets that are named, and their wording.
        posture: Attributes of the state, without noise.

    Returns:
        For example "a robot kneeling on both knees, its trunk bent a little forwards".
    """
    neighbour = posture.noisy(rng)
    words = WORDS | {"leaning": _leaning(neighbour), "degrees": str(5 * round(neighbour.tilt / 5))}
    support = support_of(neighbour)
    group, wordings = _SUPPORTS[support]
    form = rng.random()
    first, second = _facets(rng, neighbour)
    true = pick(rng, wordings)
    if form < 0.25:
        template = f"{{robot}} {{|is }}{true}"
    elif form < 0.62:
        template = f"{{robot}} {{|is }}{true}{_joined(rng, first(rng, neighbour))}"
    elif form < 0.7:
        template = f"{{robot}} {{|is }}{true}{_joined(rng, first(rng, neighbour))}{_joined(rng, second(rng, neighbour))}"
    elif form < 0.86:
        template = f"{{robot}}{_attached(first(rng, neighbour))}"
    else:
        false = pick(rng, _SUPPORTS[pick(rng, [name for name, (other, _) in _SUPPORTS.items() if other != group])][1])
        template = pick(rng, NEGATIONS).replace("{subject}", "{robot}").replace("{true}", true).replace("{false}", false)
    return expand(rng, template, words)


_NOUNS = ("its ", "{trunk}", "both ", "{both", "one ", "{one", "no ")
"""How facets begin that name a part and what it does; the others begin with a verb or "with"."""


def _joined(rng: np.random.Generator, facet: str) -> str:
    """Join a facet to what precedes it."""
    return pick(rng, (", ", " with ", ", with ") if facet.startswith(_NOUNS) else (", ", " ")) + facet


def _attached(facet: str) -> str:
    """Join a facet to the subject."""
    return f" with {facet}" if facet.startswith(_NOUNS) else f" {facet}"


def foil(rng: np.random.Generator, posture: Posture) -> Posture:
    """Change one attribute: the bend of the trunk, the legs with all that follows from them, or the arms.

    Args:
        rng: Draws the attribute and its value.
        posture: Attributes of a state.

    Returns:
        The changed attributes, which no state need have.
    """
    kind = rng.random()
    if kind < 0.35:
        turned = posture.tilt + float(rng.choice((-1, 1)) * rng.uniform(30, 70))
        return posture._replace(tilt=abs(turned), direction=float(rng.uniform(-180, 180)))
    others = _reference_postures()
    if kind < 0.7:
        own = _SUPPORTS[support_of(posture)][0]
        other = pick(rng, [each for each in others if _SUPPORTS[support_of(each)][0] != own])
        return posture._replace(**{name: getattr(other, name) for name in _LEG_FIELDS})
    other = pick(rng, [each for each in others if arms_of(each) != arms_of(posture)])
    return posture._replace(**{name: getattr(other, name) for name in _ARM_FIELDS})


@cache
def _reference_postures() -> tuple[Posture, ...]:
    return tuple(posture_of(pose.qpos()) for pose in POSES.values())
