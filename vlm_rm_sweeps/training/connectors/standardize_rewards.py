"""Rewards on one scale for the learner, whatever the reward model, alpha and prompt.

CLIP rewards differ between models in offset (0.1 to 0.9) and spread (0.05 to 0.5), so one learning rate would suit some of them
and let others drown in their own offset. The learner therefore sees `(reward - mean) / standard deviation`, by default both fixed
at its first batch: an affine transform, which keeps the optimal policy in episodes of fixed length whose time limit is
bootstrapped through. The first batch may show little of what there is to learn: all of it falls over. Running values follow what
the policy reaches, but move the target that the value functions learn. The replay buffer and all logged returns keep the reward
model's own values.
"""

from typing import Any, Literal

import torch
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns

from vlm_rm_sweeps.training.moments import Moments

_MIN_DEVIATION = 1e-6


class StandardizeRewards(ConnectorV2):
    """Learner connector that standardizes the rewards of each batch by a mean and a standard deviation.

    Place it where the batch's columns are tensors, before anything is computed from its rewards (such as advantages). Rows that
    the loss leaves out (`loss_mask`), which RLlib adds at the end of each episode, are not counted and get the reward 0.

    Args:
        *args: Positional arguments of `ConnectorV2`.
        by: Which mean and standard deviation: of the `first_batch`, `running` ones of all batches so far, this one included, or
            `none`, which keeps the rewards as they are.
        **kwargs: Keyword arguments of `ConnectorV2`.

    Attributes:
        mean: The mean; None before the first batch.
        deviation: The standard deviation; 1 before the first batch, or if all rewards are equal.
    """

    def __init__(self, *args: Any, by: Literal["first_batch", "running", "none"] = "first_batch", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._by = by
        self._seen = Moments(0, 0.0, 0.0)
        self.mean: float | None = None
        self.deviation = 1.0

    def __call__(self, *, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Standardize the rewards in `batch`, a tensor (B,)."""
        columns = batch[DEFAULT_MODULE_ID]
        rewards: torch.Tensor = columns[Columns.REWARDS]
        mask = columns.get(Columns.LOSS_MASK)
        counted = rewards if mask is None else rewards[mask]
        if self._by == "running":
            self._count(counted)
        elif self.mean is None:
            self.mean, self.deviation = _scale(counted) if self._by == "first_batch" else (0.0, 1.0)
        assert self.mean is not None
        standardized = (rewards - self.mean) / self.deviation
        columns[Columns.REWARDS] = standardized if mask is None else standardized * mask
        return batch

    def _count(self, rewards: torch.Tensor) -> None:
        self._seen = self._seen.with_part(Moments(len(rewards), rewards.mean().item(), rewards.var(correction=0).item()))
        self.mean, self.deviation = self._seen.mean, _or_one(self._seen.variance**0.5)

    def get_state(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return mean and standard deviation, for a checkpoint."""
        return {"mean": self.mean, "deviation": self.deviation, "seen": tuple(self._seen)}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore what `get_state` returned."""
        self.mean, self.deviation = state["mean"], state["deviation"]
        # Checkpoints of versions without running values lack them.
        self._seen = Moments(*state.get("seen", self._seen))


def _scale(rewards: torch.Tensor) -> tuple[float, float]:
    """Return the mean and the standard deviation of rewards."""
    return rewards.mean().item(), _or_one(rewards.std().item())


def _or_one(deviation: float) -> float:
    """Return 1 in place of a standard deviation of about 0: equal rewards (a sparse one not reached yet) show no scale."""
    return deviation if deviation > _MIN_DEVIATION else 1.0
