"""The contract of a task: an environment, a sentence that describes its goal, and the ground truth about success."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Integral

import gymnasium as gym

from vlm_rm_sweeps.errors import PASSED_ON, UserError, shown, unknown_name
from vlm_rm_sweeps.frames import FrameFormat
from vlm_rm_sweeps.registry import check_methods
from vlm_rm_sweeps.tasks.control import Control
from vlm_rm_sweeps.tasks.rendering import FrameInInfo, Profile, Rendering, TrueRewardInInfo, machine_profile
from vlm_rm_sweeps.tasks.state_space import StateSpace, has_variables
from vlm_rm_sweeps.tasks.uniform_env import EnvironmentFault, UniformEnv, in_one_line

MOST_EPISODE_STEPS = 100_000
_STEPS_EXPECTED = f"a whole number from 1 to {MOST_EPISODE_STEPS:,}"


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task to learn.

    Attributes:
        name: The name by which `find_task` finds it. Sweep files, data sets and checkpoints use it.
        goal_prompt: Describes a state in the goal, such as "a humanoid robot kneeling".
        baseline_prompt: Describes any state of the environment, such as "a humanoid robot".
        episode_steps: Length of every episode, in steps of the environment.
        make_native_env: Makes the environment from its rendering and the frame format of the reward model (None if nothing is
            rendered, or only for people). `render` returns uint8 (H, W, 3) of any size, as frames are resized afterwards; an
            environment may draw them directly at the size of the frame format if that is cheaper. It has no time limit, and no
            step terminates: the end of an episode would leak the task (paper, section 4). The reward is the true one. If
            success is known, `info["success"]` is, after each step, whether the new state is in the goal.
        success_criterion: What counts as success, in words that people label states by; None if success is unknown.
        states: The state space, which data sets, landscapes and EPIC distances need; None if there is none.
        textures: Names of the scene's textures, the default first.
        cameras: Names of the scene's cameras, the default first.
        draws_with_opengl: Whether frames need OpenGL, whose availability is then checked before a sweep starts.
        control: How a policy acts, and what it observes; change it with `controlled`.
        remarks: What may surprise about it, said before a sweep starts.
    """

    name: str
    goal_prompt: str
    baseline_prompt: str
    episode_steps: int
    make_native_env: Callable[[Rendering, FrameFormat | None], gym.Env]
    success_criterion: str | None = None
    states: StateSpace | None = None
    textures: tuple[str, ...] = ("original",)
    cameras: tuple[str, ...] = ("default",)
    draws_with_opengl: bool = False
    control: Control = field(default_factory=Control)
    remarks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        steps, criterion = self.episode_steps, self.success_criterion
        prompts = {"goal_prompt": self.goal_prompt, "baseline_prompt": self.baseline_prompt}
        names = {"textures": self.textures, "cameras": self.cameras}
        for what, found, is_kept, expected in (
            ("name", self.name, _is_text(self.name), "a name, such as 'cartpole-upright'"),
            ("control", self.control, isinstance(self.control, Control), "a Control"),
            ("episode_steps", steps, isinstance(steps, Integral) and 1 <= steps <= MOST_EPISODE_STEPS, _STEPS_EXPECTED),
            ("success_criterion", criterion, criterion is None or _is_text(criterion), "the criterion in words, or None"),
            (
                "make_native_env",
                self.make_native_env,
                callable(self.make_native_env),
                "a function of rendering and frame format",
            ),
            ("states", self.states, self.states is None or has_variables(self.states), "a StateSpace with variables, or None"),
            ("draws_with_opengl", self.draws_with_opengl, isinstance(self.draws_with_opengl, bool), "true or false"),
            ("remarks", self.remarks, _are_texts(self.remarks), "a tuple of sentences"),
            # Empty for an environment that a sweep file names, with prompts of its own.
            *((each, prompt, isinstance(prompt, str), "a sentence") for each, prompt in prompts.items()),
            *(
                (each, given, given and _are_texts(given), "a tuple of names, such as ('default',)")
                for each, given in names.items()
            ),
        ):
            if not is_kept:
                raise UserError(f"task {shown(self.name)}: {what} is {shown(found)}: expected {expected}")
        if self.states is not None:
            check_methods("state space", type(self.states).__name__, type(self.states))
        if self.goal_prompt and self.goal_prompt == self.baseline_prompt:
            raise UserError(
                f"task {self.name!r}: goal_prompt and baseline_prompt are the same, {self.goal_prompt!r}: expected a baseline that "
                "describes the scene without the goal"
            )

    def rendering(self, textures: str | None = None, camera: str | None = None, profile: Profile | None = None) -> Rendering:
        """Choose a rendering of this task.

        Args:
            textures: One of `textures`; None takes the first.
            camera: One of `cameras`; None takes the first.
            profile: How much OpenGL draws; None takes this machine's, see `machine_profile`.

        Returns:
            The rendering, with textures, camera and profile set.

        Raises:
            UserError: The task has no such textures or camera.
        """
        if textures is not None and textures not in self.textures:
            raise UserError(f"task {self.name!r}: " + unknown_name("textures", textures, self.textures))
        if camera is not None and camera not in self.cameras:
            raise UserError(f"task {self.name!r}: " + unknown_name("camera", camera, self.cameras))
        return Rendering(textures or self.textures[0], camera or self.cameras[0], profile or machine_profile())

    def make_env(self, frame_format: FrameFormat | None, rendering: Rendering | None = None) -> gym.Env:
        """Make the environment for training: episodes of `episode_steps`, observed as vectors of float32.

        Args:
            frame_format: The format to which the reward model needs frames resized. With it, the `info` of each step holds a
                frame, and the reward is NaN until that frame is scored. With None nothing is rendered, and the reward is the
                true one.
            rendering: How states are drawn; None takes the first textures and the first camera.

        Returns:
            The wrapped environment, with observations float32 (D,). What it does wrong raises an EnvironmentFault.
        """
        limited: gym.Env = gym.wrappers.TimeLimit(self._made(rendering, frame_format), self.episode_steps)
        env: gym.Env = TrueRewardInInfo(self.control.repeating(limited))
        return env if frame_format is None else FrameInInfo(env, frame_format)

    def make_pictured_env(self, rendering: Rendering | None = None) -> gym.Env:
        """Make the environment for people: it draws at its own size, and has no time limit.

        Args:
            rendering: How states are drawn; None takes the first textures and the first camera.

        Returns:
            The environment, with the same actions and observations as in training.
        """
        return self.control.repeating(self._made(rendering, None))

    def native_env(self, rendering: Rendering | None = None, frame_format: FrameFormat | None = None) -> gym.Env:
        """Make the task's own environment, without any wrapper, for measurements and checks.

        Args:
            rendering: How states are drawn; None takes the first textures and the first camera.
            frame_format: See `make_native_env`.

        Returns:
            The environment.

        Raises:
            EnvironmentFault: It cannot be made, or is none.
        """
        try:
            native = self.make_native_env(rendering or self.rendering(), frame_format)
        except PASSED_ON:
            raise
        except BaseException as error:
            raise EnvironmentFault(f"environment {self.name} cannot be made: {in_one_line(error)}") from error
        if not isinstance(native, gym.Env):
            raise EnvironmentFault(
                f"environment {self.name}: make_native_env returned {shown(native)}: expected a gymnasium.Env"
            )
        return native

    def _made(self, rendering: Rendering | None, frame_format: FrameFormat | None) -> UniformEnv:
        return UniformEnv(self.control.around(self.native_env(rendering, frame_format)), self.name)

    def controlled(self, control: Control) -> "Task":
        """Return this task, acted on and observed in another way.

        Args:
            control: How a policy acts, and what it observes. Whether the environment allows it is checked when it is made.

        Returns:
            A copy with the same name; this task itself if the control is the same.
        """
        if control == self.control:
            return self
        changed = copy.copy(self)  # `dataclasses.replace` would call a user's class, which takes no arguments
        object.__setattr__(changed, "control", control)
        vars(changed).pop("action_space", None)
        return changed

    @property
    def episode_actions(self) -> int:
        """Number of actions in every episode."""
        return math.ceil(self.episode_steps / self.control.action_repeat)

    @cached_property
    def action_space(self) -> gym.Space:
        """The action space of policies."""
        env = self.make_env(None)
        env.close()
        return env.action_space

    def require_states(self) -> StateSpace:
        """Return the state space of a task that must have one.

        Returns:
            The state space.

        Raises:
            UserError: The task has none.
        """
        if self.states is None:
            raise UserError(
                f"task {self.name!r} has no described state variables, so its states cannot be sampled: expected a task with a state "
                "space, such as cartpole-upright; a task of your own gets one as `states` of its Task"
            )
        return self.states


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _are_texts(values: object) -> bool:
    return isinstance(values, tuple | list) and all(map(_is_text, values))
