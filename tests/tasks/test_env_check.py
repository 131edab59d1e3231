"""Environments that do not do what they declare are refused before anything starts with them; those that do in odd ways are not."""

import dataclasses
import time
from asyncio import CancelledError
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from odd_envs import LARGEST, PAIR, PICTURE, Plain

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.frames import FrameFormat
from vlm_rm_sweeps.tasks import env_check
from vlm_rm_sweeps.tasks.gym_task import GymEnv, make_task
from vlm_rm_sweeps.tasks.registry import check_task
from vlm_rm_sweeps.tasks.task import Task
from vlm_rm_sweeps.tasks.uniform_env import EnvironmentFault


@pytest.fixture
def odd() -> Iterator[Callable[..., GymEnv]]:
    """Describes an environment that has some members of its own."""

    def register(settings: dict[str, Any] | None = None, **members: Any) -> GymEnv:
        made: Any = type("Made", (Plain,), members)
        gym.registry.pop("test-odd-v0", None)
        gym.register("test-odd-v0", entry_point=made)
        return GymEnv(**({"id": "test-odd-v0", "episode_steps": 20} | (settings or {})))

    yield register
    gym.registry.pop("test-odd-v0", None)


class NoException(BaseException):
    pass


class Unspeakable(Exception):  # noqa: N818
    def __str__(self) -> str:
        raise RuntimeError


def raising(error: BaseException) -> Any:
    def method(self: Plain, *_: Any, **__: Any) -> Any:
        raise error

    return method


def crash(self: Plain, action: Any) -> Any:
    if self.t == 2:
        raise RuntimeError("the robot's licence server is away")
    return Plain.step(self, action)


@pytest.mark.parametrize(
    ("members", "parts"),
    [
        pytest.param(
            {"observation_space": spaces.Box(-2, 2, (5,), np.float32)},
            ["test-odd-v0, reset(seed=0): it observed an array of shape (2,): expected (5,)", "Box(-2.0, 2.0, (5,), float32)"],
            id="another shape",
        ),
        pytest.param({"obs": lambda self: [self.x, "east"]}, ["expected numbers"], id="words"),
        pytest.param({"obs": lambda self: [self.x, np.nan]}, ["nan", "expected finite numbers"], id="a missing value"),
        pytest.param(
            {"observation_space": spaces.Box(0, 9, (2,), np.int64)},
            ["expected whole numbers that int64 can hold"],
            id="another type",
        ),
        pytest.param(
            {"observation_space": spaces.Discrete(4), "obs": lambda self: 4}, ["4: expected one of its values"], id="no value"
        ),
        pytest.param(
            {"observation_space": spaces.Dict({"a": PAIR}), "obs": lambda self: {"b": [0, 0]}},
            ["['b']: expected a mapping with the keys a"],
            id="another key",
        ),
        pytest.param(
            {"observation_space": spaces.Tuple([PAIR, PAIR]), "obs": lambda self: ([0, 0], [0])},
            ["shape (1,): expected (2,) in 1"],
            id="another shape inside",
        ),
        pytest.param(
            {"reset": lambda self, seed=None, options=None: Plain.reset(self, seed=seed)[0]},
            ["reset(seed=0) returned an array of float32 of shape (2,): expected (observation, info)"],
            id="the reset of old",
        ),
        pytest.param({"reset": lambda self: ([0, 0], {})}, ["reset(seed=0): TypeError", "'seed'"], id="a reset without seed"),
        pytest.param(
            {"step": lambda self, action: (*Plain.step(self, action)[:3], {})},
            ["step 1, action ", "returned a tuple of 4", "expected (observation, reward, terminated, truncated, info)"],
            id="the step of old",
        ),
        pytest.param(
            {"step": lambda self, action: (self.obs(), float("nan"), False, False, {})},
            ["test-odd-v0, step 1, action ", "returned the reward nan: expected a finite number"],
            id="no reward",
        ),
        pytest.param(
            {"step": lambda self, action: (self.obs(), "much", False, False, {})},
            ["returned the reward 'much': expected a finite number"],
            id="a word as reward",
        ),
        pytest.param(
            {"step": lambda self, action: (self.obs(), 0, None, False, {})},
            ["terminated = None: expected true or false"],
            id="no end",
        ),
        pytest.param({"step": crash}, ["step 3, action ", "RuntimeError: the robot's licence server is away"], id="a crash"),
        pytest.param({"step": raising(SystemExit(3))}, ["step 1, action ", "SystemExit: 3"], id="an exit"),
        pytest.param(
            {"render": raising(SystemExit(3))}, ["does not draw frames (rgb_array): SystemExit"], id="an exit in render"
        ),
        pytest.param(
            {"__init__": raising(SystemExit(3))}, ["cannot be made with kwargs {}: SystemExit: 3"], id="an exit at once"
        ),
        pytest.param({"reset": raising(GeneratorExit("gen"))}, ["reset(seed=0): GeneratorExit: gen"], id="a generator's exit"),
        pytest.param({"step": raising(CancelledError("gone"))}, ["step 1, action ", "CancelledError: gone"], id="cancelled"),
        pytest.param({"render": raising(NoException("dark"))}, ["(rgb_array): NoException: dark"], id="no Exception, drawing"),
        pytest.param({"__init__": raising(NoException("shut"))}, ["kwargs {}: NoException: shut"], id="no Exception, at once"),
        pytest.param({"close": raising(NoException("open"))}, ["close(): NoException: open"], id="no Exception, closing"),
        pytest.param({"reset": raising(Unspeakable())}, ["reset(seed=0): Unspeakable"], id="an error that cannot be printed"),
        pytest.param({"close": raising(OSError("busy"))}, ["test-odd-v0, close(): OSError: busy"], id="it cannot be closed"),
        pytest.param(
            {"close": raising(OSError("busy")), "render": lambda self: None}, ["got NoneType"], id="it cannot be closed either"
        ),
        pytest.param(
            {"observation_space": spaces.Tuple([]), "obs": lambda self: ()},
            ["are empty: expected at least one number"],
            id="nothing",
        ),
        pytest.param(
            {"action_space": spaces.Discrete(10**9)}, ["at least one, and at most 100,000"], id="a billion of actions"
        ),
        pytest.param(
            {"action_space": spaces.Box(-1, 1, (200_000,), np.float32)}, ["at most 100,000"], id="too many numbers of an action"
        ),
        pytest.param({"action_space": spaces.Box(-1, 1, (0,), np.float32)}, ["expected at least one"], id="no action"),
        pytest.param(
            {"observation_space": spaces.Discrete(2**40), "obs": lambda self: 5},
            ["Discrete(1099511627776) are 1,099,511,627,776 numbers", "expected at most 1,000,000"],
            id="more values than memory",
        ),
        pytest.param(
            {"render": lambda self: np.zeros((60 + self.t, 80, 3), np.uint8)},
            ["it drew a frame of shape (60, 80, 3) after one of (65, 80, 3): expected one size"],
            id="a growing frame",
        ),
        pytest.param(
            {"step": lambda self, action: (self.obs(), 1j, False, False, {})},
            ["returned the reward 1j: expected a finite number"],
            id="a complex reward",
        ),
        pytest.param({"render": lambda self: [[0]]}, ["does not draw frames (rgb_array)", "got list"], id="no frame"),
        pytest.param(
            {"action_space": spaces.Box(-LARGEST, LARGEST, (1,), np.float32)},
            ["cannot be learned here", "a finite distance", "`module:Class`"],
            id="actions without bounds",
        ),
        pytest.param(
            {"action_space": spaces.MultiDiscrete([2, 2])},
            ["expected Discrete or Box", "wrapper of your own"],
            id="two actions",
        ),
        pytest.param(
            {"observation_space": PICTURE}, ["are pictures", "`wrappers:` that make it one: FlattenObservation"], id="a picture"
        ),
        pytest.param(
            {"observation_space": spaces.Dict({"image": PICTURE, "pos": PAIR, "told": spaces.Text(9)})},
            [
                "those of image, Box",
                "are pictures",
                "those of told, Text",
                "{name: FilterObservation, kwargs: {filter_keys: [pos]}}",
            ],
            id="a picture and words inside",
        ),
        pytest.param(
            {"observation_space": spaces.Dict({"image": PICTURE})},
            ["`wrappers:` that make it a vector"],
            id="nothing but pictures",
        ),
        pytest.param(
            {"observation_space": spaces.Sequence(PAIR)}, ["cannot be made one vector", "`wrappers:`"], id="of any length"
        ),
    ],
)
def test_what_an_environment_does_otherwise_than_declared_is_one_message(
    odd: Callable[..., GymEnv], members: dict[str, Any], parts: list[str]
) -> None:
    with pytest.raises(UserError) as caught:
        make_task(odd(**members))
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    "members",
    [
        {"obs": lambda self: [self.x, 1]},
        {"obs": lambda self: np.array([self.x, 1.0])},
        {"observation_space": spaces.Box(-LARGEST, LARGEST, (2,), np.float32)},
        {"observation_space": spaces.Discrete(41), "obs": lambda self: int((self.x + 2) * 10)},
        {"observation_space": spaces.Box(-9, 9, (2, 1), np.float64), "obs": lambda self: [[self.x], [1]]},
        {"observation_space": spaces.Dict({"a": PAIR}), "obs": lambda self: {"a": (self.x, 1)}},
        {"step": lambda self, action: (*Plain.step(self, action)[:1], np.array([0.5]), np.bool_(False), False, {})},
    ],
    ids=["list", "float64", "bounds of float32", "discrete", "matrix", "nested", "arrays"],
)
def test_what_comes_in_another_form_is_learned_from(odd: Callable[..., GymEnv], members: dict[str, Any]) -> None:
    env = make_task(odd(**members)).make_env(FrameFormat(8))
    seen = [env.reset(seed=0)[0], *(env.step(2)[0] for _ in range(3))]
    assert {(each.dtype, each.shape) for each in seen} == {(np.dtype(np.float32), env.observation_space.shape)}
    assert len({each.tobytes() for each in seen}) > 1


@pytest.mark.parametrize("success", ["obs[20] == 1", "obs[3] > 0.5 or reward > 0", "max(obs) < 2"])
def test_the_value_of_a_discrete_observation_can_be_tested(odd: Callable[..., GymEnv], success: str) -> None:
    make_task(odd({"success": success}, observation_space=spaces.Discrete(41), obs=lambda self: int((self.x + 2) * 10)))


@pytest.mark.parametrize(
    ("success", "part"),
    [
        ("obs[0] > 20", "obs[0] is never 20: of Discrete(41), obs[0] is 1 while the value is 0, and else 0"),
        ("-3 < obs[1]", "obs[1] is never -3"),
        ("reward > 0 and obs[0] == 20", "expected `obs[i] == 1` for the i that stands for the value"),
        ("obs == 20", "obs is a list of numbers, which is compared as a whole"),
        ("obs != 20", "compared as a whole"),
    ],
)
def test_a_comparison_that_no_state_decides_is_refused(odd: Callable[..., GymEnv], success: str, part: str) -> None:
    env = odd({"success": success}, observation_space=spaces.Discrete(41), obs=lambda self: 0, action_space=spaces.Discrete(1))
    with pytest.raises(UserError) as caught:
        make_task(env)
    assert part in str(caught.value)


def test_a_users_task_is_checked_too() -> None:
    class Nan(Plain):
        def step(self, action: Any) -> Any:
            return self.obs(), np.inf, False, False, {}

    task = Task(name="mine", goal_prompt="", baseline_prompt="", episode_steps=5, make_native_env=lambda *_: Plain())
    check_task(task)
    with pytest.raises(UserError, match=r"mine, step 1, action .* returned the reward inf"):
        check_task(dataclasses.replace(task, make_native_env=lambda *_: Nan()))

    def broken(*_: Any) -> gym.Env:
        raise ZeroDivisionError

    with pytest.raises(UserError, match="environment mine cannot be made: ZeroDivisionError"):
        check_task(dataclasses.replace(task, make_native_env=broken))


def test_a_fault_after_the_checked_steps_is_told_when_it_comes(odd: Callable[..., GymEnv]) -> None:
    def late(self: Plain, action: Any) -> Any:
        observation, reward, *rest = Plain.step(self, action)
        return observation, reward if self.t < 9 else float("nan"), *rest

    env = make_task(odd(step=late)).make_env(None)
    env.reset(seed=0)
    for _ in range(8):
        env.step(1)
    with pytest.raises(EnvironmentFault, match="environment test-odd-v0, step 9 of an episode, action 1: its reward is nan"):
        env.step(1)


def sleeps(method: str) -> Any:
    def slow(self: Plain, *given: Any, **named: Any) -> Any:
        time.sleep(0.3)
        return getattr(Plain, method)(self, *given, **named)

    return slow


@pytest.mark.parametrize(
    ("method", "where"),
    [("__init__", "making it"), ("reset", "reset(seed=0)"), ("step", "step 1, action "), ("render", "render()")],
)
def test_what_is_waited_for_is_said(
    odd: Callable[..., GymEnv], method: str, where: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    make_task(odd())
    assert not caplog.messages
    monkeypatch.setattr(env_check, "PATIENCE_S", 0.1)
    monkeypatch.setattr(env_check, "STEPPING_S", 0.1)
    make_task(odd(**{method: sleeps(method)}))
    assert caplog.messages[0].startswith(f"test-odd-v0, {where}")
    assert "no answer for 0.1 seconds, and still waiting" in caplog.messages[0]


def test_an_environment_that_steps_slowly_is_checked_by_fewer_steps(
    odd: Callable[..., GymEnv], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = []

    def step(self: Plain, action: Any) -> Any:
        taken.append(action)
        return Plain.step(self, action)

    make_task(odd(step=step))
    assert len(taken) == env_check.STEPS
    taken.clear()
    monkeypatch.setattr(env_check, "STEPPING_S", 0.0)
    make_task(odd(step=step))
    assert len(taken) == 1


def test_a_reset_without_a_seed_is_tried(odd: Callable[..., GymEnv]) -> None:
    def reset(self: Plain, *, seed: Any = None, options: Any = None) -> Any:
        assert seed % 10 < 10
        return Plain.reset(self, seed=seed, options=options)

    with pytest.raises(UserError, match=r"test-odd-v0, reset\(\).*TypeError: unsupported operand"):
        make_task(odd(reset=reset))


def test_a_random_generator_of_another_kind_is_refused(odd: Callable[..., GymEnv]) -> None:
    with pytest.raises(UserError, match=r"np_random is RandomState.*: expected a numpy.random.Generator"):
        make_task(odd(np_random=np.random.RandomState(0)))
