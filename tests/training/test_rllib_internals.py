"""One test for each private or undocumented member of RLlib that training relies on, named by what breaks without it."""

import inspect
import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.sac.sac_catalog import SACCatalog
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.connectors.env_to_module import EnvToModulePipeline
from ray.rllib.connectors.module_to_env import ModuleToEnvPipeline, NormalizeAndClipActions
from ray.rllib.env.env_runner import EnvRunner
from ray.rllib.utils.actor_manager import FaultAwareApply

from vlm_rm_sweeps.tasks.registry import find_task
from vlm_rm_sweeps.training import rllib_internals
from vlm_rm_sweeps.training.algorithms.sac import Sac
from vlm_rm_sweeps.training.connectors.random_actions import HeldRandomActions
from vlm_rm_sweeps.training.connectors.true_return import TrueReturnConnector
from vlm_rm_sweeps.training.q_networks import PlainQCatalog
from vlm_rm_sweeps.training.rllib_internals import local_learner
from vlm_rm_sweeps.training.trainer import build_trainer

SETTINGS = Sac(learning_starts=20, envs=2, rollout_steps=10, batch=8, hidden=(8,), updates_per_step=0.1)


@pytest.fixture(scope="module")
def trainer(ray_cluster: None) -> Iterator[Any]:
    """One of SAC, after its first updates; its sub-environments are in the middle of an episode."""
    made: Any = build_trainer(
        SETTINGS, find_task("mountaincar-summit"), None, seed=3, steps_per_result=60, evaluation_episodes=1
    )
    made.train()
    yield made
    made.stop()


def test_without_env_to_module_no_reward_is_fetched(trainer: Any) -> None:
    assert isinstance(trainer.env_runner._env_to_module, EnvToModulePipeline)
    assert isinstance(rllib_internals.env_to_module_pieces(trainer.env_runner)[-1], TrueReturnConnector)


def test_without_module_to_env_all_env_runners_warm_up_alike(trainer: Any) -> None:
    assert isinstance(trainer.env_runner._module_to_env, ModuleToEnvPipeline)
    pieces = rllib_internals.module_to_env_pieces(trainer.env_runner)
    kinds = [type(piece) for piece in pieces]
    assert kinds.index(HeldRandomActions) == kinds.index(NormalizeAndClipActions) - 1


def test_without_the_seed_env_runners_share_episodes(trainer: Any) -> None:
    """Of three sub-environments each: RLlib has given seed 4 to the first one's second, and to the second one's first."""

    class Runner:
        num_envs = 3

        def __init__(self, worker_index: int) -> None:
            self._seed, self.worker_index = 3 + worker_index, worker_index

    runners = [Runner(index) for index in range(3)]
    for runner in runners:
        rllib_internals.spread_environment_seeds(runner)
    assert [runner._seed for runner in runners] == [3, 6, 9]
    assert trainer.env_runner._seed == 3
    assert "seed=self._seed" in inspect.getsource(type(trainer.env_runner)._reset_envs)


def test_without_the_optimizers_a_taken_over_training_keeps_its_learning_rate(trainer: Any) -> None:
    """RLlib's public method returns those of one module, by its name."""
    found = rllib_internals.optimizers(local_learner(trainer))
    assert all(isinstance(each, torch.optim.Adam) for each in found)
    steps = {float(state["step"]) for each in found for state in each.state.values()}
    assert len(found) == 4
    assert min(steps) > 0


def test_without_the_pipelines_connectors_are_not_restored(trainer: Any) -> None:
    env_to_module, module_to_env = rllib_internals.env_runner_pipelines(trainer.env_runner)
    assert env_to_module.get_state() == {}
    assert module_to_env.get_state()["HeldRandomActions"]["taken"] == 20


@pytest.mark.parametrize("name", rllib_internals.ENV_RUNNER_MEMBERS)
def test_without_a_member_of_the_env_runner_episodes_are_not_continued(trainer: Any, name: str) -> None:
    """Each has a value that a fresh env runner has not, or has for ever; all can be pickled."""
    values = rllib_internals.get_members(trainer.env_runner, rllib_internals.ENV_RUNNER_MEMBERS)
    pickle.loads(pickle.dumps(values[name]))
    expected = {
        "num_env_steps_sampled_lifetime": lambda value: value == 60,
        "_needs_initial_reset": lambda value: value is False,
        "_cached_to_module": lambda value: torch.is_tensor(value["obs"]) and value["obs"].shape == (2, 2),
        "_ongoing_episodes": lambda value: [len(episode.get_observations()) for episode in value] == [1, 1],
        "_done_episodes_for_metrics": lambda value: value == [],
        "_ongoing_episodes_for_metrics": lambda value: sorted(len(chunks) for chunks in value.values()) == [3, 3],
        "_shared_data": lambda value: isinstance(value, dict),
        "_weights_seq_no": lambda value: value == local_learner(trainer)._weights_seq_no,
    }
    assert expected[name](values[name]), values[name]


@pytest.mark.parametrize("name", rllib_internals.VECTOR_ENV_MEMBERS)
def test_without_a_member_of_the_vector_env_episodes_are_not_continued(trainer: Any, name: str) -> None:
    vector = trainer.env_runner.env.unwrapped
    value = rllib_internals.get_members(vector, rllib_internals.VECTOR_ENV_MEMBERS)[name]
    assert len(value) == SETTINGS.envs
    if name in ("_env_obs", "_observations"):
        states = [env.unwrapped.state for env in vector.envs]
        np.testing.assert_allclose(np.stack(value), np.stack(states), atol=1e-6)
    if name == "_autoreset_envs":
        assert not np.any(value)


def test_set_members_sets_what_get_members_gets(trainer: Any) -> None:
    before = rllib_internals.get_members(trainer.env_runner, ["_weights_seq_no"])
    rllib_internals.set_members(trainer.env_runner, {"_weights_seq_no": 99})
    assert trainer.env_runner._weights_seq_no == 99
    rllib_internals.set_members(trainer.env_runner, before)


def test_without_the_local_learner_nothing_of_it_is_saved(trainer: Any) -> None:
    assert local_learner(trainer) is trainer.learner_group._learner
    assert local_learner(trainer).device == torch.device("cpu")


def test_without_the_learners_connectors_rewards_are_not_standardized(trainer: Any) -> None:
    learner = local_learner(trainer)
    kinds = [type(piece).__name__ for piece in rllib_internals.learner_pieces(learner)]
    assert kinds == ["StandardizeRewards"]
    assert rllib_internals.learner_pipeline(learner).get_state().keys() == {"StandardizeRewards"}


def test_without_target_update_steps_targets_are_updated_too_early(trainer: Any) -> None:
    steps = rllib_internals.target_update_steps(local_learner(trainer))
    assert dict(steps) == {"default_policy": 60}
    assert "last_update_ts_by_mid" not in str(local_learner(trainer).get_state().keys())


def test_without_log_temperatures_the_entropy_coefficient_starts_anew(trainer: Any) -> None:
    temperatures = rllib_internals.log_temperatures(local_learner(trainer))
    assert set(temperatures) == {"default_policy"}
    assert temperatures["default_policy"].item() < 0  # it was learned, from 0


def test_without_the_iteration_rllib_evaluates_at_other_times(trainer: Any) -> None:
    assert rllib_internals.get_iteration(trainer) == trainer.iteration == 1
    rllib_internals.set_iteration(trainer, 7)
    assert trainer.iteration == 7
    rllib_internals.set_iteration(trainer, 1)


def test_without_callback_classes_a_users_callbacks_are_lost() -> None:
    class Mine(RLlibCallback):
        pass

    assert rllib_internals.callback_classes(AlgorithmConfig()) == [RLlibCallback]
    assert rllib_internals.callback_classes(AlgorithmConfig().callbacks(callbacks_class=Mine)) == [Mine]
    assert rllib_internals.callback_classes(AlgorithmConfig().callbacks(callbacks_class=[Mine, RLlibCallback])) == [
        Mine,
        RLlibCallback,
    ]


def test_without_apply_an_env_runner_dies_of_an_error() -> None:
    assert EnvRunner.apply is FaultAwareApply.apply
    assert "sys.exit(1)" in inspect.getsource(FaultAwareApply.apply)
    # Ray adds a parameter to the methods of a class once it has made an actor of it.
    parameters = [name for name in inspect.signature(FaultAwareApply.apply).parameters if name != "_ray_trace_ctx"]
    assert parameters == ["self", "func", "args", "kwargs"]

    class Actor(rllib_internals.RaisingActor):
        pass

    with pytest.raises(ZeroDivisionError):
        Actor().apply(lambda runner: 1 / 0)
    assert Actor().apply(lambda runner, number: (type(runner), number), number=3) == (Actor, 3)


def test_without_environment_error_the_message_is_lost(trainer: Any) -> None:
    class Broken:
        def step(self, actions: Any) -> Any:
            raise ArithmeticError("the pole fell off")

    runner = trainer.env_runner
    whole, runner.env = runner.env, Broken()
    with pytest.raises(RuntimeError) as raised:
        runner._try_env_step(None)
    runner.env = whole
    assert not str(raised.value)
    assert str(rllib_internals.environment_error(raised.value)) == "the pole fell off"
    own = RuntimeError("of its own")
    own.__cause__ = ValueError("hidden")
    assert rllib_internals.environment_error(own) is own


def test_without_the_catalogs_encoder_q_networks_are_rllibs(trainer: Any) -> None:
    assert callable(SACCatalog._build_qf_encoder_continuous)
    assert "_build_qf_encoder_continuous" in vars(PlainQCatalog)
    assert "_build_qf_encoder_continuous" in inspect.getsource(SACCatalog.build_qf_encoder)
    encoder = local_learner(trainer).module["default_policy"].qf_encoder
    assert [tuple(each.shape) for each in encoder.parameters() if each.ndim == 2] == [(8, 2 + 1)]
