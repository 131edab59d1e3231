"""Target positions of joints as actions, for robots that MuJoCo simulates and torques drive."""

from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
from gymnasium.envs.mujoco.mujoco_env import MujocoEnv

from vlm_rm_sweeps.errors import UserError


class PositionActions(gym.Wrapper):
    """Moves each driven joint towards a target by a proportional-derivative law.

    An action from -1 to 1 is a target between the ends of the joint's range. Before every step of the simulation, of which the
    environment's own step makes several, the control becomes `kp * (target - position) - kd * velocity`, within the
    environment's own limits. Like them, it is a share of what the motor's gear makes of it.

    Args:
        env: A MuJoCo environment of Gymnasium's kind, whose actions are the controls of motors.
        kp: Control for each radian (or metre) between a joint and its target.
        kd: Control against each radian (or metre) per second of a joint.

    Raises:
        UserError: It is no such environment, or one of its joints has no range.
    """

    def __init__(self, env: gym.Env, kp: float, kd: float) -> None:
        super().__init__(env)
        native, limits = env.unwrapped, env.action_space
        if not isinstance(native, MujocoEnv) or not isinstance(limits, gym.spaces.Box):
            raise UserError(
                f"actions: position needs a robot in MuJoCo, and {type(native).__name__} is none: expected a humanoid task or one of "
                "Gymnasium's MuJoCo environments, or `actions: torque`"
            )
        model = native.model
        joints = _driven_joints(model)
        self._data = native.data
        self._positions, self._velocities = model.jnt_qposadr[joints], model.jnt_dofadr[joints]
        self._low, self._high = limits.low.astype(np.float64), limits.high.astype(np.float64)
        ranges = model.jnt_range[joints]
        self._middle, self._reach = ranges.mean(axis=1), np.ptp(ranges, axis=1) / 2
        # A motor with a negative gear pushes the other way.
        direction = np.sign(model.actuator_gear[:, 0])
        self._kp, self._kd = kp * direction, kd * direction
        self._target = self._middle
        self.action_space = gym.spaces.Box(-1.0, 1.0, (len(joints),), np.float32)
        # `do_simulation` is Gymnasium's one way from an environment's step into the simulation.
        self._simulate = native.do_simulation
        native.do_simulation = self._simulate_towards_target  # type: ignore[method-assign]

    def step(self, action: np.ndarray) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Take a step towards the targets. The environment sees the first control as its action."""
        self._target = self._middle + self._reach * np.clip(np.asarray(action, np.float64), -1.0, 1.0)
        return self.env.step(self._control().astype(np.float32))

    def _control(self) -> np.ndarray:
        away = self._target - self._data.qpos[self._positions]
        return np.clip(self._kp * away - self._kd * self._data.qvel[self._velocities], self._low, self._high)

    def _simulate_towards_target(self, ctrl: np.ndarray, n_frames: int) -> None:
        for _ in range(n_frames):
            self._simulate(self._control(), 1)


def _driven_joints(model: mujoco.MjModel) -> list[int]:
    """Return the index of the joint that each motor drives."""
    return [_driven_joint(model, motor) for motor in range(model.nu)]


def _driven_joint(model: mujoco.MjModel, motor: int) -> int:
    joint = int(model.actuator_trnid[motor, 0])
    drives_joint = model.actuator_trntype[motor] == mujoco.mjtTrn.mjTRN_JOINT
    is_motor = (
        model.actuator_biastype[motor] == mujoco.mjtBias.mjBIAS_NONE
        and model.actuator_dyntype[motor] == mujoco.mjtDyn.mjDYN_NONE
    )
    if not drives_joint or not is_motor:
        raise UserError(
            f"actions: position needs motors that drive joints, and the actuator {model.actuator(motor).name!r} is none: expected "
            "`actions: torque`"
        )
    if not model.jnt_limited[joint]:
        raise UserError(
            f"actions: position needs the range of each driven joint, and {model.joint(joint).name!r} has none: expected `actions: "
            "torque`"
        )
    return joint
