"""Environments with an odd property are learned from, or refused, when the sweep file is read or in the very step."""

import math
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from fuzzing import TrialFailure
from gymnasium import spaces
from hypothesis import strategies as st
from odd_envs import LARGEST, PAIR, PICTURE, Plain

from vlm_rm_sweeps.frames import FrameFormat
from vlm_rm_sweeps.sweeping.config.validation import check_keys
from vlm_rm_sweeps.tasks.gym_task import GymEnv, make_task
from vlm_rm_sweeps.tasks.task import Task
from vlm_rm_sweeps.tasks.uniform_env import EnvironmentFault

ID = "fuzz-odd-v0"
STEPS = 9


class Unspeakable:
    """Raises whenever anything is asked of it."""

    def __repr__(self) -> str:
        raise RuntimeError("no words")

    def __float__(self) -> float:
        raise RuntimeError("no number")

    __array__ = __len__ = __bool__ = __float__


class UnspeakableError(Exception):
    """An error that cannot be printed."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


# fmt: off
SPACES: list[Any] = [
    PAIR, PICTURE, spaces.Discrete(3), spaces.Discrete(3, start=-1), spaces.MultiDiscrete([2, 3]), spaces.MultiBinary(2),
        spaces.Text(5),
    spaces.Box(-LARGEST, LARGEST, (2,), np.float32), spaces.Box(-np.inf, np.inf, (2,), np.float64), spaces.Box(0, 1, (2,),
        np.int64), spaces.Box(0, 255, (2,), np.uint8),
    spaces.Box(-1, 1, (), np.float32), spaces.Box(-1, 1, (0,), np.float32), spaces.Box(-1, 1, (2, 1), np.float32),
        spaces.Box(1, 1, (2,), np.float32),
    spaces.Box(-1, 1, (2,), np.float16), spaces.Dict({}), spaces.Dict({"a": PAIR}), spaces.Dict({"image": PICTURE,
        "a": PAIR}), spaces.Dict({"a": spaces.Dict({"b": PAIR})}),
    spaces.Tuple([]), spaces.Tuple([PAIR, spaces.Discrete(2)]), spaces.Sequence(PAIR), spaces.Graph(PAIR, None),
        spaces.OneOf([PAIR, PAIR]),
    None, 3, "Box", gym.Space(), gym.Space((2,), np.float32), PAIR.__class__, Unspeakable(),
]
VALUES: list[Any] = [
    [0.0, 1.0], (0, 1), np.zeros(2), np.zeros(2, np.float32), np.zeros((2, 1)), np.zeros(3), np.zeros(0), np.zeros(2,
        np.int64), np.zeros(2, complex), np.zeros(2, object),
    np.array(["a", "b"]), np.array([0, np.nan]), np.array([0, np.inf]), np.full(2, 1e300), torch.zeros(2), torch.zeros(2,
        requires_grad=True), [[0], [0, 1]], [None, 1],
    0, 1, 3, -1, 2.5, True, None, "east", "", b"", {}, {"a": [0, 1]}, {"a": {"b": [0, 1]}}, {"image": np.zeros((84, 84, 3),
        np.uint8), "a": [0, 1]}, {1: 2}, [[0, 1], 1],
    math.nan, math.inf, 10**400, np.float32(0.5), np.array(1.0), np.array([0.5]), np.bool_(True), np.ma.masked,
        np.datetime64("2001"), [], (), object(), Unspeakable(),
    np.zeros((84, 84, 3), np.uint8), np.zeros((8, 8, 4), np.uint8), np.zeros((8, 8, 3)), np.zeros((0, 8, 3), np.uint8),
        np.zeros((8, 8), np.uint8), np.zeros((3, 8, 8), np.uint8),
]
ERRORS: list[Any] = [
    RuntimeError("the licence server is away"), RuntimeError(""), RuntimeError("x" * 50_000), RuntimeError("a\nb\0\x1b[31m"),
        KeyError("a"), OSError(28, "No space left"),
    FileNotFoundError(2, "none", "robot.xml"), StopIteration(), AssertionError(), MemoryError(), RecursionError(),
        SystemExit(3), SystemExit("gone"), NotImplementedError(),
    gym.error.Error("x"), gym.error.ResetNeeded("x"), gym.error.DependencyNotInstalled("x"), ImportError("x"),
        UnicodeDecodeError("utf-8", b"x", 0, 1, "x"), UnspeakableError(),
    ExceptionGroup("many", [ValueError("a")]), Warning("x"), TimeoutError(), RuntimeError(Unspeakable),
]
SUCCESS = [None, None, None, "obs[0] > 0", "reward", "info['x'] > 0", "info['y'] > 0", "obs[9] > 0", "obs == 1", "1/0 > 1",
        "obs[-1] == 2", "obs[0.5] > 1", "obs['a'] > 1", "info > 1",
           "sqrt(obs[0]) > 0", "max(obs) > 0", "max(info) > 1", "abs() > 1", "", "x", "obs[0] > 0 and", "reward == 'a'",
        "not obs", "obs[10**30] > 0", "info['x'][0] > 1", "pi() > 1"]
# fmt: on


def anew(error: BaseException) -> BaseException:
    """Return an error as if it had not been raised before."""
    error.__context__ = error.__cause__ = None
    return error.with_traceback(None)


def raises(error: BaseException) -> Any:
    def method(self: Plain, *_: Any, **__: Any) -> Any:
        raise anew(error)

    return method


def returns(value: Any) -> Any:
    return lambda self, *_, **__: value


def with_part(part: int, value: Any, when: int) -> Any:
    """A `step` of which a part of what it returns is another one, after some steps."""

    def step(self: Plain, action: Any) -> Any:
        returned = list(Plain.step(self, action))
        if self.t > when:
            returned[part] = value
        return tuple(returned)

    return step


def late(error: BaseException, when: int) -> Any:
    def step(self: Plain, action: Any) -> Any:
        if self.t >= when:
            raise anew(error)
        return Plain.step(self, action)

    return step


@st.composite
def oddities(draw: st.DrawFn) -> dict[str, Any]:
    """Members of an environment, most of them one, and its success test."""
    odd: dict[str, Any] = {}
    for _ in range(draw(st.sampled_from([1, 1, 1, 2]))):
        odd |= draw(st.sampled_from(KINDS).flatmap(lambda kind: kind))
    return odd


spaces_, values, errors, when = (
    st.sampled_from(SPACES),
    st.sampled_from(VALUES),
    st.sampled_from(ERRORS),
    st.integers(0, STEPS - 1),
)


def member(name: str, value: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return value.map(lambda found: {name: found})


KINDS: list[st.SearchStrategy[dict[str, Any]]] = [
    member("observation_space", spaces_),
    st.tuples(spaces_, values).map(lambda pair: {"observation_space": pair[0], "obs": returns(pair[1])}),
    spaces_.map(lambda space: {"observation_space": space, "obs": lambda self: space.sample()}),
    member("action_space", spaces_),
    member("obs", values.map(returns)),
    member("reset", values.map(returns) | errors.map(raises) | values.map(lambda value: returns(([0, 1], value)))),
    member("step", st.builds(with_part, st.integers(0, 4), values, when) | st.builds(late, errors, when) | values.map(returns)),
    member("render", values.map(returns) | errors.map(raises)),
    member("__init__", errors.map(raises) | st.just(lambda self: None) | st.just(lambda self, render_mode=None, level=1: None)),
    member("metadata", values),
    member("render_mode", values),
    member("spec", values),
    member("unwrapped", values),
    member("close", errors.map(raises)),
    member("np_random", errors.map(lambda error: property(raises(error)))),
    member("success", st.sampled_from(SUCCESS)),
    member(
        "kwargs",
        st.sampled_from(
            [{"level": 1}, {"x": None}, {"self": 1}, {"id": "x"}, {"": 1}, {"render_mode": "human"}, {"width": -1}]
        ),
    ),
]


def trained_on(task: Task) -> list[np.ndarray]:
    """Go through an episode as a trial does."""
    env = task.make_env(FrameFormat(8))
    observations = [env.reset(seed=1)[0]]
    for _ in range(STEPS):
        observations.append(env.step(env.action_space.sample())[0])
    env.close()
    return observations


@pytest.mark.parametrize(("cases", "short"), [(120, True), pytest.param(1_500, False, marks=pytest.mark.fuzz)])
def test_odd_environments_are_learned_from_or_refused(fuzzed: Any, cases: int, short: bool) -> None:
    def learn(odd: dict[str, Any]) -> None:
        settings = {key: odd[key] for key in ("success", "kwargs") if key in odd}
        members = {key: value for key, value in odd.items() if key not in settings}
        made: Any = type("Made", (Plain,), members)
        gym.register(ID, entry_point=made)
        try:
            with warnings.catch_warnings(action="ignore"):
                task = make_task(check_keys(GymEnv, {"id": ID, "episode_steps": STEPS} | settings))
                try:
                    observations = trained_on(task)
                except EnvironmentFault as fault:
                    raise TrialFailure(str(fault)) from fault
            assert all(each.dtype == np.float32 and np.isfinite(each).all() for each in observations)
        finally:
            gym.registry.pop(ID, None)

    fuzzed("environments", cases, oddities(), learn, short)
