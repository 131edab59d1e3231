"""From reward specs to the columns that a model is asked for, and back to rewards.

A model scores rewards of single frames, one column for each spec. A reward that needs several of them, or the steps of an
episode, is put together here.
"""

from collections.abc import Sequence

import numpy as np

from vlm_rm_sweeps.rewards.functions.base import combined
from vlm_rm_sweeps.rewards.reward_model import RewardModel, RewardSpec, scores_of


class Columns:
    """The columns of one request for several specs, each part asked for once.

    Args:
        specs: The specs, of any reward functions.

    Attributes:
        asked: The specs to send to the model, each of single frames.
    """

    def __init__(self, specs: Sequence[RewardSpec]) -> None:
        self._specs = tuple(specs)
        self.asked = tuple(dict.fromkeys(part for spec in specs for part in spec.parts()))
        places = {part: place for place, part in enumerate(self.asked)}
        self._places = [[places[part] for part in spec.parts()] for spec in specs]

    def of(self, number: int, answered: np.ndarray) -> np.ndarray:
        """Return the columns of one spec.

        Args:
            number: Its place among the specs.
            answered: The model's answer, float32 (N, asked).

        Returns:
            float32 (N, parts of the spec).
        """
        return answered[:, self._places[number]]

    def alone(self, answered: np.ndarray) -> np.ndarray:
        """Compute the rewards of frames that stand alone, see `RewardFunction.alone`.

        Args:
            answered: The model's answer, float32 (N, asked).

        Returns:
            float32 (N, specs).
        """
        if self.asked == self._specs:
            return answered
        columns = [self.of(number, answered) for number in range(len(self._specs))]
        rewards = [
            spec.function.alone(each) if spec.function else each[:, 0] for spec, each in zip(self._specs, columns, strict=True)
        ]
        return np.stack(rewards, axis=1)

    def along(self, answered: np.ndarray, runs: Sequence[np.ndarray]) -> np.ndarray:
        """Compute the rewards of frames, some of which are of consecutive steps.

        Args:
            answered: The model's answer, float32 (N, asked).
            runs: Positions of frames of consecutive steps of one episode, int (t,) each. All other frames stand alone, and the
                environment's own rewards count as 0.

        Returns:
            float32 (N, specs).
        """
        rewards = self.alone(answered)
        for number, spec in enumerate(self._specs):
            if spec.function is not None and spec.function.memory:
                columns = self.of(number, answered)
                for run in runs:
                    rewards[run, number] = combined(spec.function, columns[run], np.zeros(len(run), np.float32))
        return rewards


def score_episode(model: RewardModel, spec: RewardSpec, frames: np.ndarray, true_rewards: np.ndarray) -> np.ndarray:
    """Compute the rewards of one whole episode.

    Args:
        model: A loaded model, or a pool.
        spec: Prompts and function of the reward.
        frames: The frame after each step, uint8 (T, H, W, 3).
        true_rewards: The environment's own rewards, float (T,).

    Returns:
        float32 (T,).
    """
    answered = scores_of(model, frames, list(spec.parts()))
    if spec.function is None:
        return answered[:, 0]
    return combined(spec.function, answered, np.asarray(true_rewards, np.float32))
