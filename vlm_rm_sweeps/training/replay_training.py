"""RLlib's DQN, SAC and TQC with a training step that updates while the last frames of the rollout are scored.

Rollouts, updates, and the transitions of each update are those of RLlib's own training step. But the trial's own env runner does
not wait for the rewards of its rollout: batches are drawn at once, and the updates begin. Only the first batch with a transition
of which the reward is missing waits for all rewards. The larger the replay buffer, the later that is.
"""

from typing import Any

import numpy as np
from ray.rllib.algorithms.dqn import DQN
from ray.rllib.algorithms.dqn.dqn import calculate_rr_weights
from ray.rllib.algorithms.sac import SAC
from ray.rllib.algorithms.tqc.tqc import TQC
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.execution.rollout_ops import synchronous_parallel_sample
from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS, LEARNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME

from vlm_rm_sweeps.training.connectors.reward import reward_connectors
from vlm_rm_sweeps.training.replay_buffer import TransitionReplayBuffer
from vlm_rm_sweeps.training.rllib_internals import local_learner


class ReplayTraining(DQN):
    """Mixin for RLlib's algorithms with a replay buffer. Call `use_buffer` once it is built."""

    # RLlib annotates them as if they might be missing.
    config: Any
    metrics: Any
    env_runner_group: Any
    learner_group: Any
    local_replay_buffer: Any

    _unscored: list[SingleAgentEpisode] | None = None
    """The last rollout, while its rewards are not filled in."""

    def use_buffer(self, buffer: TransitionReplayBuffer) -> None:
        """Replace RLlib's replay buffer, and let updates begin before all frames are scored.

        Args:
            buffer: The replay buffer.
        """
        self.local_replay_buffer = buffer
        for connector in reward_connectors(self.env_runner):
            connector.deferred = True

    def training_step(self) -> None:
        """Sample one or several rollouts, then update from the replay buffer."""
        rollouts, updates = (int(count) for count in calculate_rr_weights(self.config))
        steps = 0
        for _ in range(rollouts):
            self._await_rewards()
            steps = self._sample()
        if steps >= self.config.num_steps_sampled_before_learning_starts:
            self._update(updates, steps)
        self._await_rewards()

    def _sample(self) -> int:
        """Sample a rollout into the buffer, and return the number of environment steps so far."""
        if not self.env_runner_group.num_remote_env_runners():
            self._unscored = self.env_runner.sample()
            self._store(self._unscored)
            return self._logged_steps() + sum(len(episode) for episode in self._unscored)
        sampled: Any = synchronous_parallel_sample(
            worker_set=self.env_runner_group,
            concat=True,
            sample_timeout_s=self.config.sample_timeout_s,
            _uses_new_env_runners=True,
            _return_metrics=True,
        )
        episodes, results = sampled
        self._store(episodes)
        self.metrics.aggregate(results, key=ENV_RUNNER_RESULTS)
        return self._logged_steps()

    def _store(self, episodes: list[SingleAgentEpisode]) -> None:
        self.local_replay_buffer.add(episodes)
        acted_on = [np.asarray(episode.get_observations(), np.float32)[:-1] for episode in episodes if len(episode)]
        local_learner(self).observe(np.concatenate(acted_on))

    def _logged_steps(self) -> int:
        return int(self.metrics.peek((ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME), default=0))

    def _await_rewards(self) -> None:
        """Fill in the rewards of the trial's own rollout, unless that was done."""
        if self._unscored is None:
            return
        runner: Any = self.env_runner
        for connector in reward_connectors(runner):
            connector.fill_in_rewards(self._unscored, runner.metrics)
        self.local_replay_buffer.set_rewards(self._unscored)
        self._unscored = None
        # Only now: RLlib computes returns from the rewards.
        self.metrics.aggregate([runner.get_metrics()], key=ENV_RUNNER_RESULTS)

    def _update(self, updates: int, steps: int) -> None:
        rows = self.local_replay_buffer.draw(updates, self.config.total_train_batch_size)
        scored = self.local_replay_buffer.count_scored(rows)
        self._learn(rows[:scored], steps)
        if scored < updates:
            self._await_rewards()
            self._learn(rows[scored:], steps)
        self.env_runner_group.sync_weights(from_worker_or_learner_group=self.learner_group, inference_only=True)

    def _learn(self, rows: np.ndarray, steps: int) -> None:
        if not len(rows):
            return
        transitions = self.local_replay_buffer.gather(rows)
        results = self.learner_group.update(episodes=[transitions], timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: steps})
        self.metrics.aggregate(results, key=LEARNER_RESULTS)


class ReplayDqn(ReplayTraining):
    """RLlib's DQN with this training step."""


class ReplaySac(ReplayTraining, SAC):
    """RLlib's SAC with this training step."""


class ReplayTqc(ReplayTraining, TQC):
    """RLlib's TQC with this training step."""
