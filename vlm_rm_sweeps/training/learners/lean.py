"""Gradient descent as RLlib's, without its bookkeeping.

RLlib's learner spends more time on an update of a small network than the update itself takes: it checks every gradient tensor for
finite values twice, steps one tensor after the other, regroups gradients by module and optimizer, and logs a dozen metrics. Here
one backward pass is followed by one step of each optimizer over all its tensors together. The values are those of RLlib, to the bit
on a CPU (tests/training/learners).
"""

import functools
import math
from collections.abc import Mapping
from typing import Any

import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.learner.torch.torch_learner import TorchLearner

FUSED_ADAM = "fused_adam"
"""Key of RLlib's `learner_config_dict`: whether Adam's step is one pass over all numbers, which rounds otherwise."""


class LeanLearner(TorchLearner):
    """Base of learners for one module on one device, whose gradients are clipped by their norm if at all."""

    config: Any  # which RLlib annotates with the base class of all configurations

    def build(self) -> None:
        """Build RLlib's learner."""
        super().build()
        self._step_tensors_together()

    @functools.cached_property
    def network(self) -> Any:
        """RLlib's module with all networks."""
        return self.module[DEFAULT_MODULE_ID].unwrapped()

    @functools.cached_property
    def _optimizers(self) -> list[torch.optim.Optimizer]:
        return [optimizer for _, optimizer in self.get_optimizers_for_module(DEFAULT_MODULE_ID)]

    def set_state(self, state: Any) -> None:
        """Restore RLlib's state of a learner."""
        super().set_state(state)
        # A checkpoint of RLlib's own learner has the default, one tensor after the other.
        self._step_tensors_together()

    def _step_tensors_together(self) -> None:
        fused = bool(self.config.learner_config_dict.get(FUSED_ADAM))
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["foreach"], group["fused"] = not fused, fused

    def descend(self, loss: torch.Tensor) -> None:
        """Make one update of all parameters.

        Args:
            loss: Sum of the losses, a scalar. Each parameter may depend on one of them only.
        """
        for optimizer in self._optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in self._optimizers:
            if self.config.grad_clip is not None:
                parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
                torch.nn.utils.clip_grad_norm_(parameters, self.config.grad_clip, foreach=True)
            optimizer.step()

    @staticmethod
    def check_finite(losses: Mapping[str, torch.Tensor]) -> None:
        """Refuse losses that are not finite. One such update spoils all that follow, so the last one of many tells.

        Args:
            losses: Losses by name, scalars.

        Raises:
            FloatingPointError: A loss is not finite.
        """
        for name, loss in losses.items():
            if not math.isfinite(loss.item()):
                raise FloatingPointError(
                    f"the loss {name} is {loss.item()}: rewards or observations are too large, or `learning_rate` is"
                )
