"""What training, evaluation and videos see of an environment, and how its faults are told."""

from asyncio import CancelledError
from decimal import Decimal
from fractions import Fraction
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.frames import FrameFormat
from vlm_rm_sweeps.tasks.task import Task
from vlm_rm_sweeps.tasks.uniform_env import EnvironmentFault, UniformEnv


class Odd(gym.Env):
    """Observes, rewards and draws what it is told to."""

    action_space: gym.Space = spaces.Discrete(3)

    def __init__(self, space: gym.Space, observation: Any, reward: Any = 1.0, frame: Any = None) -> None:
        self.observation_space, self.observation, self.reward, self.frame = space, observation, reward, frame
        self.actions: list[Any] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        return self.observation, {}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        self.actions.append(action)
        return self.observation, self.reward, False, False, {}

    def render(self) -> Any:
        return self.frame


LARGEST = float(np.finfo(np.float32).max)
PAIR = spaces.Box(-2.0, 2.0, (2,), np.float32)


@pytest.mark.parametrize(
    ("space", "observation", "vector"),
    [
        pytest.param(PAIR, [0.5, 1.0], [0.5, 1.0], id="a list"),
        pytest.param(PAIR, np.array([0.5, 1.0]), [0.5, 1.0], id="float64"),
        pytest.param(spaces.Box(-np.inf, np.inf, (2,), np.float64), (0.5, 1.0), [0.5, 1.0], id="a tuple for float64"),
        pytest.param(spaces.Box(-LARGEST, LARGEST, (2,), np.float32), np.ones(2, np.float32), [1, 1], id="bounds of float32"),
        pytest.param(spaces.Box(-1e300, 1e300, (1,), np.float64), np.ones(1), [1], id="bounds beyond float32"),
        pytest.param(spaces.Box(0, 9, (2, 2), np.float32), [[1, 2], [3, 4]], [1, 2, 3, 4], id="a matrix"),
        pytest.param(spaces.Discrete(4), 2, [0, 0, 1, 0], id="discrete"),
        pytest.param(
            spaces.Dict({"a": spaces.Discrete(2), "b": PAIR}), {"b": [0.5, 1.0], "a": np.int32(1)}, [0, 1, 0.5, 1], id="nested"
        ),
    ],
)
def test_observations_are_vectors_of_float32(space: gym.Space, observation: Any, vector: list[float]) -> None:
    env = UniformEnv(Odd(space, observation), "odd")
    for seen in (env.reset()[0], env.step(0)[0]):
        assert (type(seen), seen.dtype, seen.tolist()) == (np.ndarray, np.float32, vector)
    assert env.observation_space.shape == (len(vector),)
    assert env.observation_space.dtype == np.float32


def test_an_observation_is_not_changed_by_the_next_step() -> None:
    inner = Odd(PAIR, np.zeros(2, np.float32))
    seen, _ = UniformEnv(inner, "odd").reset()
    inner.observation += 1
    assert seen.tolist() == [0, 0]


@pytest.mark.parametrize("action", [1, np.int32(1), np.array(1), np.int64(1)])
def test_an_action_has_the_declared_type_wherever_it_comes_from(action: Any) -> None:
    """From RLlib, a policy that was loaded, and the record of a resumed trial."""
    env = Odd(PAIR, [0, 0])
    UniformEnv(env, "odd").step(action)
    assert (type(env.actions[0]), env.actions[0]) == (np.int64, 1)


def test_a_continuous_action_has_the_declared_type() -> None:
    env = Odd(PAIR, [0, 0])
    env.action_space = spaces.Box(-1, 1, (2,), np.float32)
    UniformEnv(env, "odd").step([0.5, 1])
    assert (env.actions[0].dtype, env.actions[0].tolist()) == (np.float32, [0.5, 1])


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (Odd(PAIR, [0, 0], reward=float("nan")), "environment odd, step 2 of an episode, action 1: its reward is nan"),
        (
            Odd(PAIR, [0, 0], reward=float("-inf")),
            "step 2 of an episode, action 1: its reward is -inf: expected a finite number",
        ),
        (Odd(PAIR, [0, 0], reward=None), "action 1: TypeError: "),
        (Odd(PAIR, [0, 0], reward=1j), "action 1: TypeError: the reward 1j is no real number"),
        (Odd(PAIR, [0, 0], reward=np.complex64(1)), "is no real number"),
        (Odd(PAIR, [0, 0], reward=np.ones(1, np.clongdouble)), "is no real number"),
        (Odd(PAIR, [0, 0], reward=torch.ones(1, dtype=torch.complex64)), "is no real number"),
    ],
)
def test_a_reward_that_cannot_be_one_is_a_fault(env: Odd, message: str) -> None:
    uniform = UniformEnv(env, "odd")
    wrong, env.reward = env.reward, 1
    uniform.reset()
    assert uniform.step(0)[1] == 1.0
    env.reward = wrong
    with pytest.raises(EnvironmentFault) as caught:
        uniform.step(1)
    assert message in str(caught.value)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "reward", [torch.tensor(0.5, requires_grad=True), np.array([[0.5]]), np.float16(0.5), Decimal("0.5"), Fraction(1, 2)]
)
def test_a_reward_may_be_any_one_number(reward: Any) -> None:
    value = UniformEnv(Odd(PAIR, [0, 0], reward=reward), "odd").step(0)[1]
    assert (type(value), value) == (float, 0.5)


@pytest.mark.parametrize(
    ("observation", "message"),
    [
        (
            [0, 0, 0],
            "it observed an array of shape (3,): expected (2,); its observation space is Box(-2.0, 2.0, (2,), float32)",
        ),
        ([0, np.nan], "it observed [0, nan]: expected finite numbers"),
        ([0, 1e300], "it observed 1e+300, which is beyond float32"),
        (["left", "right"], "it observed list ['left', 'right']: expected numbers"),
    ],
)
def test_an_observation_that_does_not_fit_is_a_fault(observation: Any, message: str) -> None:
    with pytest.raises(EnvironmentFault) as caught:
        UniformEnv(Odd(PAIR, observation), "odd").reset()
    assert str(caught.value).startswith("environment odd, reset: ")
    assert message in str(caught.value)


class Raising(Odd):
    error: BaseException = FileNotFoundError("no robot.xml:\n  looked in /robots")

    def raise_error(self, *_: Any, **__: Any) -> Any:
        raise self.error


class NoException(BaseException):
    pass


@pytest.mark.parametrize("error", [CancelledError(), GeneratorExit(), SystemExit(), NoException()])
@pytest.mark.parametrize("method", ["reset", "step", "render"])
def test_an_error_that_is_no_exception_is_a_fault_too(method: str, error: BaseException) -> None:
    env = Raising(PAIR, [0, 0])
    env.error = error
    uniform = UniformEnv(env, "odd")
    setattr(env, method, env.raise_error)
    with pytest.raises(EnvironmentFault, match=f"environment odd, .*: {type(error).__name__}$"):
        getattr(uniform, method)(*[0] * (method == "step"))


def test_an_interruption_is_none_of_the_environments_faults() -> None:
    env = Raising(PAIR, [0, 0])
    env.error, env.reset = KeyboardInterrupt(), env.raise_error  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        UniformEnv(env, "odd").reset()


@pytest.mark.parametrize(
    ("method", "where"),
    [
        ("reset", "reset"),
        ("step", "step 1 of an episode, action 2"),
        ("render", "drawing the state after step 1 of an episode"),
    ],
)
def test_an_error_is_told_in_the_environments_own_words(method: str, where: str) -> None:
    env = Raising(PAIR, [0, 0], frame=np.zeros((8, 8, 3), np.uint8))
    setattr(env, method, env.raise_error)
    task = Task(name="odd", goal_prompt="", baseline_prompt="", episode_steps=5, make_native_env=lambda *_: env)
    made = task.make_env(FrameFormat(4))

    def one_step() -> None:
        made.reset()
        made.step(2)

    with pytest.raises(EnvironmentFault) as caught:
        one_step()
    assert str(caught.value) == f"environment odd, {where}: FileNotFoundError: no robot.xml: looked in /robots"


def cannot_be_made(*_: Any) -> gym.Env:
    raise FileNotFoundError("no robot.xml:\n  looked in /robots")


def test_an_environment_that_cannot_be_made_says_why() -> None:
    task = Task(name="odd", goal_prompt="", baseline_prompt="", episode_steps=5, make_native_env=cannot_be_made)
    for make in (lambda: task.make_env(None), task.make_pictured_env):
        with pytest.raises(
            EnvironmentFault, match=r"^environment odd cannot be made: FileNotFoundError: no robot\.xml: looked in"
        ):
            make()


@pytest.mark.parametrize(
    ("frame", "found"),
    [
        (None, "NoneType"),
        (np.zeros((8, 8), np.uint8), "uint8 (8, 8)"),
        (np.zeros((8, 8, 3)), "float64 (8, 8, 3)"),
        (np.zeros((0, 8, 3), np.uint8), "uint8 (0, 8, 3)"),
    ],
)
def test_what_is_no_frame_is_a_fault(frame: Any, found: str) -> None:
    env = UniformEnv(Odd(PAIR, [0, 0], frame=frame), "odd")
    env.reset()
    with pytest.raises(EnvironmentFault) as caught:
        env.render()
    assert str(caught.value).endswith(f"it drew no frame: expected uint8 (height, width, 3), got {found}")


def test_what_cannot_be_a_vector_is_refused() -> None:
    with pytest.raises(UserError, match="cannot be made one vector"):
        UniformEnv(Odd(spaces.Sequence(spaces.Discrete(2)), ()), "odd")


def test_frames_of_an_environment_that_draws_into_the_same_array_stay_apart() -> None:
    canvas = np.zeros((8, 8, 3), np.uint8)
    env = UniformEnv(Odd(PAIR, [0.0, 0.0], frame=canvas), "odd")
    first = env.render()
    canvas[:] = 9
    assert not first.any()
    assert env.render().all()


def test_frames_of_several_sizes_are_a_fault() -> None:
    odd = Odd(PAIR, [0.0, 0.0], frame=np.zeros((8, 8, 3), np.uint8))
    env = UniformEnv(odd, "odd")
    env.render()
    odd.frame = np.zeros((8, 9, 3), np.uint8)
    with pytest.raises(EnvironmentFault, match=r"it drew a frame of shape \(8, 9, 3\) after one of \(8, 8, 3\)"):
        env.render()
