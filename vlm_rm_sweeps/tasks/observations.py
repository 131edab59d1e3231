"""Reads what an environment observes as vectors of float32, in the check as in each step of training."""

import math
import numbers
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import gymnasium as gym
import numpy as np

from vlm_rm_sweeps.errors import UserError, shown

MOST_NUMBERS = 1_000_000
"""Numbers of an observation as a vector, at most. Of a Discrete space each value is one of them."""
_NUMBERS = "biuf"
"""Kinds of NumPy's types that are numbers."""
_NO_SQUARE_BEYOND = 1e76
"""Below it no sum of squares has a number that is beyond float32, which ends at 3.4e38."""
_NOTHING = np.empty(0, np.float32)

Reader = Callable[[Any], np.ndarray]


class UnusableError(Exception):
    """What an environment returned cannot be used; the message says why."""


def vector_reader(space: gym.Space) -> Reader:
    """Return the function that makes each observation of a space a vector of float32, a copy.

    Observations may come as lists or in another type. No number becomes another one, except that float32 rounds it: integers are
    whole, and a value of a Discrete space is one of its own.

    Args:
        space: The observation space.

    Returns:
        The function. It raises an UnusableError for what does not fit the space, is not finite, or is beyond float32.

    Raises:
        UserError: The space has no numbers or too many, or cannot be made one vector.
    """
    count = sum(_number_count(leaf) for _, leaf in leaves(space))
    if count == 0:
        raise UserError(f"observations {shown(space)} are empty: expected at least one number")
    if count > MOST_NUMBERS:
        raise UserError(
            f"observations {shown(space)} are {count:,} numbers as a vector, one for each value of a Discrete: expected at most "
            f"{MOST_NUMBERS:,}"
        )
    read = _reader(space)

    def read_named(observation: Any) -> np.ndarray:
        try:
            return read(observation)
        except UnusableError as error:
            raise UnusableError(f"it observed {error}; its observation space is {shown(space)}") from None

    return read_named


def vector_space(space: gym.Space) -> gym.spaces.Box:
    """Return the space of the vectors that `vector_reader` makes.

    Args:
        space: An observation space that it accepts.

    Returns:
        A space of float32 (D,).
    """
    parts: list[Any] = [gym.spaces.flatten_space(leaf) for _, leaf in leaves(space)]
    with np.errstate(over="ignore"):  # a bound beyond the range of float32 is none
        low = np.concatenate([part.low.astype(np.float32) for part in parts])
        high = np.concatenate([part.high.astype(np.float32) for part in parts])
    return gym.spaces.Box(low, high, dtype=np.float32)


def leaves(space: gym.Space, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], gym.Space]]:
    """Yield the innermost spaces with their keys, in the order of Gymnasium's `flatten`.

    Args:
        space: An observation space.
        path: The keys of the space itself.

    Yields:
        Keys and space.
    """
    if isinstance(space, gym.spaces.Dict):
        parts: Any = space.spaces.items()
    elif isinstance(space, gym.spaces.Tuple):
        parts = enumerate(space.spaces)
    else:
        yield path, space
        return
    for key, part in parts:
        yield from leaves(part, (*path, key))


def _number_count(space: gym.Space) -> int:
    """Count the numbers of an observation in an innermost space as a vector, with integers of any size."""
    match space:
        case gym.spaces.Discrete():
            return int(space.n)
        case gym.spaces.MultiDiscrete():
            return sum(map(int, np.ravel(space.nvec)))
        case gym.spaces.Box() | gym.spaces.MultiBinary():
            return math.prod(space.shape)
    raise UserError(
        f"observations {shown(space)} cannot be made one vector: expected Box, Discrete, or a Dict or Tuple of them"
    )


def _reader(space: gym.Space) -> Reader:
    match space:
        case gym.spaces.Dict():
            return _mapping_reader({key: _reader(part) for key, part in space.spaces.items()})
        case gym.spaces.Tuple():
            return _sequence_reader([_reader(part) for part in space.spaces])
        case gym.spaces.Discrete():
            return _discrete_reader(int(space.start), int(space.n))
        case gym.spaces.MultiDiscrete():
            return _multi_discrete_reader(space)
        case gym.spaces.MultiBinary():
            return _array_reader(space.shape, np.dtype(np.bool_))
    return _array_reader(space.shape, np.dtype(space.dtype))  # type: ignore[arg-type]  # a Box has both


def _mapping_reader(parts: dict[str, Reader]) -> Reader:
    def read(observation: Any) -> np.ndarray:
        if not isinstance(observation, Mapping) or observation.keys() != parts.keys():
            found = str(sorted(map(str, observation))) if isinstance(observation, Mapping) else described(observation)
            raise UnusableError(f"{found}: expected a mapping with the keys {', '.join(map(str, parts))}")
        return np.concatenate([_NOTHING, *(_read_part(key, part, observation[key]) for key, part in parts.items())])

    return read


def _sequence_reader(parts: list[Reader]) -> Reader:
    def read(observation: Any) -> np.ndarray:
        if not isinstance(observation, tuple | list) or len(observation) != len(parts):
            raise UnusableError(f"{described(observation)}: expected {len(parts)} parts")
        each = zip(parts, observation, strict=True)
        return np.concatenate([_NOTHING, *(_read_part(index, part, value) for index, (part, value) in enumerate(each))])

    return read


def _read_part(key: object, read: Reader, observation: Any) -> np.ndarray:
    try:
        return read(observation)
    except UnusableError as error:
        raise UnusableError(f"{error} in {key}") from None


def _discrete_reader(first: int, count: int) -> Reader:
    def read(observation: Any) -> np.ndarray:
        whole = isinstance(observation, numbers.Integral) or (
            isinstance(observation, np.ndarray) and observation.shape == () and observation.dtype.kind in "iu"
        )
        # `contains` would refuse integers that are no numpy ones, and fail with those that are too large for them.
        place = int(observation) - first if whole else -1
        if not 0 <= place < count:
            raise UnusableError(f"{shown(observation)}: expected one of its values")
        vector = np.zeros(count, np.float32)
        vector[place] = 1
        return vector

    return read


def _multi_discrete_reader(space: gym.spaces.MultiDiscrete) -> Reader:
    counts, starts = (np.ravel(each).astype(np.int64) for each in (space.nvec, space.start))
    size, begins = int(counts.sum()), np.cumsum(counts) - counts

    def read(observation: Any) -> np.ndarray:
        places = _whole(_array(observation, space.shape), np.dtype(np.int64), observation).reshape(-1) - starts
        if (places < 0).any() or (places >= counts).any():
            raise UnusableError(f"{shown(observation)}: expected its values")
        vector = np.zeros(size, np.float32)
        vector[begins + places] = 1
        return vector

    return read


def _array_reader(shape: tuple[int, ...], dtype: np.dtype) -> Reader:
    is_whole = dtype.kind != "f"

    def read(observation: Any) -> np.ndarray:
        array = _array(observation, shape)
        if is_whole:
            _whole(array, dtype, observation)
        flat = array.reshape(-1)
        # In each step: a sum of squares, which NumPy never warns about, nearly always tells that all numbers are finite in float32.
        if array.dtype.kind == "f" and not float(np.vdot(flat, flat)) < _NO_SQUARE_BEYOND:
            _refuse_beyond_float32(flat, observation)
        return flat.astype(np.float32)  # a copy: an environment may write into what it has returned

    return read


def _array(observation: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Return an observation as an array of numbers of this shape."""
    try:
        array = np.asarray(observation)
    except Exception as error:  # a list of lists of different lengths, or an object that cannot be an array
        raise UnusableError(f"{shown(observation)}: expected an array of shape {shape}") from error
    if array.dtype.kind not in _NUMBERS:
        raise UnusableError(f"{described(observation)}: expected numbers")
    if array.shape != shape:
        raise UnusableError(f"an array of shape {array.shape}: expected {shape}")
    return array


def _refuse_beyond_float32(flat: np.ndarray, observation: Any) -> None:
    with np.errstate(over="ignore"):
        finite = np.isfinite(flat.astype(np.float32))
    if finite.all():
        return
    first = flat[~finite][0]
    if np.isfinite(first):
        raise UnusableError(f"{first}, which is beyond float32: expected numbers of at most {np.finfo(np.float32).max:.4g}")
    raise UnusableError(f"{shown(observation)}: expected finite numbers")


def _whole(array: np.ndarray, dtype: np.dtype, observation: Any) -> np.ndarray:
    """Cast an array to a type of integers or truth values, which must not change its numbers."""
    if array.dtype == dtype:
        return array
    with np.errstate(invalid="ignore"):  # a number that an integer cannot be is refused below
        cast = array.astype(dtype)
    if not (cast == array).all():
        expected = "only 0 and 1" if dtype.kind == "b" else f"whole numbers that {dtype} can hold"
        raise UnusableError(f"{shown(observation)}: expected {expected}")
    return cast


def described(returned: Any) -> str:
    """Describe for a message what an environment returned: its type, and its value where it is not too long.

    Args:
        returned: Anything.

    Returns:
        For example `an array of float64 of shape (2,)`.
    """
    if isinstance(returned, tuple):
        return f"a tuple of {len(returned)}: ({', '.join(type(each).__name__ for each in returned)})"
    if isinstance(returned, np.ndarray):
        return f"an array of {returned.dtype} of shape {returned.shape}"
    return f"{type(returned).__name__} {shown(returned, 100)}"
