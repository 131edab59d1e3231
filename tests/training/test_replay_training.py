"""Updates that begin while frames are scored: the same updates, earlier."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from vlm_rm_sweeps.rewards.open_clip_models import EMBEDDED_PREPROCESSING
from vlm_rm_sweeps.rewards.reward_model import RewardSpec
from vlm_rm_sweeps.serving.pool import PoolConfig
from vlm_rm_sweeps.tasks.registry import find_task
from vlm_rm_sweeps.training.algorithms.dqn import Dqn
from vlm_rm_sweeps.training.connectors.reward import RewardSource, reward_connectors
from vlm_rm_sweeps.training.trainer import build_trainer

TASK = find_task("cartpole-upright")
SPEC = RewardSpec((TASK.goal_prompt,), (TASK.baseline_prompt,), 0.5)
SETTINGS = Dqn(learning_starts=60, envs=2, rollout_steps=5, batch=4, updates_per_step=0.5, hidden=(8,), target_update_every=40)


class Before:
    """Counts how many updates had been made each time when a method was called."""

    def __init__(self, trainer: Any, method: Callable[..., Any]) -> None:
        self.updates, self.counts, self._method = 0, list[int](), method
        learn = trainer.learner_group.update

        def counting(**arguments: Any) -> Any:
            (transitions,) = arguments["episodes"]
            self.updates += len(transitions) // SETTINGS.batch
            return learn(**arguments)

        trainer.learner_group.update = counting

    def __call__(self, *arguments: Any) -> Any:
        self.counts.append(self.updates)
        return self._method(*arguments)


@pytest.mark.sweeps
def test_updates_begin_before_all_rewards_are_there_and_are_the_same(two_pools: tuple[PoolConfig, PoolConfig]) -> None:
    source = RewardSource(two_pools[0], SPEC, EMBEDDED_PREPROCESSING.frame_format)
    outcomes = []
    for waits in (True, False):
        trainer: Any = build_trainer(SETTINGS, TASK, source, seed=3, steps_per_result=400, evaluation_episodes=1)
        connector: Any = next(reward_connectors(trainer.env_runner))
        connector.fill_in_rewards = before = Before(trainer, connector.fill_in_rewards)
        if waits:
            trainer._update = _after(trainer._await_rewards, trainer._update)
        result = trainer.train()
        weights = [value.numpy().copy() for value in trainer.get_module().state_dict().values()]
        columns = trainer.local_replay_buffer.transitions()
        outcomes.append([*columns.values(), *weights, result["env_runners"]["episode_return_mean"]])
        trainer.stop()
        assert len(before.counts) == 40
        # From the sixth rollout of 10 steps on, each is followed by 5 updates.
        early = [count - max(0, 5 * (rollout - 5)) for rollout, count in enumerate(before.counts)]
        assert (max(early) > 0) != waits
        assert np.isfinite(columns["rewards"]).all()
    for value, expected in zip(*outcomes, strict=True):
        np.testing.assert_array_equal(value, expected)


def _after(first: Callable[[], None], second: Callable[[int, int], None]) -> Callable[[int, int], None]:
    def both(updates: int, steps: int) -> None:
        first()
        second(updates, steps)

    return both


@pytest.mark.parametrize(("settings", "rollouts"), [(Dqn(envs=2, rollout_steps=5, batch=4, updates_per_step=0.02), 5)])
def test_rewards_are_there_where_several_rollouts_precede_an_update(
    two_pools: tuple[PoolConfig, PoolConfig], settings: Dqn, rollouts: int
) -> None:
    source = RewardSource(two_pools[0], SPEC, EMBEDDED_PREPROCESSING.frame_format)
    trainer: Any = build_trainer(settings, TASK, source, seed=3, steps_per_result=10, evaluation_episodes=1)
    result = trainer.train()
    columns = trainer.local_replay_buffer.transitions()
    trainer.stop()
    assert result["num_env_steps_sampled_lifetime"] == len(columns["rewards"]) == 10 * rollouts
    assert np.isfinite(columns["rewards"]).all()
