"""RLlib's DQN and SAC with a training step that makes all updates after a rollout in one call."""

from typing import Any

from ray.rllib.algorithms.dqn import DQN
from ray.rllib.algorithms.dqn.dqn import calculate_rr_weights
from ray.rllib.algorithms.sac import SAC
from ray.rllib.execution.rollout_ops import synchronous_parallel_sample
from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS, LEARNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME


class ReplayTraining(DQN):
    """Mixin for RLlib's algorithms with a replay buffer, which `after_build` replaces by a `TransitionReplayBuffer`.

    Rollouts, updates, and the transitions of each update are those of RLlib's own training step.
    """

    # RLlib annotates them as if they might be missing.
    config: Any
    metrics: Any
    env_runner_group: Any
    learner_group: Any
    local_replay_buffer: Any

    def training_step(self) -> None:
        """Sample one or several rollouts, then update from the replay buffer."""
        rollouts, updates = (int(count) for count in calculate_rr_weights(self.config))
        for _ in range(rollouts):
            episodes, sampled = self._sample()
            self.metrics.aggregate(sampled, key=ENV_RUNNER_RESULTS)
            self.local_replay_buffer.add(episodes)
        steps = self.metrics.peek((ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME), default=0)
        if steps >= self.config.num_steps_sampled_before_learning_starts:
            self._update(updates, {NUM_ENV_STEPS_SAMPLED_LIFETIME: steps})

    def _sample(self) -> Any:
        return synchronous_parallel_sample(
            worker_set=self.env_runner_group,
            concat=True,
            sample_timeout_s=self.config.sample_timeout_s,
            _uses_new_env_runners=True,
            _return_metrics=True,
        )

    def _update(self, updates: int, timesteps: dict[str, int]) -> None:
        transitions = self.local_replay_buffer.sample(updates, self.config.total_train_batch_size)
        results = self.learner_group.update(episodes=[transitions], timesteps=timesteps)
        self.metrics.aggregate(results, key=LEARNER_RESULTS)
        self.env_runner_group.sync_weights(from_worker_or_learner_group=self.learner_group, inference_only=True)


class ReplayDqn(ReplayTraining):
    """RLlib's DQN with this training step."""


class ReplaySac(ReplayTraining, SAC):
    """RLlib's SAC with this training step."""
