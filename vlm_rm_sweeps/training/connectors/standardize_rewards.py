"""Rewards on one scale for the learner, whatever the reward model, alpha and prompt.

CLIP rewards differ between models in offset (0.1 to 0.9) and spread (0.05 to 0.5), so with one learning rate some would be
learned from and others drown in their own offset. The learner therefore sees `(reward - mean) / deviation`, with both fixed
at its first batch. In episodes of fixed length, where the end is a time limit that is bootstrapped through, such a map does
not change which policy is best. The replay buffer and all logged returns keep the reward model's own values.
"""

from typing import Any

import torch
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns

_MIN_DEVIATION = 1e-6


class StandardizeRewards(ConnectorV2):
    """Learner connector, last in its pipeline. Its two numbers are part of a checkpoint."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.mean: float | None = None
        self.deviation = 1.0

    def __call__(self, *, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        rewards: torch.Tensor = batch[DEFAULT_MODULE_ID][Columns.REWARDS]
        if self.mean is None:
            self.mean = rewards.mean().item()
            deviation = rewards.std().item()
            # All equal (a sparse reward not met yet): there is no scale to learn from this batch.
            self.deviation = deviation if deviation > _MIN_DEVIATION else 1.0
        batch[DEFAULT_MODULE_ID][Columns.REWARDS] = (rewards - self.mean) / self.deviation
        return batch

    def get_state(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return {"mean": self.mean, "deviation": self.deviation}

    def set_state(self, state: dict[str, Any]) -> None:
        self.mean, self.deviation = state["mean"], state["deviation"]
