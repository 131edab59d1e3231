"""SAC: an actor and twin critics with an entropy bonus, from uniform replay.

RLlib's defaults differ from those of the paper's stack (Stable-Baselines3): the policy's learning rate is a tenth of the
Q-networks', the buffer is prioritised, and the Q-networks are several times as large. One difference remains: the loss is
Huber's instead of the squared error.
"""

import functools
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import gymnasium as gym
from pydantic import Field, model_validator

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.training.algorithms.off_policy import OffPolicyAlgorithm

if TYPE_CHECKING:
    from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
    from ray.rllib.algorithms.sac import SACConfig
    from ray.rllib.connectors.connector_v2 import ConnectorV2
    from ray.rllib.core.rl_module.rl_module import RLModuleSpec

EntropyCoefficient = Annotated[float, Field(ge=1e-12, le=10_000)]
"""Weight of the policy's entropy beside rewards; its logarithm is what is learned."""


class Sac(OffPolicyAlgorithm):
    """SAC (twin Q-networks, squashed Gaussian policy, uniform replay), for tasks with continuous actions.

    One learning rate serves policy, Q-networks and entropy coefficient, as in the paper's stack. Rewards reach the learner with
    a standard deviation of 1 (see `standardize_rewards.py`), so a fixed `entropy` weighs against rewards of that scale.
    """

    action_spaces: ClassVar[tuple[type[gym.Space], ...]] = (gym.spaces.Box,)
    changeable: ClassVar[tuple[str, ...]] = ("learning_rate", "gamma", "tau", "entropy")

    tau: float = Field(0.005, ge=1e-8, le=1, description="Share of the Q-networks that each update mixes into their targets.")
    warm_up_hold: int = Field(
        1,
        gt=0,
        description="Before learning starts actions are random, each held for this many steps. Hold them where momentum is needed.",
    )
    entropy: Literal["auto"] | EntropyCoefficient = Field(
        "auto",
        description="Entropy coefficient: a fixed number, or `auto`: it is learned, towards an entropy of -1 nat per action.",
    )
    initial_entropy: EntropyCoefficient = Field(1.0, description="Entropy coefficient that `auto` starts from.")
    critic: Literal["mlp", "simba"] = Field(
        "mlp",
        description="Q-networks: multilayer perceptrons, or SimBa's residual networks (arXiv 2410.09754), with a block for each of the "
        "`hidden` layers, as wide as the last one.",
    )
    critic_layer_norm: bool = Field(False, description="Layer normalisation in the Q-networks; SimBa's always have it.")
    normalize_observations: bool = Field(False, description="Normalise observations by their running mean and variance.")
    policy_averaging: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Evaluations and videos use an average of the policy's weights over updates, in which the past has this weight "
        "at each update, such as 0.999; 0 for the latest weights.",
    )

    @model_validator(mode="after")
    def _starts_from_what_is_learned(self) -> "Sac":
        if self.entropy != "auto" and self.initial_entropy != 1.0:
            raise UserError(
                f"initial_entropy {self.initial_entropy:g} has no effect, as entropy is fixed to {self.entropy:g}: expected "
                "`entropy: auto` with it, or no `initial_entropy`"
            )
        return self

    @model_validator(mode="after")
    def _normalises_once(self) -> "Sac":
        if self.critic == "simba" and self.critic_layer_norm:
            raise UserError(
                "critic_layer_norm has no effect with `critic: simba`, which has its own: expected `critic: mlp` with it, or none"
            )
        return self

    @property
    def evaluates_an_average(self) -> bool:
        """Whether the greedy policy has other weights than the one that explores: their average over updates."""
        return self.policy_averaging > 0

    def remarks(self, steps: int) -> list[str]:
        """Warn also if trials are too short for the average of the policy."""
        averaged = 1 / (1 - self.policy_averaging)
        updates = self.updates_per_step * max(0, steps - self.learning_starts)
        if not self.evaluates_an_average or updates >= 3 * averaged:
            return super().remarks(steps)
        return [
            *super().remarks(steps),
            f"settings.policy_averaging = {self.policy_averaging:g}: trials make about {updates:,.0f} updates, and the average of the "
            f"last {averaged:,.0f} or so still has a share of the random weights at the start: expected at least {3 * averaged:,.0f} "
            "updates, or a lower value",
        ]

    def rllib_config(self, env_runners: int) -> "AlgorithmConfig":
        """Configure RLlib's SAC."""
        from ray.rllib.algorithms.sac import SACConfig
        from ray.rllib.core.rl_module.rl_module import RLModuleSpec

        from vlm_rm_sweeps.training.learners.replay import SacLearner
        from vlm_rm_sweeps.training.q_networks import LayerNormQCatalog, PlainQCatalog, SimbaQCatalog
        from vlm_rm_sweeps.training.replay_training import ReplaySac
        from vlm_rm_sweeps.training.soft_networks import SacNetworks

        perceptrons = LayerNormQCatalog if self.critic_layer_norm else PlainQCatalog
        networks = RLModuleSpec(
            module_class=SacNetworks, catalog_class=SimbaQCatalog if self.critic == "simba" else perceptrons
        )
        return self.learn_softly(SACConfig(algo_class=ReplaySac).learners(learner_class=SacLearner), networks, env_runners)

    def network_config(self) -> dict[str, Any]:
        """Return also the options of the networks."""
        from vlm_rm_sweeps.training.soft_networks import AVERAGE_POLICY, NORMALIZE_OBSERVATIONS

        options = {NORMALIZE_OBSERVATIONS: self.normalize_observations, AVERAGE_POLICY: self.evaluates_an_average}
        return super().network_config() | options

    def learn_softly(self, config: "SACConfig", networks: "RLModuleSpec", env_runners: int) -> "SACConfig":
        """Add the settings of SAC to an RLlib configuration.

        Args:
            config: Configuration of SAC or of an algorithm made of it, which is changed.
            networks: Specification of its networks.
            env_runners: Number of remote env runners; 0 if the trial's own process samples.

        Returns:
            The same configuration.
        """
        from vlm_rm_sweeps.training.learners.replay import POLICY_AVERAGING

        # RLlib always learns the entropy coefficient: a learning rate of 0 keeps it fixed.
        coefficient, rate = (self.initial_entropy, self.learning_rate) if self.entropy == "auto" else (self.entropy, 0.0)
        learning: Any = self.learn_from_replay(config, env_runners)
        configured: SACConfig = (
            learning.training(
                actor_lr=self.learning_rate,
                critic_lr=self.learning_rate,
                alpha_lr=rate,
                initial_alpha=coefficient,
                target_entropy="auto",
                target_network_update_freq=0,
                tau=self.tau,
                twin_q=True,
                grad_clip=None,
            )
            .learners(learner_config_dict={**learning.learner_config_dict, POLICY_AVERAGING: self.policy_averaging})
            .env_runners(module_to_env_connector=functools.partial(self._random_actions, env_runners or 1))
            .rl_module(rl_module_spec=networks)
        )
        return configured

    def _random_actions(self, sampling: int, env: Any = None, spaces: Any = None) -> "ConnectorV2":
        """Build the connector of the warm-up's random actions, which `sampling` processes share equally."""
        from vlm_rm_sweeps.training.connectors.random_actions import HeldRandomActions

        # RLlib puts it before the connector that maps actions to their bounds.
        return HeldRandomActions(steps=math.ceil(self.learning_starts / sampling), hold=self.warm_up_hold)

    def after_build(self, trainer: Any, seed: int) -> None:
        """Set up the replay of transitions, and seed each env runner's random actions."""
        from vlm_rm_sweeps.training.env_runners import on_each_runner

        super().after_build(trainer, seed)
        on_each_runner(trainer, functools.partial(_seed_random_actions, seed=seed))

    def training_state(self, trainer: Any) -> dict[str, Any]:
        """Return also the entropy coefficient, which the state of RLlib's learner lacks."""
        from vlm_rm_sweeps.training.rllib_internals import local_learner, log_temperatures

        temperatures = log_temperatures(local_learner(trainer))
        return super().training_state(trainer) | {
            "log_alpha": {key: value.detach().cpu() for key, value in temperatures.items()}
        }

    def restore_training_state(self, trainer: Any, state: Mapping[str, Any]) -> None:
        """Restore also the entropy coefficient, if it is learned: a fixed one is what the settings say."""
        from vlm_rm_sweeps.training.rllib_internals import local_learner, log_temperatures

        super().restore_training_state(trainer, state)
        if self.entropy != "auto":
            return
        temperatures = log_temperatures(local_learner(trainer))
        for key, value in state["log_alpha"].items():
            temperatures[key].data.copy_(value)


def _seed_random_actions(env_runner: Any, seed: int) -> None:
    """Seed an env runner's random actions differently from those of the others."""
    from vlm_rm_sweeps.training.connectors.random_actions import HeldRandomActions
    from vlm_rm_sweeps.training.rllib_internals import module_to_env_pieces

    for piece in module_to_env_pieces(env_runner):
        if isinstance(piece, HeldRandomActions):
            piece.reseed(seed + env_runner.worker_index)
