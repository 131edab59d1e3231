"""Reference poses: inside the joint limits, on the floor, turned and placed as asked, and mixed and perturbed as said."""

import mujoco
import numpy as np
import pytest

from vlm_rm_sweeps.tasks.humanoid.poses import JOINTS, POSES, Pose, interpolated, lowest_point, perturbed
from vlm_rm_sweeps.tasks.humanoid.scene import humanoid_model

MODEL = humanoid_model("original")


def placed(qpos: np.ndarray) -> mujoco.MjData:
    data = mujoco.MjData(MODEL)
    data.qpos[:] = qpos
    mujoco.mj_forward(MODEL, data)
    return data


def test_joints_are_the_models_in_its_order() -> None:
    assert [MODEL.joint(index).name for index in range(1, MODEL.njnt)] == list(JOINTS)


@pytest.mark.parametrize("name", POSES)
def test_every_pose_keeps_the_joint_limits_and_touches_the_floor(name: str) -> None:
    pose = POSES[name]
    data = placed(pose.qpos())
    for joint, degrees in pose.joints.items():
        low, high = np.degrees(MODEL.joint(joint).range)
        assert low - 1e-9 <= degrees <= high + 1e-9
        assert np.degrees(data.joint(joint).qpos[0]) == pytest.approx(degrees)
    assert lowest_point(MODEL, data) == pytest.approx(0.0, abs=1e-9)
    # MuJoCo's own collision detection agrees: it touches the floor and does not sink in.
    floor = [contact.dist for contact in data.contact if MODEL.geom("floor").id in (contact.geom1, contact.geom2)]
    assert min(floor) == pytest.approx(0.0, abs=1e-6)


def test_angles_beyond_the_limits_are_cut_off() -> None:
    assert np.degrees(placed(Pose({"right_knee": 40.0}).qpos()).joint("right_knee").qpos[0]) == pytest.approx(-2.0)


def test_pitch_leans_forwards_yaw_turns_left_and_the_position_is_the_torsos() -> None:
    data = placed(Pose({}, pitch=90).qpos())
    np.testing.assert_allclose(data.body("torso").xmat.reshape(3, 3)[:, 2], [1, 0, 0], atol=1e-9)
    data = placed(Pose({}, pitch=20).qpos(yaw=90, position=(0.3, -0.2)))
    facing = data.body("torso").xmat.reshape(3, 3)[:, 0]
    np.testing.assert_allclose(facing, [0, np.cos(np.radians(20)), -np.sin(np.radians(20))], atol=1e-9)
    np.testing.assert_allclose(data.body("torso").xpos[:2], [0.3, -0.2], atol=1e-9)


def test_interpolation_goes_from_one_pose_to_the_other() -> None:
    start, end = POSES["standing"], POSES["bowing"]
    np.testing.assert_allclose(interpolated(start, end, 0).qpos(), start.qpos())
    np.testing.assert_allclose(interpolated(start, end, 1).qpos(), end.qpos())
    middle = interpolated(start, end, 0.5)
    assert middle.pitch == 37.5
    assert middle.joints["abdomen_y"] == -30


def test_perturbations_are_seeded_and_as_large_as_asked() -> None:
    def noise(seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        drawn = [perturbed(POSES["squatting"], rng, 3.0) for _ in range(300)]
        return np.array(
            [[each.joints[joint] - POSES["squatting"].joints.get(joint, 0.0) for joint in JOINTS] for each in drawn]
        )

    np.testing.assert_array_equal(noise(0), noise(0))
    assert (noise(0) != noise(1)).all()
    assert noise(0).std(axis=0) == pytest.approx(np.full(len(JOINTS), 3.0), rel=0.2)
    unchanged = perturbed(POSES["squatting"], np.random.default_rng(0), 0.0)
    np.testing.assert_array_equal(unchanged.qpos(), POSES["squatting"].qpos())
