"""An RLlib algorithm of a user's own with this project's rewards."""

import copy
from typing import Any

import numpy as np
import pytest
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.connectors.connector_v2 import ConnectorV2

from vlm_rm_sweeps import metrics
from vlm_rm_sweeps.rewards.open_clip_models import EMBEDDED_PREPROCESSING
from vlm_rm_sweeps.rewards.registry import load_reward_model
from vlm_rm_sweeps.rewards.reward_model import RewardSpec
from vlm_rm_sweeps.serving.pool import PoolConfig, RewardPool
from vlm_rm_sweeps.tasks.cart_pole import UprightCartPole
from vlm_rm_sweeps.tasks.registry import find_task
from vlm_rm_sweeps.tasks.rendering import render_frame
from vlm_rm_sweeps.training.connectors.reward import FillInRewards, RewardConnector
from vlm_rm_sweeps.training.rllib_config import use_rewards
from vlm_rm_sweeps.training.rllib_internals import env_to_module_pieces

TASK = find_task("cartpole-upright")
SPEC = RewardSpec((TASK.goal_prompt,), (TASK.baseline_prompt,), 0.5)


class _Counting(ConnectorV2):
    """A connector of the user's own, that sees observations."""

    def __call__(self, *, batch: dict[str, Any], episodes: Any, metrics: Any = None, **kwargs: Any) -> dict[str, Any]:
        if metrics is not None:
            metrics.log_value("counted", len(episodes), reduce="sum")
        return batch


class _Watching(RLlibCallback):
    """A callback of the user's own, that sees rewards."""

    def on_sample_end(self, *, env_runner: Any = None, metrics_logger: Any = None, samples: Any, **kwargs: Any) -> None:
        for episode in samples:
            metrics_logger.log_value("watched", float(np.sum(episode.get_rewards())), reduce="sum")


def own_config() -> PPOConfig:
    """What a user may have written, without a thought of this project."""
    config: Any = PPOConfig()
    config = (
        config.env_runners(
            num_env_runners=0,
            num_envs_per_env_runner=2,
            rollout_fragment_length=30,
            env_to_module_connector=lambda env, spaces, device: _Counting(),
        )
        .training(train_batch_size_per_learner=60, minibatch_size=30, num_epochs=1)
        .debugging(seed=3, log_level="ERROR")
    )
    return config


def scored_again(episode: Any) -> np.ndarray:
    """The rewards of an episode's states, from a model in this process."""
    env, frames = UprightCartPole(), []
    env.reset(seed=0)
    for observation in episode.get_observations()[1:]:
        env.state = np.asarray(observation, np.float64)
        frames.append(render_frame(env, EMBEDDED_PREPROCESSING.frame_format))
    return load_reward_model("embedded/tiny", micro_batch=16).score(np.stack(frames), [SPEC])[:, 0]


@pytest.mark.parametrize("connected", [True, False], ids=["pool", "config"])
def test_an_own_algorithm_learns_from_the_reward_model(two_pools: tuple[PoolConfig, PoolConfig], connected: bool) -> None:
    pool: RewardPool | PoolConfig = RewardPool.connect(two_pools[0]) if connected else two_pools[0]
    sampled: list[Any] = []

    def keep(samples: Any, **_: Any) -> None:
        sampled.extend(copy.deepcopy(samples))  # the learner adds to them

    config: Any = own_config().callbacks(callbacks_class=_Watching, on_sample_end=keep)
    learning: Any = use_rewards(config, pool, SPEC, TASK)
    algorithm: Any = learning.build_algo()
    pieces = env_to_module_pieces(algorithm.env_runner)
    assert isinstance(pieces[0], _Counting)
    assert isinstance(pieces[-1], RewardConnector)
    runner = algorithm.train()["env_runners"]
    algorithm.stop()

    assert runner[metrics.FRAMES_SCORED] == sum(len(episode) for episode in sampled) == 60
    for episode in sampled:
        np.testing.assert_allclose(episode.get_rewards(), scored_again(episode), atol=0.02)
    # The user's own: a connector that saw each step and the reset before, and a callback that saw the rewards.
    assert runner["counted"] == 60 + 2
    assert runner["watched"] == pytest.approx(sum(float(np.sum(episode.get_rewards())) for episode in sampled))


def test_the_users_configuration_stays_as_it_was(two_pools: tuple[PoolConfig, PoolConfig]) -> None:
    config: Any = own_config()
    before = config.to_dict()
    learning: Any = use_rewards(config, two_pools[0], SPEC, TASK)
    assert config.to_dict() == before
    assert config.env is None
    assert learning.callbacks_class == [FillInRewards, RLlibCallback]


def test_a_connector_that_replaces_the_rewards_is_an_error(two_pools: tuple[PoolConfig, PoolConfig]) -> None:
    """Without it, the algorithm would learn from NaN."""
    learning: Any = use_rewards(own_config(), two_pools[0], SPEC, TASK)
    learning.env_runners(
        env_to_module_connector=lambda env, spaces, device: _Counting(), add_default_connectors_to_env_to_module_pipeline=True
    )
    algorithm: Any = learning.build_algo()
    with pytest.raises(RuntimeError, match=r"has no RewardConnector.*before `use_rewards`"):
        algorithm.train()
    algorithm.stop()


@pytest.mark.sweeps
def test_two_env_runners_have_their_frames_scored_once_by_one_pool(two_pools: tuple[PoolConfig, PoolConfig]) -> None:
    """Also where the user has set nothing but the algorithm."""
    config: Any = PPOConfig()
    config = config.env_runners(num_env_runners=2, rollout_fragment_length=40).training(
        train_batch_size_per_learner=80, minibatch_size=40, num_epochs=1
    )
    learning: Any = use_rewards(config.debugging(log_level="ERROR"), two_pools[0], SPEC, TASK)
    algorithm: Any = learning.build_algo()
    runner = algorithm.train()["env_runners"]
    algorithm.stop()
    assert runner[metrics.FRAMES_SCORED] == runner["num_env_steps_sampled"] == 80
    assert np.isfinite(runner[metrics.ENCODE_SECONDS])
