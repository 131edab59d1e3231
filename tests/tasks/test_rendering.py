"""Frames are of the state after the step, also of the last one, and a reward that nobody gave cannot be mistaken for one."""

import dataclasses
import math
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.classic_control.cartpole import CartPoleEnv
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from vlm_rm_sweeps.frames import FrameFormat, resize_frames
from vlm_rm_sweeps.tasks.cart_pole import UprightCartPole
from vlm_rm_sweeps.tasks.registry import find_task
from vlm_rm_sweeps.tasks.rendering import FrameInInfo, Rendering, render_frame

FORMAT = FrameFormat(112)
SHORT = dataclasses.replace(find_task("cartpole-upright"), episode_steps=30)


def frame_of(state: Any) -> np.ndarray:
    """What Gymnasium's own CartPole shows in this state, resized."""
    reference = gym.make("CartPole-v1", render_mode="rgb_array").unwrapped
    reference.reset(seed=0)
    assert isinstance(reference, CartPoleEnv)
    reference.state = np.array(state)
    pixels = reference.render()
    assert isinstance(pixels, np.ndarray)
    return resize_frames(pixels[None], FORMAT)[0]


def state_of(env: gym.Env) -> np.ndarray:
    bare = env.unwrapped
    assert isinstance(bare, UprightCartPole)
    assert bare.state is not None
    return np.array(bare.state)


def test_frame_shows_the_state_after_the_step() -> None:
    env = SHORT.make_env(FORMAT)
    env.reset(seed=0)
    for _ in range(12):
        before = state_of(env)
        info = env.step(1)[4]
        after = state_of(env)
    np.testing.assert_array_equal(info["frame"], frame_of(after))
    assert (info["frame"] != frame_of(before)).any()


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
def test_last_frame_of_an_episode_is_not_the_next_reset(mode: AutoresetMode) -> None:
    envs = SyncVectorEnv([lambda: SHORT.make_env(FORMAT)] * 2, autoreset_mode=mode)
    alone = [SHORT.make_env(FORMAT) for _ in range(2)]
    envs.reset(seed=[3, 4])
    for env, seed in zip(alone, (3, 4), strict=True):
        env.reset(seed=seed)
    actions = np.array([0, 1])
    for step in range(1, 31):
        _, _, _, truncated, infos = envs.step(actions)
        for env, action in zip(alone, actions, strict=True):
            env.step(action)
        assert truncated.tolist() == [step == 30] * 2
    last = infos["final_info"] if mode is AutoresetMode.SAME_STEP else infos
    reset_frame = frame_of([0.0, 0.0, 0.0, 0.0])
    for index, env in enumerate(alone):
        expected = frame_of(state_of(env))
        # After 30 pushes to one side the pole is down: nothing like the frame of a reset.
        assert (expected != reset_frame).mean() > 0.01
        np.testing.assert_array_equal(last["frame"][index], expected)
        assert bool(last["success"][index]) is False


def test_step_that_only_resets_has_no_frame() -> None:
    envs = SyncVectorEnv([lambda: SHORT.make_env(FORMAT)], autoreset_mode=AutoresetMode.NEXT_STEP)
    envs.reset(seed=0)
    infos = [envs.step(np.array([1]))[4] for _ in range(31)]
    assert "frame" in infos[-2]
    assert infos[-1] == {}


def test_rendered_step_has_no_reward_and_exactly_four_things_in_info() -> None:
    env = SHORT.make_env(FORMAT)
    env.reset(seed=0)
    _, reward, terminated, truncated, info = env.step(1)
    assert math.isnan(float(reward))
    assert (terminated, truncated) == (False, False)
    assert set(info) == {"frame", "render_seconds", "true_reward", "success"}
    assert info["frame"].shape == (112, 112, 3)
    assert info["frame"].dtype == np.uint8
    assert 0 < info["render_seconds"] < 10
    assert info["true_reward"] == 1.0
    assert type(info["true_reward"]) is float
    assert info["success"] is True


def test_true_reward_falls_with_the_pole() -> None:
    env = SHORT.make_env(FORMAT)
    env.reset(seed=0)
    infos = [env.step(1)[4] for _ in range(30)]
    rewards = [info["true_reward"] for info in infos]
    assert rewards[0] == 1.0
    assert rewards[-1] == 0.0
    assert [reward == 1.0 for reward in rewards] == [info["success"] for info in infos]


@pytest.mark.parametrize("frame_format", [FORMAT, None])
def test_reset_has_an_empty_info_and_takes_seed_and_options(frame_format: FrameFormat | None) -> None:
    env = SHORT.make_env(frame_format)
    first, info = env.reset(seed=7)
    assert info == {}
    again, info = env.reset(seed=7)
    assert info == {}
    np.testing.assert_array_equal(first, again)
    other, _ = env.reset()
    assert (first != other).any()
    far, info = env.reset(seed=7, options={"low": 1.0, "high": 1.1})
    assert info == {}
    assert far.min() >= 1.0


def test_without_a_frame_format_nothing_is_rendered() -> None:
    rendered = []

    class Watched(UprightCartPole):
        def render(self) -> Any:
            rendered.append(True)
            return super().render()

    task = dataclasses.replace(SHORT, make_native_env=lambda rendering, frame_format: Watched())
    env = task.make_env(None)
    env.reset(seed=0)
    _, reward, _, _, info = env.step(1)
    assert reward == 1.0
    assert info == {"true_reward": 1.0, "success": True}
    assert rendered == []
    env = task.make_env(FORMAT)
    env.reset(seed=0)
    env.step(1)
    assert rendered == [True]


def test_info_keys_of_the_environment_are_dropped() -> None:
    class Talkative(UprightCartPole):
        def reset(self, **kwargs: Any) -> tuple[np.ndarray, dict[str, Any]]:
            return super().reset(**kwargs)[0], {"distance": 3.0}

        def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
            observation, reward, terminated, truncated, info = super().step(action)
            return observation, reward, terminated, truncated, info | {"distance": 3.0}

    env = dataclasses.replace(SHORT, make_native_env=lambda rendering, frame_format: Talkative()).make_env(None)
    assert env.reset(seed=0)[1] == {}
    assert set(env.step(1)[4]) == {"true_reward", "success"}


def test_environment_that_renders_no_array_is_refused() -> None:
    class Silent(UprightCartPole):
        def render(self) -> Any:
            return None

    env = FrameInInfo(Silent(), FORMAT)
    env.reset(seed=0)
    with pytest.raises(TypeError, match=r"rendered NoneType.*render_mode='rgb_array'"):
        env.step(1)


def test_rendered_frame_of_the_right_size_is_the_environments_own() -> None:
    env = UprightCartPole()
    env.reset(seed=0)
    np.testing.assert_array_equal(render_frame(env, FrameFormat(600, "bicubic", "longest")), env.render())


@pytest.mark.parametrize(("gpu", "profile"), [(True, "full"), (False, "fast")])
def test_the_profile_depends_on_the_gpu_unless_it_is_named(gpu: bool, profile: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlm_rm_sweeps.tasks.rendering.draws_on_gpu", lambda: gpu)
    task = find_task("humanoid-kneeling")
    assert task.rendering().profile == Rendering().profile == profile
    assert task.rendering(profile="fast").profile == "fast"
    assert task.rendering(profile="full").profile == "full"
