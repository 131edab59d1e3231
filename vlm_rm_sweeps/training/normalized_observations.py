"""Networks of SAC and TQC with observations normalised by their running mean and variance.

The statistics are part of the module, beside its weights. So they go wherever these go: to env runners and evaluations, into
checkpoints, and into the stored policies of videos and `vlm-rm evaluate`. The replay buffer keeps the environment's own
observations.
"""

from typing import Any

import torch
from gymnasium.spaces import flatdim
from ray.rllib.algorithms.sac.torch.default_sac_torch_rl_module import DefaultSACTorchRLModule
from ray.rllib.algorithms.tqc.torch.default_tqc_torch_rl_module import DefaultTQCTorchRLModule
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.torch.torch_rl_module import TorchRLModule

from vlm_rm_sweeps.training.moments import Moments

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


class NormalizesObservations(TorchRLModule):
    """Mixin for RLlib's networks of SAC and TQC, which then see normalised observations.

    Attributes:
        observations: The normalization; the learner counts observations in as they are sampled.
    """

    def setup(self) -> None:
        """Build RLlib's networks, and the normalization."""
        super().setup()
        space: Any = self.observation_space  # which RLlib annotates as if it might be missing
        self.observations = RunningNormalization(flatdim(space))

    def _forward_inference(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        # RLlib's exploration calls this method, too.
        output: dict[str, Any] = super()._forward_inference(self._normalized(batch), **kwargs)
        return output

    def _forward_train(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        output: dict[str, Any] = super()._forward_train(self._normalized(batch), **kwargs)
        return output

    def _normalized(self, batch: dict[str, Any]) -> dict[str, Any]:
        seen = {name: self.observations(batch[name]) for name in (Columns.OBS, Columns.NEXT_OBS) if name in batch}
        return {**batch, **seen}


class NormalizedSacModule(NormalizesObservations, DefaultSACTorchRLModule):
    """RLlib's networks of SAC with normalised observations."""


class NormalizedTqcModule(NormalizesObservations, DefaultTQCTorchRLModule):
    """RLlib's networks of TQC with normalised observations."""
