"""Learners of the algorithms that learn from a replay buffer: all updates that follow a rollout, in one call."""

import functools
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from ray.rllib.algorithms.dqn.dqn_learner import QF_NEXT_PREDS, QF_PREDS, QF_TARGET_NEXT_PREDS
from ray.rllib.algorithms.dqn.torch.dqn_torch_learner import DQNTorchLearner
from ray.rllib.algorithms.sac.sac_learner import QF_TARGET_NEXT, QF_TWIN_PREDS
from ray.rllib.algorithms.sac.torch.sac_torch_learner import SACTorchLearner
from ray.rllib.algorithms.tqc.torch.tqc_torch_learner import TQCTorchLearner
from ray.rllib.core import ALL_MODULES, DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME, NUM_MODULE_STEPS_TRAINED_LIFETIME
from torch.nn.functional import huber_loss

from vlm_rm_sweeps.training.connectors.standardize_rewards import StandardizeRewards
from vlm_rm_sweeps.training.learners.lean import LeanLearner
from vlm_rm_sweeps.training.replay_buffer import Transitions
from vlm_rm_sweeps.training.rllib_internals import learner_pieces, target_update_steps
from vlm_rm_sweeps.training.soft_networks import SoftNetworks

STANDARDIZE_REWARDS = "standardize_rewards"
"""Key of RLlib's `learner_config_dict`: the `by` of StandardizeRewards."""
POLICY_AVERAGING = "policy_averaging"
"""Key of RLlib's `learner_config_dict`: the weight of the past in the average of the policy's weights."""
Followed = tuple[list[torch.Tensor], list[torch.Tensor]]
"""The parameters of a network, and those of the one that follows it."""
Losses = dict[str, torch.Tensor]
"""Losses by name, scalars, of which no two share a parameter."""


class ReplayLearner(LeanLearner):
    """Base of learners that make several updates in one call, each from its own batch of transitions.

    Mix it in before a learner of RLlib that has target networks.
    """

    def build(self) -> None:
        """Build RLlib's learner; its connectors are replaced, because transitions already have all columns."""
        super().build()
        self.rewards = StandardizeRewards(by=self.config.learner_config_dict.get(STANDARDIZE_REWARDS, "first_batch"))
        learner_pieces(self)[:] = [self.rewards]

    def observe(self, observations: np.ndarray) -> None:
        """Count observations that were sampled into the networks' normalization, if they have one.

        Args:
            observations: Observations (N, S), at least one.
        """
        if isinstance(self.network, SoftNetworks) and self.network.observations is not None:
            self.network.observations.observe(torch.from_numpy(observations).to(self.device))

    def update(  # type: ignore[override]  # as RLlib's learner group calls it
        self, *, training_data: Any, timesteps: Mapping[str, int], **kwargs: Any
    ) -> Any:
        """Make an update from each batch.

        Args:
            training_data: RLlib's container; its `episodes` are one `Transitions` in place of RLlib's episodes.
            timesteps: Environment steps so far, under RLlib's name.
            **kwargs: RLlib's other arguments, which are ignored.

        Returns:
            RLlib's metrics: the number of transitions so far, and the losses of the last update.

        Raises:
            FloatingPointError: A loss of the last update is not finite.
        """
        (transitions,) = training_data.episodes
        self._weights_seq_no += 1  # without it env runners ignore the new weights
        steps = timesteps[NUM_ENV_STEPS_SAMPLED_LIFETIME]
        losses: Losses = {}
        for batch in self._batches(transitions):
            losses = self.losses(batch)
            self.descend(sum(losses.values(), torch.zeros((), device=self.device)))
            self._update_targets(steps)
            self._average_policy()
        self._log(losses, len(transitions))
        return self.metrics.reduce()

    def _batches(self, transitions: Transitions) -> Any:
        tensors = {name: torch.from_numpy(column).to(self.device) for name, column in transitions.columns.items()}
        for start in range(0, len(transitions), transitions.batch):
            batch = {name: tensor[start : start + transitions.batch] for name, tensor in tensors.items()}
            yield self.rewards(batch={DEFAULT_MODULE_ID: batch})[DEFAULT_MODULE_ID]

    @abstractmethod
    def losses(self, batch: dict[str, torch.Tensor]) -> Losses:
        """Compute the losses of a batch.

        Args:
            batch: Columns of B transitions, by RLlib's names.

        Returns:
            The losses by name.
        """

    def _update_targets(self, steps: int) -> None:
        last = target_update_steps(self)
        if steps - last[DEFAULT_MODULE_ID] < self.config.target_network_update_freq:
            return
        last[DEFAULT_MODULE_ID] = steps
        _follow(self._target_pairs, self.config.tau)

    def _average_policy(self) -> None:
        if self._averaged_pairs:
            _follow(self._averaged_pairs, 1 - self.config.learner_config_dict[POLICY_AVERAGING])

    @functools.cached_property
    def _target_pairs(self) -> list[Followed]:
        return _parameters(self.network.get_target_network_pairs())

    @functools.cached_property
    def _averaged_pairs(self) -> list[Followed]:
        return _parameters(self.network.averages) if isinstance(self.network, SoftNetworks) else []

    def _log(self, losses: Losses, transitions: int) -> None:
        self.check_finite(losses)
        for name, loss in losses.items():
            self.metrics.log_value((DEFAULT_MODULE_ID, name), loss.item(), window=1)
        self.metrics.log_value((ALL_MODULES, NUM_MODULE_STEPS_TRAINED_LIFETIME), transitions, reduce="lifetime_sum")

    def discounted(self, batch: dict[str, torch.Tensor], next_values: torch.Tensor) -> torch.Tensor:
        """Compute targets from the values of the next states, which count unless the episode has terminated.

        Args:
            batch: Columns of B transitions.
            next_values: Values of the next states: (B,), or (B, Q) for Q quantiles.

        Returns:
            Targets of the same shape, which have no gradient.
        """
        rows = (-1, *[1] * (next_values.ndim - 1))
        values = (1.0 - batch[Columns.TERMINATEDS].float()).view(rows) * next_values
        return (batch[Columns.REWARDS].view(rows) + self.config.gamma * values).detach()


class DqnLearner(ReplayLearner, DQNTorchLearner):
    """Learner of DQN, single or double, without RLlib's extensions of it."""

    def losses(self, batch: dict[str, torch.Tensor]) -> Losses:
        """Compute the Huber loss of the temporal difference, as RLlib's DQN."""
        forward = self.network._forward_train(batch)
        chosen = batch[Columns.ACTIONS].unsqueeze(-1).long()
        values = forward[QF_PREDS].gather(-1, chosen).squeeze(-1)
        target_values = forward[QF_TARGET_NEXT_PREDS]
        rated = forward[QF_NEXT_PREDS] if self.config.double_q else target_values
        best = target_values.gather(-1, rated.argmax(-1, keepdim=True)).squeeze(-1)
        return {"qf_loss": huber_loss(values, self.discounted(batch, best))}


class SacLearner(ReplayLearner, SACTorchLearner):  # type: ignore[misc]  # RLlib's own classes do not fit together
    """Learner of SAC with two Q-networks, for continuous actions."""

    def losses(self, batch: dict[str, torch.Tensor]) -> Losses:
        """Compute the losses of policy, Q-networks and entropy coefficient, as RLlib's SAC."""
        forward = self.network._forward_train(batch)
        log_coefficient: Any = self.curr_log_alpha[DEFAULT_MODULE_ID]
        coefficient = log_coefficient.exp().detach()
        log_probability = forward["logp_resampled"]
        soft_values = forward["q_target_next"] - coefficient * forward["logp_next_resampled"]
        targets = self.discounted(batch, soft_values)
        excess = log_probability.detach() + self.target_entropy[DEFAULT_MODULE_ID]
        return {
            "policy_loss": (coefficient * log_probability - forward["q_curr"]).mean(),
            "qf_loss": huber_loss(forward[QF_PREDS], targets),
            "qf_twin_loss": huber_loss(forward[QF_TWIN_PREDS], targets),
            "alpha_loss": -(log_coefficient * excess).mean(),
        }


class TqcLearner(ReplayLearner, TQCTorchLearner):  # type: ignore[misc]  # as above
    """Learner of TQC, for continuous actions."""

    def losses(self, batch: dict[str, torch.Tensor]) -> Losses:
        """Compute the losses of policy, quantile critics and entropy coefficient, as RLlib's TQC."""
        forward = self.network._forward_train(batch)
        log_coefficient: Any = self.curr_log_alpha[DEFAULT_MODULE_ID]
        coefficient = log_coefficient.exp().detach()
        log_probability = forward["logp_curr"]
        pooled = forward[QF_TARGET_NEXT].flatten(start_dim=1).sort(dim=1).values
        kept = pooled[:, : self._get_n_target_quantiles(DEFAULT_MODULE_ID)]
        targets = self.discounted(batch, kept - coefficient * forward["logp_next"].unsqueeze(1))
        of_critics = [_quantile_loss(each, targets) for each in forward[QF_PREDS].unbind(dim=1)]
        excess = log_probability.detach() + self.target_entropy[DEFAULT_MODULE_ID]
        return {
            "policy_loss": (coefficient * log_probability - forward["qf_curr"].mean(dim=(1, 2))).mean(),
            "qf_loss": sum(of_critics, torch.zeros((), device=self.device)),
            "alpha_loss": -(log_coefficient * excess).mean(),
        }


def _parameters(pairs: Iterable[tuple[torch.nn.Module, torch.nn.Module]]) -> list[Followed]:
    return [(list(main.parameters()), list(follower.parameters())) for main, follower in pairs]


def _follow(pairs: Iterable[Followed], share: float) -> None:
    """Move each network that follows another one towards it by a share of the distance."""
    with torch.no_grad():
        for main, follower in pairs:
            torch._foreach_mul_(follower, 1 - share)
            torch._foreach_add_(follower, torch._foreach_mul(main, share))


def _quantile_loss(quantiles: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Compute the mean over B transitions of the quantile Huber loss of quantiles (B, Q) for targets (B, T)."""
    # RLlib's own function has torch warn about shapes.
    errors = targets.unsqueeze(1) - quantiles.unsqueeze(2)
    count = quantiles.shape[1]
    shares = (torch.arange(count, device=errors.device, dtype=errors.dtype) + 0.5) / count
    weights = (shares.view(1, count, 1) - (errors < 0).float()).abs()
    return (weights * huber_loss(errors, torch.zeros_like(errors), reduction="none")).sum(dim=(1, 2)).mean()
