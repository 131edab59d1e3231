"""The episodes in a replay buffer, for tests that look at them one by one."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass
class ReplayedEpisode:
    """The transitions of one episode, put together again from the rows of a replay buffer."""

    observations: list[np.ndarray]
    actions: list[np.ndarray] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    terminated: bool = False

    def __len__(self) -> int:
        return len(self.rewards)

    def get_observations(self) -> np.ndarray:
        return np.stack(self.observations)

    def get_actions(self) -> np.ndarray:
        return np.stack(self.actions)

    def get_rewards(self) -> np.ndarray:
        return np.array(self.rewards, np.float32)


def replayed(trainer: Any) -> list[ReplayedEpisode]:
    """Return the episodes in a trainer's replay buffer, in the order of their first transitions."""
    columns = trainer.local_replay_buffer.transitions()
    episodes: list[ReplayedEpisode] = []
    running: dict[bytes, ReplayedEpisode] = {}
    for row in range(len(columns["rewards"])):
        # A transition belongs to the episode that its first observation was the last one of.
        before, after = columns["obs"][row], columns["new_obs"][row]
        episode = running.pop(before.tobytes(), None)
        if episode is None:
            episode = ReplayedEpisode([before])
            episodes.append(episode)
        episode.observations.append(after)
        episode.actions.append(columns["actions"][row])
        episode.rewards.append(columns["rewards"][row])
        episode.terminated = bool(columns["terminateds"][row])
        running[after.tobytes()] = episode
    return episodes
