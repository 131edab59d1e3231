"""An environment without any oddity, of which tests change one thing."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

PAIR = spaces.Box(-2.0, 2.0, (2,), np.float32)
PICTURE = spaces.Box(0, 255, (84, 84, 3), np.uint8)
LARGEST = float(np.finfo(np.float32).max)


class Plain(gym.Env):
    """Its observation is its position and 1; each test makes one thing of it odd."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012 # Gymnasium's own name and type
    observation_space: gym.Space = PAIR
    action_space: gym.Space = spaces.Discrete(3)

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode, self.x, self.t = render_mode, 0.0, 0

    def obs(self) -> Any:
        return np.array([self.x, 1.0], np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.t, self.x = 0, float(self.np_random.uniform(-1, 1))
        return self.obs(), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        self.x = float(np.clip(self.x + 0.1 * (np.sum(action) - 1), -2, 2))
        return self.obs(), -abs(self.x), False, False, {"x": self.x}

    def render(self) -> Any:
        return np.full((60, 80, 3), 255, np.uint8)


class LateNan(Plain):
    """Its third episode has one reward that is NaN, long after any check."""

    episodes = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self.episodes += 1
        return super().reset(seed=seed, options=options)

    def step(self, action: Any) -> Any:
        observation, reward, *others = super().step(action)
        return observation, float("nan") if self.episodes == 3 and self.t == 20 else reward, *others


gym.register("LateNan-v0", entry_point="odd_envs:LateNan")
