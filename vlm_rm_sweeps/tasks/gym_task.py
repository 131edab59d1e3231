"""Any Gymnasium environment as a task: the `env` of a sweep file.

`GymEnv` is the schema, which checks only the text of the file. `make_task` makes the environment, takes one step and draws one
frame, so that every mistake is reported before anything starts.
"""

import ast
import inspect
import math
from functools import partial
from typing import Any, ClassVar, SupportsFloat

import gymnasium as gym
import numpy as np
import simpleeval
from gymnasium.envs.registration import load_env_creator
from pydantic import BaseModel, ConfigDict, Field, model_validator

from vlm_rm_sweeps.errors import UserError, unknown_name
from vlm_rm_sweeps.frames import FrameFormat
from vlm_rm_sweeps.metrics import INFO_SUCCESS
from vlm_rm_sweeps.process_defaults import prepare_pygame
from vlm_rm_sweeps.registry import refuse_untrusted, trust
from vlm_rm_sweeps.tasks.opengl import choose_backend
from vlm_rm_sweeps.tasks.rendering import Profile, Rendering, machine_profile
from vlm_rm_sweeps.tasks.task import Task

_MUJOCO_SIZE = 480
"""Edge in pixels of the frames that Gymnasium's MuJoCo environments draw by default."""


class Camera(BaseModel):
    """A free camera for a MuJoCo environment; settings that are not given are the environment's own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    distance: float | None = Field(None, gt=0, description="Metres from the point looked at.")
    lookat: tuple[float, float, float] | None = Field(None, description="The point looked at, in metres.")
    elevation: float | None = Field(None, description="Degrees; negative looks down.")
    azimuth: float | None = Field(None, description="Degrees around the vertical.")

    def settings(self) -> dict[str, Any]:
        """Return the given settings by MuJoCo's names."""
        given: dict[str, Any] = self.model_dump(exclude_none=True)
        return given | ({"lookat": np.array(self.lookat)} if self.lookat is not None else {})


class GymEnv(BaseModel):
    """A Gymnasium environment, the length of its episodes, and its success test where there is one.

    The true reward is the environment's own. Episodes have a fixed length, because their end would leak the task (paper,
    section 4): see `FixedLength`. The environment's own time limit does not apply.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(min_length=1, description="As for gymnasium.make; `module:Name-v0` imports the module first.")
    kwargs: dict[str, Any] = Field({}, description="Further arguments of the environment.")
    episode_steps: int = Field(gt=0, description="Steps of each episode.")
    success: str | None = Field(
        None, description="Whether a step's state is in the goal, such as `obs[0] > 0.9`; false where it has no value."
    )
    camera: Camera | None = Field(None, description="Where a MuJoCo environment is seen from.")

    @model_validator(mode="after")
    def _readable(self) -> "GymEnv":
        ours = {"render_mode", "max_episode_steps", "disable_env_checker"} & self.kwargs.keys()
        if ours:
            raise UserError(f"kwargs: {', '.join(sorted(ours))} cannot be set: expected only arguments of {self.id} itself")
        self.success_test()
        return self

    def success_test(self) -> "SuccessTest | None":
        """Build the success test.

        Returns:
            The success test; None if there is none.

        Raises:
            UserError: The expression cannot be parsed.
        """
        return None if self.success is None else SuccessTest(self.success)

    def task(self) -> Task:
        """Describe the task without making the environment, which `make_task` does.

        Returns:
            The task. Its prompts are empty, because the sweep file lists them, and it has no state space.
        """
        return Task(
            name=self.id,
            goal_prompt="",
            baseline_prompt="",
            success_criterion=self.success,
            episode_steps=self.episode_steps,
            make_native_env=partial(_make_native_env, self),
        )


def known_env(env: GymEnv) -> GymEnv:
    """Check an environment that was read from data, such as a checkpoint: Gymnasium would import the module that its id names.

    Args:
        env: The environment.

    Returns:
        The same environment.

    Raises:
        UserError: Its id is `module:Name`, and the user has not named the module in this process.
    """
    if ":" in env.id:
        refuse_untrusted("environment", env.id)
    return env


def make_task(env: GymEnv) -> Task:
    """Make the task of an environment, after checking one step and one frame.

    Args:
        env: The environment, as a sweep file describes it.

    Returns:
        The task, see `GymEnv.task`.

    Raises:
        UserError: There is no such environment, it cannot be made, learned or drawn here, or its success test cannot be
            evaluated.
    """
    made = _make_drawn(env, machine_profile(), None)
    if ":" in env.id:
        trust(env.id)  # Gymnasium has imported its module, which the user named
    try:
        _check_spaces(made)
        made.reset(seed=0)
        made.action_space.seed(0)
        observation, reward, _, _, info = made.step(made.action_space.sample())
        _check_frame(env.id, made)
        is_success = env.success_test()
        if is_success is not None:
            is_success(made.observation_space, observation, reward, info)
    finally:
        made.close()
    return env.task()


def _make_native_env(config: GymEnv, rendering: Rendering, frame_format: FrameFormat | None) -> gym.Env:
    return FixedLength(_make_drawn(config, rendering.profile, frame_format), config.success_test())


def _make_drawn(config: GymEnv, profile: Profile, frame_format: FrameFormat | None) -> gym.Env:
    # Imported here, because it imports MuJoCo, which reading a sweep file must not.
    from gymnasium.envs.mujoco.mujoco_env import MujocoEnv

    from vlm_rm_sweeps.tasks.gym_mujoco import MujocoFrames

    env = _make(config)
    if not isinstance(env.unwrapped, MujocoEnv) or {"width", "height"} & config.kwargs.keys():
        return env
    return MujocoFrames(env, config.model_dump_json(), frame_format.size if frame_format else _MUJOCO_SIZE, profile)


class SuccessTest:
    """A success test written as a safe expression: arithmetic, comparisons, `and`, `or`, `not` and a few functions.

    `obs[i]` are the numbers of the observation after the step (flattened if it is nested), `reward` is the environment's reward
    and `info['x']` one of its further outputs. The test is false in a state for which the expression has no value (a division
    by 0, the root of a negative number).

    Args:
        expression: The expression, such as `obs[0] > 0.9`.

    Raises:
        UserError: The expression cannot be parsed.
    """

    FUNCTIONS: ClassVar = {"abs": abs, "min": min, "max": max, "sqrt": math.sqrt, "sin": math.sin, "cos": math.cos}

    def __init__(self, expression: str) -> None:
        self._expression = expression
        # No attributes, so that an expression calls no methods. Python's own power may return a complex number.
        operators = simpleeval.DEFAULT_OPERATORS | {ast.Pow: math.pow}
        self._evaluator = simpleeval.SimpleEval(operators, dict(self.FUNCTIONS), names={}, allowed_attrs={})
        try:
            self._parsed = ast.parse(expression.strip(), mode="eval").body
        except (SyntaxError, ValueError) as error:
            reason = error.msg if isinstance(error, SyntaxError) else error
            raise UserError(
                f"success {expression!r} is no expression ({reason}): expected one such as 'obs[0] > 0.9'"
            ) from error

    def __call__(self, space: gym.Space, observation: Any, reward: SupportsFloat, info: dict[str, Any]) -> bool:
        """Decide whether the state after a step is in the goal.

        Args:
            space: The environment's observation space.
            observation: The observation after the step.
            reward: The environment's reward for the step.
            info: The step's `info`.

        Returns:
            Value of the expression; False if it has none.

        Raises:
            UserError: The expression uses a name that does not exist, or its value is not a boolean.
        """
        numbers = np.asarray(gym.spaces.flatten(space, observation), np.float64).tolist()
        self._evaluator.names = {"obs": numbers, "reward": float(reward), "info": info, "pi": math.pi}
        try:
            value = self._evaluator.eval(self._expression, self._parsed)
        except (ArithmeticError, ValueError):
            return False
        except (simpleeval.InvalidExpression, LookupError, TypeError) as error:
            known = (
                f"expected obs[0] to obs[{len(numbers) - 1}], reward, pi, "
                + "".join(f"info[{key!r}], " for key in info)
                + f"and the functions {', '.join(self.FUNCTIONS)}"
            )
            raise UserError(f"success {self._expression!r}: {_reason(error)}: {known}") from error
        if not isinstance(value, bool | np.bool_):
            raise UserError(f"success {self._expression!r} is {value!r}, not true or false: expected a comparison")
        return bool(value)


def _reason(error: Exception) -> str:
    match error:
        case simpleeval.NameNotDefined():
            return f"unknown name {error.name!r}"
        case simpleeval.FunctionNotDefined():
            return f"unknown function {error.func_name!r}"
        case KeyError():
            return f"info has no {error}"
    return str(error)


class FixedLength(gym.Wrapper):
    """Episodes that only the task's time limit ends: an environment that has ended stays in its last state.

    Many environments must not be stepped after their end. Steps after it repeat the last observation and the last success, with
    a reward of 0; rendering draws the last state. `info` is reduced to `success`, and is empty where there is no test for it.

    Args:
        env: The environment.
        success: Its success test; None if there is none.
    """

    def __init__(self, env: gym.Env, success: SuccessTest | None) -> None:
        super().__init__(env)
        self._success = success
        self._ended_with: tuple[Any, dict[str, Any]] | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode; `info` is empty."""
        self._ended_with = None
        observation, _ = self.env.reset(seed=seed, options=options)
        return observation, {}

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Take a step, or repeat the last outcome after the environment's end."""
        if self._ended_with is not None:
            observation, outcome = self._ended_with
            return observation, 0.0, False, False, dict(outcome)
        observation, reward, terminated, truncated, info = self.env.step(action)
        outcome = {}
        if self._success is not None:
            outcome[INFO_SUCCESS] = self._success(self.env.observation_space, observation, reward, info)
        if terminated or truncated:
            self._ended_with = observation, outcome
        return observation, reward, False, False, dict(outcome)


def _make(config: GymEnv) -> gym.Env:
    """Make the environment without its time limit.

    Raises:
        UserError: It does not exist or cannot be made with these arguments.
    """
    prepare_pygame()  # it may draw with pygame
    try:
        env: gym.Env = gym.make(
            config.id,
            max_episode_steps=-1,
            disable_env_checker=True,
            render_mode="rgb_array",
            **config.kwargs,
        )
    except gym.error.DependencyNotInstalled as error:
        raise UserError(f"{config.id} needs a package that is not installed: {error}") from error
    except (gym.error.UnregisteredEnv, gym.error.DeprecatedEnv) as error:
        raise UserError(_unknown_id(config.id, error)) from error
    except gym.error.Error as error:  # such as a malformed id
        raise UserError(f"{config.id!r} cannot be made: {error}") from error
    except ModuleNotFoundError as error:
        raise UserError(f"{config.id}: {error}; install the package that has this environment") from error
    except Exception as error:  # an environment may raise any error for arguments that it refuses
        raise UserError(_refused(config, error)) from error
    _place_camera(config, env)
    return env


def _place_camera(config: GymEnv, env: gym.Env) -> None:
    from gymnasium.envs.mujoco.mujoco_env import MujocoEnv  # MuJoCo, as above

    from vlm_rm_sweeps.tasks.gym_mujoco import place_camera

    if isinstance(env.unwrapped, MujocoEnv):
        choose_backend()
        place_camera(env.unwrapped, config.camera.settings() if config.camera else None)
    elif config.camera:
        raise UserError(f"camera: {config.id} has none that can be placed: expected a MuJoCo environment, or no `camera`")


def _unknown_id(env_id: str, error: Exception) -> str:
    known = [name for name in gym.registry if not name.startswith("vlm-rm/")]
    hint = "; an environment of another package is named `module:Name-v0`, the module being the one that registers it"
    return f"{error}" if env_id in known else unknown_name("environment", env_id, known, hint)


def _refused(config: GymEnv, error: Exception) -> str:
    # `module:Name-v0` is registered under the name without the module.
    entry_point: Any = gym.spec(config.id.rpartition(":")[2]).entry_point
    creator = entry_point if callable(entry_point) else load_env_creator(entry_point)
    known = [name for name in inspect.signature(creator).parameters if name not in ("self", "render_mode", "kwargs")]
    reason = str(error).partition(" was raised from the environment creator")[0]
    if "argument 'render_mode'" in reason:
        return f"{config.id} does not draw frames (rgb_array): {reason}"
    return f"{config.id} cannot be made with kwargs {config.kwargs!r}: {reason}; its arguments are {', '.join(known) or 'none'}"


def _check_spaces(env: gym.Env) -> None:
    actions, observations = env.action_space, env.observation_space
    if isinstance(actions, gym.spaces.Discrete):
        if actions.start != 0:
            raise UserError(f"actions {actions} start at {actions.start}: expected Discrete actions from 0")
    elif not isinstance(actions, gym.spaces.Box):
        raise UserError(f"actions {actions} cannot be learned here: expected Discrete or Box")
    elif len(actions.shape) != 1 or not np.issubdtype(actions.dtype, np.floating) or not actions.is_bounded():
        raise UserError(f"actions {actions} cannot be learned here: expected a Box of one axis, of floats, with bounds")
    if isinstance(observations, gym.spaces.Box) and len(observations.shape) > 1:
        raise UserError(
            f"observations {observations} are pictures: policies here learn from states, and only the reward model sees frames; "
            "expected an environment, or arguments of it, whose observation is a vector"
        )
    if not observations.is_np_flattenable:
        raise UserError(
            f"observations {observations} cannot be made one vector: expected Box, Discrete, or a Dict or Tuple of them"
        )


def _check_frame(env_id: str, env: gym.Env) -> None:
    try:
        frame: Any = env.render()
    except gym.error.DependencyNotInstalled as error:
        raise UserError(f"{env_id} cannot be drawn: a package is not installed: {error}") from error
    except UserError:
        raise
    except Exception as error:  # an environment that cannot draw may raise any error
        raise UserError(f"{env_id} does not draw frames (rgb_array): {type(error).__name__} {error}") from error
    if not (isinstance(frame, np.ndarray) and frame.dtype == np.uint8 and frame.ndim == 3 and frame.shape[2] == 3):
        found = f"{frame.dtype} {frame.shape}" if isinstance(frame, np.ndarray) else type(frame).__name__
        raise UserError(f"{env_id} does not draw frames (rgb_array): expected uint8 (height, width, 3), got {found}")
