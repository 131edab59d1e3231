"""State spaces: the variables of a task's states, how to set a state, and which states are in the goal.

Data sets sample a state space, landscapes vary its variables, and EPIC distances take their ground truth from it.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import gymnasium as gym
import numpy as np

from vlm_rm_sweeps.errors import UserError, unknown_name

StateValue = float | Sequence[float]
"""The value of one entry of a state: a number, or a vector such as MuJoCo's `qpos`."""


@dataclass(frozen=True)
class StateVariable:
    """One number of a state, and the range in which it is varied.

    Attributes:
        name: Name in data sets, formulas and on the command line, such as `theta`.
        label: Name for people, such as `pole angle`.
        unit: Unit of the values, such as `rad`.
        low: Lower end of the range.
        high: Upper end of the range.
        goal: Interval of the values in the goal; both ends are the same for a single best value. None if any value is.
    """

    name: str
    label: str
    unit: str
    low: float
    high: float
    goal: tuple[float, float] | None = None

    @property
    def axis_label(self) -> str:
        """Label and unit, for the axis of a figure."""
        return f"{self.label} ({self.unit})"

    @property
    def middle(self) -> float:
        """Middle of the range."""
        return (self.low + self.high) / 2

    def distance_to_goal(self, values: np.ndarray) -> np.ndarray:
        """Compute how far values are from the goal's interval.

        Args:
            values: Values of this variable, any shape, in its unit.

        Returns:
            Distances of the same shape and unit: 0 inside the interval, NaN if the variable has no goal.
        """
        if self.goal is None:
            return np.full(np.shape(values), np.nan)
        low, high = self.goal
        return np.maximum(0.0, np.maximum(low - values, values - high))

    @property
    def goal_text(self) -> str:
        """The goal in words: `0`, or `0.45 to 0.6`."""
        return " to ".join(f"{end:g}" for end in dict.fromkeys(self.goal or ()))


class StateSpace(Protocol):
    """The states of one task.

    Every `env` is an environment that the task's `make_native_env` made, after a reset; `env.unwrapped` is the innermost one.
    """

    @property
    def variables(self) -> tuple[StateVariable, ...]:
        """Variables that can be set one by one, the most informative first."""
        ...

    def place(self, env: gym.Env, values: Mapping[str, float]) -> None:
        """Put the environment into the state with these values.

        Args:
            env: The environment.
            values: Values by the variable's name. A variable that is not named takes the middle of its range.
        """
        ...

    def sample(self, env: gym.Env, rng: np.random.Generator) -> None:
        """Put the environment into a random state.

        Args:
            env: The environment.
            rng: The only source of randomness, so that the same seed gives the same states.
        """
        ...

    def read(self, env: gym.Env) -> dict[str, StateValue]:
        """Read the state that the environment is in.

        Args:
            env: The environment.

        Returns:
            Numbers or vectors by name: columns of a data set's table.
        """
        ...

    def in_goal(self, env: gym.Env) -> bool:
        """Decide whether the environment's state passes the task's success test.

        Args:
            env: The environment.

        Returns:
            Whether the state is in the goal.
        """
        ...


@runtime_checkable
class RestorableStates(StateSpace, Protocol):
    """A state space whose states can be drawn again from what was read of them.

    Where OpenGL draws, such states are measured as training draws them, at each reward model's own size; others are resized.
    """

    def restore(self, env: gym.Env, values: Mapping[str, StateValue]) -> None:
        """Put the environment into a state that looks like one that was read.

        Args:
            env: The environment.
            values: What `read` returned.
        """
        ...


class BoxStates(ABC):
    """Base class of a state space: samples each variable uniformly from its range.

    A subclass lists its `variables` and implements `set_values`, `read` and `in_goal`.
    """

    variables: tuple[StateVariable, ...]

    def place(self, env: gym.Env, values: Mapping[str, float]) -> None:
        """Put the environment into the state with these values; variables that are not named take the middle of their range."""
        self.set_values(env, {each.name: values.get(each.name, each.middle) for each in self.variables})

    def sample(self, env: gym.Env, rng: np.random.Generator) -> None:
        """Put the environment into a state whose variables are drawn uniformly from their ranges."""
        self.set_values(env, {each.name: rng.uniform(each.low, each.high) for each in self.variables})

    @abstractmethod
    def set_values(self, env: gym.Env, values: Mapping[str, float]) -> None:
        """Put the environment into the state with these values.

        Args:
            env: The environment.
            values: A value for each of `variables`, by name.
        """

    @abstractmethod
    def read(self, env: gym.Env) -> dict[str, StateValue]:
        """Read the environment's state; see `StateSpace.read`."""

    @abstractmethod
    def in_goal(self, env: gym.Env) -> bool:
        """Decide whether the environment's state passes the task's success test."""


def innermost(env: gym.Env) -> Any:
    """Return the environment inside all wrappers, untyped, so that the attributes of its class can be used."""
    return env.unwrapped


def find_variable(space: StateSpace, name: str) -> StateVariable:
    """Find a variable of a state space.

    Args:
        space: The state space.
        name: The variable's name.

    Returns:
        The variable of this name.

    Raises:
        UserError: There is no such variable; the message lists those that exist.
    """
    variables = {variable.name: variable for variable in space.variables}
    if name not in variables:
        raise UserError(unknown_name("variable", name, variables))
    return variables[name]
