"""UprightCartPole: no early end, a picture that always shows cart and pole, and a true reward that means upright."""

import math
import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.classic_control.cartpole import CartPoleEnv

from vlm_rm_sweeps.tasks.cart_pole import UprightCartPole
from vlm_rm_sweeps.tasks.registry import find_task

THRESHOLD = math.radians(12)
FAR_FROM_UPRIGHT = {"low": 1.0, "high": 1.1}
"""Reset bounds that Gymnasium applies to each of the four numbers, so the pole starts about 60 degrees off."""


def in_state(x: float, x_dot: float, theta: float, theta_dot: float) -> UprightCartPole:
    env = UprightCartPole()
    env.reset(seed=0)
    env.state = np.array([x, x_dot, theta, theta_dot])
    return env


def test_never_terminates_and_never_warns() -> None:
    env = UprightCartPole()
    env.reset(seed=0)
    fell = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for step in range(1_000):
            _, _, terminated, truncated, info = env.step(int(step % 7 < 4))
            assert terminated is False
            assert truncated is False
            fell = fell or not info["success"]
    assert fell


def test_training_episode_is_truncated_after_200_steps_exactly() -> None:
    env = find_task("cartpole-upright").make_env(None)
    env.reset(seed=0)
    for _ in range(2):
        flags = [env.step(1)[2:4] for _ in range(200)]
        assert flags == [(False, False)] * 199 + [(False, True)]
        env.reset()


@pytest.mark.parametrize("side", [1, -1])
def test_angle_is_wrapped(side: int) -> None:
    env = in_state(0.0, 0.0, side * (math.pi - 0.001), side * 5.0)
    observation = env.step(1)[0]
    # One step of 0.02 s at 5 rad/s goes 0.1 rad further, past straight down.
    assert observation[2] == pytest.approx(-side * (math.pi - 0.099), abs=1e-6)
    assert env.state is not None
    assert env.state[2] == pytest.approx(-side * (math.pi - 0.099))


def test_angle_stays_within_the_circle_when_the_pole_spins() -> None:
    env = in_state(0.0, 0.0, 3.0, 30.0)
    angles = [float(env.step(1)[0][2]) for _ in range(200)]
    assert max(np.abs(angles)) <= np.float32(math.pi)
    assert max(angles) > 3
    assert min(angles) < -3


@pytest.mark.parametrize(("side", "outwards"), [(1, 1), (-1, 0)])
def test_cart_stops_at_the_edge_of_the_track(side: int, outwards: int) -> None:
    env = in_state(side * 2.39, side * 5.0, 0.0, 0.0)
    observation = env.step(outwards)[0]
    assert observation[0] == np.float32(side * 2.4)
    assert observation[1] == 0
    for _ in range(20):
        assert abs(env.step(outwards)[0][0]) <= np.float32(2.4)
    inwards = [env.step(1 - outwards)[0] for _ in range(20)][-1]
    assert side * inwards[0] < 2.4
    assert side * inwards[1] < 0


@pytest.mark.parametrize("side", [1, -1])
@pytest.mark.parametrize(
    ("angle", "upright"),
    [
        (0.0, True),
        (THRESHOLD - 1e-6, True),
        (THRESHOLD + 1e-6, False),
        (math.radians(90), False),
        (math.pi, False),
    ],
)
def test_true_reward_is_being_within_12_degrees(angle: float, upright: bool, side: int) -> None:
    # Without angular velocity the angle is still the same after one (Euler) step.
    _, reward, _, _, info = in_state(0.0, 0.0, side * angle, 0.0).step(1)
    assert reward == float(upright)
    assert info == {"success": upright}


def test_true_reward_is_of_the_state_after_the_step() -> None:
    _, reward, _, _, info = in_state(0.0, 0.0, THRESHOLD - 0.01, 1.0).step(1)
    assert (reward, info["success"]) == (0.0, False)
    _, reward, _, _, info = in_state(0.0, 0.0, THRESHOLD + 0.01, -1.0).step(1)
    assert (reward, info["success"]) == (1.0, True)


def test_upright_again_after_a_whole_turn() -> None:
    _, reward, _, _, info = in_state(0.0, 0.0, 2 * math.pi + 0.01, 0.0).step(1)
    assert (reward, info["success"]) == (1.0, True)


def test_success_starts_afresh_in_each_episode() -> None:
    env = find_task("cartpole-upright").make_env(None)
    env.reset(seed=0)
    _, reward, _, _, info = env.step(1)
    assert (reward, info["success"]) == (1.0, True)
    env.reset(seed=0, options=FAR_FROM_UPRIGHT)
    for _ in range(5):
        _, reward, _, _, info = env.step(1)
        assert (reward, info["success"], info["true_reward"]) == (0.0, False, 0.0)
    env.reset(seed=0)
    _, reward, _, _, info = env.step(1)
    assert (reward, info["success"]) == (1.0, True)


def test_observations_lie_in_the_observation_space() -> None:
    env = UprightCartPole()
    actions = np.random.default_rng(0)
    for seed in range(3):
        observation, _ = env.reset(seed=seed)
        for _ in range(300):
            assert env.observation_space.contains(observation)
            observation = env.step(int(actions.integers(2)))[0]


@pytest.mark.parametrize("theta", [math.pi, -math.pi])
@pytest.mark.parametrize(("x", "outwards"), [(2.4, 1), (-2.4, 0)])
def test_extreme_observations_lie_in_the_observation_space(x: float, outwards: int, theta: float) -> None:
    env = in_state(x, math.copysign(3.0, x), theta, 0.0)
    observation = env.step(outwards)[0]
    assert observation.dtype == np.float32
    assert env.observation_space.contains(observation)


@pytest.mark.parametrize(
    "state", [(0.0, 0.0), (0.03, -0.02), (-2.4, 0.2), (2.4, -3.0), (1.234, math.pi), (-0.7, -math.pi / 2), (0.5, 1.0)]
)
def test_frame_is_that_of_gymnasium_bit_for_bit(state: tuple[float, float]) -> None:
    x, theta = state
    reference = gym.make("CartPole-v1", render_mode="rgb_array")
    reference.reset(seed=0)
    bare = reference.unwrapped
    assert isinstance(bare, CartPoleEnv)
    bare.state = np.array([x, 0.0, theta, 0.0])
    expected = bare.render()
    frame = in_state(x, 0.0, theta, 0.0).render()
    assert frame.dtype == np.uint8
    assert frame.shape == (400, 600, 3)
    assert len(np.unique(frame.reshape(-1, 3), axis=0)) > 2
    np.testing.assert_array_equal(frame, expected)


def test_frames_are_independent_of_each_other() -> None:
    env = in_state(0.0, 0.0, 0.0, 0.0)
    first = env.render()
    kept = first.copy()
    env.state = np.array([1.0, 0.0, 1.0, 0.0])
    second = env.render()
    np.testing.assert_array_equal(first, kept)
    assert (first != second).any()
    first[:] = 0
    np.testing.assert_array_equal(env.render(), second)


def test_rendering_keeps_the_render_mode_and_the_state() -> None:
    env = in_state(0.1, 0.2, 0.3, 0.4)
    env.render()
    assert env.render_mode == "rgb_array"
    assert env.state is not None
    np.testing.assert_array_equal(env.state, [0.1, 0.2, 0.3, 0.4])


def test_same_seed_and_actions_give_the_same_trajectory() -> None:
    def trajectory(seed: int) -> list[list[float]]:
        env = find_task("cartpole-upright").make_env(None)
        actions = np.random.default_rng(1)
        observations = [env.reset(seed=seed)[0]]
        observations += [env.step(int(actions.integers(2)))[0] for _ in range(100)]
        return [observation.tolist() for observation in observations]

    assert trajectory(5) == trajectory(5)
    assert trajectory(5) != trajectory(6)
