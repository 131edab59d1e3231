"""CPU time of one gradient update with its replay, compared with stable-baselines3 and with RLlib's own learner.

Run `make bench`, or `.venv/bin/python benchmarks/update.py`; `--json FILE` writes the figures to a file, too. An update is a batch
drawn from the replay buffer and one step of every optimiser and target network on it:

- *this project*: one `sample` of all batches of a turn and one `update` of the learner with them, as after a rollout.
- *stable-baselines3*: one `train` with as many gradient steps.
- *RLlib*: the same configuration with RLlib's learner and its `EpisodeReplayBuffer`, and for each update one `sample` and one
  `update`, as in RLlib's training step.

Tasks and settings are those of the `sweeps/` files named in `CASES`, but DQN is not double, because that of stable-baselines3 is not.
Each buffer is filled with transitions of the task's environment under random actions, rewarded by its true reward. DQN's target
network, which is copied by environment steps, is not updated here. torch has one thread.

The three take turns in one run, after a first turn of each that is not counted, and the figures are medians over the turns, so that a
busy machine slows all of them alike.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from measuring import Cost, parser_of, quiet_ray, take_turns, write_figures
from ray.rllib.algorithms import dqn as rllib_dqn
from ray.rllib.algorithms import sac as rllib_sac
from ray.rllib.algorithms.dqn.torch.dqn_torch_learner import DQNTorchLearner
from ray.rllib.algorithms.sac.torch.sac_torch_learner import SACTorchLearner
from ray.rllib.utils.metrics import NUM_AGENT_STEPS_SAMPLED_LIFETIME, NUM_ENV_STEPS_SAMPLED_LIFETIME
from stable_baselines3 import DQN, SAC
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import DummyVecEnv

from vlm_rm_sweeps.tasks.registry import find_task
from vlm_rm_sweeps.tasks.task import Task
from vlm_rm_sweeps.training.algorithms.dqn import Dqn
from vlm_rm_sweeps.training.algorithms.sac import Sac
from vlm_rm_sweeps.training.trainer import build_trainer

SWEEPS = Path(__file__).parent.parent / "sweeps"
CASES = ("paper_cartpole_fast", "paper_mountaincar_fast", "humanoid_kneeling")
THIS_PROJECT, STABLE_BASELINES3, RLLIB = "this project", "stable-baselines3", "RLlib"

Update = Callable[[int], object]
"""Makes a number of updates."""


class RllibsOwn:
    """Mixin for an algorithm that keeps RLlib's training step, learner and replay buffer."""

    def rllib_config(self, env_runners: int) -> Any:
        """Configure RLlib as the algorithm does, but with RLlib's own classes."""
        config: Any = super().rllib_config(env_runners)  # type: ignore[misc]
        dqn = isinstance(self, Dqn)
        config.algo_class = rllib_dqn.DQN if dqn else rllib_sac.SAC
        return config.learners(learner_class=DQNTorchLearner if dqn else SACTorchLearner)

    def after_build(self, trainer: Any, seed: int) -> None:
        """Keep RLlib's replay buffer."""


class RllibsOwnDqn(RllibsOwn, Dqn):
    """RLlib's own DQN with the settings of this project's."""


class RllibsOwnSac(RllibsOwn, Sac):
    """RLlib's own SAC with the settings of this project's."""


@dataclass(frozen=True)
class Case:
    """One task, and the settings of its algorithm."""

    task: Task
    settings: dict[str, Any]

    @classmethod
    def of(cls, sweep: str, transitions: int) -> "Case":
        """Read task and settings from a sweep file in `sweeps/`, so that the buffer is filled before learning starts."""
        keys = yaml.safe_load((SWEEPS / f"{sweep}.yaml").read_text())
        settings = keys["settings"] | {"learning_starts": transitions + 1}
        if keys["algorithm"] == "dqn":
            settings |= {"double_q": False, "epsilon_steps": 10**9}
        return cls(find_task(keys["task"]), settings)

    @property
    def is_dqn(self) -> bool:
        """Whether the algorithm is DQN, not SAC."""
        return "double_q" in self.settings

    def __str__(self) -> str:
        widths = " x ".join(str(width) for width in self.settings["hidden"])
        return f"{'DQN' if self.is_dqn else 'SAC'} on {self.task.name}, batch {self.settings['batch']}, {widths}"


def this_project(case: Case, transitions: int) -> Update:
    """Make the updates of a trial's trainer.

    Args:
        case: Task and settings.
        transitions: Number of transitions in the replay buffer.

    Returns:
        The function that makes updates.
    """
    settings = Dqn(**case.settings) if case.is_dqn else Sac(**case.settings)
    trainer: Any = build_trainer(settings, case.task, None, seed=0, steps_per_result=transitions, evaluation_episodes=1)
    trainer.train()

    def update(updates: int) -> None:
        buffer = trainer.local_replay_buffer
        drawn = buffer.gather(buffer.draw(updates, settings.batch))
        trainer.learner_group.update(episodes=[drawn], timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: transitions})

    return update


def rllib(case: Case, transitions: int) -> Update:
    """Make the updates of RLlib's own DQN or SAC; see `this_project`."""
    settings = RllibsOwnDqn(**case.settings) if case.is_dqn else RllibsOwnSac(**case.settings)
    trainer: Any = build_trainer(settings, case.task, None, seed=0, steps_per_result=transitions, evaluation_episodes=1)
    trainer.train()
    sampled = {NUM_ENV_STEPS_SAMPLED_LIFETIME: transitions, NUM_AGENT_STEPS_SAMPLED_LIFETIME: transitions}

    def update(updates: int) -> None:
        for _ in range(updates):
            drawn = trainer.local_replay_buffer.sample(
                num_items=settings.batch, n_step=1, batch_length_T=0, gamma=settings.gamma, sample_episodes=True
            )
            trainer.learner_group.update(episodes=drawn, timesteps=sampled)

    return update


def stable_baselines3(case: Case, transitions: int) -> Update:
    """Make the updates of stable-baselines3; see `this_project`."""
    settings = case.settings
    common: dict[str, Any] = {
        "policy": "MlpPolicy",
        "env": DummyVecEnv([lambda: case.task.make_env(None)] * settings["envs"]),
        "learning_rate": settings["learning_rate"],
        "gamma": settings["gamma"],
        "buffer_size": settings["buffer"],
        "learning_starts": transitions + settings["envs"],
        "train_freq": (settings["rollout_steps"], "step"),
        "policy_kwargs": {"net_arch": settings["hidden"]},
        "seed": 0,
        "device": "cpu",
    }
    algorithm: Any = DQN(**common) if case.is_dqn else SAC(**common, tau=settings["tau"], ent_coef=settings["entropy"])
    algorithm.set_logger(Logger(None, []))  # its own leaves a folder in the temporary one
    algorithm.learn(transitions)
    return lambda updates: algorithm.train(gradient_steps=updates, batch_size=settings["batch"])


def compare(case: Case, transitions: int, updates: int, rounds: int) -> dict[str, Cost]:
    """Let the three update, in turns.

    Args:
        case: Task and settings.
        transitions: Number of transitions in each replay buffer.
        updates: Updates in a turn.
        rounds: Turns of each.

    Returns:
        The cost of one update by name, this project's first.
    """
    makers = {THIS_PROJECT: this_project, STABLE_BASELINES3: stable_baselines3, RLLIB: rllib}
    made = {name: make(case, transitions) for name, make in makers.items()}
    costs = take_turns({name: functools.partial(update, updates) for name, update in made.items()}, rounds)
    return {name: Cost(cost.seconds / updates, cost.cpu_seconds / updates) for name, cost in costs.items()}


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = parser_of(__doc__)
    parser.add_argument("--updates", type=int, default=16, help="updates in a turn")
    parser.add_argument("--rounds", type=int, default=12, help="turns of each")
    parser.add_argument("--transitions", type=int, default=2_048, help="transitions in each replay buffer")
    return parser.parse_args()


def main() -> None:
    """Print the table, and write it as JSON."""
    options = arguments()
    torch.set_num_threads(1)
    logging.getLogger("ray.rllib").setLevel(logging.ERROR)
    print(f"{'update':52}{'':20}{'CPU':>10}{'time':>12}{'times this project (CPU)':>28}")
    results: dict[str, dict[str, Cost]] = {}
    with quiet_ray():
        for sweep in CASES:
            case = Case.of(sweep, options.transitions)
            results[str(case)] = compare(case, options.transitions, options.updates, options.rounds)
            ours = results[str(case)][THIS_PROJECT]
            for name, each in results[str(case)].items():
                figures = (
                    f"{1e3 * each.cpu_seconds:7.2f} ms{1e3 * each.seconds:9.2f} ms{each.cpu_seconds / ours.cpu_seconds:28.2f}"
                )
                print(f"{case!s:52}{name:20}{figures}", flush=True)
    write_figures(options, results)


if __name__ == "__main__":
    main()
