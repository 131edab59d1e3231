"""Replay of transitions, kept as columns.

RLlib's buffer keeps episodes and returns every transition as an episode of its own, from which connectors build the batch. With 256
transitions in a batch that takes several times as long as the update itself. Here a transition is a row of preallocated arrays,
and all batches that follow a rollout are gathered at once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_episode import SingleAgentEpisode


@dataclass(frozen=True)
class Transitions:
    """Batches of transitions.

    Args:
        columns: Arrays by RLlib's column names, each with one row for each of the N transitions.
        batch: Transitions in one batch, B. N is a multiple of it.
    """

    columns: dict[str, np.ndarray]
    batch: int

    def __len__(self) -> int:
        return len(self.columns[Columns.REWARDS])


class TransitionReplayBuffer:
    """The last transitions, of which it draws uniformly, with replacement.

    Args:
        capacity: Number of transitions that it keeps.
        seed: Seed of its draws.

    Attributes:
        rng: The random generator that draws.
    """

    def __init__(self, capacity: int, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self._capacity = capacity
        self._columns: dict[str, np.ndarray] = {}
        self._added = 0

    def __len__(self) -> int:
        return min(self._added, self._capacity)

    def add(self, episodes: Sequence[SingleAgentEpisode]) -> None:
        """Add the transitions of episodes or of pieces of them, in place of the oldest ones.

        Args:
            episodes: RLlib's episodes. The rewards may still be missing (NaN).
        """
        for episode in episodes:
            if len(episode):
                self._append(_columns(episode))

    def set_rewards(self, episodes: Sequence[SingleAgentEpisode]) -> None:
        """Replace the rewards of the transitions that were added last.

        Args:
            episodes: The episodes of the last call of `add`, with all rewards.
        """
        rewards = np.concatenate([np.asarray(episode.get_rewards(), np.float32) for episode in episodes])
        rows = np.arange(self._added - len(rewards), self._added) % self._capacity
        self._columns[Columns.REWARDS][rows] = rewards

    def _append(self, columns: Mapping[str, np.ndarray]) -> None:
        if not self._columns:
            self._columns = {
                name: np.empty((self._capacity, *column.shape[1:]), column.dtype) for name, column in columns.items()
            }
        count = len(columns[Columns.REWARDS])
        rows = np.arange(self._added, self._added + count) % self._capacity
        for name, column in columns.items():
            # Of rows that one call writes twice the last one stays.
            self._columns[name][rows] = column
        self._added += count

    def draw(self, batches: int, size: int) -> np.ndarray:
        """Draw transitions uniformly, with replacement.

        Args:
            batches: Number of batches, K.
            size: Number of transitions in each, B.

        Returns:
            Rows of the buffer (K, B), valid until transitions are added.
        """
        return (self._oldest + self.rng.integers(len(self), size=(batches, size))) % self._capacity

    def gather(self, rows: np.ndarray) -> Transitions:
        """Copy transitions.

        Args:
            rows: Rows of the buffer (K, B), from `draw`.

        Returns:
            K batches of B transitions.
        """
        return Transitions({name: column[rows.ravel()] for name, column in self._columns.items()}, rows.shape[1])

    def count_scored(self, rows: np.ndarray) -> int:
        """Count the batches before the first one that has a transition without a reward.

        Args:
            rows: Rows of the buffer (K, B), from `draw`.

        Returns:
            K if no reward is missing.
        """
        missing = np.isnan(self._columns[Columns.REWARDS][rows]).any(axis=1)
        return int(missing.argmax()) if missing.any() else len(rows)

    @property
    def _oldest(self) -> int:
        return self._added % self._capacity if self._added > self._capacity else 0

    def transitions(self) -> dict[str, np.ndarray]:
        """Return copies of all columns, the oldest transition first."""
        rows = (self._oldest + np.arange(len(self))) % self._capacity
        return {name: column[rows] for name, column in self._columns.items()}

    def get_state(self) -> dict[str, Any]:
        """Return all transitions and the random generator's state, for a checkpoint."""
        return {"columns": self.transitions(), "rng": self.rng.bit_generator.state}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `get_state` returned."""
        self._columns, self._added = {}, 0
        if state["columns"]:
            self._append(state["columns"])
        self.rng.bit_generator.state = state["rng"]

    def set_rllib_state(self, state: Mapping[str, Any], rng: Mapping[str, Any]) -> None:
        """Restore the state of RLlib's buffer, which checkpoints of version 0.1 have.

        Args:
            state: State of RLlib's EpisodeReplayBuffer.
            rng: State of its random generator.
        """
        episodes = [_columns(SingleAgentEpisode.from_state(episode)) for episode in state["episodes"]]
        rows = [(index - state["_num_episodes_evicted"], step) for index, step in state["_indices"]]
        # An untrained trial's buffer is empty.
        names = episodes[0] if episodes else ()
        self.set_state(
            {"columns": {name: np.stack([episodes[at][name][step] for at, step in rows]) for name in names}, "rng": rng}
        )


def _columns(episode: SingleAgentEpisode) -> dict[str, np.ndarray]:
    """Return the transitions of an episode, or of a piece of one, as columns.

    Floating-point numbers are those of the networks, 32 bits wide.
    """
    observations, actions = _as_column(episode.get_observations()), _as_column(episode.get_actions())
    terminated = np.zeros(len(episode), bool)
    # A truncated episode is not terminated: the value of its last state is bootstrapped.
    terminated[-1] = episode.is_terminated
    return {
        Columns.OBS: observations[:-1],
        Columns.NEXT_OBS: observations[1:],
        Columns.ACTIONS: actions,
        Columns.REWARDS: np.asarray(episode.get_rewards(), np.float32),
        Columns.TERMINATEDS: terminated,
    }


def _as_column(values: Any) -> np.ndarray:
    column = np.asarray(values)
    return column.astype(np.float32) if np.issubdtype(column.dtype, np.floating) else column
