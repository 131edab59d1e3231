"""Replay of transitions as arrays.

RLlib's buffer returns every transition as an episode of its own, from which the learner's connectors build the batch. With 256
transitions in a batch that takes several times as long as the update itself. Here a batch is gathered once, as columns.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from ray.rllib.core.columns import Columns
from ray.rllib.utils.replay_buffers.episode_replay_buffer import EpisodeReplayBuffer

from vlm_rm_sweeps.training.rllib_internals import StoredTransition, draw_transitions


@dataclass(frozen=True)
class Transitions:
    """A batch of transitions.

    Args:
        columns: Arrays by RLlib's column names, each with one row for each of the B transitions.
    """

    columns: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.columns[Columns.REWARDS])


class TransitionReplayBuffer(EpisodeReplayBuffer):
    """RLlib's uniform replay buffer of episodes, which samples `Transitions` instead of episodes."""

    def sample(self, num_items: int, **kwargs: Any) -> Any:  # type: ignore[override]  # RLlib's other ways to sample are not needed
        """Draw transitions uniformly, with replacement.

        Args:
            num_items: Number of transitions.
            **kwargs: RLlib's other arguments, which are ignored.

        Returns:
            A list of one `Transitions`, in place of RLlib's list of episodes.
        """
        drawn: list[StoredTransition] = draw_transitions(self, num_items)
        observations, next_observations, actions, rewards, terminated = zip(*drawn, strict=True)
        self.sampled_timesteps += num_items
        return [
            Transitions(
                {
                    Columns.OBS: np.stack(observations),
                    Columns.NEXT_OBS: np.stack(next_observations),
                    Columns.ACTIONS: np.stack(actions),
                    Columns.REWARDS: np.array(rewards, np.float32),
                    # A truncated episode is not terminated: the value of its last state is bootstrapped.
                    Columns.TERMINATEDS: np.array(terminated),
                    "weights": np.ones(num_items, np.float32),
                    "n_step": np.ones(num_items, np.float32),
                }
            )
        ]
