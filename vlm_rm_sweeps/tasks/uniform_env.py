"""One form for every environment, so that training, evaluation and videos see the same; and its faults in its own words."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np

from vlm_rm_sweeps.errors import PASSED_ON, UserError, shown
from vlm_rm_sweeps.tasks.observations import UnusableError, vector_reader, vector_space

_LONGEST_ACTION = 120
_LONGEST_MESSAGE = 1_000


class EnvironmentFault(UserError):  # noqa: N818 - what an environment does wrong, not this package
    """An environment raised an error or returned what cannot be used: its own message, with environment, step and action.

    It is a UserError, because no retry on another machine would mend it: a trial ends with it at once.
    """


def in_one_line(error: BaseException) -> str:
    """Return an environment's error in one line: its type and its whole message, however many lines it has.

    Args:
        error: What the environment raised; or an UnusableError, whose message alone is told.

    Returns:
        For example `ValueError: no such joint`; the type alone if there is no message.
    """
    try:
        message = " ".join(str(error).split())
    except Exception:  # an error of the user's may raise another one when it is printed
        message = ""
    if isinstance(error, UnusableError):
        return message
    return f"{type(error).__name__}: {message[:_LONGEST_MESSAGE]}" if message else type(error).__name__


def frame_problem(frame: Any, earlier: tuple[int, ...] | None) -> str | None:
    """Describe what is wrong with the return value of an environment's `render`.

    Args:
        frame: The return value.
        earlier: The shape of frames that it drew before; None if it drew none.

    Returns:
        What was drawn and what was expected; None for a frame, uint8 (H, W, 3) with at least one pixel, of the size of the others.
    """
    if isinstance(frame, np.ndarray) and frame.dtype == np.uint8 and frame.ndim == 3 and frame.shape[2] == 3 and frame.size:
        if frame.shape == (earlier or frame.shape):
            return None
        return f"a frame of shape {frame.shape} after one of {earlier}: expected one size"
    found = f"{frame.dtype} {frame.shape}" if isinstance(frame, np.ndarray) else type(frame).__name__
    return f"no frame: expected uint8 (height, width, 3), got {found}"


class UniformEnv(gym.Wrapper):
    """Gives actions to an environment in the type that it declares, and returns its observations as vectors of float32.

    An environment may return lists or numbers, observe in float64, or nest its observations; and actions come as arrays or
    numbers, from a policy, a resumed trial or a video. Rewards become floats.

    What cannot be used raises an EnvironmentFault: an error in `reset`, `step` or `render`, a reward that is not finite, an
    observation that does not fit its space (see `vector_reader`), and what is not a frame.

    Args:
        env: The environment.
        name: What its faults call it.

    Raises:
        UserError: Its observations cannot be made one vector.
    """

    def __init__(self, env: gym.Env, name: str) -> None:
        super().__init__(env)
        self._name, self._steps = name, 0
        self._shape: tuple[int, ...] | None = None
        self._read = vector_reader(env.observation_space)
        self.observation_space = vector_space(env.observation_space)
        # Gymnasium's wrappers compute it anew at each access.
        self._actions: Any = env.action_space
        self._is_discrete = isinstance(env.action_space, gym.spaces.Discrete)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode."""
        self._steps = 0
        with self._faults_named("reset"):
            observation, info = self.env.reset(seed=seed, options=options)
            return self._read(observation), info

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Take a step."""
        self._steps += 1
        with self._faults_named("step", action):
            observation, reward, terminated, truncated, info = self.env.step(self._declared(action))
            return self._read(observation), _finite(reward), terminated, truncated, info

    def render(self) -> Any:
        """Draw the current state, uint8 (H, W, 3)."""
        with self._faults_named("render"):
            frame: Any = self.env.render()
            problem = frame_problem(frame, self._shape)
            if problem:
                raise UnusableError(f"it drew {problem}")
            self._shape = frame.shape
            return frame.copy()  # many environments draw each frame into the same array

    def _declared(self, action: Any) -> Any:
        dtype = self._actions.dtype
        if dtype is None:  # a Dict or Tuple
            return action
        return dtype.type(action) if self._is_discrete else np.asarray(action, dtype)

    @contextmanager
    def _faults_named(self, doing: str, action: Any = None) -> Iterator[None]:
        try:
            yield
        except PASSED_ON:
            raise
        except BaseException as error:
            raise EnvironmentFault(f"environment {self._name}, {self._where(doing, action)}: {in_one_line(error)}") from error

    def _where(self, doing: str, action: Any) -> str:
        if doing == "reset":
            return "reset"
        if doing == "render":
            return (
                f"drawing the state after step {self._steps} of an episode" if self._steps else "drawing the state after reset"
            )
        return f"step {self._steps} of an episode, action {np.asarray(action).tolist()!r:.{_LONGEST_ACTION}}"


def reward_value(reward: Any) -> float:
    """Convert a reward, a number or an array or tensor of one, to a float, or raise a TypeError or ValueError."""
    value = reward.item() if hasattr(reward, "item") else reward
    if isinstance(value, str | bytes | complex | np.complexfloating):
        raise TypeError(f"the reward {shown(reward)} is no real number")
    return float(value)


def _finite(reward: Any) -> float:
    value = reward_value(reward)
    if not math.isfinite(value):
        raise UnusableError(f"its reward is {value}: expected a finite number")
    return value
