"""Gymnasium's own environments as tasks: what is drawn and rewarded, episodes that end early, and every mistake's one message."""

import datetime
import os
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from pydantic import ValidationError

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.frames import FrameFormat
from vlm_rm_sweeps.tasks.gym_task import FixedLength, GymEnv, SuccessTest, make_task
from vlm_rm_sweeps.tasks.rendering import Rendering

FORMAT = FrameFormat(32)


def env_of(**config: Any) -> gym.Env:
    return make_task(GymEnv(**({"episode_steps": 20} | config))).make_env(FORMAT)


def episode(env: gym.Env, seed: int = 0) -> list[tuple[Any, Any, bool, bool, dict[str, Any]]]:
    """All steps of an episode of random actions."""
    env.reset(seed=seed)
    env.action_space.seed(seed)
    steps = [env.step(env.action_space.sample())]
    while not (steps[-1][2] or steps[-1][3]):
        steps.append(env.step(env.action_space.sample()))
    return steps


@pytest.mark.parametrize(
    ("config", "observation", "actions"),
    [
        pytest.param({"id": "Pendulum-v1", "success": "obs[0] > 0.9"}, (3,), gym.spaces.Box, id="classic control"),
        pytest.param({"id": "Acrobot-v1", "success": "reward == 0"}, (6,), gym.spaces.Discrete, id="discrete actions"),
        pytest.param({"id": "LunarLander-v3", "success": "obs[6] + obs[7] == 2"}, (8,), gym.spaces.Discrete, id="box2d"),
        pytest.param(
            {"id": "LunarLander-v3", "kwargs": {"continuous": True}, "success": "obs[6] > 0"}, (8,), gym.spaces.Box, id="kwargs"
        ),
        pytest.param({"id": "Blackjack-v1", "success": "reward > 0"}, (45,), gym.spaces.Discrete, id="nested observation"),
        pytest.param(
            {
                "id": "Ant-v5",
                "episode_steps": 2,
                "success": "info['x_velocity'] > 0.5",
                "camera": {"distance": 6, "azimuth": 45},
            },
            (105,),
            gym.spaces.Box,
            id="mujoco with a camera",
        ),
    ],
)
def test_an_environment_is_a_task(
    config: dict[str, Any], observation: tuple[int], actions: type, request: pytest.FixtureRequest
) -> None:
    if "camera" in config:
        request.getfixturevalue("opengl")
    env = env_of(**config)
    assert env.observation_space.shape == observation
    assert isinstance(env.action_space, actions)
    steps = episode(env)
    assert len(steps) == config.get("episode_steps", 20)
    for seen, reward, terminated, truncated, info in steps:
        assert (seen.dtype, seen.shape) == (np.float32, observation)
        assert np.isnan(reward)
        assert not terminated
        assert truncated == (info is steps[-1][4])
        assert info.keys() == {"true_reward", "success", "frame", "render_seconds"}
        assert (info["frame"].dtype, info["frame"].shape) == (np.uint8, (32, 32, 3))
    assert np.isfinite([info["true_reward"] for *_, info in steps]).all()
    assert len({info["frame"].tobytes() for *_, info in steps}) > 1 or config["id"] == "Blackjack-v1"
    env.close()


def test_the_true_reward_and_success_are_those_of_the_step() -> None:
    steps = episode(GymEnv(id="Pendulum-v1", episode_steps=20, success="obs[0] > 0.9").task().make_env(None))
    own = gym.make("Pendulum-v1")
    for (observation, reward, *_, info), (own_observation, own_reward, *_) in zip(steps, episode(own), strict=False):
        np.testing.assert_array_equal(observation, own_observation)
        assert reward == info["true_reward"] == own_reward
        assert info["success"] == (own_observation[0] > 0.9)


def test_the_environments_own_time_limit_does_not_apply() -> None:
    assert len(episode(GymEnv(id="Pendulum-v1", episode_steps=230).task().make_env(None))) == 230


def test_without_a_test_success_is_unknown_and_not_0() -> None:
    assert "success" not in episode(env_of(id="Pendulum-v1"))[0][4]


class _Counter(gym.Env):
    """Counts to 3 and ends; must not be stepped again."""

    observation_space = gym.spaces.Box(0, 10, (1,), np.float64)
    action_space: gym.Space = gym.spaces.Discrete(2)
    count = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self.count = 0
        return np.zeros(1), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.count < 3
        self.count += 1
        return np.array([float(self.count)]), 1.0, self.count == 3, False, {}


def test_an_environment_that_ends_is_held_in_its_last_state() -> None:
    """Not stepped again; no reward is made up; success stays what it was; a reset starts afresh."""
    env = FixedLength(_Counter(), SuccessTest("obs[0] == 3 and reward == 1"))
    for _ in range(2):
        env.reset()
        steps = [env.step(0) for _ in range(5)]
        assert [observation[0] for observation, *_ in steps] == [1, 2, 3, 3, 3]
        assert [reward for _, reward, *_ in steps] == [1, 1, 1, 0, 0]
        assert not any(terminated or truncated for _, _, terminated, truncated, _ in steps)
        assert [info["success"] for *_, info in steps] == [False, False, True, True, True]


HOPPERS_CAMERA = {"distance": 3.0, "lookat": np.array((0.0, 0.0, 1.15)), "elevation": -20.0}
"""What Gymnasium's Hopper has in its configuration."""


@pytest.mark.parametrize(
    ("camera", "gymnasiums"),
    [
        pytest.param(None, {}, id="the model's own"),
        pytest.param(
            {"azimuth": 40}, {"camera_id": -1, "default_camera_config": HOPPERS_CAMERA | {"azimuth": 40.0}}, id="turned only"
        ),
    ],
)
@pytest.mark.usefixtures("opengl")
def test_mujoco_is_drawn_as_gymnasium_draws_it(camera: dict[str, Any] | None, gymnasiums: dict[str, Any]) -> None:
    """With what a sweep file's camera does not say taken from the environment's own configuration."""
    config = GymEnv(id="Hopper-v5", episode_steps=1, camera=camera)
    sized = config.model_copy(update={"kwargs": {"width": 64, "height": 64}})
    gymnasium = gym.make("Hopper-v5", render_mode="rgb_array", width=64, height=64, **gymnasiums)
    gymnasium.reset(seed=0)
    gymnasium.action_space.seed(0)
    gymnasium.step(gymnasium.action_space.sample())
    expected = np.asarray(gymnasium.render()).astype(int)
    for each in (config, sized):
        env = each.task().make_env(FrameFormat(64), Rendering(profile="full"))
        assert np.abs(episode(env)[0][4]["frame"] - expected).mean() < 0.5
        env.close()
    gymnasium.close()


@pytest.mark.usefixtures("opengl")
def test_a_picture_does_not_depend_on_when_an_environment_is_first_drawn() -> None:
    """A resumed training makes its environments anew and draws them first in the middle of an episode."""
    config = GymEnv(id="HalfCheetah-v5", episode_steps=30, camera={"distance": 5})
    early, late = (config.task().make_native_env(Rendering(profile="fast"), FrameFormat(64)) for _ in range(2))
    for env in (early, late):
        env.reset(seed=0)
        env.action_space.seed(0)
    early.render()
    for _ in range(20):
        action = early.action_space.sample()
        early.step(action)
        late.step(action)
    np.testing.assert_array_equal(early.render(), late.render())
    early.close()
    late.close()


@pytest.mark.usefixtures("opengl")
def test_a_camera_moves_the_picture() -> None:
    near, far = (
        episode(env_of(id="Ant-v5", episode_steps=1, camera={"distance": distance}))[0][4]["frame"] for distance in (2, 12)
    )
    assert np.abs(near.astype(int) - far).mean() > 2


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("sqrt(obs[0] - 2) >= 0", [False, True, True]),
        ("(obs[0] - 2) ** 0.5 >= 0", [False, True, True]),
        ("1 / (obs[0] - 2) > 0", [False, False, True]),
        ("not 1 / (obs[0] - 2) > 0", [True, False, False]),
        ("10.0 ** (400 * obs[0] - 1000) < 1", [True, True, False]),
    ],
)
def test_where_the_success_expression_has_no_value_there_is_no_success(expression: str, expected: list[bool]) -> None:
    env = FixedLength(_Counter(), SuccessTest(expression))
    env.reset()
    assert [env.step(0)[4]["success"] for _ in range(3)] == expected


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("obs[0] < 2 or info['y'] > 1", r"success \"obs\[0\] < 2 or info\['y'\] > 1\": info has no 'y'"),
        ("obs[0] < 2 or obs[7] > 1", "index out of range: expected obs"),
        ("obs[0] < 2 or obs[0]", "is 2.0, not true or false"),
    ],
)
def test_an_expression_that_only_fails_in_a_later_state_is_named(expression: str, message: str) -> None:
    env = FixedLength(_Counter(), SuccessTest(expression))
    env.reset()
    env.step(0)
    with pytest.raises(UserError, match=message):
        env.step(0)


@pytest.mark.parametrize(
    ("config", "parts"),
    [
        pytest.param({"id": "Pendulm-v1"}, ["unknown environment 'Pendulm-v1'", "did you mean 'Pendulum-v1'?"], id="misspelt"),
        pytest.param(
            {"id": "nomodule:Foo-v0"}, ["nomodule:Foo-v0", "there is no module 'nomodule'", "installed"], id="no such module"
        ),
        pytest.param({"id": "phys2d/Pendulum-v0"}, ["phys2d/Pendulum-v0", "'jax'", "install"], id="extra not installed"),
        pytest.param({"id": "Pendulum v1!"}, ["'Pendulum v1!' cannot be made", "Malformed"], id="not even a name"),
        pytest.param({"id": "json:Pendulum-v1", "kwargs": {"foo": 1}}, ["'foo'", "its arguments are g"], id="of a module"),
        pytest.param({"id": "Hopper-v2"}, ["Hopper-v2", "gymnasium-robotics"], id="environment that moved away"),
        pytest.param({"kwargs": {"foo": 1}}, ["kwargs {'foo': 1}", "its arguments are g"], id="unknown argument"),
        pytest.param(
            {"id": "LunarLander-v3", "kwargs": {"gravity": 3}},
            ["{'gravity': 3}", "between -12 and 0"],
            id="argument out of range",
        ),
        pytest.param({"kwargs": {"render_mode": "human"}}, ["render_mode cannot be set"], id="argument that is ours"),
        pytest.param({"camera": {"distance": 2}}, ["camera", "expected a MuJoCo environment"], id="camera where there is none"),
        pytest.param(
            {"id": "HalfCheetah-v5", "kwargs": {"camera_name": "trakc"}},
            ["camera_name = 'trakc'", "expected one of 0 (track)"],
            id="camera that is not there",
        ),
        pytest.param(
            {"id": "HalfCheetah-v5", "kwargs": {"camera_id": 7}},
            ["camera_id = 7", "0 (track), or -1"],
            id="camera beyond the last",
        ),
        pytest.param({"success": "'%1999999999d' % 1 == ''"}, ["is no number"], id="format to any length"),
        pytest.param({"success": "obs * 1999999999 == obs"}, ["is no number"], id="repeated to any length"),
        pytest.param({"success": "+".join(["obs[0]"] * 3000) + " > 0"}, ["expected at most 2,000"], id="too long"),
        pytest.param({"id": "CarRacing-v3"}, ["are pictures", "a vector"], id="pixels as observation"),
        pytest.param({"success": "obs[0] >"}, ["'obs[0] >' is no expression"], id="syntax error"),
        pytest.param({"success": ""}, ["'' is no expression"], id="empty expression"),
        pytest.param({"success": "a = 1"}, ["is no expression"], id="assignment"),
        pytest.param({"success": "theta > 1"}, ["unknown name 'theta'", "obs[i], reward, info['x'], pi"], id="unknown name"),
        pytest.param({"success": "exp(obs[0]) > 1"}, ["unknown function 'exp'", "sqrt"], id="unknown function"),
        pytest.param({"success": "reward < 9 or nope > 3"}, ["unknown name 'nope'"], id="unknown name that no step reaches"),
        pytest.param(
            {"success": "reward < 9 or obs[-77] > 3"},
            ["obs[-77] does not exist", "obs[0] to obs[2]"],
            id="index that no step reaches",
        ),
        pytest.param({"success": "reward > 9 and obs[1.0] > 3"}, ["obs[1.0]: expected a whole number"], id="broken index"),
        pytest.param(
            {"success": "reward > 9 and obs[True] > 3"}, ["obs[True]: expected a whole number"], id="no number as index"
        ),
        pytest.param({"success": "reward > 9 and obs[-1e999] > 3"}, ["'1e999' is too large"], id="infinite index"),
        pytest.param({"success": f"obs[0] < 1{'0' * 400}"}, ["is too large: expected at most 1.798e+308"], id="huge number"),
        pytest.param({"success": "obs[3] > 1"}, ["index out of range", "obs[0] to obs[2]"], id="index too large"),
        pytest.param({"success": "info['x'] > 1"}, ["info has no 'x'"], id="unknown info"),
        pytest.param({"success": "obs > 1"}, ["'>' not supported", "obs[0] to obs[2]"], id="list compared"),
        pytest.param({"success": "obs[0]"}, ["not true or false", "a comparison"], id="no comparison"),
        pytest.param({"success": "obs.clear() or True"}, ["attribute access not allowed"], id="method"),
        pytest.param({"success": "__import__('os') == ''"}, ["unknown function '__import__'"], id="import"),
        pytest.param({"success": "().__class__ == 1"}, ["attribute access not allowed"], id="dunder"),
    ],
)
def test_bad_input_gets_one_message(config: dict[str, Any], parts: list[str]) -> None:
    message = refusal(config)
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("success", "remarks"),
    [
        ("obs[0] == 1", ["obs[0] is 1 while the value is 0, and else 0"]),
        ("obs[-1] > 0 or obs[2] == 1", ["obs[-1] is 1 while the value is 15", "obs[2] is 1 while the value is 2"]),
        ("reward > 0", []),
    ],
)
def test_what_a_number_of_a_discrete_observation_means_is_said(success: str, remarks: list[str]) -> None:
    task = make_task(GymEnv(id="FrozenLake-v1", episode_steps=9, success=success))
    assert len(task.remarks) == len(remarks)
    assert all(part in said for part, said in zip(remarks, task.remarks, strict=True))


def refusal(config: dict[str, Any]) -> str:
    """The one message for a mistake, found in the text or by making the environment."""
    with pytest.raises((ValidationError, UserError)) as caught:
        make_task(GymEnv(**({"id": "Pendulum-v1", "episode_steps": 20} | config)))
    if isinstance(caught.value, UserError):
        return str(caught.value)
    assert isinstance(caught.value, ValidationError)
    assert caught.value.error_count() == 1
    return caught.value.errors()[0]["msg"]


def test_reading_a_description_makes_no_environment() -> None:
    """So that a checkpoint's task can be described where its environment is not installed; what the text tells is checked."""
    assert GymEnv(id="nomodule:Foo-v0", episode_steps=3, success="obs[9] > 1").task().episode_steps == 3
    for config in ({"success": "obs[0] >"}, {"kwargs": {"render_mode": "human"}}):
        with pytest.raises(ValidationError):
            GymEnv(**({"id": "nomodule:Foo-v0", "episode_steps": 3} | config))


@pytest.mark.parametrize(
    ("space", "part"),
    [
        (gym.spaces.MultiDiscrete([2, 3]), "expected Discrete"),
        (gym.spaces.Tuple([gym.spaces.Discrete(2)]), "expected Discrete"),
        (gym.spaces.Box(-np.inf, np.inf, (2,)), "with bounds"),
        (gym.spaces.Box(-1, 1, (2, 2)), "one axis"),
        (gym.spaces.Discrete(3, start=1), "start at 1"),
    ],
)
def test_actions_that_cannot_be_learned_are_refused(space: gym.Space, part: str) -> None:
    class Odd(_Counter):
        metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012 # Gymnasium's own name and type
        action_space = space

        def __init__(self, render_mode: str) -> None:
            self.render_mode = render_mode

    gym.register("test-odd-v0", entry_point=lambda **kwargs: Odd(**kwargs))
    with pytest.raises(UserError, match=part):
        make_task(GymEnv(id="test-odd-v0", episode_steps=5))
    gym.registry.pop("test-odd-v0")


def test_an_environment_that_does_not_draw_is_refused() -> None:
    gym.register("test-blind-v0", entry_point=lambda **kwargs: _Counter())
    with pytest.raises(UserError, match=r"does not draw frames \(rgb_array\)"):
        make_task(GymEnv(id="test-blind-v0", episode_steps=5))
    gym.registry.pop("test-blind-v0")


@pytest.mark.parametrize(
    ("kwargs", "odd"),
    [
        (
            {"healthy_z_range": [0.7, float("inf")]},
            "inf in healthy_z_range.1 cannot be stored as it is: expected texts, finite",
        ),
        ({"deep": {"er": [float("nan")]}}, "nan in deep.er.0 cannot be stored as it is"),
        ({"table": {0: 1.5, 1: 2.5}}, "the key 0 in table cannot be stored as it is"),
        ({"a": [{"b": {None: 1}}]}, "the key None in a.0.b cannot be stored"),
        ({"since": datetime.date(2020, 1, 1)}, "datetime.date(2020, 1, 1) in since cannot be stored"),
        ({"names": {"left"}}, "{'left'} in names cannot be stored"),
        ({"data": b"x"}, "b'x' in data cannot be stored"),
        ({"half": "\ud800"}, "'\\ud800' in half cannot be stored"),
    ],
)
def test_arguments_that_cannot_be_stored_are_refused(kwargs: dict[str, Any], odd: str) -> None:
    for settings in ({"kwargs": kwargs}, {"wrappers": ({"name": "ClipAction", "kwargs": kwargs},)}):
        with pytest.raises(ValidationError) as caught:
            GymEnv(id="Hopper-v5", episode_steps=20, **settings)
        assert odd in caught.value.errors()[0]["msg"]


def test_arguments_that_name_a_pipe_or_a_device_are_refused(tmp_path: Path) -> None:
    pipe = tmp_path / "robot.xml"
    os.mkfifo(pipe)
    for odd in (str(pipe), "/dev/zero"):
        for settings in ({"kwargs": {"xml_file": odd}}, {"wrappers": ({"name": "ClipAction", "kwargs": {"a": [odd]}},)}):
            with pytest.raises(ValidationError, match=f"{odd}' is neither a file nor a folder"):
                GymEnv(id="Hopper-v5", episode_steps=20, **settings)


def test_arguments_that_can_be_stored_are_told_as_they_are() -> None:
    kwargs = {"a": [1, 2.5, -0.0, True, None, "text", 10**30], "b": {"0": {"c": 1e-320}}}
    env = GymEnv(id="Hopper-v5", episode_steps=20, kwargs=kwargs)
    assert GymEnv.model_validate_json(env.model_dump_json()).kwargs == kwargs


BROKEN = {
    "raises": ("raise RuntimeError('no licence')", "Foo-v0", "module 'raises' cannot be imported: RuntimeError: no licence"),
    "missing": ("import nothing_like_it", "Foo-v0", "module 'missing' needs a package that is not installed"),
    "mistyped": (
        "import gymnasium\ngymnasium.register('Mistyped-v0', 'mistyped:Fooo')",
        "Mistyped-v0",
        "module 'mistyped' has no attribute 'Fooo'; is its class there",
    ),
    "empty": ("", "Foo-v0", "Foo"),
}


@pytest.mark.parametrize("module", BROKEN)
def test_an_environment_whose_module_is_broken_says_how(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, name, message = BROKEN[module]
    (tmp_path / f"{module}.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UserError) as refused:
        make_task(GymEnv(id=f"{module}:{name}", episode_steps=20))
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("env_id", ["./mine:Foo-v0", "a:b:c-v0", ":Foo-v0", "ALE/Pong-v5"])
def test_an_odd_id_is_one_message(env_id: str) -> None:
    with pytest.raises(UserError) as refused:
        make_task(GymEnv(id=env_id, episode_steps=20, kwargs={"gravity": 3}))
    assert env_id.rpartition(":")[2].partition("/")[0] in str(refused.value)


@pytest.mark.parametrize(
    ("success", "said"),
    [
        ("obs[0] // 4 == 3 and obs[0] % 4 == 3", True),
        ("obs[0] == 16 - 1", True),
        ("max(obs[0], obs[1]) == 15", True),
        ("reward > 0", False),
    ],
)
def test_arithmetic_with_indicators_is_said(success: str, said: bool) -> None:
    remarks = make_task(GymEnv(id="FrozenLake-v1", episode_steps=20, success=success)).remarks
    assert [remark for remark in remarks if "are not those of the value" in remark] if said else not remarks


def test_arithmetic_with_values_is_not_said() -> None:
    assert not make_task(GymEnv(id="Pendulum-v1", episode_steps=20, success="obs[0] ** 2 + obs[1] > 0.9")).remarks
