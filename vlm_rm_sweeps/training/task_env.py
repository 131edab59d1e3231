"""A task as RLlib's environment, registered with Gymnasium in every process that imports this module."""

import copy
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np

from vlm_rm_sweeps.frames import FrameFormat
from vlm_rm_sweeps.tasks.rendering import FrameInInfo, Rendering
from vlm_rm_sweeps.tasks.task import Task

_ID = "vlm-rm/task-v0"
ENV_ID = f"{__name__}:{_ID}"
"""Id for `gym.make`, which imports this module first: so env runners in any process find the environment."""


class ReplayableEnv(gym.Wrapper):
    """Records how its current state was reached: the random generator's state at the last reset, and the actions since.

    Args:
        env: The environment, with or without `FrameInInfo` as its outermost wrapper.
    """

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        self._seed: int | None = None
        self._rng_at_reset: Mapping[str, Any] | None = None
        self._actions: list[Any] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset the environment, and record its seed or its random generator's state."""
        # A seed replaces the generator, whose state then does not matter.
        self._rng_at_reset = None if seed is not None else copy.deepcopy(self.env.unwrapped.np_random.bit_generator.state)
        self._seed, self._actions = seed, []
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> Any:
        """Step the environment, and record the action."""
        self._actions.append(np.array(action))
        return self.env.step(action)

    def get_state(self) -> dict[str, Any]:
        """Return the record from which `set_state` restores the current state."""
        return {"seed": self._seed, "rng_at_reset": self._rng_at_reset, "actions": self._actions}

    def set_state(self, state: dict[str, Any]) -> None:
        """Replay the recorded actions to restore the environment's state, without rendering."""
        env = self.env.env if isinstance(self.env, FrameInInfo) else self.env
        if state["rng_at_reset"] is not None:
            self.env.unwrapped.np_random.bit_generator.state = state["rng_at_reset"]
        env.reset(seed=state["seed"])
        for action in state["actions"]:
            env.step(action if action.ndim else action.item())
        self._seed, self._rng_at_reset, self._actions = state["seed"], state["rng_at_reset"], list(state["actions"])


def make_task_env(task: Task, frame_format: FrameFormat | None, rendering: Rendering | None, **_: Any) -> ReplayableEnv:
    """Make one environment of a task for an env runner.

    Args:
        task: The task.
        frame_format: Size and resizing of frames; None to render none.
        rendering: How states are rendered; None for the task's default.
        **_: Gymnasium's other arguments, which are ignored.

    Returns:
        The environment, whose state can be restored in another process.
    """
    return ReplayableEnv(task.make_env(frame_format, rendering))


# Gymnasium's registry instead of RLlib's, which would add a checker to every step that warns about the NaN rewards.
gym.register(_ID, entry_point=f"{__name__}:{make_task_env.__name__}", disable_env_checker=True, order_enforce=False)
