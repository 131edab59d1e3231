"""The state spaces of the humanoid's tasks: reference poses, poses between two of them, and noise."""

from collections.abc import Callable, Mapping, Sequence

import gymnasium as gym
import mujoco
import numpy as np

from vlm_rm_sweeps.tasks.humanoid.poses import POSES, interpolated, perturbed
from vlm_rm_sweeps.tasks.state_space import BoxStates, StateValue, StateVariable, innermost


class HumanoidStates(BoxStates):
    """The robot in its reference poses, between two of them and near them, at rest, turned about the vertical.

    Half of the sampled states start from a pose that fulfils the task, because poses drawn from all of them rarely do. The
    variable `share` moves from standing (for the standing task: from kneeling) to the task's own pose.

    Args:
        is_success: The task's success test.
        fulfilling: Names of the reference poses that fulfil the task; the first one is the task's own.
    """

    variables = (
        StateVariable("share", "share of the way to the pose", "0 to 1", 0.0, 1.0, goal=(1.0, 1.0)),
        StateVariable("yaw", "turn about the vertical", "degrees", -180.0, 180.0),
    )
    _MOST_NOISE = 12.0
    """Largest standard deviation of the noise on each joint, in degrees."""
    _MOST_YAW = 60.0

    def __init__(self, is_success: Callable[[mujoco.MjData], bool], fulfilling: Sequence[str]) -> None:
        self._is_success = is_success
        self._fulfilling = tuple(fulfilling)

    def set_values(self, env: gym.Env, values: Mapping[str, float]) -> None:
        """Put the robot between the starting pose and the task's own, turned by `yaw`."""
        goal = self._fulfilling[0]
        start = "kneeling" if goal == "standing" else "standing"
        pose = interpolated(POSES[start], POSES[goal], values["share"])
        self._set(env, pose.qpos(yaw=values["yaw"]))

    def sample(self, env: gym.Env, rng: np.random.Generator) -> None:
        """Put the robot into a random pose."""
        names = self._fulfilling if rng.random() < 0.5 else tuple(POSES)
        pose = POSES[names[rng.integers(len(names))]]
        if rng.random() < 0.5:
            other = tuple(POSES)[rng.integers(len(POSES))]
            pose = interpolated(pose, POSES[other], rng.uniform())
        pose = perturbed(pose, rng, rng.uniform(0, self._MOST_NOISE))
        self._set(env, pose.qpos(yaw=rng.uniform(-self._MOST_YAW, self._MOST_YAW)))

    def read(self, env: gym.Env) -> dict[str, StateValue]:
        """Read MuJoCo's positions `qpos` (24 numbers) and velocities `qvel` (23 numbers)."""
        data = innermost(env).data
        return {"qpos": data.qpos.tolist(), "qvel": data.qvel.tolist()}

    def restore(self, env: gym.Env, values: Mapping[str, StateValue]) -> None:
        """Put the robot into the state with these positions and velocities."""
        innermost(env).set_state(np.asarray(values["qpos"]), np.asarray(values["qvel"]))

    def in_goal(self, env: gym.Env) -> bool:
        """Decide whether the robot's state passes the success test."""
        return bool(self._is_success(innermost(env).data))

    def _set(self, env: gym.Env, qpos: np.ndarray) -> None:
        robot = innermost(env)
        robot.set_state(qpos, np.zeros(robot.model.nv))
