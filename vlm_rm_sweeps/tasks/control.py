"""How a policy acts on a task's environment and what it observes: the `control` of a sweep file.

Frames, success tests and state spaces are those of the environment, whatever the control.
"""

from typing import Any, Literal

import gymnasium as gym
import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from vlm_rm_sweeps.errors import UserError


class Control(BaseModel):
    """How the policy acts, and what it observes. The defaults are the environment's own, as in the paper."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    actions: Literal["torque", "position"] = Field(
        "torque",
        description="`torque`: the environment's own actions. `position`, for MuJoCo's robots: target positions of the joints, within "
        "their ranges.",
    )
    kp: float = Field(
        6.0, gt=0, description="With `position`: control for each radian (or metre) between a joint and its target."
    )
    kd: float = Field(0.05, ge=0, description="With `position`: control against each radian (or metre) per second of a joint.")
    observations: Literal["full", "proprioception"] = Field(
        "full",
        description="`full`: the environment's own observations. `proprioception`, for MuJoCo's robots: of them only positions and "
        "velocities.",
    )
    action_repeat: int = Field(
        1,
        gt=0,
        le=1_000,
        description="Steps of the environment for each action. The sweep's `steps` count actions, each with one frame.",
    )

    @model_validator(mode="after")
    def _used(self) -> "Control":
        gains = [name for name in ("kp", "kd") if getattr(self, name) != type(self).model_fields[name].default]
        if self.actions == "torque" and gains:
            raise UserError(
                f"{gains[0]} {getattr(self, gains[0]):g} has no effect on torques: expected `actions: position` with it"
            )
        return self

    def around(self, env: gym.Env) -> gym.Env:
        """Wrap a task's own environment so that it is acted on and observed in this way. Actions are not repeated yet.

        Args:
            env: The environment, before its observations are made vectors.

        Returns:
            The wrapped environment; `env` itself if nothing differs.

        Raises:
            UserError: The environment's joints cannot be moved by position, or it does not tell which of its observations are
                positions and velocities.
        """
        if self.actions == "position":
            from vlm_rm_sweeps.tasks.position_actions import PositionActions  # imports MuJoCo

            env = PositionActions(env, self.kp, self.kd)
        return _proprioceptive(env) if self.observations == "proprioception" else env

    def repeating(self, env: gym.Env) -> gym.Env:
        """Wrap an environment so that each action is taken `action_repeat` times.

        Args:
            env: The environment with its time limit.

        Returns:
            The wrapped environment; `env` itself if actions are not repeated.
        """
        return env if self.action_repeat == 1 else ActionRepeat(env, self.action_repeat)


class ActionRepeat(gym.Wrapper):
    """Takes each action several times, until the episode's end at most.

    Rewards are summed up; observation, ends and `info` are those of the last step.

    Args:
        env: The environment.
        times: Steps of the environment for each action.
    """

    def __init__(self, env: gym.Env, times: int) -> None:
        super().__init__(env)
        self._times = times

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take all steps of an action."""
        total = 0.0
        for _ in range(self._times):
            observation, reward, terminated, truncated, info = self.env.step(action)
            total += float(reward)
            if terminated or truncated:
                break
        return observation, total, terminated, truncated, info


def _proprioceptive(env: gym.Env) -> gym.Env:
    # Gymnasium's MuJoCo environments of version 5 tell what their observations consist of, in order, and what is left out.
    structure: dict[str, Any] = getattr(env.unwrapped, "observation_structure", {})
    parts = [name for name in structure if not name.startswith("skipped_")]
    space = env.observation_space
    if parts[:2] != ["qpos", "qvel"] or not isinstance(space, gym.spaces.Box):
        raise UserError(
            f"observations: proprioception needs an environment whose observations begin with positions and velocities, which "
            f"{_name(env)} does not tell: expected a humanoid task or one of Gymnasium's MuJoCo environments of version 5, or "
            "`observations: full`"
        )
    kept = int(structure["qpos"]) + int(structure["qvel"])
    seen = gym.spaces.Box(space.low[:kept], space.high[:kept], dtype=space.low.dtype.type)

    def keep(observation: np.ndarray) -> np.ndarray:
        return observation[:kept]

    return gym.wrappers.TransformObservation(env, keep, seen)


def _name(env: gym.Env) -> str:
    return env.spec.id if env.spec else type(env.unwrapped).__name__
