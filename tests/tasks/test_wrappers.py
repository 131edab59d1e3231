"""The wrappers of an environment in a sweep file."""

import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
from pydantic import ValidationError

from vlm_rm_sweeps.errors import UserError, expectation
from vlm_rm_sweeps.frames import FrameFormat
from vlm_rm_sweeps.tasks.gym_task import GymEnv, make_task

OWN = """
import gymnasium as gym

class Slower(gym.ActionWrapper):
    def __init__(self, env, factor):
        super().__init__(env)
        self.factor = factor

    def action(self, action):
        return action * self.factor

NO_WRAPPER = 3

def __getattr__(name):
    if name == "Lazy":
        import no_such_package
    if name == "Broken":
        raise SystemExit("no licence")
    raise AttributeError(name)
"""


def pendulum(*wrappers: Any, **settings: Any) -> GymEnv:
    return GymEnv(id="Pendulum-v1", episode_steps=9, wrappers=wrappers, **settings)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "own_wrappers.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_wrappers", raising=False)
    return "own_wrappers"


def test_wrappers_are_applied_in_their_order() -> None:
    stacked = {"name": "FrameStackObservation", "kwargs": {"stack_size": 2}}
    env = make_task(pendulum(stacked, "FlattenObservation", success="obs[5] != obs[2]")).make_env(FrameFormat(16))
    assert env.observation_space.shape == (6,)
    first, _ = env.reset(seed=0)
    second, *_, info = env.step([0.0])
    assert second[:3].tolist() == first[3:].tolist()
    assert info["success"] is True
    with pytest.raises(UserError, match="FrameStackObservation"):
        make_task(pendulum({"name": "FrameStackObservation", "kwargs": {"stack_size": 0}}))


def test_a_wrapper_makes_a_picture_learnable() -> None:
    picture = GymEnv(
        id="CarRacing-v3",
        episode_steps=2,
        wrappers=("GrayscaleObservation", "FlattenObservation"),
    )
    assert make_task(picture).make_env(None).observation_space.shape == (96 * 96,)


def test_a_wrapper_of_ones_own(own: str) -> None:
    env = pendulum({"name": f"{own}:Slower", "kwargs": {"factor": 0.0}})
    slowed, still, free = (each.make_env(None) for each in (make_task(env), make_task(pendulum()), make_task(pendulum())))
    for each in (slowed, still, free):
        each.reset(seed=0)
    assert slowed.step([2.0])[0].tolist() == still.step([0.0])[0].tolist() != free.step([2.0])[0].tolist()


def test_data_imports_no_wrapper_that_the_user_has_not_named(own: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint's description has the wrappers, too."""
    monkeypatch.setattr("vlm_rm_sweeps.registry._trusted_modules", set())
    env = pendulum({"name": f"{own}:Slower", "kwargs": {"factor": 0.5}})
    with pytest.raises(UserError, match=r"wrapper 'own_wrappers:Slower' is named by data.*--module own_wrappers\.py"):
        env.task().make_env(None)
    assert own not in sys.modules
    make_task(env)
    assert isinstance(env.task().make_env(None), gym.Wrapper)


@pytest.mark.parametrize(
    ("wrapper", "part"),
    [
        ("FlatenObservation", "unknown wrapper 'FlatenObservation': did you mean 'FlattenObservation'?"),
        ("NormalizeObservation", "its running statistics belong to one environment"),
        ("TimeLimit", "set episode_steps"),
        ("own_wrappers:Lazy", "'own_wrappers:Lazy' needs a package that is not installed: No module named 'no_such_package'"),
        ("own_wrappers:Broken", "'own_wrappers:Broken' cannot be imported: SystemExit: no licence"),
        ("own_wrappers:Slow", "unknown name in own_wrappers 'Slow': did you mean 'Slower'?"),
        ("no_such_module:Wrapper", "there is no module 'no_such_module'"),
        ({"name": "RescaleAction", "kwargs": {"low": 0}}, "RescaleAction with kwargs {'low': 0} does not fit"),
        ("own_wrappers:NO_WRAPPER", "expected a subclass of gymnasium.Wrapper"),
        ({"kwargs": {}}, "Field required"),
    ],
)
def test_what_cannot_work_is_one_message(own: str, wrapper: Any, part: str) -> None:
    with pytest.raises((UserError, ValidationError)) as caught:
        make_task(pendulum(wrapper))
    assert part in str(caught.value)


def test_a_name_alone_is_no_list() -> None:
    with pytest.raises(ValidationError, match=r"expected a list, such as \[FlattenObservation\]"):
        GymEnv(id="Pendulum-v1", episode_steps=9, wrappers="FlattenObservation")


def test_more_wrappers_than_calls_may_be_deep_are_refused() -> None:
    assert len(pendulum(*["ClipAction"] * 100).wrappers) == 100
    with pytest.raises(ValidationError) as caught:
        pendulum(*["FlattenObservation"] * 101)
    assert [expectation(problem) for problem in caught.value.errors()] == ["expected at most 100 of them"]
