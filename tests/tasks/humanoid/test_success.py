"""Success tests of the humanoid: true near their own poses, false on the others, in the air, upside down and when falling."""

import mujoco
import numpy as np
import pytest

from vlm_rm_sweeps.evaluation.poses import expected_success, success_by_pose
from vlm_rm_sweeps.tasks.humanoid.poses import POSES, Pose, interpolated
from vlm_rm_sweeps.tasks.humanoid.scene import humanoid_model
from vlm_rm_sweeps.tasks.humanoid.success import FULFILLING_POSES, SUCCESS_TESTS
from vlm_rm_sweeps.tasks.registry import find_task, task_names

MODEL = humanoid_model("original")
LEGS_STRAIGHT = {f"{side}_{joint}": angle for side in ("right", "left") for joint, angle in (("hip_y", 0.0), ("knee", -2.0))}


def state(pose: Pose, height: float = 0.0, yaw: float = 0.0) -> mujoco.MjData:
    data = mujoco.MjData(MODEL)
    data.qpos[:] = pose.qpos(yaw=yaw)
    data.qpos[2] += height
    mujoco.mj_forward(MODEL, data)
    return data


def changed(name: str, **joints: float) -> Pose:
    return Pose({**POSES[name].joints, **joints}, POSES[name].pitch)


def test_every_humanoid_task_has_a_test_and_a_pose() -> None:
    humanoids = {name for name in task_names() if name.startswith("humanoid-")}
    assert set(SUCCESS_TESTS) == set(FULFILLING_POSES) == humanoids
    assert all(set(poses) <= set(POSES) and poses for poses in FULFILLING_POSES.values())


def of_both_legs(name: str, pitch: float, abdomen_y: float, **joints: float) -> Pose:
    legs = {f"{side}_{joint}": angle for side in ("right", "left") for joint, angle in joints.items()}
    return Pose({**POSES[name].joints, **legs, "abdomen_y": abdomen_y}, pitch)


def test_each_test_knows_its_poses_and_no_others() -> None:
    exact = success_by_pose(samples=1, degrees=0.0, seed=0)
    np.testing.assert_array_equal(exact.to_numpy(), expected_success().to_numpy().astype(float))
    noisy = success_by_pose(samples=30, degrees=3.0, seed=1)
    np.testing.assert_allclose(noisy.to_numpy(), expected_success().to_numpy().astype(float), atol=0.1)


def test_kneeling_and_splits_are_as_strict_as_a_wavering_robot_allows() -> None:
    shares = success_by_pose(samples=200, degrees=3.0, seed=2)
    assert shares["humanoid-kneeling"][list(FULFILLING_POSES["humanoid-kneeling"])].min() >= 0.95
    assert shares["humanoid-splits"]["side splits"] >= 0.95


@pytest.mark.parametrize("task", SUCCESS_TESTS)
def test_nothing_counts_in_the_air_or_lying_down(task: str) -> None:
    for name in FULFILLING_POSES[task]:
        assert SUCCESS_TESTS[task](state(POSES[name]))
        assert not SUCCESS_TESTS[task](state(POSES[name], height=0.4)), name
        for pitch in (-90, 90, 180):
            assert not SUCCESS_TESTS[task](state(Pose(POSES[name].joints, pitch))), (name, pitch)


@pytest.mark.parametrize(
    ("task", "near_miss"),
    [
        ("humanoid-arms-raised", changed("arms raised", left_shoulder1=-37, left_shoulder2=41, left_elbow=-74)),
        ("humanoid-kneeling", changed("kneeling", right_hip_y=-85, right_knee=-90)),
        ("humanoid-kneeling", Pose(POSES["kneeling"].joints, pitch=-40)),
        # Crouching on the feet, both knees 0.12 m above the floor.
        ("humanoid-kneeling", of_both_legs("kneeling", pitch=15, abdomen_y=2.5, hip_y=-55, knee=-112)),
        ("humanoid-splits", changed("side splits", right_knee=-90)),
        # Both feet 0.29 m above the floor; both knees bent by 28 degrees.
        ("humanoid-splits", of_both_legs("side splits", pitch=-20, abdomen_y=-20, hip_y=-75)),
        ("humanoid-splits", of_both_legs("side splits", pitch=0, abdomen_y=0, knee=-28)),
        ("humanoid-splits", changed("side splits", right_hip_z=0, left_hip_z=0)),
        ("humanoid-lotus", changed("lotus", right_hip_z=0, left_hip_z=0)),
        ("humanoid-lotus", changed("lotus", right_knee=-60, left_knee=-60)),
        ("humanoid-one-leg", interpolated(POSES["standing"], POSES["one leg"], 0.3)),
        ("humanoid-one-leg", Pose(POSES["one leg"].joints, pitch=25)),
        (
            "humanoid-hands-on-hips",
            changed("hands on hips", right_shoulder1=37, right_shoulder2=-41, right_elbow=-74),
        ),
        (
            "humanoid-arms-crossed",
            changed("arms crossed", left_shoulder1=37, left_shoulder2=-41, left_elbow=-74),
        ),
        # Hands that only touch, in the lap.
        ("humanoid-arms-crossed", Pose({**POSES["sitting"].joints, **LEGS_STRAIGHT})),
        ("humanoid-standing", interpolated(POSES["standing"], POSES["squatting"], 0.7)),
    ],
)
def test_near_misses_do_not_count(task: str, near_miss: Pose) -> None:
    assert not SUCCESS_TESTS[task](state(near_miss))


def test_hands_in_the_lap_are_a_standing_near_miss_of_crossed_arms() -> None:
    assert SUCCESS_TESTS["humanoid-standing"](state(Pose({**POSES["sitting"].joints, **LEGS_STRAIGHT})))


@pytest.mark.parametrize("side", ["right", "left"])
def test_either_leg_and_either_arm_will_do(side: str) -> None:
    other = {"right": "left", "left": "right"}[side]
    one_leg = changed("standing", **{f"{side}_hip_y": -85, f"{side}_knee": -95})
    assert SUCCESS_TESTS["humanoid-one-leg"](state(one_leg, yaw=123))
    crossed = {
        **dict(zip((f"{side}_shoulder1", f"{side}_shoulder2", f"{side}_elbow"), (60, -3, -46), strict=True)),
        **dict(zip((f"{other}_shoulder1", f"{other}_shoulder2", f"{other}_elbow"), (60, 7, -35), strict=True)),
    }
    mirrored = {name: -angle if name.startswith("left_shoulder") else angle for name, angle in crossed.items()}
    assert SUCCESS_TESTS["humanoid-arms-crossed"](state(changed("standing", **mirrored), yaw=123))


def test_a_random_policy_fulfils_no_episode() -> None:
    """It falls within half a second: standing ends, kneeling is passed through, and nothing else is reached."""
    data_of_steps: list[list[bool]] = []
    env = find_task("humanoid-standing").make_native_env(find_task("humanoid-standing").rendering(), None)
    data = env.unwrapped.data  # type: ignore[attr-defined]
    for seed in range(4):
        env.reset(seed=seed)
        env.action_space.seed(seed)
        for _ in range(100):
            env.step(env.action_space.sample())
            data_of_steps.append([is_success(data) for is_success in SUCCESS_TESTS.values()])
    shares = np.array(data_of_steps, dtype=float).reshape(4, 100, -1).mean(axis=1)
    assert shares.max() < 0.5
    rare = [index for index, task in enumerate(SUCCESS_TESTS) if task not in ("humanoid-standing", "humanoid-kneeling")]
    assert shares[:, rare].mean(axis=0).max() < 0.05
