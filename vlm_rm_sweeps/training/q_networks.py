"""Q-networks of SAC and TQC: multilayer perceptrons of state and action, as in SAC's paper, or SimBa's residual networks."""

from typing import Any, ClassVar

import torch
from gymnasium.spaces import flatdim
from ray.rllib.algorithms.sac.sac_catalog import SACCatalog
from ray.rllib.algorithms.tqc.tqc_catalog import TQCCatalog
from ray.rllib.core.columns import Columns
from ray.rllib.core.models.base import ENCODER_OUT
from ray.rllib.core.models.configs import MLPEncoderConfig


class PlainQCatalog(SACCatalog):
    """Builds each Q-network as one multilayer perceptron of state and action together.

    RLlib's own catalog encodes state and action separately, each with all hidden layers, and joins them in three more layers of
    width 256.
    """

    layer_norm: ClassVar[bool] = False
    """Whether each hidden layer is normalised before its activation."""

    def _build_qf_encoder_continuous(self, framework: str) -> Any:
        widths, activation = self._model_config_dict["fcnet_hiddens"], self._model_config_dict["fcnet_activation"]
        perceptron = MLPEncoderConfig(
            input_dims=[flatdim(self.observation_space) + flatdim(self.action_space)],
            hidden_layer_dims=widths[:-1],
            hidden_layer_activation=activation,
            hidden_layer_use_layernorm=self.layer_norm,
            output_layer_dim=widths[-1],
            output_layer_activation=activation,
            output_layer_use_layernorm=self.layer_norm,
        )
        return StateActionEncoder(perceptron.build(framework=framework))


class SimbaQCatalog(PlainQCatalog):
    """Builds each Q-network as SimBa's, with as many residual blocks as there are hidden layers, as wide as the last one."""

    def _build_qf_encoder_continuous(self, framework: str) -> Any:
        widths = self._model_config_dict["fcnet_hiddens"]
        return SimbaEncoder(flatdim(self.observation_space) + flatdim(self.action_space), widths[-1], len(widths))


class LayerNormQCatalog(PlainQCatalog):
    """Builds the same Q-networks with layer normalisation (Ba et al., 2016) in every hidden layer."""

    layer_norm = True


class PlainQuantileCatalog(PlainQCatalog, TQCCatalog):
    """Builds TQC's critics as the same perceptrons, with one output for each quantile."""


class LayerNormQuantileCatalog(LayerNormQCatalog, PlainQuantileCatalog):
    """Builds TQC's critics with layer normalisation in every hidden layer."""


class SimbaQuantileCatalog(SimbaQCatalog, PlainQuantileCatalog):
    """Builds TQC's critics as SimBa's."""


class StateActionEncoder(torch.nn.Module):
    """Encodes concatenated states and actions.

    Args:
        perceptron: RLlib's encoder of vectors of length S + A.
    """

    def __init__(self, perceptron: Any) -> None:
        super().__init__()
        self._perceptron = perceptron

    def forward(self, batch: dict[str, torch.Tensor]) -> Any:
        """Encode a batch.

        Args:
            batch: Observations (B, S) and actions (B, A), under RLlib's names.

        Returns:
            RLlib's encoder output (B, H), with H the width of the last hidden layer.
        """
        return self._perceptron({Columns.OBS: torch.cat([batch[Columns.OBS], batch[Columns.ACTIONS]], dim=-1)})


class SimbaEncoder(torch.nn.Module):
    """Encodes states and actions as SimBa's critic (Lee et al., 2024, arXiv 2410.09754, figure 4).

    A linear embedding is followed by residual blocks, each of a layer normalisation and a perceptron that is four times as wide
    inside, and by one more layer normalisation. SimBa's normalisation of observations is a setting of its own.

    Args:
        features: Length of state and action together, S + A.
        width: Width of the residual stream, H.
        blocks: Number of residual blocks.
    """

    def __init__(self, features: int, width: int, blocks: int) -> None:
        super().__init__()
        self._embedding = torch.nn.Linear(features, width)
        self._blocks = torch.nn.ModuleList(_simba_block(width) for _ in range(blocks))
        self._norm = torch.nn.LayerNorm(width)
        torch.nn.init.orthogonal_(self._embedding.weight)
        torch.nn.init.zeros_(self._embedding.bias)

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Encode a batch.

        Args:
            batch: Observations (B, S) and actions (B, A), under RLlib's names.

        Returns:
            Embeddings (B, H), under RLlib's name.
        """
        stream = self._embedding(torch.cat([batch[Columns.OBS], batch[Columns.ACTIONS]], dim=-1))
        for block in self._blocks:
            stream = stream + block(stream)
        return {ENCODER_OUT: self._norm(stream)}


def _simba_block(width: int) -> torch.nn.Sequential:
    layers = [torch.nn.Linear(width, 4 * width), torch.nn.Linear(4 * width, width)]
    for layer in layers:
        torch.nn.init.kaiming_normal_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    return torch.nn.Sequential(torch.nn.LayerNorm(width), layers[0], torch.nn.ReLU(), layers[1])
