"""Any Gymnasium environment as a task: the `env` of a sweep file.

`GymEnv` is the schema, which checks only the text of the file. `make_task` makes the environment, takes some steps and draws a
frame, so that every mistake is reported before anything starts.
"""

import ast
import inspect
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, ClassVar, SupportsFloat

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import load_env_creator
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from vlm_rm_sweeps.errors import PASSED_ON, UserError, shown, unknown_name
from vlm_rm_sweeps.formulas import Formula
from vlm_rm_sweeps.frames import FrameFormat
from vlm_rm_sweeps.metrics import INFO_SUCCESS
from vlm_rm_sweeps.process_defaults import prepare_pygame
from vlm_rm_sweeps.registry import import_module, refuse_untrusted
from vlm_rm_sweeps.tasks.env_check import Step, check_env, closed_after, indicated_values, waiting_told
from vlm_rm_sweeps.tasks.opengl import choose_backend
from vlm_rm_sweeps.tasks.rendering import Profile, Rendering, machine_profile
from vlm_rm_sweeps.tasks.task import Task
from vlm_rm_sweeps.tasks.uniform_env import in_one_line
from vlm_rm_sweeps.tasks.wrappers import FindWrapper, Kwargs, WrapperSettings, known_wrapper, named_wrapper, wrapped

_MUJOCO_SIZE = 480
"""Edge in pixels of the frames that Gymnasium's MuJoCo environments draw by default."""
MOST_WRAPPERS = 100
"""Each wrapper is some calls deeper in each step, and Python's depth of calls has an end."""

_Wrappers = Annotated[tuple[str | WrapperSettings, ...], Field(max_length=MOST_WRAPPERS)]
"""As a sweep file may have them: a name stands for a wrapper without arguments."""


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
    kwargs: Kwargs = Field({}, description="Further arguments of the environment.")
    episode_steps: int = Field(gt=0, description="Steps of each episode.")
    wrappers: tuple[WrapperSettings, ...] = Field(
        (),
        max_length=MOST_WRAPPERS,
        description="Wrappers, the innermost first: names in gymnasium.wrappers or `module:Class`, with arguments as name and kwargs.",
    )
    success: str | None = Field(
        None, description="Whether a step's state is in the goal, such as `obs[0] > 0.9`; false where it has no value."
    )
    camera: Camera | None = Field(None, description="Where a MuJoCo environment is seen from.")

    @field_validator("wrappers", mode="before", json_schema_input_type=_Wrappers)
    @classmethod
    def _names_alone(cls, wrappers: Any) -> Any:
        if not isinstance(wrappers, list | tuple):
            raise UserError("expected a list, such as [FlattenObservation]")
        return [{"name": each} if isinstance(each, str) else each for each in wrappers]

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

    def task(self, find_wrapper: FindWrapper = known_wrapper) -> Task:
        """Describe the task without making the environment, which `make_task` does.

        Args:
            find_wrapper: Finds the wrappers when the environment is made. By default modules that only data names are not
                imported.

        Returns:
            The task. Its prompts are empty, because the sweep file lists them, and it has no state space.
        """
        return Task(
            name=self.id,
            goal_prompt="",
            baseline_prompt="",
            success_criterion=self.success,
            episode_steps=self.episode_steps,
            make_native_env=partial(_make_native_env, self, find_wrapper),
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
    """Make the task of an environment, after checking some steps and a frame.

    Args:
        env: The environment, as the user's sweep file describes it.

    Returns:
        The task, see `GymEnv.task`.

    Raises:
        UserError: There is no such environment, it cannot be made, learned or drawn here, does not do what its spaces say, or
            its success test cannot be evaluated.
    """
    if ":" in env.id:
        # Gymnasium would import it, too, but its errors would be taken for those of the environment.
        try:
            import_module(env.id.rpartition(":")[0])
        except UserError as error:
            raise UserError(f"{env.id}: {error}") from error
    with waiting_told(env.id, "making it"):
        made = _make_drawn(env, named_wrapper, machine_profile(), None)
    is_success = env.success_test()

    def evaluate_success(step: Step) -> None:
        if is_success is not None:
            is_success(made.observation_space, step[0], step[1], step[4])

    remarks: list[str] = []
    with closed_after(made, env.id):
        check_env(made, env.id, visit=evaluate_success)
        if is_success is not None:
            remarks = is_success.remarks(made.observation_space)
    return replace(env.task(named_wrapper), remarks=tuple(remarks))


def _make_native_env(
    config: GymEnv, find_wrapper: FindWrapper, rendering: Rendering, frame_format: FrameFormat | None
) -> gym.Env:
    return FixedLength(_make_drawn(config, find_wrapper, rendering.profile, frame_format), config.success_test())


def _make_drawn(config: GymEnv, find_wrapper: FindWrapper, profile: Profile, frame_format: FrameFormat | None) -> gym.Env:
    # Imported here, because it imports MuJoCo, which reading a sweep file must not.
    from vlm_rm_sweeps.tasks.gym_mujoco import MujocoFrames
    from vlm_rm_sweeps.tasks.mujoco_import import MujocoEnv

    env = _make(config)
    if isinstance(env.unwrapped, MujocoEnv) and not {"width", "height"} & config.kwargs.keys():
        env = MujocoFrames(env, config.model_dump_json(), frame_format.size if frame_format else _MUJOCO_SIZE, profile)
    return wrapped(env, config.wrappers, find_wrapper)


class SuccessTest:
    """A success test written as a safe expression: arithmetic, comparisons, `and`, `or`, `not` and a few functions.

    `obs[i]` are the numbers of the observation after the step (flattened if it is nested; of a Discrete, `obs[i]` is 1 for its
    value i and else 0), `reward` is the environment's reward and `info['x']` one of its further outputs. The test is false in a
    state for which the expression has no value (a division by 0, the root of a negative number).

    Args:
        expression: The expression, such as `obs[0] > 0.9`.

    Raises:
        UserError: The expression cannot be parsed, uses a name or function that does not exist, or has an index of `obs` that is no
            whole number.
    """

    FUNCTIONS: ClassVar[dict[str, Callable[..., Any]]] = {
        "abs": abs,
        "min": min,
        "max": max,
        "sqrt": math.sqrt,
        "sin": math.sin,
        "cos": math.cos,
    }
    NAMES: ClassVar[tuple[str, ...]] = ("obs", "reward", "info", "pi")

    def __init__(self, expression: str) -> None:
        self._shown = shown(expression)
        try:
            self._formula = Formula(expression, self.FUNCTIONS, self.NAMES)
            self._indices = [index for node in ast.walk(self._formula.parsed) if (index := _index_of(node)) is not None]
        except UserError as error:
            raise UserError(
                f"success {self._shown} is no expression ({error}): expected one such as 'obs[0] > 0.9', of obs[i], reward, info['x'], "
                f"pi and the functions {', '.join(self.FUNCTIONS)}"
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
            UserError: The expression uses what does not exist in `obs` or `info`, or its value is not a boolean.
        """
        numbers = np.asarray(gym.spaces.flatten(space, observation), np.float64).tolist()
        try:
            value = self._formula({"obs": numbers, "reward": float(reward), "info": info, "pi": math.pi})
        except UserError as error:
            known = (
                f"expected obs[0] to obs[{len(numbers) - 1}], reward, pi, "
                + "".join(f"info[{shown(key)}], " for key in info)
                + f"and the functions {', '.join(self.FUNCTIONS)}"
            )
            raise UserError(f"success {self._shown}: {error}: {known}") from error
        if value is None:
            return False
        if not isinstance(value, bool | np.bool_):
            raise UserError(f"success {self._shown} is {shown(value)}, not true or false: expected a comparison")
        return bool(value)

    def remarks(self, space: gym.Space) -> list[str]:
        """Say what `obs[i]` means where it is not a value, but the indicator of one, and is compared with a number.

        Args:
            space: The environment's observation space.

        Returns:
            A remark for each such `obs[i]`.

        Raises:
            UserError: It is compared with a number other than 0 and 1 and those between: all states have the same result. Or there
                is no `obs[i]` for one i that the expression names, also where no step has reached it yet.
        """
        indicated = indicated_values(space)
        for index in self._indices:
            if not -len(indicated) <= index < len(indicated):
                raise UserError(
                    f"success {self._shown}: obs[{index}] does not exist: expected obs[0] to obs[{len(indicated) - 1}]"
                )
        remarks: dict[str, None] = {}
        for index, number in _compared_numbers(self._formula.parsed):
            value = indicated[index]
            if value is None:
                continue
            meaning = f"of {shown(space)}, obs[{index}] is 1 while the value is {value}, and else 0"
            if not 0 <= number <= 1:
                raise UserError(
                    f"success {self._shown}: obs[{index}] is never {number:g}: {meaning}; expected `obs[i] == 1` for the i that stands "
                    "for the value"
                )
            remarks[f"success {self._shown}: {meaning}"] = None
        if not remarks and any(value is not None for value in indicated) and _reckons_with_observations(self._formula.parsed):
            return [
                f"success {self._shown}: of {shown(space)}, each obs[i] is 1 while the value is the i-th, and else 0: sums and other "
                "arithmetic with obs[i] are not those of the value"
            ]
        return list(remarks)


def _compared_numbers(expression: ast.AST) -> Iterator[tuple[int, float]]:
    """Yield i and the number of each comparison of `obs[i]` with a number."""
    for node in ast.walk(expression):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            for one, other in itertools.pairwise(sides):
                for part, number in ((_index_of(one), _constant(other)), (_index_of(other), _constant(one))):
                    if part is not None and number is not None:
                        yield part, number


def _reckons_with_observations(expression: ast.AST) -> bool:
    """Whether `obs` is used otherwise than as `obs[i]` that is compared with a number."""
    uses = sum(isinstance(node, ast.Name) and node.id == "obs" for node in ast.walk(expression))
    return uses > sum(1 for _ in _compared_numbers(expression))


def _index_of(node: ast.AST) -> int | None:
    """Return i of `obs[i]`; None for anything else, and for an i that is computed."""
    if not (isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id == "obs"):
        return None
    index = node.slice.value if isinstance(node.slice, ast.Constant) else _constant(node.slice)
    if index is None:
        return None
    if type(index) is not int:
        raise UserError(f"obs[{index!r}]: expected a whole number as index")
    return index


def _constant(node: ast.AST) -> float | None:
    """Return a number that is written out, with or without a sign; None for anything else."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        positive = _constant(node.operand)
        return None if positive is None else -positive
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, int | float) else None


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
    except PASSED_ON:
        raise
    except BaseException as error:  # for arguments that it refuses
        raise UserError(_refused(config, error)) from error
    _place_camera(config, env)
    return env


def _place_camera(config: GymEnv, env: gym.Env) -> None:
    from vlm_rm_sweeps.tasks.gym_mujoco import check_camera, place_camera  # MuJoCo, as above
    from vlm_rm_sweeps.tasks.mujoco_import import MujocoEnv

    check_camera(env, config.kwargs.get("camera_name"))
    # Other packages' environments draw with Gymnasium's renderer too.
    if hasattr(env.unwrapped, "mujoco_renderer"):
        choose_backend()
    if isinstance(env.unwrapped, MujocoEnv):
        place_camera(env.unwrapped, config.camera.settings() if config.camera else None)
    elif config.camera:
        raise UserError(f"camera: {config.id} has none that can be placed: expected a MuJoCo environment, or no `camera`")


def _unknown_id(env_id: str, error: Exception) -> str:
    if isinstance(error, gym.error.NamespaceNotFound):
        return f"{error}: install the package that has this environment, and name it as `module:{env_id}`"
    known = [name for name in gym.registry if not name.startswith("vlm-rm/")]
    hint = "; an environment of another package is named `module:Name-v0`, the module being the one that registers it"
    return f"{error}" if env_id in known else unknown_name("environment", env_id, known, hint)


def _arguments(env_id: str) -> list[str]:
    """Return the names of an environment's arguments; none if it does not tell them."""
    try:
        # `module:Name-v0` is registered under the name without the module.
        entry_point: Any = gym.spec(env_id.rpartition(":")[2]).entry_point
        creator = entry_point if callable(entry_point) else load_env_creator(entry_point)
        return [name for name in inspect.signature(creator).parameters if name not in ("self", "render_mode", "kwargs")]
    except KeyboardInterrupt:
        raise
    except BaseException:  # its entry point may be what is wrong, or does not say what it takes
        return []


def _refused(config: GymEnv, error: BaseException) -> str:
    known = _arguments(config.id)
    reason = in_one_line(error).partition(" was raised from the environment creator")[0]
    if "argument 'render_mode'" in reason:
        return f"{config.id} does not draw frames (rgb_array): {reason}"
    return f"{config.id} cannot be made with kwargs {config.kwargs!r}: {reason}; " + (
        f"its arguments are {', '.join(known)}" if known else "is its class there, and which arguments does it take?"
    )
