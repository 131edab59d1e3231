"""The humanoid: Gymnasium's own dynamics and, unless asked otherwise, pictures; no early end; true reward means success."""

import copy
import gc
import math
import threading
from pathlib import Path

import gymnasium as gym
import mujoco
import numpy as np
import pytest
from gymnasium.envs.mujoco.humanoid_v5 import HumanoidEnv

from vlm_rm_sweeps.frames import FrameFormat
from vlm_rm_sweeps.tasks import mujoco_scene
from vlm_rm_sweeps.tasks.humanoid.env import Humanoid, paper_camera
from vlm_rm_sweeps.tasks.humanoid.poses import POSES
from vlm_rm_sweeps.tasks.humanoid.scene import humanoid_model
from vlm_rm_sweeps.tasks.humanoid.success import SUCCESS_TESTS
from vlm_rm_sweeps.tasks.registry import find_task, task_names
from vlm_rm_sweeps.tasks.rendering import Profile, Rendering

SMALL = FrameFormat(64)
FAST = Rendering("modified", "paper", "fast")
NO_ACTION = np.zeros(17, dtype=np.float32)


def in_pose(env: Humanoid, name: str, yaw: float = 0.0) -> Humanoid:
    env.set_state(POSES[name].qpos(yaw=yaw), np.zeros(env.model.nv))
    return env


def test_goals_and_prompts_are_the_papers() -> None:
    prompts = {name: find_task(name).goal_prompt for name in task_names() if name.startswith("humanoid-")}
    assert prompts == {
        "humanoid-kneeling": "a humanoid robot kneeling",
        "humanoid-lotus": "a humanoid robot seated down, meditating in the lotus position",
        "humanoid-standing": "a humanoid robot standing up",
        "humanoid-arms-raised": "a humanoid robot standing up, with both arms raised",
        "humanoid-splits": "a humanoid robot practicing gymnastics, doing the side splits",
        "humanoid-hands-on-hips": "a humanoid robot standing up with hands on hips",
        "humanoid-one-leg": "a humanoid robot standing up on one leg",
        "humanoid-arms-crossed": "a humanoid robot standing up, with its arms crossed",
    }
    for name in prompts:
        task = find_task(name)
        assert task.baseline_prompt == "a humanoid robot"
        assert task.episode_steps == 100
        assert (task.rendering().textures, task.rendering().camera) == ("modified", "paper")


@pytest.mark.parametrize("textures", ["modified", "original"])
def test_dynamics_and_observations_are_gymnasiums_bit_for_bit(textures: str) -> None:
    task = find_task("humanoid-lotus")
    ours = task.make_native_env(task.rendering(textures), None)
    theirs = gym.make("Humanoid-v5", terminate_when_unhealthy=False, max_episode_steps=100)
    np.testing.assert_array_equal(ours.reset(seed=3)[0], theirs.reset(seed=3)[0])
    ours.action_space.seed(0)
    for _ in range(100):
        action = ours.action_space.sample()
        observation, *rest = ours.step(action)
        np.testing.assert_array_equal(observation, theirs.step(action)[0])
        assert rest == [0.0, False, False, {"success": False}]


def test_episodes_have_100_steps_and_no_early_end() -> None:
    env = find_task("humanoid-lotus").make_env(None)
    env.reset(seed=0)
    ends = [env.step(NO_ACTION)[2:4] for _ in range(100)]
    assert ends == [(False, False)] * 99 + [(False, True)]


def test_success_and_true_reward_are_of_the_state_after_the_step() -> None:
    env = Humanoid(FAST, SMALL, SUCCESS_TESTS["humanoid-kneeling"])
    env.reset(seed=0)
    assert env.step(NO_ACTION)[1:] == (0.0, False, False, {"success": False})
    in_pose(env, "kneeling")
    assert env.step(NO_ACTION)[1:] == (1.0, False, False, {"success": True})
    env.reset(seed=0)
    assert env.step(NO_ACTION)[4] == {"success": False}


def test_a_copy_is_of_the_same_kind() -> None:
    env = copy.deepcopy(Humanoid(Rendering("original", "default", "fast"), SMALL, SUCCESS_TESTS["humanoid-kneeling"]))
    assert env.rendering == Rendering("original", "default", "fast")
    in_pose(env, "kneeling")
    assert env.step(NO_ACTION)[4] == {"success": True}


def test_modified_textures_change_nothing_but_looks() -> None:
    ours, theirs = humanoid_model("modified"), humanoid_model("original")
    fields = ("body_mass", "body_inertia", "geom_size", "geom_friction", "dof_damping", "actuator_gear", "jnt_range", "qpos0")
    for field in fields:
        np.testing.assert_array_equal(getattr(ours, field), getattr(theirs, field))
    assert [ours.geom(index).name for index in range(ours.ngeom)] == [theirs.geom(index).name for index in range(theirs.ngeom)]


@pytest.mark.parametrize("textures", ["modified", "original"])
def test_the_floor_that_the_papers_camera_does_not_see_moves_no_robot(textures: str) -> None:
    whole, trimmed = humanoid_model(textures), humanoid_model(textures, "paper")
    assert np.prod(trimmed.geom("floor").size[:2]) < 0.3 * np.prod(whole.geom("floor").size[:2])
    states = [mujoco.MjData(model) for model in (whole, trimmed)]
    rng = np.random.default_rng(0)
    for _ in range(100):
        torques = rng.uniform(-0.4, 0.4, whole.nu)
        for model, state in zip((whole, trimmed), states, strict=True):
            state.ctrl[:] = torques
            mujoco.mj_step(model, state, 5)
    assert states[0].ncon > 0
    np.testing.assert_array_equal(states[0].qpos, states[1].qpos)


@pytest.mark.usefixtures("opengl")
class TestFrames:
    @pytest.mark.parametrize("textures", ["modified", "original"])
    @pytest.mark.parametrize(("size", "profile"), [(64, "fast"), (224, "full")])
    def test_the_papers_camera_does_not_miss_the_floor_that_is_left_out(
        self, textures: str, size: int, profile: Profile
    ) -> None:
        frames = []
        for model in (humanoid_model(textures), humanoid_model(textures, "paper")):
            state = mujoco.MjData(model)
            mujoco.mj_forward(model, state)
            frames.append(mujoco_scene.SceneRenderer(model, size, profile).frame(state, paper_camera()).astype(int))
        difference = np.abs(frames[0] - frames[1])
        assert difference.max() <= 2  # of 255 levels, by rounding in OpenGL
        assert (difference > 0).mean() < 0.01

    def test_original_scene_and_default_camera_are_gymnasiums_bit_for_bit(self) -> None:
        theirs = gym.make("Humanoid-v5", render_mode="rgb_array", width=64, height=64).unwrapped
        assert isinstance(theirs, HumanoidEnv)
        ours = Humanoid(Rendering("original", "default", "full"), SMALL)
        for env in (theirs, ours):
            env.reset(seed=0)
            env.set_state(POSES["walking"].qpos(yaw=30), np.zeros(theirs.model.nv))
        np.testing.assert_array_equal(ours.render(), theirs.render())
        theirs.close()

    @pytest.mark.parametrize("textures", ["modified", "original"])
    @pytest.mark.parametrize("camera", ["paper", "default"])
    def test_frame_has_the_size_asked_for_and_shows_something(self, textures: str, camera: str) -> None:
        task = find_task("humanoid-standing")
        env = task.make_env(SMALL, task.rendering(textures, camera, "fast"))
        env.reset(seed=0)
        _, reward, _, _, info = env.step(NO_ACTION)
        assert math.isnan(float(reward))
        assert info["frame"].shape == (64, 64, 3)
        assert info["frame"].dtype == np.uint8
        assert len(np.unique(info["frame"].reshape(-1, 3), axis=0)) > 100

    def test_without_a_format_the_frame_has_the_papers_size(self) -> None:
        env = Humanoid(FAST)
        env.reset(seed=0)
        assert env.render().shape == (480, 480, 3)

    def test_each_set_state_is_shown_at_once(self) -> None:
        env = Humanoid(FAST, SMALL)
        env.reset(seed=0)
        frames = [in_pose(env, name).render() for name in POSES]
        for index, frame in enumerate(frames):
            assert all((frame != other).any() for other in frames[:index])
        np.testing.assert_array_equal(in_pose(env, next(iter(POSES))).render(), frames[0])

    def test_a_stored_state_looks_as_it_did_in_its_episode(self) -> None:
        env = Humanoid(FAST, SMALL)
        env.reset(seed=1)
        env.action_space.seed(1)
        for _ in range(20):
            env.step(env.action_space.sample())
        frame = env.render()
        other = Humanoid(FAST, SMALL)
        other.reset(seed=2)
        other.set_state(env.data.qpos, env.data.qvel)
        np.testing.assert_array_equal(other.render(), frame)

    def test_rendering_does_not_change_what_follows(self) -> None:
        seen, unseen = Humanoid(FAST, SMALL), Humanoid(FAST, SMALL)
        for env in (seen, unseen):
            env.reset(seed=4)
        for _ in range(20):
            seen.render()
            np.testing.assert_array_equal(seen.step(NO_ACTION)[0], unseen.step(NO_ACTION)[0])

    def test_same_seed_gives_the_same_frames_in_a_fresh_renderer(self) -> None:
        def episode(seed: int) -> np.ndarray:
            env = Humanoid(FAST, SMALL)
            env.reset(seed=seed)
            env.action_space.seed(seed)
            frames = []
            for _ in range(5):
                env.step(env.action_space.sample())
                frames.append(env.render())
            env.close()
            return np.array(frames)

        np.testing.assert_array_equal(episode(5), episode(5))
        assert (episode(5) != episode(6)).any()

    def test_the_papers_camera_is_in_front_and_stays_where_it_is(self) -> None:
        env = in_pose(Humanoid(FAST, SMALL), "arms raised")
        front = env.render().astype(int)
        # Seen from the front the pose is symmetric, seen from the side it is not.
        side = in_pose(env, "arms raised", yaw=90).render().astype(int)
        columns = slice(16, 48)
        assert np.abs(front[5:40, columns] - front[5:40, columns][:, ::-1]).mean() < 12
        moved = POSES["arms raised"].qpos(position=(0.0, 1.0))
        env.set_state(moved, np.zeros(env.model.nv))
        assert (env.render() != front).mean() > 0.05
        assert (side != front).mean() > 0.02

    def test_full_profile_looks_better_and_alike(self) -> None:
        fast = in_pose(Humanoid(FAST, SMALL), "standing").render().astype(int)
        full = in_pose(Humanoid(Rendering("modified", "paper", "full"), SMALL), "standing").render().astype(int)
        assert (fast != full).any()
        assert np.abs(fast - full).mean() < 12

    @pytest.mark.parametrize(("profile", "slices"), [("fast", 12), ("full", 28)])
    def test_the_fast_profile_leaves_out_what_costs(self, profile: Profile, slices: int) -> None:
        renderer = mujoco_scene.SceneRenderer(humanoid_model("modified"), 32, profile)
        assert (renderer._context.offSamples > 0) == (profile == "full")  # type: ignore[union-attr]
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            assert bool(renderer._scene.flags[flag]) == (profile == "full")
        assert renderer.model.vis.quality.numslices == slices

    def test_environments_share_one_renderer_until_all_are_closed(self) -> None:
        gc.collect()
        before = len(mujoco_scene._renderers)
        size = FrameFormat(40)
        envs = [Humanoid(FAST, size) for _ in range(32)]
        for index, env in enumerate(envs):
            in_pose(env, list(POSES)[index % len(POSES)])
        frames = [env.render() for env in envs]
        assert len(mujoco_scene._renderers) == before + 1
        # They share the renderer and not the state.
        np.testing.assert_array_equal(frames[0], frames[len(POSES)])
        assert (frames[0] != frames[1]).any()
        for env in envs[1:]:
            env.close()
        np.testing.assert_array_equal(envs[0].render(), frames[0])
        envs[0].close()
        assert len(mujoco_scene._renderers) == before
        np.testing.assert_array_equal(envs[0].render(), frames[0])

    def test_any_thread_may_render(self) -> None:
        env = in_pose(Humanoid(FAST, SMALL), "lotus")
        expected = env.render()
        frames: list[np.ndarray] = []
        threads = [threading.Thread(target=lambda: frames.append(env.render())) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(frames) == 3
        for frame in frames:
            np.testing.assert_array_equal(frame, expected)


def test_no_scene_needs_a_file_of_its_own() -> None:
    """Textures are made by code: the model holds them, and no asset has to be shipped."""
    model = humanoid_model("modified")
    names = {model.texture(index).name for index in range(model.ntex)}
    assert names == {"sky", "tiles", "shell", "graphite", "orange", "face"}
    assert not list(Path(mujoco_scene.__file__).parent.glob("**/*.png"))
    assert mujoco.MjModel is type(model)
