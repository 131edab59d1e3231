"""Observations become vectors of float32, and none silently becomes another one."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.tasks.observations import UnusableError, vector_reader, vector_space

LARGEST = float(np.finfo(np.float32).max)
PAIR = spaces.Box(-2.0, 2.0, (2,), np.float32)
DOUBLES = spaces.Box(-np.inf, np.inf, (2,), np.float64)
BYTES = spaces.Box(0, 255, (2,), np.uint8)
GRID = spaces.MultiDiscrete([2, 3])


@pytest.mark.parametrize(
    "space",
    [
        PAIR,
        DOUBLES,
        BYTES,
        GRID,
        spaces.Box(0, 1, (2, 3), np.bool_),  # type: ignore[arg-type]  # Gymnasium's annotation is narrower than its code
        spaces.Box(-9, 9, (), np.int32),
        spaces.Discrete(5, start=-2),
        spaces.MultiDiscrete(np.array([[2, 3], [4, 5]]), start=np.array([[0, -1], [7, 0]])),
        spaces.MultiBinary([2, 3]),
        spaces.Tuple([spaces.Discrete(2), spaces.Dict({"z": PAIR, "a": GRID})]),
    ],
    ids=str,
)
def test_a_vector_is_that_of_gymnasium(space: gym.Space) -> None:
    read = vector_reader(space)
    space.seed(0)
    for _ in range(5):
        observation = space.sample()
        vector = read(observation)
        assert vector.dtype == np.float32
        assert vector.tolist() == np.asarray(spaces.flatten(space, observation), np.float32).tolist()
        assert vector.shape == vector_space(space).shape


@pytest.mark.parametrize(
    ("space", "observation", "vector"),
    [
        (BYTES, [1, 255], [1, 255]),
        (BYTES, np.array([1.0, 2.0]), [1, 2]),
        (PAIR, [LARGEST, -LARGEST], [LARGEST, -LARGEST]),
        (spaces.Box(-9, 9, (2,), np.float16), [1e6, 1.0], [1e6, 1]),
        (spaces.Box(0, 2**62, (1,), np.int64), [2**62], [2**62]),
        (spaces.MultiBinary(2), [True, 0], [1, 0]),
    ],
)
@pytest.mark.filterwarnings("error")
def test_a_number_in_another_type_stays_itself(space: gym.Space, observation: Any, vector: list[float]) -> None:
    assert vector_reader(space)(observation).tolist() == vector


@pytest.mark.parametrize(
    ("space", "observation", "message"),
    [
        (DOUBLES, [0, 1e300], "it observed 1e+300, which is beyond float32: expected numbers of at most 3.403e+38; its"),
        (DOUBLES, [np.nan, 1e300], "[nan, 1e+300]: expected finite numbers"),
        (PAIR, np.full(2, np.inf, np.float32), "inf], dtype=float32): expected finite numbers"),
        (BYTES, [1.7, 300.2], "[1.7, 300.2]: expected whole numbers that uint8 can hold; its observation space is Box(0, 255"),
        (BYTES, [-3, 300], "[-3, 300]: expected whole numbers that uint8 can hold"),
        (BYTES, [np.nan, 1], "[nan, 1]: expected whole numbers"),
        (spaces.Box(-5, 5, (2,), np.int32), [2**40, 1], "expected whole numbers that int32 can hold"),
        (GRID, [3, 0], "[3, 0]: expected its values; its observation space is MultiDiscrete([2 3])"),
        (GRID, [-1, -1], "[-1, -1]: expected its values"),
        (GRID, [5, 2], "[5, 2]: expected its values"),
        (GRID, [0.5, 1], "[0.5, 1]: expected whole numbers"),
        (spaces.MultiBinary(2), [7, 2], "[7, 2]: expected only 0 and 1"),
        (spaces.Discrete(5), -1, "-1: expected one of its values"),
        (spaces.Discrete(5), 2.7, "2.7: expected one of its values"),
        (spaces.Dict({"a": spaces.Tuple([GRID])}), {"a": ([3, 0],)}, "[3, 0]: expected its values in 0 in a; its"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_no_observation_becomes_another_one(space: gym.Space, observation: Any, message: str) -> None:
    with pytest.raises(UnusableError) as caught:
        vector_reader(space)(observation)
    assert message in str(caught.value)


def test_a_part_may_be_empty() -> None:
    space = spaces.Dict({"a": spaces.Dict({}), "b": spaces.Discrete(2)})
    assert vector_reader(space)({"a": {}, "b": 1}).tolist() == [0, 1]
    assert vector_space(space).shape == (2,)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (spaces.Discrete(2**40), "are 1,099,511,627,776 numbers as a vector"),
        (spaces.MultiDiscrete([10**9] * 2), "are 2,000,000,000 numbers as a vector"),
        (spaces.MultiDiscrete([2**62] * 4), "are 18,446,744,073,709,551,616 numbers"),
        (spaces.Tuple([spaces.Discrete(999_999), PAIR]), "are 1,000,001 numbers as a vector"),
        (spaces.Box(-1, 1, (0,)), "are empty: expected at least one number"),
        (spaces.Dict({"told": spaces.Text(9)}), "observations Text(1, 9"),
    ],
)
def test_a_space_without_a_vector_of_a_reasonable_length_is_refused(space: gym.Space, message: str) -> None:
    with pytest.raises(UserError) as caught:
        vector_reader(space)
    assert message in str(caught.value)
