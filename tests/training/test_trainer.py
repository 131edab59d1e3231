"""A trial's trainer computes its updates where it is told to."""

from typing import Any

import pytest
import torch
from ray.rllib.core.learner.torch import torch_learner

from vlm_rm_sweeps.tasks.registry import find_task
from vlm_rm_sweeps.training.algorithms.base import Algorithm
from vlm_rm_sweeps.training.algorithms.dqn import Dqn
from vlm_rm_sweeps.training.algorithms.ppo import Ppo
from vlm_rm_sweeps.training.algorithms.sac import Sac
from vlm_rm_sweeps.training.algorithms.tqc import Tqc
from vlm_rm_sweeps.training.resumption import get_training_state, set_training_state
from vlm_rm_sweeps.training.rllib_internals import local_learner
from vlm_rm_sweeps.training.trainer import build_trainer

SMALL: dict[str, Any] = {"envs": 2, "rollout_steps": 10, "hidden": (8,)}
REPLAY: dict[str, Any] = SMALL | {"learning_starts": 20, "batch": 8, "updates_per_step": 0.1}
ALGORITHMS: list[tuple[str, Algorithm]] = [
    ("cartpole-upright", Dqn(**REPLAY)),
    ("mountaincar-summit", Sac(**REPLAY, normalize_observations=True, policy_averaging=0.9)),
    ("mountaincar-summit", Tqc(**REPLAY)),
    ("cartpole-upright", Ppo(**SMALL, minibatch=10, epochs=2)),
]
of_each = pytest.mark.parametrize(("task", "algorithm"), ALGORITHMS, ids=[type(each[1]).__name__ for each in ALGORITHMS])


def built(algorithm: Algorithm, task: str, learns_on_gpu: bool) -> Any:
    return build_trainer(
        algorithm, find_task(task), None, seed=3, steps_per_result=40, evaluation_episodes=1, learns_on_gpu=learns_on_gpu
    )


@of_each
@pytest.mark.parametrize("learns_on_gpu", [False, True])
def test_rllib_is_asked_for_a_gpu_for_the_learner_alone(
    ray_cluster: None, monkeypatch: pytest.MonkeyPatch, task: str, algorithm: Algorithm, learns_on_gpu: bool
) -> None:
    """All goes on as on a CPU, which the learner is given in place of a GPU."""
    asked: list[float] = []

    def device(config: Any, gpus: float) -> torch.device:
        asked.append(gpus)
        return torch.device("cpu")

    monkeypatch.setattr(torch_learner, "get_device", device)
    trainer = built(algorithm, task, learns_on_gpu)
    try:
        assert asked == [int(learns_on_gpu)]
        assert trainer.config.num_gpus_per_env_runner == 0
        trainer.train()
    finally:
        trainer.stop()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@of_each
def test_a_learner_on_a_gpu_learns_and_goes_on_on_a_cpu(ray_cluster: None, task: str, algorithm: Algorithm) -> None:
    trainer, other = built(algorithm, task, learns_on_gpu=True), built(algorithm, task, learns_on_gpu=False)
    try:
        before = {name: values.cpu().clone() for name, values in local_learner(trainer).network.state_dict().items()}
        trainer.train()
        trainer.evaluate()
        learned = local_learner(trainer).network.state_dict()
        assert {values.device.type for values in learned.values()} == {"cuda"}
        assert any(not torch.equal(values.cpu(), before[name]) for name, values in learned.items())
        set_training_state(other, algorithm, get_training_state(trainer, algorithm))
        taken = local_learner(other).network.state_dict()
        assert all(torch.equal(values.cpu(), taken[name]) for name, values in learned.items())
        other.train()
    finally:
        trainer.stop()
        other.stop()
