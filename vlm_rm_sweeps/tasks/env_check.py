"""Checks an environment against what it declares, by a reset, some steps and a frame, before anything is started."""

import functools
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import gymnasium as gym
import numpy as np

from vlm_rm_sweeps.errors import PASSED_ON, UserError, shown
from vlm_rm_sweeps.tasks.observations import Reader, described, leaves, vector_reader
from vlm_rm_sweeps.tasks.uniform_env import frame_problem, in_one_line, reward_value

STEPS = 5
"""Steps that a check takes at most, with random actions."""
STEPPING_S = 5.0
"""Seconds after which it takes no further step."""
PATIENCE_S = 10.0
"""Seconds that one call may take before a warning tells what is waited for."""
MOST_ACTIONS = 100_000
"""Actions of a Discrete space, and numbers of an action in a Box, at most."""
_logger = logging.getLogger(__name__)
_OF_YOUR_OWN = "or a wrapper of your own in `wrappers:`, as `module:Class`"

Step = tuple[Any, Any, bool, bool, dict[str, Any]]


def check_env(env: gym.Env, name: str, draws: bool = True, visit: Callable[[Step], None] | None = None) -> None:
    """Refuse an environment that does not do what it declares, or cannot be learned here.

    Args:
        env: The environment, before any wrapper of this package.
        name: What messages call it.
        draws: Whether to draw frames.
        visit: Called with the return value of each step; for the success test.

    Raises:
        UserError: One of its spaces cannot be learned; it raises an error; or a return value, an observation, a reward or the
            frame is not what Gymnasium's interface and its own spaces say.
    """
    check_spaces(env)
    read = vector_reader(env.observation_space)
    _check_reset(name, "reset(seed=0)", read, lambda: env.reset(seed=0))
    env.action_space.seed(0)
    steps: list[Step] = []
    stepping_until = time.monotonic() + STEPPING_S
    for count in range(1, STEPS + 1):
        action = env.action_space.sample()
        where = f"step {count}, action {np.asarray(action).tolist()!r}"
        returned = _tried(name, where, functools.partial(env.step, action))
        steps.append(_checked_step(name, where, read, returned))
        if steps[-1][2] or steps[-1][3] or time.monotonic() > stepping_until:
            break
    shape = _drawn_shape(env, name, None) if draws else None
    # As nearly all episodes of training start.
    _check_reset(name, "reset()", read, env.reset)
    generator = _tried(name, "np_random", lambda: env.unwrapped.np_random)
    if not isinstance(generator, np.random.Generator):
        raise UserError(
            f"{name}: np_random is {shown(generator)}: expected a numpy.random.Generator, by which a trial is resumed; "
            "`super().reset(seed=seed)` makes it"
        )
    if draws:
        _drawn_shape(env, name, shape)
    if visit is not None:
        for step in steps:
            visit(step)


@contextmanager
def waiting_told(name: str, where: str) -> Iterator[None]:
    """Log a warning if a call of somebody else's code takes long; it is not interrupted.

    Args:
        name: What the warning calls the environment.
        where: What it calls the call.

    Yields:
        Nothing.
    """
    timer = threading.Timer(
        PATIENCE_S, _logger.warning, ("%s, %s: no answer for %g seconds, and still waiting for it", name, where, PATIENCE_S)
    )
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def closed_after(env: gym.Env, name: str) -> Iterator[None]:
    """Close an environment after it was checked.

    Args:
        env: The environment.
        name: What messages call it.

    Yields:
        Nothing.

    Raises:
        UserError: It cannot be closed, and nothing else was wrong with it.
    """
    try:
        yield
    except BaseException:
        with suppress(UserError):
            _tried(name, "close()", env.close)
        raise
    _tried(name, "close()", env.close)


def check_spaces(env: gym.Env) -> None:
    """Refuse an environment whose actions or observations cannot be learned here.

    Args:
        env: The environment.

    Raises:
        UserError: One message with the space, what was expected, and the wrapper that helps where there is one.
    """
    _check_actions(env.action_space)
    _check_observations(env.observation_space)


def _check_actions(actions: gym.Space) -> None:
    if isinstance(actions, gym.spaces.Discrete):
        if actions.start != 0:
            raise UserError(
                f"actions {shown(actions)} start at {actions.start}: expected Discrete actions from 0, {_OF_YOUR_OWN}"
            )
        _check_action_count(actions, int(actions.n))
        return
    if not isinstance(actions, gym.spaces.Box):
        raise UserError(f"actions {shown(actions)} cannot be learned here: expected Discrete or Box, {_OF_YOUR_OWN}")
    with np.errstate(over="ignore"):
        spans_numbers = actions.is_bounded() and bool(np.isfinite(actions.high - actions.low).all())
    _check_action_count(actions, math.prod(actions.shape))
    if len(actions.shape) != 1 or not np.issubdtype(actions.dtype, np.floating) or not spans_numbers:
        raise UserError(
            f"actions {shown(actions)} cannot be learned here: expected a Box of one axis, of floats, with bounds between which there "
            f"is a finite distance, {_OF_YOUR_OWN} that narrows them"
        )


def _check_action_count(actions: gym.Space, count: int) -> None:
    if not 0 < count <= MOST_ACTIONS:
        raise UserError(
            f"actions {shown(actions)} cannot be learned here: expected at least one, and at most {MOST_ACTIONS:,}, {_OF_YOUR_OWN}"
        )


def _check_observations(space: gym.Space) -> None:
    problems = [(path, leaf, problem) for path, leaf in leaves(space) if (problem := _leaf_problem(leaf))]
    if not problems:
        return
    path, leaf, problem = problems[0]
    if not path:
        helps = ": FlattenObservation, after ResizeObservation if they are large" if isinstance(leaf, gym.spaces.Box) else ""
        raise UserError(
            f"observations {shown(space)} {problem}; expected an environment, or arguments of it, whose observation is a vector, or "
            f"`wrappers:` that make it one{helps}"
        )
    odd = {path[0] for path, _, _ in problems}
    fit = [path[0] for path, _ in leaves(space) if path[0] not in odd]
    leave_out = f"{{name: FilterObservation, kwargs: {{filter_keys: [{', '.join(map(str, dict.fromkeys(fit)))}]}}}}"
    helps = f"`wrappers: [{leave_out}]`, which leaves it out" if fit else "`wrappers:` that make it a vector"
    each = "; ".join(f"those of {'.'.join(map(str, path))}, {shown(leaf)}, {problem}" for path, leaf, problem in problems)
    raise UserError(f"observations cannot all be learned from here: {each}. Expected vectors and numbers, or {helps}")


def _leaf_problem(space: gym.Space) -> str | None:
    if isinstance(space, gym.spaces.Box):
        if len(space.shape) > 2 or (len(space.shape) == 2 and space.dtype == np.uint8):
            return "are pictures: policies here learn from states, and only the reward model sees frames"
        return None
    if isinstance(space, gym.spaces.Discrete | gym.spaces.MultiDiscrete | gym.spaces.MultiBinary):
        return None
    return "cannot be made one vector: expected Box, Discrete, or a Dict or Tuple of them"


def indicated_values(space: gym.Space) -> list[int | None]:
    """Tell which numbers of a flattened observation are indicators: 1 for one value of a Discrete, 0 for all others.

    Args:
        space: The observation space.

    Returns:
        For each number of the flattened observation, the value that it indicates; None for a number that is a value itself.
    """
    return [value for _, leaf in leaves(space) for value in _indicated(leaf)]


def _indicated(leaf: gym.Space) -> list[int | None]:
    match leaf:
        case gym.spaces.Discrete():
            return [int(leaf.start) + value for value in range(int(leaf.n))]
        case gym.spaces.MultiDiscrete():
            starts_and_counts = zip(np.ravel(leaf.start), np.ravel(leaf.nvec), strict=True)
            return [int(start) + value for start, count in starts_and_counts for value in range(int(count))]
    return [None] * gym.spaces.flatdim(leaf)


def _tried(name: str, where: str, call: Callable[[], Any]) -> Any:
    try:
        with waiting_told(name, where):
            return call()
    except PASSED_ON:
        raise
    except BaseException as error:
        raise UserError(f"{name}, {where}: {in_one_line(error)}") from error


def _check_reset(name: str, where: str, read: Reader, reset: Callable[[], Any]) -> None:
    returned = _tried(name, where, reset)
    if not (isinstance(returned, tuple) and len(returned) == 2 and isinstance(returned[1], dict)):
        raise UserError(
            f"{name}, {where} returned {described(returned)}: expected (observation, info), as in Gymnasium since version 0.26"
        )
    _tried(name, where, lambda: read(returned[0]))


def _checked_step(name: str, where: str, read: Reader, returned: Any) -> Step:
    if not (isinstance(returned, tuple) and len(returned) == 5 and isinstance(returned[4], dict)):
        raise UserError(
            f"{name}, {where} returned {described(returned)}: expected (observation, reward, terminated, truncated, info), as in "
            "Gymnasium since version 0.26"
        )
    observation, reward, terminated, truncated, _ = returned
    _tried(name, where, lambda: read(observation))
    for kind, value in (("terminated", terminated), ("truncated", truncated)):
        if not isinstance(value, bool | np.bool_):
            raise UserError(f"{name}, {where} returned {kind} = {shown(value)}: expected true or false")
    if not _is_finite_number(reward):
        raise UserError(f"{name}, {where} returned the reward {shown(reward)}: expected a finite number")
    return observation, reward, terminated, truncated, returned[4]


def _is_finite_number(value: Any) -> bool:
    try:
        return math.isfinite(reward_value(value))
    except Exception:  # arrays and tensors of several numbers, too, and objects of any other kind
        return False


def _drawn_shape(env: gym.Env, name: str, earlier: tuple[int, ...] | None) -> tuple[int, ...]:
    """Draw a frame, and return its shape."""
    try:
        with waiting_told(name, "render()"):
            frame: Any = env.render()
    except gym.error.DependencyNotInstalled as error:
        raise UserError(f"{name} cannot be drawn: a package is not installed: {error}") from error
    except PASSED_ON:
        raise
    except BaseException as error:
        raise UserError(f"{name} does not draw frames (rgb_array): {in_one_line(error)}") from error
    problem = frame_problem(frame, earlier)
    if problem:
        raise UserError(f"{name} does not draw frames (rgb_array): it drew {problem}")
    shape: tuple[int, ...] = frame.shape
    return shape
