"""The states of each task: which variables they have, how an environment is put into one, and which are in the goal.

What a data set samples uniformly and what a landscape walks along. A task takes part by an entry in `STATE_SPACES`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import gymnasium as gym
import numpy as np

from vlm_rm_sweeps.errors import UserError, unknown_name
from vlm_rm_sweeps.tasks.humanoid.poses import POSES, interpolated, perturbed
from vlm_rm_sweeps.tasks.humanoid.success import FULFILLING_POSES, SUCCESS_TESTS
from vlm_rm_sweeps.tasks.task import Task

StateValue = float | Sequence[float]


@dataclass(frozen=True)
class StateVariable:
    """One number of a state, and the range in which it is looked at.

    `goal` is the interval of its values in the goal (both ends the same for a single best value), None if any will do.
    """

    name: str
    label: str
    unit: str
    low: float
    high: float
    goal: tuple[float, float] | None = None

    @property
    def axis_label(self) -> str:
        return f"{self.label} ({self.unit})"

    def distance_to_goal(self, values: np.ndarray) -> np.ndarray:
        """How far values are from the goal's interval, 0 inside it; NaN if there is no goal."""
        if self.goal is None:
            return np.full(np.shape(values), np.nan)
        low, high = self.goal
        return np.maximum(0.0, np.maximum(low - values, values - high))

    @property
    def goal_text(self) -> str:
        """The goal in words: `0`, or `0.45 to 0.6`."""
        return " to ".join(f"{end:g}" for end in dict.fromkeys(self.goal or ()))


class StateSpace(Protocol):
    """The states of one task. Every `env` is an environment that the task's `make_native_env` made."""

    @property
    def variables(self) -> tuple[StateVariable, ...]:
        """Those that can be set one by one, the most telling first."""
        ...

    def place(self, env: gym.Env, values: Mapping[str, float]) -> None:
        """Put the environment into the state with these values; variables that are not named take their middle."""
        ...

    def sample(self, env: gym.Env, rng: np.random.Generator) -> None:
        """Put the environment into a random state."""
        ...

    def read(self, env: gym.Env) -> dict[str, StateValue]:
        """The state that the environment is in, by name."""
        ...

    def in_goal(self, env: gym.Env) -> bool:
        """Whether the environment's state passes the task's success test."""
        ...


class _Box:
    """Samples each variable uniformly from its range."""

    variables: tuple[StateVariable, ...]

    def place(self, env: gym.Env, values: Mapping[str, float]) -> None:
        raise NotImplementedError

    def sample(self, env: gym.Env, rng: np.random.Generator) -> None:
        self.place(env, {variable.name: rng.uniform(variable.low, variable.high) for variable in self.variables})


class CartPoleStates(_Box):
    """The pole anywhere on the circle and the cart anywhere on the track, both at rest: a frame does not show velocities."""

    variables = (
        StateVariable("theta", "pole angle", "rad", -math.pi, math.pi, goal=(0.0, 0.0)),
        StateVariable("x", "cart position", "m", -2.4, 2.4),
    )

    def place(self, env: gym.Env, values: Mapping[str, float]) -> None:
        _bare(env).state = np.array([values.get("x", 0.0), 0.0, values.get("theta", 0.0), 0.0])

    def read(self, env: gym.Env) -> dict[str, StateValue]:
        names = ("x", "x_dot", "theta", "theta_dot")
        return {name: float(value) for name, value in zip(names, _bare(env).state, strict=True)}

    def in_goal(self, env: gym.Env) -> bool:
        bare = _bare(env)
        return bool(abs(bare.state[2]) <= bare.theta_threshold_radians)


class MountainCarStates(_Box):
    """The car anywhere on the track, at rest."""

    variables = (StateVariable("position", "car position", "m", -1.2, 0.6, goal=(0.45, 0.6)),)

    def place(self, env: gym.Env, values: Mapping[str, float]) -> None:
        _bare(env).state = np.array([values.get("position", -0.3), 0.0], dtype=np.float32)

    def read(self, env: gym.Env) -> dict[str, StateValue]:
        return {name: float(value) for name, value in zip(("position", "velocity"), _bare(env).state, strict=True)}

    def in_goal(self, env: gym.Env) -> bool:
        bare = _bare(env)
        return bool(bare.state[0] >= bare.goal_position)


class HumanoidStates:
    """The robot in its reference poses, between them and near them, at rest, turned about the vertical.

    Half of the sampled states start from a pose that fulfils the task, since poses drawn from all of them seldom do. The
    variable `share` goes from standing (for the task of standing: from kneeling) to the task's own pose.
    """

    variables = (
        StateVariable("share", "share of the way to the pose", "0 to 1", 0.0, 1.0, goal=(1.0, 1.0)),
        StateVariable("yaw", "turn about the vertical", "degrees", -180.0, 180.0),
    )
    _MOST_NOISE = 12.0
    """Largest standard deviation of the noise on each joint, in degrees."""
    _MOST_YAW = 60.0

    def __init__(self, task_name: str) -> None:
        self._is_success = SUCCESS_TESTS[task_name]
        self._fulfilling = FULFILLING_POSES[task_name]

    def place(self, env: gym.Env, values: Mapping[str, float]) -> None:
        goal = self._fulfilling[0]
        start = "kneeling" if goal == "standing" else "standing"
        pose = interpolated(POSES[start], POSES[goal], values.get("share", 0.5))
        self._set(env, pose.qpos(yaw=values.get("yaw", 0.0)))

    def sample(self, env: gym.Env, rng: np.random.Generator) -> None:
        names = self._fulfilling if rng.random() < 0.5 else tuple(POSES)
        pose = POSES[names[rng.integers(len(names))]]
        if rng.random() < 0.5:
            other = tuple(POSES)[rng.integers(len(POSES))]
            pose = interpolated(pose, POSES[other], rng.uniform())
        pose = perturbed(pose, rng, rng.uniform(0, self._MOST_NOISE))
        self._set(env, pose.qpos(yaw=rng.uniform(-self._MOST_YAW, self._MOST_YAW)))

    def read(self, env: gym.Env) -> dict[str, StateValue]:
        data = _bare(env).data
        return {"qpos": data.qpos.tolist(), "qvel": data.qvel.tolist()}

    def in_goal(self, env: gym.Env) -> bool:
        return bool(self._is_success(_bare(env).data))

    def _set(self, env: gym.Env, qpos: np.ndarray) -> None:
        bare = _bare(env)
        bare.set_state(qpos, np.zeros(bare.model.nv))


def _bare(env: gym.Env) -> Any:
    return env.unwrapped


STATE_SPACES: dict[str, StateSpace] = {
    "cartpole-upright": CartPoleStates(),
    "mountaincar-summit": MountainCarStates(),
    **{name: HumanoidStates(name) for name in SUCCESS_TESTS},
}


def state_space(task: Task) -> StateSpace:
    """The states of a task; UserError if none are described."""
    if task.name not in STATE_SPACES:
        raise UserError(
            f"task {task.name!r} has no described state variables, so its states cannot be sampled: expected one of "
            f"{', '.join(STATE_SPACES)}"
        )
    return STATE_SPACES[task.name]


def find_variable(task: Task, name: str) -> StateVariable:
    """A task's variable of this name; UserError with those that there are."""
    variables = {variable.name: variable for variable in state_space(task).variables}
    if name not in variables:
        raise UserError(f"task {task.name!r}: " + unknown_name("variable", name, variables))
    return variables[name]
