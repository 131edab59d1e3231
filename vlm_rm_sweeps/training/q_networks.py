"""Q-networks of SAC and TQC as in SAC's paper: multilayer perceptrons of state and action."""

from typing import Any, ClassVar

import torch
from gymnasium.spaces import flatdim
from ray.rllib.algorithms.sac.sac_catalog import SACCatalog
from ray.rllib.algorithms.tqc.tqc_catalog import TQCCatalog
from ray.rllib.core.columns import Columns
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


class LayerNormQCatalog(PlainQCatalog):
    """Builds the same Q-networks with layer normalisation (Ba et al., 2016) in every hidden layer."""

    layer_norm = True


class PlainQuantileCatalog(PlainQCatalog, TQCCatalog):
    """Builds TQC's critics as the same perceptrons, with one output for each quantile."""


class LayerNormQuantileCatalog(LayerNormQCatalog, PlainQuantileCatalog):
    """Builds TQC's critics with layer normalisation in every hidden layer."""


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
