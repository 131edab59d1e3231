"""TQC (Kuznetsov et al., 2020): SAC with quantile critics, of which the highest quantiles are left out of the target.

The critics' loss is RLlib's: a sum over quantiles where the paper has means, which Adam's steps hardly notice.
"""

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field, model_validator

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.training.algorithms.sac import Sac

if TYPE_CHECKING:
    from ray.rllib.algorithms.algorithm_config import AlgorithmConfig


class Tqc(Sac):
    """TQC (quantile critics, truncated targets), for tasks with continuous actions. All else is as in SAC."""

    changeable: ClassVar[tuple[str, ...]] = (*Sac.changeable, "dropped_quantiles")

    critics: int = Field(2, gt=0, description="Number of critics; in TQC's paper 5.")
    quantiles: int = Field(25, gt=0, description="Quantiles of the return that each critic learns.")
    dropped_quantiles: int = Field(
        2, ge=0, description="Highest quantiles left out of the target: this many for each critic, of all critics' pooled."
    )

    @model_validator(mode="after")
    def _quantiles_are_left(self) -> "Tqc":
        if self.dropped_quantiles >= self.quantiles:
            raise UserError(f"dropped_quantiles {self.dropped_quantiles}: expected fewer than the {self.quantiles} `quantiles`")
        return self

    def rllib_config(self, env_runners: int) -> "AlgorithmConfig":
        """Configure RLlib's TQC."""
        from ray.rllib.algorithms.tqc.tqc import TQCConfig
        from ray.rllib.core.rl_module.rl_module import RLModuleSpec

        from vlm_rm_sweeps.training.learners.replay import TqcLearner
        from vlm_rm_sweeps.training.q_networks import LayerNormQuantileCatalog, PlainQuantileCatalog, SimbaQuantileCatalog
        from vlm_rm_sweeps.training.replay_training import ReplayTqc
        from vlm_rm_sweeps.training.soft_networks import TqcNetworks

        perceptrons = LayerNormQuantileCatalog if self.critic_layer_norm else PlainQuantileCatalog
        networks = RLModuleSpec(
            module_class=TqcNetworks, catalog_class=SimbaQuantileCatalog if self.critic == "simba" else perceptrons
        )
        config = TQCConfig(algo_class=ReplayTqc).training(
            n_critics=self.critics, n_quantiles=self.quantiles, top_quantiles_to_drop_per_net=self.dropped_quantiles
        )
        return self.learn_softly(config.learners(learner_class=TqcLearner), networks, env_runners)
