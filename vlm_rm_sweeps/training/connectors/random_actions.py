"""Random actions before learning starts, each repeated for several steps.

Where a task needs momentum, independent random actions explore little: the car in the valley never reaches the flag, and the
policy converges to the best place that it has seen, half way up. Action repeat explores much further (see `warm_up_hold`).
"""

from typing import Any

import numpy as np
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.core.columns import Columns


class HeldRandomActions(ConnectorV2):
    """Module-to-env connector that replaces the policy's first actions by random ones between -1 and 1.

    Keep it before the connector that maps actions to their bounds: the replay buffer then holds the actions that were taken.

    Args:
        *args: Positional arguments of `ConnectorV2`.
        steps: Number of random steps, summed over all sub-environments of the env runner.
        hold: Number of steps for which each sub-environment repeats an action before the next one is drawn.
        seed: Seed of the random generator.
        **kwargs: Keyword arguments of `ConnectorV2`.
    """

    def __init__(self, *args: Any, steps: int, hold: int, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._steps, self._hold = steps, hold
        self._taken = 0
        self._held: dict[Any, tuple[np.ndarray, int]] = {}
        self.reseed(seed)

    def reseed(self, seed: int) -> None:
        """Replace the random generator by a freshly seeded one."""
        self._rng = np.random.default_rng(seed)

    def __call__(self, *, batch: dict[str, Any], explore: bool | None = None, **kwargs: Any) -> dict[str, Any]:
        """Replace the actions in `batch`, unless the warm-up is over or the policy acts greedily."""
        if not explore or self._taken >= self._steps:
            return batch
        held: dict[Any, tuple[np.ndarray, int]] = {}

        def replaced(action: np.ndarray, episode: Any, *_: Any) -> np.ndarray:
            self._taken += 1
            drawn, left = self._held.get(episode, (None, 0))
            if drawn is None or left == 0:
                drawn, left = self._rng.uniform(-1, 1, np.shape(action)).astype(np.float32), self._hold
            held[episode] = drawn, left - 1
            return drawn

        self.foreach_batch_item_change_in_place(batch, Columns.ACTIONS, replaced)
        # Finished episodes are dropped.
        self._held = held
        return batch

    def get_state(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the number of steps taken, the repeated actions, and the random generator's state, for a checkpoint."""
        return {"taken": self._taken, "held": self._held, "rng": self._rng.bit_generator.state}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore what `get_state` returned."""
        self._taken, self._held = state["taken"], state["held"]
        self._rng.bit_generator.state = state["rng"]
