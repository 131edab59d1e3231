"""Rewards on one scale for the learner, whatever the reward model, alpha and prompt.

CLIP rewards differ between models in offset (0.1 to 0.9) and spread (0.05 to 0.5), so one learning rate would suit some of them
and let others drown in their own offset. The learner therefore sees `(reward - mean) / standard deviation`, both fixed at its
first batch: an affine transform, which keeps the optimal policy in episodes of fixed length whose time limit is bootstrapped
through. The replay buffer and all logged returns keep the reward model's own values.
"""

from typing import Any

import torch
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns

_MIN_DEVIATION = 1e-6


class StandardizeRewards(ConnectorV2):
    """Learner connector that standardizes the rewards of each batch by the mean and the standard deviation of the first one.

    Place it where the batch's columns are tensors, before anything is computed from its rewards (such as advantages). Rows that
    the loss leaves out (`loss_mask`), which RLlib adds at the end of each episode, are not counted and get the reward 0.

    Args:
        *args: Positional arguments of `ConnectorV2`.
        **kwargs: Keyword arguments of `ConnectorV2`.

    Attributes:
        mean: Mean of the first batch's rewards; None before it.
        deviation: Standard deviation of the first batch's rewards; 1 before it, or if they are all equal.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.mean: float | None = None
        self.deviation = 1.0

    def __call__(self, *, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Standardize the rewards in `batch`, a tensor (B,)."""
        columns = batch[DEFAULT_MODULE_ID]
        rewards: torch.Tensor = columns[Columns.REWARDS]
        mask = columns.get(Columns.LOSS_MASK)
        if self.mean is None:
            self.mean, self.deviation = _scale(rewards if mask is None else rewards[mask])
        standardized = (rewards - self.mean) / self.deviation
        columns[Columns.REWARDS] = standardized if mask is None else standardized * mask
        return batch

    def get_state(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return mean and standard deviation, for a checkpoint."""
        return {"mean": self.mean, "deviation": self.deviation}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore what `get_state` returned."""
        self.mean, self.deviation = state["mean"], state["deviation"]


def _scale(rewards: torch.Tensor) -> tuple[float, float]:
    """Return the mean and the standard deviation of rewards, with 1 in place of a standard deviation of about 0."""
    deviation = rewards.std().item()
    # All rewards are equal (a sparse one not reached yet): this batch shows no scale.
    return rewards.mean().item(), deviation if deviation > _MIN_DEVIATION else 1.0
