"""Common base of the algorithms that learn from a replay buffer."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import Field

from vlm_rm_sweeps.training.algorithms.base import Algorithm, Transitions

if TYPE_CHECKING:
    from ray.rllib.algorithms.dqn import DQNConfig
    from ray.rllib.algorithms.sac import SACConfig

    RllibConfig = TypeVar("RllibConfig", DQNConfig, SACConfig)


class OffPolicyAlgorithm(Algorithm):
    """Base class of algorithms that learn from transitions drawn uniformly from a replay buffer.

    The `rllib_config` of a subclass names a class of `replay_training` as RLlib's algorithm, or another one with its
    `ReplayTraining`, and a `ReplayLearner` (`learners/replay.py`) as its learner.
    """

    batch: Transitions = Field(64, description="Transitions in one update.")
    updates_per_step: float = Field(0.25, ge=1e-6, le=10_000, description="Updates for each transition that is sampled.")
    buffer: Transitions = Field(100_000, description="Transitions that the replay buffer holds.")
    learning_starts: int = Field(1_000, ge=0, description="Environment steps before the first update.")
    standardize_rewards: Literal["first_batch", "running", "none"] = Field(
        "first_batch",
        description="Which mean and standard deviation bring rewards to one scale: of the first batch, of all batches so far, or none.",
    )
    fused_adam: bool = Field(False, description="Step Adam in one pass: faster, with other last bits.")

    @property
    def update_size(self) -> int:
        """Number of transitions in one gradient update: a batch from the replay buffer."""
        return self.batch

    def steps_at_once(self, env_runners: int) -> int:
        """Return the steps of a rollout or, if one has less than one update, of all rollouts before the next update."""
        rollout = super().steps_at_once(env_runners)
        return rollout * max(1, round(1 / (self.updates_per_step * rollout)))

    def learn_from_replay(self, config: "RllibConfig", env_runners: int) -> "RllibConfig":
        """Add the settings of the replay buffer to an RLlib configuration.

        Args:
            config: Configuration of DQN or SAC, which is changed.
            env_runners: Number of remote env runners; 0 if the trial's own process samples.

        Returns:
            The same configuration.
        """
        from vlm_rm_sweeps.training.learners.lean import FUSED_ADAM
        from vlm_rm_sweeps.training.learners.replay import STANDARDIZE_REWARDS

        # RLlib's intensity is the number of replayed transitions per sampled one, but RLlib divides by one env runner too many,
        # as if the trial's own process sampled too.
        sampled = env_runners / (env_runners + 1) if env_runners else 1.0
        config = config.learners(
            learner_config_dict={FUSED_ADAM: self.fused_adam, STANDARDIZE_REWARDS: self.standardize_rewards}
        )
        return config.training(
            train_batch_size_per_learner=self.batch,
            training_intensity=self.updates_per_step * self.batch * sampled,
            num_steps_sampled_before_learning_starts=self.learning_starts,
            # Replaced in `after_build`.
            replay_buffer_config={"type": "EpisodeReplayBuffer"},
        )

    def after_build(self, trainer: Any, seed: int) -> None:
        """Replay transitions instead of episodes, drawn by the trial's seed."""
        from vlm_rm_sweeps.training.replay_buffer import TransitionReplayBuffer

        trainer.use_buffer(TransitionReplayBuffer(self.buffer, seed))

    def training_state(self, trainer: Any) -> dict[str, Any]:
        """Return the replay buffer, and the step of the last target update."""
        from vlm_rm_sweeps.training.rllib_internals import local_learner, target_update_steps

        return {
            "transitions": trainer.local_replay_buffer.get_state(),
            "last_target_update": dict(target_update_steps(local_learner(trainer))),
        }

    def restore_training_state(self, trainer: Any, state: Mapping[str, Any]) -> None:
        """Restore the replay buffer, and the step of the last target update."""
        from vlm_rm_sweeps.training.rllib_internals import local_learner, target_update_steps

        if "transitions" in state:
            trainer.local_replay_buffer.set_state(state["transitions"])
        else:
            trainer.local_replay_buffer.set_rllib_state(state["buffer"], state["buffer_rng"])
        target_update_steps(local_learner(trainer)).update(state["last_target_update"])

    def remarks(self, steps: int) -> list[str]:
        """Warn if trials end before learning starts."""
        if self.learning_starts < steps:
            return []
        return [
            f"settings.learning_starts = {self.learning_starts:,}: trials of {steps:,} steps end before anything is learned"
        ]
