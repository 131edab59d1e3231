"""CartPole for reward models: the pole swings through the full circle and nothing ends the episode early."""

import math
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.envs.classic_control.cartpole import CartPoleEnv

from vlm_rm_sweeps.tasks.pygame_frames import draw, to_frame


class UprightCartPole(CartPoleEnv):
    """Gymnasium's CartPole without its early termination, which would leak the task (paper, section 4).

    Differences from `CartPole-v1`:

    - It never terminates; the task's time limit ends the episode.
    - The pole's angle is wrapped to [-pi, pi] and the cart stops at the edge of the visible track (|x| <= 2.4): a cart that has
      left the picture cannot be judged from a frame.
    - The true reward, and `info["success"]`, is whether the pole is within 12 degrees of upright: the environment's own
      threshold (`theta_threshold_radians`).
    """

    def __init__(self, render_mode: str | None = "rgb_array") -> None:
        super().__init__(render_mode=render_mode)
        high = np.array([self.x_threshold, np.inf, math.pi, np.inf], dtype=np.float32)
        self.observation_space = spaces.Box(-high, high, dtype=np.float32)

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        super().step(action)
        assert self.state is not None
        x, x_dot, theta, theta_dot = (float(value) for value in self.state)
        if abs(x) > self.x_threshold:
            x, x_dot = math.copysign(self.x_threshold, x), 0.0
        theta = math.remainder(theta, 2 * math.pi)
        self.state = np.array([x, x_dot, theta, theta_dot], dtype=np.float64)
        # Gymnasium would warn, and give no reward, once its own episode is over.
        self.steps_beyond_terminated = None
        upright = abs(theta) <= self.theta_threshold_radians
        return self.state.astype(np.float32), float(upright), False, False, {"success": upright}

    def render(self) -> np.ndarray:  # type: ignore[override]  # Gymnasium types it for all render modes
        """The frame that Gymnasium's `rgb_array` gives, uint8 (400, 600, 3), at lower cost."""
        return to_frame(draw(self, super().render))
