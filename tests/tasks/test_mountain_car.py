"""MountainCar against Gymnasium's own, and the defects that a reimplementation must not repeat."""

import gymnasium as gym
import numpy as np
import pytest

from vlm_rm_sweeps.frames import FrameFormat, resize_frames
from vlm_rm_sweeps.tasks.mountain_car import SummitMountainCar
from vlm_rm_sweeps.tasks.registry import find_task

TASK = find_task("mountaincar-summit")


def full_throttle(observation: np.ndarray) -> np.ndarray:
    return np.array([1.0 if observation[1] >= 0 else -1.0], np.float32)


def at(position: float, textures: str = "modified") -> SummitMountainCar:
    env = SummitMountainCar("modified" if textures == "modified" else "original")
    env.reset(seed=0)
    env.state = np.array([position, 0.0], np.float32)
    return env


def test_moves_as_gymnasiums_until_the_goal() -> None:
    ours, theirs = SummitMountainCar(), gym.make("MountainCarContinuous-v0").unwrapped
    np.testing.assert_array_equal(ours.reset(seed=3)[0], theirs.reset(seed=3)[0])
    actions = np.random.default_rng(0).uniform(-1, 1, (100, 1)).astype(np.float32)
    for action in actions:
        np.testing.assert_array_equal(ours.step(action)[0], theirs.step(action)[0])


def test_the_goal_holds_the_car_whatever_it_does() -> None:
    env = at(0.44)
    env.state = np.array([0.44, 0.06], np.float32)
    observation, reward, terminated, truncated, info = env.step(np.array([1.0], np.float32))
    reached = observation[0]
    assert reached >= env.goal_position
    assert (observation[1], reward, terminated, truncated, info) == (0.0, 1.0, False, False, {"success": True})
    for _ in range(50):
        observation, reward, terminated, _, info = env.step(np.array([-1.0], np.float32))
        assert (observation[0], observation[1], reward, info["success"]) == (reached, 0.0, 1.0, True)
        assert not terminated


def test_a_reset_leaves_the_goal_and_the_success_behind() -> None:
    env = at(0.5)
    assert env.step(np.zeros(1, np.float32))[4]["success"]
    observation, _ = env.reset(seed=1)
    assert -0.6 <= observation[0] <= -0.4
    assert not env.step(np.zeros(1, np.float32))[4]["success"]


@pytest.mark.parametrize("seed", range(3))
def test_full_throttle_succeeds_and_standing_still_does_not(seed: int) -> None:
    for policy, expected in ((full_throttle, True), (lambda _: np.zeros(1, np.float32), False)):
        env = TASK.make_env(None)
        observation, _ = env.reset(seed=seed)
        in_goal, steps, truncated = 0, 0, False
        while not truncated:
            observation, reward, terminated, truncated, info = env.step(policy(observation))
            in_goal, steps = in_goal + info["success"], steps + 1
            assert float(reward) == info["true_reward"] == float(info["success"])
            assert not terminated
        assert steps == TASK.episode_steps
        assert (in_goal >= steps / 2) == expected


@pytest.mark.parametrize("position", [-1.2, -0.5, 0.0, 0.45, 0.6])
def test_original_textures_are_gymnasiums_bit_for_bit(position: float) -> None:
    theirs = gym.make("MountainCarContinuous-v0", render_mode="rgb_array")
    theirs.reset(seed=0)
    theirs.unwrapped.state = np.array([position, 0.0], np.float32)  # type: ignore[attr-defined]
    np.testing.assert_array_equal(at(position, "original").render(), theirs.render())


def red_pixels(frame: np.ndarray) -> np.ndarray:
    """(row, column) of each pixel that can only be the car's."""
    red, green, blue = (frame[..., channel].astype(int) for channel in range(3))
    return np.argwhere((red > 130) & (green < 70) & (blue < 70))


@pytest.mark.parametrize("position", [-1.1, -0.5236, 0.0, 0.3, 0.45])
def test_painted_car_stands_where_gymnasium_draws_it(position: float) -> None:
    frame = at(position).render()
    assert frame.shape == (400, 600, 3)
    assert frame.dtype == np.uint8
    dark = np.argwhere(at(position, "original").render().sum(-1) == 0)  # Gymnasium's car is black, as is its thin ground
    row, column = red_pixels(frame).mean(0)
    expected_column = (position + 1.2) / 1.8 * 600
    assert abs(column - expected_column) < 15
    near = dark[np.abs(dark[:, 1] - expected_column) < 15]
    assert abs(row - np.median(near[:, 0])) < 20


def test_flag_is_in_the_picture_at_every_model_size() -> None:
    for textures in ("modified", "original"):
        frame = at(-0.5, textures).render()
        for size in (64, 224):
            small = resize_frames(frame[None], FrameFormat(size))[0].astype(int)
            yellow = (small[..., 0] > 180) & (small[..., 1] > 150) & (small[..., 2] < 140)
            assert yellow.any(), (textures, size)


def test_paint_is_the_same_in_every_process_and_for_every_car() -> None:
    np.testing.assert_array_equal(at(0.1).render(), at(0.1).render())
    # A painted picture is a copy: the car of one state does not stay in the next.
    env = at(-0.5)
    env.render()
    env.state = np.array([0.2, 0.0], np.float32)
    np.testing.assert_array_equal(env.render(), at(0.2).render())
