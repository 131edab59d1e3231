"""How policies act and what they observe: positions for torques, fewer observations, repeated actions."""

from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
import pytest
from pydantic import ValidationError

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.tasks.control import ActionRepeat, Control
from vlm_rm_sweeps.tasks.gym_task import GymEnv
from vlm_rm_sweeps.tasks.position_actions import PositionActions
from vlm_rm_sweeps.tasks.registry import find_task
from vlm_rm_sweeps.training.task_env import ReplayableEnv

KNEELING = find_task("humanoid-kneeling")
CARTPOLE = find_task("cartpole-upright")
POSITION = Control(actions="position")


def started(control: Control) -> Any:
    env = KNEELING.controlled(control).make_env(None)
    env.reset(seed=3)
    env.action_space.seed(0)
    return env


def test_a_target_is_pursued_in_every_step_of_the_simulation() -> None:
    """The law, written down joint by joint, in a simulation of its own."""
    env = started(POSITION)
    model = env.unwrapped.model
    data = mujoco.MjData(model)
    data.qpos[:], data.qvel[:] = env.unwrapped.data.qpos, env.unwrapped.data.qvel
    mujoco.mj_forward(model, data)
    for _ in range(4):
        action = env.action_space.sample()
        env.step(action)
        for _ in range(5):
            for motor, share in enumerate(action):
                joint = model.joint(model.actuator_trnid[motor, 0])
                low, high = joint.range
                target = low + (high - low) * (float(share) + 1) / 2
                wanted = 6 * (target - data.qpos[joint.qposadr[0]]) - 0.05 * data.qvel[joint.dofadr[0]]
                data.ctrl[motor] = np.clip(wanted, -0.4, 0.4)
            mujoco.mj_step(model, data)
        np.testing.assert_allclose(env.unwrapped.data.qpos, data.qpos, rtol=0, atol=1e-9)
        np.testing.assert_allclose(env.unwrapped.data.ctrl, data.ctrl, rtol=0, atol=1e-6)
        assert np.abs(data.ctrl).max() == pytest.approx(0.4)


def test_targets_are_bounded_by_the_joints_ranges() -> None:
    env = started(POSITION)
    assert env.action_space == gym.spaces.Box(-1, 1, (17,), np.float32)
    states = []
    for action in (np.ones(17, np.float32), np.full(17, 3, np.float32)):
        env.reset(seed=3)
        env.step(action)
        states.append(env.unwrapped.data.qpos.copy())
    np.testing.assert_array_equal(*states)


def test_torques_are_the_environments_own_unless_asked_otherwise() -> None:
    assert KNEELING.control == Control()
    assert KNEELING.controlled(Control()) is KNEELING
    assert KNEELING.action_space == gym.spaces.Box(-0.4, 0.4, (17,), np.float32)
    positioned = KNEELING.controlled(POSITION)
    assert positioned.action_space == gym.spaces.Box(-1, 1, (17,), np.float32)
    assert (positioned.name, KNEELING.control) == ("humanoid-kneeling", Control())


def test_proprioception_is_positions_and_velocities() -> None:
    whole, part = started(Control()), started(Control(observations="proprioception"))
    assert part.observation_space.shape == (45,)
    for _ in range(3):
        action = whole.action_space.sample()
        observation = part.step(action)[0]
        np.testing.assert_array_equal(observation, whole.step(action)[0][:45])
    data = part.unwrapped.data
    np.testing.assert_allclose(observation, np.concatenate([data.qpos[2:], data.qvel]).astype(np.float32))
    assert observation.dtype == np.float32


def test_an_environment_of_the_sweep_file_is_controlled_alike() -> None:
    task = GymEnv(id="Hopper-v5", episode_steps=10, success="obs[0] > 0.7").task()
    env = task.controlled(Control(actions="position", observations="proprioception", action_repeat=4)).make_env(None)
    env.reset(seed=0)
    assert (env.action_space, env.observation_space.shape) == (gym.spaces.Box(-1, 1, (3,), np.float32), (11,))
    steps = [env.step(np.zeros(3, np.float32)) for _ in range(3)]
    assert [step[3] for step in steps] == [False, False, True]
    assert all("success" in step[4] for step in steps)


@pytest.mark.parametrize(
    ("env_id", "control", "message"),
    [
        (
            "CartPole-v1",
            {"actions": "position"},
            "actions: position needs a robot in MuJoCo, and CartPoleEnv is none: expected a hum",
        ),
        (
            "Reacher-v5",
            {"actions": "position"},
            "needs the range of each driven joint, and 'joint0' has none: expected `actions: torq",
        ),
        (
            "Pendulum-v1",
            {"observations": "proprioception"},
            "begin with positions and velocities, which Pendulum-v1 does not tell",
        ),
    ],
)
def test_what_an_environment_does_not_allow_is_refused(env_id: str, control: dict[str, Any], message: str) -> None:
    task = GymEnv(id=env_id, episode_steps=10).task().controlled(Control(**control))
    with pytest.raises(UserError, match=message):
        task.make_env(None)


def test_a_motor_that_drives_no_joint_is_refused() -> None:
    env: Any = gym.make("Humanoid-v5")
    env.unwrapped.model.actuator_trntype[2] = mujoco.mjtTrn.mjTRN_SITE
    with pytest.raises(UserError, match="needs motors that drive joints, and the actuator 'abdomen_x' is none"):
        PositionActions(env, 6, 0.05)


def test_gains_of_torques_are_refused() -> None:
    with pytest.raises(ValidationError, match="kp 3 has no effect on torques: expected `actions: position` with it"):
        Control(kp=3)
    stored = Control().model_dump()
    assert Control(**stored) == Control()


class Counting(gym.Env[np.ndarray, int]):
    """Rewards 1, 2, 3, ... and ends at step 5."""

    def __init__(self) -> None:
        self.steps = 0

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.steps += action
        return np.array([self.steps]), float(self.steps), self.steps == 5, False, {"at": self.steps}


def test_a_repeated_action_has_the_sum_of_the_rewards_and_the_last_state() -> None:
    env = ActionRepeat(Counting(), 3)
    assert env.step(1) == (np.array([3]), 6.0, False, False, {"at": 3})
    assert env.step(1) == (np.array([5]), 9.0, True, False, {"at": 5})


def test_an_episode_of_repeated_actions_lasts_as_long_as_before() -> None:
    task = CARTPOLE.controlled(Control(action_repeat=3))
    assert (task.episode_steps, task.episode_actions) == (200, 67)
    env, once = task.make_env(None), CARTPOLE.make_env(None)
    env.reset(seed=1)
    once.reset(seed=1)
    ends: list[bool] = []
    returns = 0.0
    while not (ends and ends[-1]):
        observation, reward, _, truncated, info = env.step(1)
        ends.append(truncated)
        returns += float(reward)
        assert info["true_reward"] == reward
    rewards = [once.step(1) for _ in range(200)]
    assert len(ends) == 67
    assert returns == pytest.approx(sum(float(reward) for _, reward, *_ in rewards))
    np.testing.assert_array_equal(observation, rewards[-1][0])


def test_a_controlled_environment_is_reached_again_by_its_actions() -> None:
    task = KNEELING.controlled(Control(actions="position", observations="proprioception", action_repeat=2))
    env, again = ReplayableEnv(task.make_env(None)), ReplayableEnv(task.make_env(None))
    env.reset(seed=5)
    env.action_space.seed(1)
    for _ in range(6):
        env.step(env.action_space.sample())
    again.set_state(env.get_state())
    action = env.action_space.sample()
    np.testing.assert_array_equal(env.step(action)[0], again.step(action)[0])
