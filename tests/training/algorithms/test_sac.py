"""SAC on a real environment: what the settings do, what is learned from, and that it learns."""

import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoint_content import resumable
from pydantic import ValidationError
from replayed import replayed

from vlm_rm_sweeps import metrics
from vlm_rm_sweeps.rewards.open_clip_models import EMBEDDED_PREPROCESSING
from vlm_rm_sweeps.rewards.reward_model import RewardSpec
from vlm_rm_sweeps.serving.pool import PoolConfig
from vlm_rm_sweeps.tasks.gym_task import GymEnv
from vlm_rm_sweeps.tasks.registry import find_task
from vlm_rm_sweeps.training.algorithms.dqn import Dqn
from vlm_rm_sweeps.training.algorithms.sac import Sac
from vlm_rm_sweeps.training.algorithms.tqc import Tqc
from vlm_rm_sweeps.training.checkpoints import TrialFolder
from vlm_rm_sweeps.training.connectors.reward import RewardSource
from vlm_rm_sweeps.training.resumption import get_training_state, set_training_state
from vlm_rm_sweeps.training.rllib_internals import local_learner, log_temperatures
from vlm_rm_sweeps.training.trainer import build_trainer

PENDULUM = GymEnv(id="Pendulum-v1", episode_steps=20, success="obs[0] > 0.9").task()
SPEC = RewardSpec(("a pole standing up",), ("a pole",), 0.5)
SETTINGS = Sac(learning_starts=40, envs=4, rollout_steps=5, updates_per_step=0.25, batch=16, hidden=(16, 8))


def train(settings: Sac, reward: RewardSource | None = None, steps: int = 200, seed: int = 3) -> tuple[Any, dict[str, Any]]:
    algorithm = build_trainer(settings, PENDULUM, reward, seed, steps_per_result=steps, evaluation_episodes=2)
    return algorithm, algorithm.train()


def entropy_coefficient(algorithm: Any) -> float:
    return math.exp(log_temperatures(local_learner(algorithm))["default_policy"].item())


@pytest.fixture(scope="module")
def trained(ray_cluster: None) -> Any:
    algorithm, result = train(SETTINGS)
    yield algorithm, result
    algorithm.stop()


def test_updates_follow_the_ratio_that_was_asked_for(trained: tuple[Any, dict[str, Any]]) -> None:
    updates = trained[1]["learners"]["__all_modules__"]["num_module_steps_trained_lifetime"] / SETTINGS.batch
    # The rollout that ends at step 40 is the first that is followed by updates.
    assert updates == (200 - 40 + 20) * 0.25


def test_networks_have_the_widths_that_were_asked_for(trained: tuple[Any, dict[str, Any]]) -> None:
    module = trained[0].learner_group._learner.module["default_policy"]
    policy = [tuple(each.shape) for each in [*module.pi_encoder.parameters(), *module.pi.parameters()] if each.ndim == 2]
    assert policy == [(16, 3), (8, 16), (2, 8)]
    for encoder, head in [(module.qf_encoder, module.qf), (module.qf_twin_encoder, module.qf_twin)]:
        shapes = [tuple(each.shape) for each in [*encoder.parameters(), *head.parameters()] if each.ndim == 2]
        assert shapes == [(16, 3 + 1), (8, 16), (1, 8)]


def test_every_learning_rate_is_the_one_that_was_asked_for(trained: tuple[Any, dict[str, Any]]) -> None:
    learner = trained[0].learner_group._learner
    rates = {name: optimizer.param_groups[0]["lr"] for name, optimizer in learner.get_optimizers_for_module("default_policy")}
    assert rates == dict.fromkeys(("qf", "qf_twin", "policy", "alpha"), SETTINGS.learning_rate)


def test_the_entropy_coefficient_is_learned_or_fixed(trained: tuple[Any, dict[str, Any]]) -> None:
    assert 0.9 < entropy_coefficient(trained[0]) < 1
    algorithm, _ = train(SETTINGS.model_copy(update={"entropy": 0.1}))
    assert entropy_coefficient(algorithm) == pytest.approx(0.1)
    algorithm.stop()


def test_targets_follow_by_tau(ray_cluster: None) -> None:
    algorithm, _ = train(SETTINGS.model_copy(update={"tau": 1.0}))
    module = algorithm.learner_group._learner.module["default_policy"]
    for target, network in zip(module.target_qf_encoder.parameters(), module.qf_encoder.parameters(), strict=True):
        np.testing.assert_array_equal(target.detach().numpy(), network.detach().numpy())
    algorithm.stop()


def test_actions_cover_the_environments_range(trained: tuple[Any, dict[str, Any]]) -> None:
    """The policy acts in [-1, 1], the environment in [-2, 2]: one torque of the buffer gives the step that was recorded."""
    env: Any = PENDULUM.make_env(None)
    env.reset(seed=0)
    episode = replayed(trained[0])[0]
    before, after = episode.get_observations()[0], episode.get_observations()[1]
    env.unwrapped.state = np.array([np.arctan2(before[1], before[0]), before[2]])
    np.testing.assert_allclose(env.step(2 * episode.get_actions()[0])[0], after, atol=1e-4)


@pytest.mark.parametrize("task", ["Pendulum", "cartpole-upright"])
def test_the_end_of_an_episode_is_bootstrapped_through(ray_cluster: None, task: str) -> None:
    """It is a time limit: no transition of a batch is terminal, those at an episode's end included."""
    if task == "Pendulum":
        algorithm, _ = train(SETTINGS)
    else:
        settings = Dqn(learning_starts=10_000, envs=2, rollout_steps=210, double_q=False)
        algorithm = build_trainer(settings, find_task(task), None, 3, steps_per_result=420, evaluation_episodes=1)
        algorithm.train()
        config: Any = algorithm.config
        assert config.double_q is False
    assert len(replayed(algorithm)) > 2  # of two sub-environments: some have ended
    assert not algorithm.local_replay_buffer.transitions()["terminateds"].any()
    algorithm.stop()


def test_an_evaluations_returns_are_of_all_its_episodes(ray_cluster: None) -> None:
    algorithm: Any = build_trainer(SETTINGS, PENDULUM, None, 3, steps_per_result=200, evaluation_episodes=130)
    sample, sampled = algorithm.eval_env_runner.sample, []

    def recording(**kwargs: Any) -> Any:
        sampled.extend(sample(**kwargs))
        return sampled

    algorithm.eval_env_runner.sample = recording
    runner = algorithm.evaluate()["env_runners"]
    algorithm.stop()
    assert len(sampled) == 130
    in_goal = [episode.get_observations()[1:, 0] > 0.9 for episode in sampled]
    assert runner["episode_return_mean"] == pytest.approx(np.mean([episode.get_return() for episode in sampled]))
    assert runner[metrics.TRUE_RETURN] == pytest.approx(runner["episode_return_mean"])
    assert runner[metrics.GOAL_FRACTION] == pytest.approx(np.mean(in_goal))
    assert runner[metrics.SUCCESS] == pytest.approx(np.mean([steps.mean() >= 0.5 for steps in in_goal]))


def test_success_that_nobody_can_tell_is_left_out(ray_cluster: None) -> None:
    task = GymEnv(id="Pendulum-v1", episode_steps=20).task()
    algorithm = build_trainer(SETTINGS, task, None, 3, steps_per_result=200, evaluation_episodes=2)
    runner = algorithm.train()["env_runners"]
    assert metrics.TRUE_RETURN in runner
    assert not {metrics.SUCCESS, metrics.GOAL_FRACTION} & runner.keys()
    algorithm.stop()


@pytest.mark.sweeps
def test_same_seed_same_training_to_the_bit(two_pools: tuple[PoolConfig, PoolConfig]) -> None:
    """400 transitions, each time on a server of its own: the same states, actions, rewards and networks."""
    outcomes = []
    for pool in two_pools:
        algorithm, _ = train(SETTINGS, RewardSource(pool, SPEC, EMBEDDED_PREPROCESSING.frame_format), steps=400)
        outcomes.append((replayed(algorithm), algorithm.get_module().state_dict()))
        algorithm.stop()
    (episodes, policy), (episodes_again, policy_again) = outcomes
    assert sum(len(episode) for episode in episodes) == 400
    for episode, again in zip(episodes, episodes_again, strict=True):
        np.testing.assert_array_equal(episode.get_observations(), again.get_observations())
        np.testing.assert_array_equal(episode.get_actions(), again.get_actions())
        np.testing.assert_array_equal(episode.get_rewards(), again.get_rewards())
    for name, values in policy.items():
        np.testing.assert_array_equal(values.numpy(), policy_again[name].numpy())


SHORT_ON_STEPS = SETTINGS.model_copy(
    update={
        "normalize_observations": True,
        "policy_averaging": 0.9,
        "critic_layer_norm": True,
        "fused_adam": True,
        "initial_entropy": 0.2,
        "standardize_rewards": "running",
        "updates_per_step": 1.5,
    }
)


@pytest.mark.sweeps
@pytest.mark.parametrize(
    "settings",
    [
        SHORT_ON_STEPS,
        Tqc(**SHORT_ON_STEPS.model_dump()),
        SHORT_ON_STEPS.model_copy(update={"critic": "simba", "critic_layer_norm": False}),
    ],
    ids=["sac", "tqc", "simba"],
)
def test_training_with_every_setting_is_resumed_to_the_bit(ray_cluster: None, settings: Sac) -> None:
    def outcome(trainer: Any) -> dict[str, Any]:
        result = trainer.train()
        trainer.stop()
        assert result["learners"]["__all_modules__"]["num_module_steps_trained_lifetime"] == (400 - 40 + 20) * 1.5 * 16
        learner = local_learner(trainer)
        weights = {name: value.numpy().copy() for name, value in learner.network.state_dict().items()}
        reached = {
            "mean": learner.rewards.mean,
            "deviation": learner.rewards.deviation,
            "entropy": entropy_coefficient(trainer),
        }
        return weights | reached | trainer.local_replay_buffer.transitions()

    undisturbed, _ = train(settings)
    state = pickle.loads(pickle.dumps(get_training_state(undisturbed, settings)))
    expected = outcome(undisturbed)
    resumed: Any = build_trainer(settings, PENDULUM, None, 8, steps_per_result=200, evaluation_episodes=2)
    set_training_state(resumed, settings, state)
    again = outcome(resumed)
    assert expected.keys() == again.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(value, again[name], err_msg=name)
    assert expected["observations.count"] == 400


def test_the_policy_sees_observations_normalised_by_what_was_sampled(ray_cluster: None, tmp_path: Path) -> None:
    """In the trial's env runners, and in the stored policy, whose greedy actions are the same."""
    trainer, _ = train(SHORT_ON_STEPS)
    sampled = trainer.local_replay_buffer.transitions()["obs"]
    policy: Any = trainer.env_runner.module
    np.testing.assert_allclose(policy.observations.mean, sampled.mean(axis=0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(policy.observations.variance, sampled.var(axis=0), rtol=1e-4)
    checkpoint = TrialFolder(tmp_path).save(policy, {}, resumable(200))
    env = PENDULUM.make_env(None)
    stored: Any = SHORT_ON_STEPS.build_policy(env.observation_space, env.action_space, policy.model_config)
    checkpoint.load_policy(stored)
    for observation in sampled[:5]:
        assert SHORT_ON_STEPS.greedy_action(stored, observation) == SHORT_ON_STEPS.greedy_action(policy, observation)
    trainer.evaluate()
    np.testing.assert_array_equal(trainer.eval_env_runner.module.observations.mean, policy.observations.mean)
    trainer.stop()


def test_evaluations_and_the_stored_policy_act_by_the_average_and_training_by_the_latest_weights(
    ray_cluster: None, tmp_path: Path
) -> None:
    settings = SETTINGS.model_copy(update={"policy_averaging": 0.9})
    trainer, _ = train(settings)
    policy: Any = trainer.env_runner.module
    trainer.evaluate()
    observations = torch.from_numpy(trainer.local_replay_buffer.transitions()["obs"][:5])

    def outputs(forward: Any) -> np.ndarray:
        with torch.no_grad():
            return np.asarray(forward({"obs": observations})["action_dist_inputs"])

    def by(encoder: torch.nn.Module, head: torch.nn.Module) -> np.ndarray:
        return outputs(lambda batch: {"action_dist_inputs": head(encoder(batch)["encoder_out"])})

    averaged, latest = by(policy.average_pi_encoder, policy.average_pi), by(policy.pi_encoder, policy.pi)
    assert np.abs(averaged - latest).max() > 1e-3
    np.testing.assert_array_equal(outputs(policy.forward_exploration), latest)
    np.testing.assert_array_equal(outputs(trainer.eval_env_runner.module.forward_inference), averaged)
    checkpoint = TrialFolder(tmp_path).save(policy, {}, resumable(200))
    env = PENDULUM.make_env(None)
    stored: Any = settings.build_policy(env.observation_space, env.action_space, policy.model_config)
    checkpoint.load_policy(stored)
    np.testing.assert_array_equal(outputs(stored.forward_inference), averaged)
    trainer.stop()


@pytest.mark.parametrize(("averaging", "steps", "said"), [(0.99, 2_200, 0), (0.99, 1_200, 1), (0.0, 1_200, 0)])
def test_too_few_updates_for_the_average_are_said(averaging: float, steps: int, said: int) -> None:
    remarks = Sac(policy_averaging=averaging, learning_starts=1_000).remarks(steps)
    assert len(remarks) == said
    if said:
        assert "trials make about 50 updates, and the average of the last 100 or so" in remarks[0]
        assert "expected at least 300 updates" in remarks[0]


def test_a_policy_of_a_checkpoint_without_the_newer_options_is_built(ray_cluster: None, tmp_path: Path) -> None:
    """Its networks are those of its settings."""
    trainer, _ = train(SETTINGS.model_copy(update={"normalize_observations": True}))
    policy: Any = trainer.env_runner.module
    env = PENDULUM.make_env(None)
    older = {"fcnet_hiddens": [16, 8], "fcnet_activation": "relu", "head_fcnet_hiddens": [], "twin_q": True}
    built: Any = Sac(hidden=(16, 8), normalize_observations=True).build_policy(env.observation_space, env.action_space, older)
    TrialFolder(tmp_path).save(policy, {}, resumable(200)).load_policy(built)
    np.testing.assert_array_equal(built.observations.mean, policy.observations.mean)
    trainer.stop()


def test_the_entropy_coefficient_starts_where_it_was_told_to(ray_cluster: None) -> None:
    algorithm, _ = train(SETTINGS.model_copy(update={"initial_entropy": 0.2}), steps=40)
    assert 0.19 < entropy_coefficient(algorithm) < 0.2
    algorithm.stop()


def test_a_start_for_an_entropy_coefficient_that_is_fixed_is_refused() -> None:
    with pytest.raises(
        ValidationError, match=r"initial_entropy 0\.2 has no effect, as entropy is fixed to 0\.1: expected `entropy: auto`"
    ):
        Sac(entropy=0.1, initial_entropy=0.2)


def test_layer_normalisation_of_critics_that_have_their_own_is_refused() -> None:
    with pytest.raises(ValidationError, match="critic_layer_norm has no effect with `critic: simba`, which has its own"):
        Sac(critic="simba", critic_layer_norm=True)


def test_a_target_without_quantiles_is_refused() -> None:
    with pytest.raises(ValidationError, match="dropped_quantiles 5: expected fewer than the 5 `quantiles`"):
        Tqc(quantiles=5, dropped_quantiles=5)
