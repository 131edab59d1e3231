"""Replay of transitions as arrays.

RLlib's buffer hands out every transition as an episode of its own, which the learner's connectors put together again: at 256
transitions in a batch that takes several times as long as the update itself. Here a batch is gathered once, as columns.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.utils.replay_buffers.episode_replay_buffer import EpisodeReplayBuffer


@dataclass(frozen=True)
class Transitions:
    """A batch, in RLlib's names: each column has one row for each transition."""

    columns: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.columns[Columns.REWARDS])


class TransitionReplayBuffer(EpisodeReplayBuffer):
    """RLlib's uniform replay of episodes, which samples `Transitions` of one step."""

    def sample(self, num_items: int, **kwargs: Any) -> Any:  # type: ignore[override]  # RLlib's other ways to sample are not needed
        """`num_items` transitions, drawn with replacement: a list of one `Transitions`, where RLlib has a list of episodes."""
        drawn = [self._indices[row] for row in self.rng.integers(len(self._indices), size=num_items)]
        rows = [_transition(self.episodes[index[0] - self._num_episodes_evicted], index[1]) for index in drawn]
        observations, next_observations, actions, rewards, terminated = zip(*rows, strict=True)
        self.sampled_timesteps += num_items
        return [
            Transitions(
                {
                    Columns.OBS: np.stack(observations),
                    Columns.NEXT_OBS: np.stack(next_observations),
                    Columns.ACTIONS: np.stack(actions),
                    Columns.REWARDS: np.array(rewards, np.float32),
                    # An episode's time limit is not its end: what comes after it is bootstrapped.
                    Columns.TERMINATEDS: np.array(terminated),
                    "weights": np.ones(num_items, np.float32),
                    "n_step": np.ones(num_items, np.float32),
                }
            )
        ]


def _transition(episode: Any, step: int) -> tuple[Any, Any, Any, Any, bool]:
    observations, actions, rewards = episode.observations, episode.actions, episode.rewards
    at = observations.lookback + step
    return (
        observations.data[at],
        observations.data[at + 1],
        actions.data[actions.lookback + step],
        rewards.data[rewards.lookback + step],
        episode.is_terminated and step == len(episode) - 1,
    )


class TakeTransitions(ConnectorV2):
    """Learner connector, first in its pipeline, in the place of RLlib's pieces that read episodes."""

    def __call__(self, *, rl_module: Any, batch: dict[str, Any], episodes: Any, **kwargs: Any) -> dict[str, Any]:
        (transitions,) = episodes
        return {DEFAULT_MODULE_ID: dict(transitions.columns)}
