"""Checks an environment against what it declares, by a reset, some steps and a frame, before anything is started."""

import functools
import math
import numbers
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import gymnasium as gym
import numpy as np

from vlm_rm_sweeps.errors import PASSED_ON, UserError, shown
from vlm_rm_sweeps.tasks.uniform_env import frame_problem, in_one_line, reward_value

STEPS = 5
"""Steps that a check takes, with random actions."""
_OF_YOUR_OWN = "or a wrapper of your own in `wrappers:`, as `module:Class`"
_NUMBERS = "biuf"
"""Kinds of NumPy's types that are numbers."""

Step = tuple[Any, Any, bool, bool, dict[str, Any]]


def check_env(env: gym.Env, name: str, draws: bool = True, visit: Callable[[Step], None] | None = None) -> None:
    """Refuse an environment that does not do what it declares, or cannot be learned here.

    Args:
        env: The environment, before any wrapper of this package.
        name: What messages call it.
        draws: Whether to draw a frame.
        visit: Called with the return value of each step; for the success test.

    Raises:
        UserError: One of its spaces cannot be learned; it raises an error; or a return value, an observation, a reward or the
            frame is not what Gymnasium's interface and its own spaces say.
    """
    check_spaces(env)
    _check_reset(name, env.observation_space, _tried(name, "reset(seed=0)", lambda: env.reset(seed=0)))
    env.action_space.seed(0)
    steps: list[Step] = []
    for count in range(1, STEPS + 1):
        action = env.action_space.sample()
        where = f"step {count}, action {np.asarray(action).tolist()!r}"
        returned = _tried(name, where, functools.partial(env.step, action))
        steps.append(_checked_step(f"{name}, {where}", env.observation_space, returned))
        if steps[-1][2] or steps[-1][3]:
            break
    # As nearly all episodes of training start.
    _check_reset(name, env.observation_space, _tried(name, "reset()", env.reset))
    generator = _tried(name, "np_random", lambda: env.unwrapped.np_random)
    if not isinstance(generator, np.random.Generator):
        raise UserError(
            f"{name}: np_random is {shown(generator)}: expected a numpy.random.Generator, by which a trial is resumed; "
            "`super().reset(seed=seed)` makes it"
        )
    if draws:
        check_frame(env, name)
    if visit is not None:
        for step in steps:
            visit(step)


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
        return
    if not isinstance(actions, gym.spaces.Box):
        raise UserError(f"actions {shown(actions)} cannot be learned here: expected Discrete or Box, {_OF_YOUR_OWN}")
    with np.errstate(over="ignore"):
        spans_numbers = actions.is_bounded() and bool(np.isfinite(actions.high - actions.low).all())
    if len(actions.shape) != 1 or not np.issubdtype(actions.dtype, np.floating) or not spans_numbers:
        raise UserError(
            f"actions {shown(actions)} cannot be learned here: expected a Box of one axis, of floats, with bounds between which there "
            f"is a finite distance, {_OF_YOUR_OWN} that narrows them"
        )


def _check_observations(space: gym.Space) -> None:
    problems = [(path, leaf, problem) for path, leaf in _leaves(space) if (problem := _leaf_problem(leaf))]
    if not problems:
        if gym.spaces.flatdim(space) == 0:
            raise UserError(f"observations {shown(space)} are empty: expected at least one number")
        return
    path, leaf, problem = problems[0]
    if not path:
        helps = ": FlattenObservation, after ResizeObservation if they are large" if isinstance(leaf, gym.spaces.Box) else ""
        raise UserError(
            f"observations {shown(space)} {problem}; expected an environment, or arguments of it, whose observation is a vector, or "
            f"`wrappers:` that make it one{helps}"
        )
    odd = {path[0] for path, _, _ in problems}
    fit = [path[0] for path, _ in _leaves(space) if path[0] not in odd]
    leave_out = f"{{name: FilterObservation, kwargs: {{filter_keys: [{', '.join(map(str, dict.fromkeys(fit)))}]}}}}"
    helps = f"`wrappers: [{leave_out}]`, which leaves it out" if fit else "`wrappers:` that make it a vector"
    each = "; ".join(f"those of {'.'.join(map(str, path))}, {shown(leaf)}, {problem}" for path, leaf, problem in problems)
    raise UserError(f"observations cannot all be learned from here: {each}. Expected vectors and numbers, or {helps}")


def _leaves(space: gym.Space, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], gym.Space]]:
    """Yield the innermost spaces with their keys, in the order of Gymnasium's `flatten`."""
    if isinstance(space, gym.spaces.Dict):
        parts: Any = space.spaces.items()
    elif isinstance(space, gym.spaces.Tuple):
        parts = enumerate(space.spaces)
    else:
        yield path, space
        return
    for key, part in parts:
        yield from _leaves(part, (*path, key))


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
    return [value for _, leaf in _leaves(space) for value in _indicated(leaf)]


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
        return call()
    except PASSED_ON:
        raise
    except BaseException as error:
        raise UserError(f"{name}, {where}: {in_one_line(error)}") from error


def _check_reset(name: str, space: gym.Space, returned: Any) -> None:
    if not (isinstance(returned, tuple) and len(returned) == 2 and isinstance(returned[1], dict)):
        raise UserError(
            f"{name}, reset(seed=0) returned {_described(returned)}: expected (observation, info), as in Gymnasium since version 0.26"
        )
    _check_observation(f"{name}, reset(seed=0)", space, returned[0])


def _checked_step(where: str, space: gym.Space, returned: Any) -> Step:
    if not (isinstance(returned, tuple) and len(returned) == 5 and isinstance(returned[4], dict)):
        raise UserError(
            f"{where} returned {_described(returned)}: expected (observation, reward, terminated, truncated, info), as in Gymnasium "
            "since version 0.26"
        )
    observation, reward, terminated, truncated, _ = returned
    _check_observation(where, space, observation)
    for kind, value in (("terminated", terminated), ("truncated", truncated)):
        if not isinstance(value, bool | np.bool_):
            raise UserError(f"{where} returned {kind} = {shown(value)}: expected true or false")
    if not _is_finite_number(reward):
        raise UserError(f"{where} returned the reward {shown(reward)}: expected a finite number")
    return observation, reward, terminated, truncated, returned[4]


def _is_finite_number(value: Any) -> bool:
    try:
        return math.isfinite(reward_value(value))
    except Exception:  # arrays and tensors of several numbers, too, and objects of any other kind
        return False


def _check_observation(where: str, space: gym.Space, observation: Any) -> None:
    problem = _misfit(space, observation)
    if problem:
        raise UserError(f"{where} observed {problem}; its observation space is {shown(space)}")


def _misfit(space: gym.Space, observation: Any) -> str | None:
    """Describe how an observation does not fit its space; None if it fits, also as a list, or in a type that can be cast."""
    if isinstance(space, gym.spaces.Dict):
        if not isinstance(observation, Mapping) or observation.keys() != space.spaces.keys():
            found = sorted(map(str, observation)) if isinstance(observation, Mapping) else _described(observation)
            return f"{found}: expected a mapping with the keys {', '.join(map(str, space.spaces))}"
        return _first_problem((key, _misfit(part, observation[key])) for key, part in space.spaces.items())
    if isinstance(space, gym.spaces.Tuple):
        if not isinstance(observation, tuple | list) or len(observation) != len(space.spaces):
            return f"{_described(observation)}: expected {len(space.spaces)} parts"
        parts = zip(space.spaces, observation, strict=True)
        return _first_problem((index, _misfit(part, each)) for index, (part, each) in enumerate(parts))
    if isinstance(space, gym.spaces.Discrete):
        whole = isinstance(observation, numbers.Integral) or (
            isinstance(observation, np.ndarray) and observation.shape == () and observation.dtype.kind in "iu"
        )
        # `contains` would refuse integers that are no numpy ones, and fail with those that are too large for them.
        first, count, value = int(space.start), int(space.n), int(observation) if whole else 0
        inside = whole and first <= value < first + count
        return None if inside else f"{shown(observation)}: expected one of its values"
    return _array_misfit(space, observation)


def _first_problem(problems: Iterable[tuple[Any, str | None]]) -> str | None:
    return next((f"{problem} in {key}" for key, problem in problems if problem), None)


def _array_misfit(space: gym.Space, observation: Any) -> str | None:
    try:
        array = np.asarray(observation)
    except Exception:  # a list of lists of different lengths, or an object that cannot be an array
        return f"{shown(observation)}: expected an array of shape {space.shape}"
    if array.dtype.kind not in _NUMBERS:
        return f"{_described(observation)}: expected numbers"
    if array.shape != space.shape:
        return f"an array of shape {array.shape}: expected {space.shape}"
    if not np.can_cast(array.dtype, np.dtype(space.dtype), "same_kind"):
        return f"an array of {array.dtype}: expected {space.dtype}"
    return None if np.isfinite(array).all() else f"{shown(observation)}: expected finite numbers"


def _described(returned: Any) -> str:
    if isinstance(returned, tuple):
        return f"a tuple of {len(returned)}: ({', '.join(type(each).__name__ for each in returned)})"
    if isinstance(returned, np.ndarray):
        return f"an array of {returned.dtype} of shape {returned.shape}"
    return f"{type(returned).__name__} {shown(returned, 100)}"


def check_frame(env: gym.Env, name: str) -> None:
    """Refuse an environment that does not draw.

    Args:
        env: The environment, after a reset.
        name: What messages call it.

    Raises:
        UserError: A package is missing, `render` raises an error, or does not return uint8 (H, W, 3).
    """
    try:
        frame: Any = env.render()
    except gym.error.DependencyNotInstalled as error:
        raise UserError(f"{name} cannot be drawn: a package is not installed: {error}") from error
    except PASSED_ON:
        raise
    except BaseException as error:
        raise UserError(f"{name} does not draw frames (rgb_array): {in_one_line(error)}") from error
    problem = frame_problem(frame)
    if problem:
        raise UserError(f"{name} does not draw frames (rgb_array): {problem}")
