"""Random actions before learning starts, held for several steps.

Independent random actions hardly move what needs momentum: the car in the valley never reaches the flag with them, and then
the policy settles at the best place that it knows, half way up. Held actions reach much further (see `warm_up_hold`).
"""

from typing import Any

import numpy as np
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.core.columns import Columns


class HeldRandomActions(ConnectorV2):
    """Module-to-env connector: for the first `steps` steps of all sub-environments together, a random action between -1 and 1
    in the place of the policy's, drawn anew for each sub-environment's episode every `hold` steps.

    Keep it before the piece that maps actions to their bounds: the replay buffer then holds what was really done.
    """

    def __init__(self, *args: Any, steps: int, hold: int, seed: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._steps, self._hold = steps, hold
        self._rng = np.random.default_rng(seed)
        self._taken = 0
        self._held: dict[Any, tuple[np.ndarray, int]] = {}

    def __call__(self, *, batch: dict[str, Any], explore: bool | None = None, **kwargs: Any) -> dict[str, Any]:
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
        # Episodes that are over are forgotten.
        self._held = held
        return batch

    def get_state(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return {"taken": self._taken, "held": self._held, "rng": self._rng.bit_generator.state}

    def set_state(self, state: dict[str, Any]) -> None:
        self._taken, self._held = state["taken"], state["held"]
        self._rng.bit_generator.state = state["rng"]
