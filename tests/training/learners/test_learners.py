"""The lean learners compute what RLlib's own learners compute."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.rllib.algorithms.dqn.torch.dqn_torch_learner import DQNTorchLearner
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.algorithms.sac.torch.sac_torch_learner import SACTorchLearner
from ray.rllib.algorithms.tqc.torch.tqc_torch_learner import TQCTorchLearner
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.learner.learner import Learner
from ray.rllib.core.learner.training_data import TrainingData
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME

from vlm_rm_sweeps.training.algorithms.base import Algorithm
from vlm_rm_sweeps.training.algorithms.dqn import Dqn
from vlm_rm_sweeps.training.algorithms.ppo import Ppo
from vlm_rm_sweeps.training.algorithms.sac import Sac
from vlm_rm_sweeps.training.algorithms.tqc import Tqc
from vlm_rm_sweeps.training.replay_buffer import Transitions
from vlm_rm_sweeps.training.rllib_internals import local_learner

OBSERVATIONS = gym.spaces.Box(-1, 1, (3,), np.float32)
DISCRETE: gym.Space[Any] = gym.spaces.Discrete(4)
BOX: gym.Space[Any] = gym.spaces.Box(-1, 1, (2,), np.float32)
UPDATES, BATCH = 200, 16


class Spaces(gym.Env[Any, Any]):
    """An environment of which nothing but the spaces is used."""

    def __init__(self, action_space: gym.Space[Any]) -> None:
        self.observation_space, self.action_space = OBSERVATIONS, action_space


def learner_of(algorithm: Algorithm, action_space: gym.Space[Any], learner_class: type[Learner] | None = None) -> Any:
    """The algorithm's learner, or one of RLlib's own, with the same random weights."""
    torch.manual_seed(0)
    config: Any = algorithm.rllib_config(env_runners=0).training(gamma=algorithm.gamma)
    if learner_class is not None:
        config = config.learners(learner_class=learner_class)
    config.rl_module(model_config=algorithm.network_config())
    group = config.build_learner_group(env=Spaces(action_space))
    return local_learner(_Trainer(group))


class _Trainer:
    def __init__(self, learner_group: Any) -> None:
        self.learner_group = learner_group


def random_transitions(action_space: gym.Space[Any]) -> Transitions:
    rng, rows = np.random.default_rng(1), UPDATES * BATCH
    action_space.seed(1)
    return Transitions(
        {
            "obs": rng.uniform(-1, 1, (rows, 3)).astype(np.float32),
            "new_obs": rng.uniform(-1, 1, (rows, 3)).astype(np.float32),
            "actions": np.stack([action_space.sample() for _ in range(rows)]),
            "rewards": rng.normal(0.3, 2.0, rows).astype(np.float32),
            "terminateds": rng.random(rows) < 0.1,
        },
        BATCH,
    )


def batches_of(transitions: Any) -> TrainingData:
    """What RLlib hands to a lean learner, in place of episodes."""
    return TrainingData(episodes=[transitions])


def as_rllibs_batch(transitions: Transitions, update: int, mean: float, deviation: float) -> MultiAgentBatch:
    """One batch of them, with the columns that RLlib's own learner needs besides, and its rewards standardized."""
    rows = slice(update * BATCH, (update + 1) * BATCH)
    columns = {name: torch.from_numpy(column[rows]) for name, column in transitions.columns.items()}
    columns["rewards"] = (columns["rewards"] - mean) / deviation
    columns |= {"weights": torch.ones(BATCH), "n_step": torch.ones(BATCH)}
    return MultiAgentBatch({DEFAULT_MODULE_ID: SampleBatch(columns)}, env_steps=BATCH)


def state_of(learner: Any) -> dict[str, torch.Tensor]:
    """Its parameters, those of target networks included, and its entropy coefficient."""
    state = dict(learner.module[DEFAULT_MODULE_ID].named_parameters())
    if hasattr(learner, "curr_log_alpha"):
        state["log_alpha"] = learner.curr_log_alpha[DEFAULT_MODULE_ID]
    return {name: value.detach().clone() for name, value in state.items()}


@pytest.mark.parametrize(
    ("algorithm", "action_space", "rllibs"),
    [
        (Dqn(target_update_every=64), DISCRETE, DQNTorchLearner),
        (Dqn(target_update_every=64, double_q=False, learning_rate=0.1), DISCRETE, DQNTorchLearner),
        (Sac(hidden=(16, 16)), BOX, SACTorchLearner),
        (Sac(hidden=(16,), entropy=0.2, tau=0.5), BOX, SACTorchLearner),
        (Sac(hidden=(16, 16), critic_layer_norm=True, initial_entropy=0.2), BOX, SACTorchLearner),
        (Tqc(hidden=(16, 16)), BOX, TQCTorchLearner),
        (Tqc(hidden=(16,), critics=3, quantiles=5, dropped_quantiles=1, tau=0.5), BOX, TQCTorchLearner),
    ],
    ids=["dqn", "dqn single", "sac", "sac fixed entropy", "sac layer norm", "tqc", "tqc, 3 critics"],
)
def test_200_updates_equal_rllibs_own_to_the_bit(
    algorithm: Algorithm, action_space: gym.Space[Any], rllibs: type[Learner]
) -> None:
    transitions = random_transitions(action_space)
    lean, own = learner_of(algorithm, action_space), learner_of(algorithm, action_space, rllibs)
    before = state_of(lean)
    torch.manual_seed(2)
    # Four calls of 50 updates, as many as follow four rollouts.
    for call in range(4):
        rows = slice(call * 50 * BATCH, (call + 1) * 50 * BATCH)
        part = Transitions({name: column[rows] for name, column in transitions.columns.items()}, BATCH)
        timesteps = {NUM_ENV_STEPS_SAMPLED_LIFETIME: 50 * (call + 1)}
        logged = lean.update(training_data=batches_of(part), timesteps=timesteps)
    torch.manual_seed(2)
    for update in range(UPDATES):
        batch = as_rllibs_batch(transitions, update, lean.rewards.mean, lean.rewards.deviation)
        timesteps = {NUM_ENV_STEPS_SAMPLED_LIFETIME: 50 * (update // 50 + 1)}
        own_logged = own.update(training_data=TrainingData(batch=batch), timesteps=timesteps)
    expected = state_of(own)
    for name, value in state_of(lean).items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)
        assert name == "log_alpha" or not torch.equal(value, before[name])  # a fixed one stays
    losses = [name for name in logged[DEFAULT_MODULE_ID] if name.endswith("_loss")]
    assert len(losses) == {Dqn: 1, Sac: 4, Tqc: 3}[type(algorithm)]
    for name in losses:
        assert logged[DEFAULT_MODULE_ID][name].peek() == pytest.approx(own_logged[DEFAULT_MODULE_ID][name].peek(), rel=1e-6)


@pytest.mark.parametrize(("algorithm", "action_space"), [(Dqn(fused_adam=True), DISCRETE), (Sac(fused_adam=True), BOX)])
def test_a_fused_adam_takes_the_same_steps_but_for_rounding(algorithm: Algorithm, action_space: gym.Space[Any]) -> None:
    fused = learner_of(algorithm, action_space)
    plain = learner_of(algorithm.model_copy(update={"fused_adam": False}), action_space)
    fused.set_state(fused.get_state())
    part = Transitions({name: column[: 3 * BATCH] for name, column in random_transitions(action_space).columns.items()}, BATCH)
    for learner in (fused, plain):
        torch.manual_seed(2)
        learner.update(training_data=batches_of(part), timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: 3})
    assert all(group["fused"] and not group["foreach"] for each in fused._optimizers for group in each.param_groups)
    expected = state_of(plain)
    for name, value in state_of(fused).items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-3, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("algorithm", [Sac, Tqc])
def test_simbas_critics_are_residual_networks_of_state_and_action(algorithm: type[Sac]) -> None:
    """Against a literal forward pass of the paper's figure, with weights that updates have moved."""
    learner = learner_of(algorithm(hidden=(16, 8), critic="simba"), BOX)
    before = state_of(learner)
    rows = random_transitions(BOX)
    part = Transitions({name: column[: 3 * BATCH] for name, column in rows.columns.items()}, BATCH)
    learner.update(training_data=batches_of(part), timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: 3})
    state = state_of(learner)
    first = "qf_encoders.0." if algorithm is Tqc else "qf_encoder."
    weights = {name.removeprefix(first): value for name, value in state.items() if name.startswith(first)}
    assert len(weights) == 2 + 2 * 6 + 2  # embedding, two blocks of two linear layers and a norm, norm
    assert all(not torch.equal(value, before[first + name]) for name, value in weights.items())
    observations, actions = torch.from_numpy(rows.columns["obs"][:5]), torch.from_numpy(rows.columns["actions"][:5])

    def linear(values: torch.Tensor, name: str) -> torch.Tensor:
        return values @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(values: torch.Tensor, name: str) -> torch.Tensor:
        centred = values - values.mean(dim=1, keepdim=True)
        deviation = torch.sqrt(centred.square().mean(dim=1, keepdim=True) + 1e-5)
        return centred / deviation * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    stream = linear(torch.cat([observations, actions], dim=1), "_embedding")
    assert stream.shape == (5, 8)
    for block in ("_blocks.0", "_blocks.1"):
        inner = linear(norm(stream, f"{block}.0"), f"{block}.1")
        assert inner.shape == (5, 32)
        stream = stream + linear(inner.clamp(min=0), f"{block}.3")
    network = learner.network
    encoder = network.qf_encoders[0] if algorithm is Tqc else network.qf_encoder
    with torch.no_grad():
        encoded = encoder({"obs": observations, "actions": actions})["encoder_out"]
    np.testing.assert_allclose(encoded, norm(stream, "_norm"), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("algorithm", [Sac, Tqc])
def test_the_averaged_policy_is_that_of_all_updates_and_changes_no_other_network(algorithm: type[Sac]) -> None:
    averaging = learner_of(algorithm(hidden=(8,), policy_averaging=0.75), BOX)
    plain = learner_of(algorithm(hidden=(8,)), BOX)
    rows = random_transitions(BOX).columns
    average = {name: value for name, value in state_of(plain).items() if name.startswith(("pi.", "pi_encoder."))}
    for update in range(5):
        part = Transitions({name: column[update * BATCH : (update + 1) * BATCH] for name, column in rows.items()}, BATCH)
        for learner in (averaging, plain):
            torch.manual_seed(update)
            learner.update(training_data=batches_of(part), timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: update})
        latest = state_of(plain)
        average = {name: 0.75 * value + 0.25 * latest[name] for name, value in average.items()}
    state = state_of(averaging)
    for name, value in latest.items():
        np.testing.assert_array_equal(state[name], value, err_msg=name)
    for name, value in average.items():
        np.testing.assert_allclose(state[f"average_{name}"], value, rtol=1e-5, atol=1e-7, err_msg=name)
        assert not torch.allclose(value, latest[name])
    assert len(state) == len(latest) + len(average)


@pytest.mark.parametrize("algorithm", [Sac, Tqc])
def test_layer_norm_is_in_every_hidden_layer_of_the_critics_and_their_targets_only(algorithm: type[Sac]) -> None:
    network = learner_of(algorithm(hidden=(16, 8), critic_layer_norm=True), BOX).network
    widths: dict[str, list[Any]] = {}
    for name, module in network.named_modules():
        if isinstance(module, torch.nn.LayerNorm):
            widths.setdefault(name.partition(".")[0], []).append(*module.normalized_shape)
    critics = ("qf_encoder", "qf_twin_encoder", "target_qf_encoder", "target_qf_twin_encoder")
    of_both = {critic: [16, 8, 16, 8] for critic in ("qf_encoders", "target_qf_encoders")}
    assert widths == (of_both if algorithm is Tqc else {critic: [16, 8] for critic in critics})


@pytest.mark.parametrize("action_space", [DISCRETE, BOX], ids=["discrete", "continuous"])
def test_ppos_updates_equal_rllibs_own_to_the_bit(action_space: gym.Space[Any]) -> None:
    """200 minibatches, of episodes whose ends RLlib leaves out of the loss."""
    algorithm = Ppo(entropy=0.01, hidden=(16, 16))
    lean, own = learner_of(algorithm, action_space), learner_of(algorithm, action_space, PPOTorchLearner)
    assert type(lean) is not type(own)
    for learner in (lean, own):
        np.random.seed(0)
        learner.update(
            training_data=TrainingData(episodes=[random_episode(action_space, number) for number in range(8)]),
            timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: 320},
            num_epochs=10,
            minibatch_size=16,
            shuffle_batch_per_epoch=True,
        )
    expected = state_of(own)
    for name, value in state_of(lean).items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)


def random_episode(action_space: gym.Space[Any], number: int) -> SingleAgentEpisode:
    """40 random steps, with the outputs of a policy of which PPO's ratio is taken."""
    rng = np.random.default_rng(number)
    action_space.seed(number)
    episode = SingleAgentEpisode(observation_space=OBSERVATIONS, action_space=action_space, id_=str(number))
    episode.add_env_reset(rng.uniform(-1, 1, 3).astype(np.float32))
    for step in range(40):
        action = action_space.sample()
        inputs = rng.normal(0, 0.1, 4).astype(np.float32)
        episode.add_env_step(
            rng.uniform(-1, 1, 3).astype(np.float32),
            action,
            float(rng.normal()),
            terminated=step == 39 and number % 2 == 0,
            truncated=step == 39 and number % 2 == 1,
            extra_model_outputs={"action_dist_inputs": inputs, "action_logp": np.float32(rng.normal(-1.4, 0.1))},
        )
    return episode.to_numpy()


def test_a_state_of_rllibs_own_learner_is_continued_to_the_bit() -> None:
    """As a checkpoint of version 0.1 holds it."""
    algorithm, transitions = Dqn(), random_transitions(DISCRETE)
    own, lean = learner_of(algorithm, DISCRETE, DQNTorchLearner), learner_of(algorithm, DISCRETE)
    timesteps = {NUM_ENV_STEPS_SAMPLED_LIFETIME: 8}
    for update in range(3):
        own.update(training_data=TrainingData(batch=as_rllibs_batch(transitions, update, 0.0, 1.0)), timesteps=timesteps)
    lean.set_state(own.get_state())
    lean.rewards.set_state({"mean": 0.0, "deviation": 1.0})
    lean.last_update_ts_by_mid.update(own.last_update_ts_by_mid)
    own.update(training_data=TrainingData(batch=as_rllibs_batch(transitions, 3, 0.0, 1.0)), timesteps=timesteps)
    fourth = Transitions({name: column[3 * BATCH : 4 * BATCH] for name, column in transitions.columns.items()}, BATCH)
    lean.update(training_data=batches_of(fourth), timesteps=timesteps)
    for name, value in state_of(own).items():
        np.testing.assert_array_equal(state_of(lean)[name], value, err_msg=name)


def test_a_loss_that_is_not_finite_is_an_error() -> None:
    transitions = random_transitions(DISCRETE)
    transitions.columns["rewards"][-1] = np.inf
    with pytest.raises(FloatingPointError, match="the loss qf_loss is"):
        learner_of(Dqn(), DISCRETE).update(training_data=batches_of(transitions), timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: 1})


def test_a_loss_of_ppo_that_is_not_finite_is_an_error() -> None:
    """RLlib would set the gradients to zero, and go on."""
    episode = random_episode(DISCRETE, 0)
    episode.set_rewards(new_data=np.full(len(episode), np.inf, np.float32), at_indices=slice(0, len(episode)))
    with pytest.raises(FloatingPointError, match="the loss total_loss is"):
        learner_of(Ppo(), DISCRETE).update(
            training_data=TrainingData(episodes=[episode]),
            timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: 40},
            num_epochs=1,
            minibatch_size=16,
        )
