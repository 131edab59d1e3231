"""Learner of PPO."""

from typing import Any

import torch
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.core import ALL_MODULES, DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.evaluation.postprocessing import Postprocessing
from ray.rllib.utils.metrics import NUM_MODULE_STEPS_TRAINED_LIFETIME

from vlm_rm_sweeps.training.learners.lean import LeanLearner


class PpoLearner(LeanLearner, PPOTorchLearner):
    """Learner of PPO with a critic and without a KL penalty.

    RLlib computes advantages and draws minibatches; each update is a lean one.
    """

    def _update(self, batch: dict[str, Any], **kwargs: Any) -> tuple[dict[str, Any], dict[str, torch.Tensor], dict[str, Any]]:
        loss = self._loss(batch[DEFAULT_MODULE_ID])
        self.descend(loss)
        self._last_loss = loss.detach()
        return {}, {DEFAULT_MODULE_ID: self._last_loss}, {}

    def after_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        """Do what RLlib does after all minibatches, and refuse a loss that is not finite."""
        self.check_finite({"total_loss": self._last_loss})
        super().after_gradient_based_update(timesteps=timesteps)

    def _loss(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Compute the clipped objective with value loss and entropy bonus, as RLlib's PPO."""
        forward = self.network._forward_train(batch)
        distribution = self.network.get_train_action_dist_cls().from_logits(forward[Columns.ACTION_DIST_INPUTS])
        ratio = torch.exp(distribution.logp(batch[Columns.ACTIONS]) - batch[Columns.ACTION_LOGP])
        advantages, clip = batch[Postprocessing.ADVANTAGES], self.config.clip_param
        objective = torch.min(advantages * ratio, advantages * torch.clamp(ratio, 1 - clip, 1 + clip))
        values = self.network.compute_values(batch, embeddings=forward.get(Columns.EMBEDDINGS))
        value_loss = torch.pow(values - batch[Postprocessing.VALUE_TARGETS], 2.0)
        losses = -objective + self.config.vf_loss_coeff * value_loss - self.config.entropy_coeff * distribution.entropy()
        mask = batch.get(Columns.LOSS_MASK)
        return losses.mean() if mask is None else losses[mask].sum() / mask.sum()

    def _log_steps_trained_metrics(self, batch: Any) -> None:
        transitions = len(batch.policy_batches[DEFAULT_MODULE_ID])
        self.metrics.log_value((ALL_MODULES, NUM_MODULE_STEPS_TRAINED_LIFETIME), transitions, reduce="lifetime_sum")
