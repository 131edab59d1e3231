"""Networks of SAC and TQC with two options: normalised observations, and a greedy policy that is an average over updates.

What they add is part of the module, beside its weights. So it goes wherever these go: to env runners and evaluations, into
checkpoints, and into the stored policies of videos and `vlm-rm evaluate`. The replay buffer keeps the environment's own
observations.
"""

from typing import Any

import torch
from gymnasium.spaces import flatdim
from ray.rllib.algorithms.sac.torch.default_sac_torch_rl_module import DefaultSACTorchRLModule
from ray.rllib.algorithms.tqc.torch.default_tqc_torch_rl_module import DefaultTQCTorchRLModule
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.utils import make_target_network
from ray.rllib.core.models.base import ENCODER_OUT
from ray.rllib.core.rl_module.torch.torch_rl_module import TorchRLModule

from vlm_rm_sweeps.training.moments import Moments

NORMALIZE_OBSERVATIONS = "normalize_observations"
AVERAGE_POLICY = "average_policy"
"""Keys of RLlib's model configuration: whether the networks have each option."""

_LIMIT = 10.0
"""Normalised observations are clipped to this many standard deviations, for features that hardly ever change."""
_LEAST_VARIANCE = 1e-8


class RunningNormalization(torch.nn.Module):
    """Brings each feature of observations to mean 0 and variance 1.

    Args:
        features: Length of an observation, S.
    """

    count: torch.Tensor
    mean: torch.Tensor
    variance: torch.Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        # 32 bits wide, as RLlib restores every number of a module's state: else a resumed trial would differ in its last bits.
        self.register_buffer("count", torch.zeros(1, dtype=torch.int64))
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("variance", torch.ones(features))

    def observe(self, observations: torch.Tensor) -> None:
        """Count further observations in.

        Args:
            observations: Observations (N, S), at least one.
        """
        seen = observations.to(torch.float64)
        part = Moments(len(seen), seen.mean(dim=0), seen.var(dim=0, correction=0))
        now = Moments(self.count.item(), self.mean.double(), self.variance.double()).with_part(part)
        self.count.fill_(now.count)
        self.mean.copy_(now.mean)
        self.variance.copy_(now.variance)

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        """Normalise observations (B, S); before any was counted they stay as they are, but for the clipping."""
        scale = torch.rsqrt(self.variance + _LEAST_VARIANCE)
        return ((observations - self.mean) * scale).clamp(-_LIMIT, _LIMIT)


class SoftNetworks(TorchRLModule):
    """Mixin for RLlib's networks of SAC and TQC, with the options that the model configuration names.

    Attributes:
        observations: The normalization; the learner counts observations in as they are sampled. None without it.
        averages: Each network of the actor with its average over updates, by which the greedy policy acts; the learner moves the
            average. Empty without it.
    """

    def setup(self) -> None:
        """Build RLlib's networks and the options."""
        super().setup()
        space: Any = self.observation_space  # which RLlib annotates as if it might be missing
        options: Any = self.model_config
        self.observations = RunningNormalization(flatdim(space)) if options.get(NORMALIZE_OBSERVATIONS) else None
        actor: tuple[Any, ...] = ()
        if options.get(AVERAGE_POLICY):
            self.average_pi_encoder = make_target_network(self.pi_encoder)
            self.average_pi = make_target_network(self.pi)
            actor = ((self.pi_encoder, self.average_pi_encoder), (self.pi, self.average_pi))
        self.averages = actor

    def _forward_inference(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        if not self.averages:
            return self._forward_exploration(batch, **kwargs)
        encoded = self.average_pi_encoder(self._normalized(batch))
        return {Columns.ACTION_DIST_INPUTS: self.average_pi(encoded[ENCODER_OUT])}

    def _forward_exploration(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        encoded = self.pi_encoder(self._normalized(batch))
        return {Columns.ACTION_DIST_INPUTS: self.pi(encoded[ENCODER_OUT])}

    def _forward_train(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        output: dict[str, Any] = super()._forward_train(self._normalized(batch), **kwargs)
        return output

    def _normalized(self, batch: dict[str, Any]) -> dict[str, Any]:
        if self.observations is None:
            return batch
        seen = {name: self.observations(batch[name]) for name in (Columns.OBS, Columns.NEXT_OBS) if name in batch}
        return {**batch, **seen}


class SacNetworks(SoftNetworks, DefaultSACTorchRLModule):
    """RLlib's networks of SAC with the options."""


class TqcNetworks(SoftNetworks, DefaultTQCTorchRLModule):
    """RLlib's networks of TQC with the options."""
