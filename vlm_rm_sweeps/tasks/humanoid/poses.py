"""Reference poses of the humanoid: joint angles that were chosen by looking at the rendered robot."""

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass

import mujoco
import numpy as np

from vlm_rm_sweeps.tasks.humanoid.scene import humanoid_model

JOINTS = (
    *("abdomen_z", "abdomen_y", "abdomen_x"),
    *("right_hip_x", "right_hip_z", "right_hip_y", "right_knee"),
    *("left_hip_x", "left_hip_z", "left_hip_y", "left_knee"),
    *("right_shoulder1", "right_shoulder2", "right_elbow"),
    *("left_shoulder1", "left_shoulder2", "left_elbow"),
)
"""The model's hinges in the order of qpos, where they follow the root's position (3) and quaternion (4)."""


@dataclass(frozen=True)
class Pose:
    """A pose of the robot.

    Attributes:
        joints: Angles in degrees by joint; joints that are not named are at 0.
        pitch: Pitch of the torso in degrees; positive bows forwards.
    """

    joints: Mapping[str, float]
    pitch: float = 0.0

    def qpos(self, yaw: float = 0.0, position: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
        """Compute the model's positions for this pose.

        Args:
            yaw: Turn about the vertical in degrees, counter-clockwise from above; 0 faces +x.
            position: The torso's (x, y) in metres.

        Returns:
            MuJoCo's `qpos`, float64 (24,), within the joint limits and with the robot's lowest point on the floor.
        """
        model, data = _scratch()
        angles = np.radians([self.joints.get(name, 0.0) for name in JOINTS])
        data.qpos[:3] = 0.0
        data.qpos[3:7] = _quaternion(math.radians(yaw), math.radians(self.pitch))
        data.qpos[7:] = np.clip(angles, *model.jnt_range[1:].T)
        mujoco.mj_kinematics(model, data)
        return np.concatenate([position, [-lowest_point(model, data)], data.qpos[3:]])


def interpolated(start: Pose, end: Pose, share: float) -> Pose:
    """Interpolate between two poses, joint by joint.

    Args:
        start: The pose at share 0.
        end: The pose at share 1.
        share: Share of the way from `start` to `end`, 0 to 1.

    Returns:
        The pose with interpolated joint angles and pitch.
    """
    joints = {
        name: (1 - share) * start.joints.get(name, 0.0) + share * end.joints.get(name, 0.0)
        for name in start.joints.keys() | end.joints.keys()
    }
    return Pose(joints, (1 - share) * start.pitch + share * end.pitch)


def perturbed(pose: Pose, rng: np.random.Generator, degrees: float) -> Pose:
    """Add independent normal noise to each joint and to the pitch.

    Args:
        pose: The pose.
        rng: Source of the noise.
        degrees: Standard deviation of the noise.

    Returns:
        The noisy pose.
    """
    noise = rng.normal(0.0, degrees, len(JOINTS) + 1)
    joints = {name: pose.joints.get(name, 0.0) + float(each) for name, each in zip(JOINTS, noise[1:], strict=True)}
    return Pose(joints, pose.pitch + float(noise[0]))


def lowest_point(model: mujoco.MjModel, data: mujoco.MjData) -> float:
    """Compute the height of the robot's lowest point.

    Args:
        model: The humanoid's model, whose geoms are spheres and capsules.
        data: A state whose kinematics are up to date.

    Returns:
        Height above z = 0, in metres.
    """
    robot = model.geom_bodyid > 0
    along = np.abs(data.geom_xmat[robot].reshape(-1, 3, 3)[:, 2, 2])
    half_length = np.where(model.geom_type[robot] == mujoco.mjtGeom.mjGEOM_CAPSULE, model.geom_size[robot, 1], 0.0)
    return float((data.geom_xpos[robot, 2] - half_length * along - model.geom_size[robot, 0]).min())


@functools.cache
def _scratch() -> tuple[mujoco.MjModel, mujoco.MjData]:
    model = humanoid_model("original")
    return model, mujoco.MjData(model)


def _quaternion(yaw: float, pitch: float) -> np.ndarray:
    turned, tilted, both = np.zeros(4), np.zeros(4), np.zeros(4)
    mujoco.mju_axisAngle2Quat(turned, [0.0, 0.0, 1.0], yaw)
    mujoco.mju_axisAngle2Quat(tilted, [0.0, 1.0, 0.0], pitch)
    mujoco.mju_mulQuat(both, turned, tilted)
    return both


_ARMS = {
    "sides": (37.0, -41.0, -74.0),
    "raised": (-85.0, 10.0, -80.0),
    "out": (-51.0, -33.0, -90.0),
    "hips": (43.0, -74.0, -8.0),
    "crossed above": (60.0, 7.0, -35.0),
    "crossed below": (60.0, -3.0, -46.0),
    "forward": (0.0, 46.0, -90.0),
    "lap": (45.0, 10.0, -60.0),
    "knees": (-2.0, -9.0, -41.0),
}
"""The right arm's shoulder1, shoulder2 and elbow; a left arm mirrors it."""

_Sides = float | tuple[float, float]
_Arms = str | tuple[str, str]


def _pose(
    arms: _Arms = "sides",
    pitch: float = 0.0,
    hip_x: _Sides = 0.0,
    hip_y: _Sides = 0.0,
    hip_z: _Sides = 0.0,
    knee: _Sides = -2.0,
    abdomen_y: float = 0.0,
) -> Pose:
    """Build a pose from values for arms and legs: one value for both sides, or (right, left)."""
    right_arm, left_arm = (_ARMS[name] for name in (arms if isinstance(arms, tuple) else (arms, arms)))
    joints = {"abdomen_y": abdomen_y}
    joints |= {"right_shoulder1": right_arm[0], "right_shoulder2": right_arm[1], "right_elbow": right_arm[2]}
    joints |= {"left_shoulder1": -left_arm[0], "left_shoulder2": -left_arm[1], "left_elbow": left_arm[2]}
    for name, value in (("hip_x", hip_x), ("hip_y", hip_y), ("hip_z", hip_z), ("knee", knee)):
        right, left = value if isinstance(value, tuple) else (value, value)
        joints |= {f"right_{name}": right, f"left_{name}": left}
    return Pose(joints, pitch)


POSES = {
    "standing": _pose(),
    "arms raised": _pose("raised"),
    "arms out": _pose("out"),
    "hands on hips": _pose("hips"),
    "arms crossed": _pose(("crossed below", "crossed above")),
    "kneeling": _pose(knee=-95),
    "kneeling on the heels": _pose("lap", hip_y=-65, knee=-156),
    "on one knee": _pose(hip_y=(-85, 5), knee=(-90, -95)),
    "one leg": _pose(hip_y=(-85, 0), knee=(-95, -2)),
    "side splits": _pose("out", hip_x=-25, hip_z=-60, hip_y=-80),
    "front splits": _pose("out", pitch=15, hip_y=(-110, 20), abdomen_y=30),
    "sitting": _pose("lap", hip_y=-95),
    "lotus": _pose("knees", pitch=-9, abdomen_y=-64, hip_x=5, hip_z=-60, hip_y=-70, knee=-160),
    "squatting": _pose("forward", pitch=20, hip_y=-105, knee=-135),
    "bowing": _pose(pitch=75, abdomen_y=-60, hip_y=-15),
    "lying on the back": _pose(pitch=-90),
    "lying on the front": _pose(pitch=90),
    "walking": _pose(hip_y=(-35, 20), knee=(-15, -30)),
}
"""Every reference pose by its name."""
