"""Where the humanoid's parts are: positions, heights and angles of a simulated state, whose kinematics must be up to date.

Success tests (`success.py`) and the captions of the embedded models (`pretraining/postures.py`) are built of the same measures.
"""

import math

import mujoco
import numpy as np

SIDES = ("right", "left")
OUTWARDS = {"right": -1.0, "left": 1.0}
"""Sign of a side's own direction in a body's frame, where x is to the front, y to the left, z up."""


def position(data: mujoco.MjData, body: str) -> np.ndarray:
    """Return the position of a body in metres, float64 (3,)."""
    return data.body(body).xpos


def axes(data: mujoco.MjData, body: str) -> np.ndarray:
    """Return a body's axes as columns, float64 (3, 3)."""
    return data.body(body).xmat.reshape(3, 3)


def in_frame_of(data: mujoco.MjData, body: str, point: np.ndarray) -> np.ndarray:
    """Return a point as a body's frame has it, float64 (3,): x is to the front, y to the left, z up."""
    return axes(data, body).T @ (point - position(data, body))


def tilt(data: mujoco.MjData) -> float:
    """Compute the tilt of the torso from the vertical, in degrees."""
    return math.degrees(math.acos(np.clip(axes(data, "torso")[2, 2], -1, 1)))


def hand(data: mujoco.MjData, side: str) -> np.ndarray:
    """Return the position of a hand's centre, float64 (3,)."""
    return data.geom(f"{side}_hand").xpos


def elbow(data: mujoco.MjData, side: str) -> np.ndarray:
    """Return the position of an elbow, float64 (3,)."""
    return position(data, f"{side}_lower_arm")


def foot(data: mujoco.MjData, side: str) -> np.ndarray:
    """Return the position of a foot's centre, float64 (3,)."""
    return data.geom(f"{side}_foot").xpos


def knee(data: mujoco.MjData, side: str) -> np.ndarray:
    """Return the position of a knee, float64 (3,)."""
    return position(data, f"{side}_shin")


def knee_clearance(data: mujoco.MjData, side: str) -> float:
    """Compute the height of a knee's lowest point above the floor, in metres."""
    return float(knee(data, side)[2]) - radius(data, f"{side}_shin1")


def bend(data: mujoco.MjData, side: str) -> float:
    """Return the bend of a knee in degrees; 0 is straight."""
    return -math.degrees(data.joint(f"{side}_knee").qpos[0])


def radius(data: mujoco.MjData, geom: str) -> float:
    """Return the radius of a sphere or capsule in metres."""
    return float(data.model.geom_size[data.geom(geom).id, 0])


def clearance(data: mujoco.MjData, geom: str) -> float:
    """Compute the height of a sphere's or capsule's lowest point above the floor, in metres."""
    shape = data.geom(geom)
    radius, half_length, _ = data.model.geom_size[shape.id]
    return float(shape.xpos[2] - radius - half_length * abs(shape.xmat[8]))


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Compute the distance between two points."""
    return float(np.linalg.norm(a - b))


def unit(vector: np.ndarray) -> np.ndarray:
    """Return the unit vector in the direction of a vector."""
    return vector / np.linalg.norm(vector)


def gap_to_hips(data: mujoco.MjData, side: str) -> float:
    """Compute the gap between the surfaces of a hand and of the hips, in metres."""
    hips = data.geom("butt")
    axis = hips.xmat.reshape(3, 3)[:, 2]
    half_length = data.model.geom_size[hips.id, 1]
    centre = hand(data, side)
    nearest = hips.xpos + np.clip((centre - hips.xpos) @ axis, -half_length, half_length) * axis
    return distance(centre, nearest) - radius(data, "butt") - radius(data, f"{side}_hand")
