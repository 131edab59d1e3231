"""A trial goes on with the training of another one and with other settings, as population-based training has it."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vlm_rm_sweeps.metrics import COMPARED, FAILURE, NOTE
from vlm_rm_sweeps.tasks.registry import find_task
from vlm_rm_sweeps.training.algorithms.base import Algorithm
from vlm_rm_sweeps.training.algorithms.dqn import Dqn
from vlm_rm_sweeps.training.algorithms.ppo import Ppo
from vlm_rm_sweeps.training.algorithms.sac import Sac
from vlm_rm_sweeps.training.algorithms.tqc import Tqc
from vlm_rm_sweeps.training.checkpoints import TrialFolder
from vlm_rm_sweeps.training.resumption import get_training_state, take_over_training_state
from vlm_rm_sweeps.training.rllib_internals import local_learner, log_temperatures, optimizers
from vlm_rm_sweeps.training.trainer import build_trainer
from vlm_rm_sweeps.training.trial import Takeover, TrainableTrial, TrainingJob

pytestmark = pytest.mark.sweeps

SMALL: dict[str, Any] = {"envs": 2, "rollout_steps": 10, "hidden": (8,)}
REPLAY: dict[str, Any] = SMALL | {"learning_starts": 20, "batch": 8, "updates_per_step": 0.1}
SOFT = {"learning_rate": 3e-3, "gamma": 0.9, "tau": 0.1, "entropy": 0.2}
CHANGED: list[tuple[str, Algorithm, dict[str, Any], dict[str, Any]]] = [
    (
        "cartpole-upright",
        Dqn(**REPLAY),
        {
            "learning_rate": 3e-3,
            "gamma": 0.9,
            "double_q": False,
            "target_update_every": 40,
            "epsilon_final": 0.5,
            "epsilon_steps": 1,
        },
        {"gamma": 0.9, "double_q": False, "target_network_update_freq": 40},
    ),
    ("mountaincar-summit", Sac(**REPLAY), SOFT, {"gamma": 0.9, "tau": 0.1}),
    (
        "mountaincar-summit",
        Tqc(**REPLAY),
        SOFT | {"dropped_quantiles": 5},
        {"gamma": 0.9, "tau": 0.1, "top_quantiles_to_drop_per_net": 5},
    ),
    (
        "cartpole-upright",
        Ppo(**SMALL, minibatch=10, epochs=2),
        {"learning_rate": 3e-3, "gamma": 0.9, "gae_lambda": 0.5, "clip": 0.1, "epochs": 3, "entropy": 0.01, "value_loss": 1.0},
        {"gamma": 0.9, "lambda_": 0.5, "clip_param": 0.1, "num_epochs": 3, "entropy_coeff": 0.01, "vf_loss_coeff": 1.0},
    ),
]


def built(algorithm: Algorithm, task: str) -> Any:
    return build_trainer(algorithm, find_task(task), None, seed=3, steps_per_result=40, evaluation_episodes=1)


def rates(trainer: Any) -> list[float]:
    return [group["lr"] for optimizer in optimizers(local_learner(trainer)) for group in optimizer.param_groups]


@pytest.mark.parametrize(("task", "before", "changed", "configured"), CHANGED, ids=[type(each[1]).__name__ for each in CHANGED])
def test_all_that_may_change_does_and_all_else_is_the_other_training(
    ray_cluster: None, task: str, before: Algorithm, changed: dict[str, Any], configured: dict[str, Any]
) -> None:
    """To the bit: the weights, the optimisers' moments and what was sampled."""
    assert changed.keys() == set(type(before).changeable)
    after = type(before)(**(before.model_dump() | changed))
    trainer, other = built(before, task), built(after, task)
    try:
        trainer.train()
        state = get_training_state(trainer, before)
        take_over_training_state(other, after, state)
        learner = local_learner(other)
        fixed_coefficient = [0.0] if after.model_dump().get("entropy") == 0.2 else []
        assert set(rates(other)) == {3e-3, *fixed_coefficient}
        assert {name: getattr(learner.config, name) for name in configured} == configured
        if fixed_coefficient:
            (coefficient,) = (value.exp().item() for value in log_temperatures(learner).values())
            assert coefficient == pytest.approx(0.2)
        if isinstance(after, Dqn):
            other.env_runner.module.epsilon_schedule.update(1_000)
            assert other.env_runner.module.epsilon_schedule.get_current_value() == 0.5
        weights, taken = (local_learner(each).network.state_dict() for each in (trainer, other))
        assert all(torch.equal(values, taken[name]) for name, values in weights.items())
        moments = [
            [state["exp_avg"] for optimizer in optimizers(local_learner(each)) for state in optimizer.state.values()]
            for each in (trainer, other)
        ]
        assert all(torch.equal(one, another) for one, another in zip(*moments, strict=True))
        if trainer.local_replay_buffer is not None:
            columns, same = (each.local_replay_buffer.transitions() for each in (trainer, other))
            for name, values in columns.items():
                np.testing.assert_array_equal(values, same[name])
        other.train()
        assert set(rates(other)) == {3e-3, *fixed_coefficient}
    finally:
        trainer.stop()
        other.stop()


def job(folder: Path, learning_rate: float = 1e-3, **changed: Any) -> TrainingJob:
    """Six results of 40 steps. After the second and the fourth the population is compared."""
    made = TrainingJob(
        find_task("cartpole-upright"),
        Dqn(**REPLAY, learning_rate=learning_rate),
        None,
        seed=5,
        steps=240,
        steps_per_result=40,
        evaluation_episodes=2,
        folder=folder,
        checkpoint_every=40,
        evaluation_interval=80,
        compared_every=80,
    )
    return dataclasses.replace(made, **changed)


def results(job: TrainingJob, count: int) -> list[dict[str, Any]]:
    trial = TrainableTrial(config={"run": {"job": job}})
    try:
        return [trial.train() for _ in range(count)]
    finally:
        trial.stop()


def learned(result: dict[str, Any]) -> dict[str, Any]:
    names = ("env_steps", "updates", "true_return", "evaluation_true_return", "goal_fraction")
    return {name: result.get(name) for name in names}


def policy(folder: Path) -> bytes:
    checkpoint, _ = TrialFolder(folder).last()
    assert checkpoint is not None
    assert checkpoint.content["done"]
    return (checkpoint.folder / "policy.safetensors").read_bytes()


def test_a_trial_that_is_paused_where_it_is_compared_goes_on_as_if_it_had_not_been(ray_cluster: None, tmp_path: Path) -> None:
    whole = results(job(tmp_path / "whole"), 6)
    assert [COMPARED in each for each in whole] == [False, True, False, True, False, False]
    before, after = results(job(tmp_path / "paused"), 2), results(job(tmp_path / "paused"), 5)
    assert learned(after[0]) == learned(before[1]), "it says again where it is, in case nobody heard"
    assert COMPARED in after[0]
    assert not any(NOTE in each for each in after)
    assert [learned(each) for each in after[1:]] == [learned(each) for each in whole[2:]]
    assert policy(tmp_path / "paused") == policy(tmp_path / "whole")


def test_a_taken_over_training_goes_on_as_the_other_one_would(ray_cluster: None, tmp_path: Path) -> None:
    """With its settings, to the bit; with others, otherwise. And what the trial itself reported before stays."""
    best, worst = tmp_path / "best", tmp_path / "worst"
    good, bad = results(job(best), 6), results(job(worst, 1e-2), 2)
    taken = job(worst, takeover=Takeover(best, 80))
    again = results(taken, 3)
    assert learned(again[0]) == learned(bad[1])
    assert [learned(each) for each in again[1:]] == [learned(each) for each in good[2:4]]
    # Its process died: its own training is further than what it took over.
    resumed = results(taken, 3)
    assert [learned(each) for each in resumed] == [learned(each) for each in good[3:]]
    otherwise = tmp_path / "otherwise"
    results(job(otherwise, 1e-2), 2)
    changed = results(job(otherwise, 5e-2, takeover=Takeover(best, 80)), 5)
    assert [COMPARED in each for each in changed] == [True, False, True, False, False]
    assert policy(worst) == policy(best) != policy(otherwise)
    content = TrialFolder(otherwise).last()[0]
    assert content is not None
    assert [each["env_steps"] for each in content.content["results"]] == [40, 80, 120, 160, 200, 240]
    assert content.content["settings"]["learning_rate"] == 5e-2


def test_what_others_may_go_on_from_is_kept_until_nobody_can(ray_cluster: None, tmp_path: Path) -> None:
    def kept(folder: Path) -> list[str]:
        return sorted(each.name for each in folder.glob("step-*"))

    results(job(tmp_path / "a"), 4)
    assert kept(tmp_path / "a") == ["step-000000080", "step-000000120", "step-000000160"]
    results(job(tmp_path / "b", steps=400), 9)
    assert kept(tmp_path / "b") == ["step-000000240", "step-000000280", "step-000000320"]


def test_a_training_that_is_gone_cannot_be_taken_over(ray_cluster: None, tmp_path: Path) -> None:
    results(job(tmp_path / "worst"), 2)
    (failed,) = results(job(tmp_path / "worst", takeover=Takeover(tmp_path / "gone", 80)), 1)
    assert "the training of trial gone cannot be taken over" in failed[FAILURE]


def test_settings_of_which_the_journal_knows_nothing_are_refused(ray_cluster: None, tmp_path: Path) -> None:
    results(job(tmp_path / "trial"), 2)
    (failed,) = results(job(tmp_path / "trial", 1e-2), 1)
    assert "was trained with learning_rate = 0.001, and the journal says 0.01: it has lost a takeover" in failed[FAILURE]
