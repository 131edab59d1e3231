"""Environment steps per second and CPU time of one whole training trial, compared with two loops of stable-baselines3.

Run `make bench-trials`, or `.venv/bin/python benchmarks/end_to_end.py`; `--humanoid` adds the humanoid, `--json FILE` writes the
figures to a file. The three loops learn the same task from the same model, `embedded/small`:

- *this project*: the trainer that a trial of a sweep builds, on a reward pool with one server, as in a sweep.
- *Gymnasium's frames*: stable-baselines3 in the way of the code of arXiv 2310.12921. Gymnasium renders each frame at its default
  size. At the end of a rollout its frames are scored in the trainer's process, and the rewards are written into the replay buffer
  before the updates. The paper's code steps each environment in a process of its own; here one process steps all of them, unless
  `--processes` is given. The humanoid always has a process for each, because its renderers do not share a process.
- *fast frames*: the same in one process, with the frames of this project.

Environments and their number, length of the rollouts, networks, batches, updates, replay buffer, discount and learning rate are the
same, from the `sweeps/` files named in `CASES`; so are the CLIP model and its weights. DQN is not double, because that of
stable-baselines3 is not. Every process has one thread for torch.

The loops take turns in one run, after turns that are not counted, and the figures are medians over the turns, so that a busy machine
slows all of them alike. The columns *ours / loop* are the speed and the CPU time of this project as multiples of the row's: this
project is the faster one where the first is above 1, and the cheaper one where the second is below 1. CPU time is that of all
processes of a loop. In that of this project, *Ray* is what Ray's own processes (object store, scheduler, agents) take meanwhile: it
is not in the sum, because they serve all trials of a sweep together.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import functools
import logging
import multiprocessing
import statistics
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
import psutil
import ray
import torch
import yaml
from measuring import parser_of, quiet_ray, write_figures
from stable_baselines3 import DQN, SAC
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv

from vlm_rm_sweeps.metrics import INFO_FRAME
from vlm_rm_sweeps.process_defaults import prepare_pygame
from vlm_rm_sweeps.rewards.clip import ClipRewardModel
from vlm_rm_sweeps.rewards.reward_model import RewardSpec
from vlm_rm_sweeps.serving.pool import PoolConfig, await_pool, start_pool
from vlm_rm_sweeps.tasks.opengl import choose_backend
from vlm_rm_sweeps.tasks.registry import find_task
from vlm_rm_sweeps.tasks.task import Task
from vlm_rm_sweeps.training.algorithms.dqn import Dqn
from vlm_rm_sweeps.training.algorithms.sac import Sac
from vlm_rm_sweeps.training.connectors.reward import RewardSource
from vlm_rm_sweeps.training.trainer import build_trainer

MODEL_ID = "embedded/small"
SWEEPS = Path(__file__).parent.parent / "sweeps"
CASES = ("paper_cartpole_fast", "paper_mountaincar_fast")
HUMANOID = "humanoid_kneeling"
"""Sweep files, of which a case has task and settings."""
ENVS, ROLLOUT_STEPS = 8, 8
LEARNING_STARTS = 256
MICRO_BATCH = 32
"""Half a rollout, as in the quick start: the first half is scored while the second is stepped."""
TRAINER, SERVER, ENVIRONMENTS, RAY = "trainer", "reward server", "environments", "Ray"


@dataclass(frozen=True)
class Case:
    """One task, and the settings with which all loops learn it."""

    task: Task
    settings: Dqn | Sac

    @classmethod
    def of(cls, sweep: str) -> "Case":
        """Read task and settings from a sweep file in `sweeps/`, with the rollouts and the short warm-up of this benchmark."""
        keys = yaml.safe_load((SWEEPS / f"{sweep}.yaml").read_text())
        settings = keys["settings"] | {"envs": ENVS, "rollout_steps": ROLLOUT_STEPS, "learning_starts": LEARNING_STARTS}
        if keys["algorithm"] == "sac":
            return cls(find_task(keys["task"]), Sac(**settings))
        return cls(find_task(keys["task"]), Dqn(**settings | {"epsilon_steps": LEARNING_STARTS, "double_q": False}))

    @property
    def spec(self) -> RewardSpec:
        """The reward: the task's own prompts."""
        return RewardSpec((self.task.goal_prompt,), (self.task.baseline_prompt,), 0.5)


class Loop(Protocol):
    """A training loop.

    Attributes:
        name: Name in the table.
        helpers: Processes beside this one that work for the loop, by what they do.
    """

    name: str
    helpers: Mapping[str, Sequence[psutil.Process]]

    def advance(self) -> int:
        """Train for one turn, and return the number of environment steps."""
        ...

    def close(self) -> None:
        """Stop the loop's processes."""
        ...


class ThisProject:
    """A trial's trainer, and a pool of one reward server.

    Args:
        case: What it learns.
        steps: Least number of environment steps in a turn.
    """

    name = "this project"

    def __init__(self, case: Case, steps: int) -> None:
        model = ClipRewardModel(MODEL_ID)
        config = PoolConfig.of(f"benchmark-{case.task.name}", model, micro_batch=MICRO_BATCH)
        self._servers = start_pool(config, model)
        await_pool(config, self._servers, [case.spec])
        source = RewardSource(config, case.spec, model.frame_format, case.task.rendering())
        self._trainer = build_trainer(case.settings, case.task, source, seed=0, steps_per_result=steps, evaluation_episodes=1)
        self._steps = 0
        server = psutil.Process(ray.get(self._servers[0].__ray_call__.remote(lambda _: os.getpid())))
        self.helpers: Mapping[str, Sequence[psutil.Process]] = {SERVER: [server], RAY: _processes_of_ray()}

    def advance(self) -> int:
        """Train until the next result."""
        before, self._steps = self._steps, int(self._trainer.train()["num_env_steps_sampled_lifetime"])
        return self._steps - before

    def close(self) -> None:
        """Stop the trainer and the server."""
        self._trainer.stop()
        for server in self._servers:
            ray.kill(server)


def _processes_of_ray() -> list[psutil.Process]:
    """Return Ray's own processes: neither actors, nor idle workers, nor processes of environments."""
    others = ("ray::IDLE", "ray::RewardServer", "multiprocessing")
    started = psutil.Process().children(recursive=True)
    return [each for each in started if not any(other in " ".join(each.cmdline()) for other in others)]


class ScoreRollouts(BaseCallback):
    """Scores the frames of each rollout at its end, and writes the rewards into the replay buffer.

    Args:
        score: Maps frames (N, H, W, 3) to rewards (N,).
    """

    def __init__(self, score: Callable[[np.ndarray], np.ndarray]) -> None:
        super().__init__()
        self._score = score
        self._frames: list[np.ndarray] = []

    def _on_step(self) -> bool:
        self._frames += [info.pop(INFO_FRAME) for info in self.locals["infos"]]
        return True

    def _on_rollout_end(self) -> None:
        buffer = self.locals["replay_buffer"]
        rewards = self._score(np.stack(self._frames)).reshape(-1, buffer.n_envs)
        # Negative rows are those at the end of a buffer that has come round.
        buffer.rewards[np.arange(buffer.pos - len(rewards), buffer.pos)] = rewards
        self._frames = []


class GymnasiumFrames(gym.Wrapper):
    """Adds `info["frame"]`, rendered by Gymnasium's own method even where the environment has one of its own.

    Args:
        env: An environment whose innermost class has one of Gymnasium's as a base.
    """

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        prepare_pygame()
        innermost: Any = env.unwrapped
        theirs: Any = next(each for each in type(innermost).__mro__ if each.__module__.startswith("gymnasium.envs."))
        self._render = functools.partial(theirs.render, innermost)

    def step(self, action: Any) -> Any:
        """Take a step and render the new state; there is no reward yet."""
        observation, _, terminated, truncated, info = self.env.step(action)
        return observation, float("nan"), terminated, truncated, info | {INFO_FRAME: self._render()}


class StableBaselines3:
    """DQN or SAC of stable-baselines3, whose rollouts are scored in this process.

    Args:
        name: Name in the table.
        case: What it learns.
        envs: The environments, whose `info` has a frame.
        steps: Least number of environment steps in a turn.
    """

    def __init__(self, name: str, case: Case, envs: VecEnv, steps: int) -> None:
        self.name, self._steps = name, steps
        self._algorithm = _stable_baselines3(case.settings, envs)
        self._algorithm.set_logger(Logger(None, []))  # its own leaves a folder in the temporary one
        model = ClipRewardModel(MODEL_ID)
        model.load(micro_batch=ENVS * ROLLOUT_STEPS)
        self._callback = ScoreRollouts(lambda frames: model.score(frames, [case.spec])[:, 0])
        processes = envs.processes if isinstance(envs, SubprocVecEnv) else []
        self.helpers: Mapping[str, Sequence[psutil.Process]] = {ENVIRONMENTS: [psutil.Process(each.pid) for each in processes]}

    def advance(self) -> int:
        """Train for whole rollouts."""
        before = self._algorithm.num_timesteps
        self._algorithm.learn(self._steps, self._callback, reset_num_timesteps=not before)
        return self._algorithm.num_timesteps - before

    def close(self) -> None:
        """Close the environments."""
        self._algorithm.get_env().close()


def _stable_baselines3(settings: Dqn | Sac, envs: VecEnv) -> Any:
    """Make the algorithm of stable-baselines3 with the settings of this project's."""
    common: dict[str, Any] = {
        "policy": "MlpPolicy",
        "env": envs,
        "learning_rate": settings.learning_rate,
        "gamma": settings.gamma,
        "batch_size": settings.batch,
        "buffer_size": settings.buffer,
        "learning_starts": settings.learning_starts,
        "train_freq": (settings.rollout_steps, "step"),
        "gradient_steps": round(settings.updates_per_step * settings.envs * settings.rollout_steps),
        "policy_kwargs": {"net_arch": list(settings.hidden)},
        "seed": 0,
        "device": "cpu",
    }
    if isinstance(settings, Sac):
        return SAC(**common, tau=settings.tau, ent_coef=settings.entropy)
    epsilon = settings.epsilon_final
    return DQN(
        **common,
        target_update_interval=settings.target_update_every,
        exploration_initial_eps=epsilon,
        exploration_final_eps=epsilon,
    )


def paper_loop(case: Case, steps: int, processes: bool) -> StableBaselines3:
    """Make the loop in the way of the paper's code.

    Args:
        case: What it learns.
        steps: Least number of environment steps in a turn.
        processes: Whether each environment is stepped in a process of its own.

    Returns:
        The loop.
    """
    task = case.task  # all that the processes need
    makers: list[Callable[[], gym.Env]] = [lambda: GymnasiumFrames(task.make_env(None))] * ENVS
    # Gymnasium does not make a renderer's OpenGL context current before it draws: a process can have one renderer.
    envs = SubprocVecEnv(makers) if processes or task.draws_with_opengl else DummyVecEnv(makers)
    return StableBaselines3("Gymnasium's frames", case, envs, steps)


def fast_frames_loop(case: Case, steps: int) -> StableBaselines3:
    """Make the loop of stable-baselines3 with this project's frames; see `paper_loop`."""
    frame_format = ClipRewardModel(MODEL_ID).frame_format
    envs = DummyVecEnv([lambda: case.task.make_env(frame_format)] * ENVS)
    return StableBaselines3("fast frames", case, envs, steps)


@dataclass(frozen=True)
class Turn:
    """Figures of one turn, or medians of several: environment steps per second, and CPU milliseconds per step by process."""

    steps_per_second: float
    cpu_ms: dict[str, float]

    @property
    def cpu_sum_ms(self) -> float:
        """CPU milliseconds per step of the loop's own processes."""
        return sum(ms for name, ms in self.cpu_ms.items() if name != RAY)


def measured_turn(loop: Loop) -> Turn:
    """Let a loop take a turn."""
    before, started = _cpu_seconds(loop), time.perf_counter()
    steps = loop.advance()
    seconds, after = time.perf_counter() - started, _cpu_seconds(loop)
    return Turn(steps / seconds, {name: 1e3 * (after[name] - before[name]) / steps for name in after})


def _cpu_seconds(loop: Loop) -> dict[str, float]:
    helpers = {name: sum(sum(each.cpu_times()[:2]) for each in processes) for name, processes in loop.helpers.items()}
    return {TRAINER: time.process_time()} | {name: seconds for name, seconds in helpers.items() if loop.helpers[name]}


def median(turns: Sequence[Turn]) -> Turn:
    """Return the median of each figure."""
    names = turns[0].cpu_ms
    cpu_ms = {name: statistics.median(turn.cpu_ms[name] for turn in turns) for name in names}
    return Turn(statistics.median(turn.steps_per_second for turn in turns), cpu_ms)


def warm_up(loop: Loop) -> None:
    """Let a loop take turns until it learns."""
    taken = 0
    while taken < LEARNING_STARTS + ENVS * ROLLOUT_STEPS:
        taken += loop.advance()


def compare(case: Case, steps: int, rounds: int, processes: bool) -> dict[str, Turn]:
    """Let the three loops learn one task, in turns.

    Args:
        case: What they learn.
        steps: Least number of environment steps in a turn.
        rounds: Turns of each loop.
        processes: As of `paper_loop`.

    Returns:
        Medians by the loop's name, this project's first.
    """
    loops: list[Loop] = [
        ThisProject(case, steps),
        paper_loop(case, steps, processes),
        fast_frames_loop(case, steps),
    ]
    try:
        for loop in loops:
            warm_up(loop)
        turns = [[measured_turn(loop) for loop in loops] for _ in range(rounds)]
    finally:
        for loop in loops:
            loop.close()
    return {loop.name: median(column) for loop, column in zip(loops, zip(*turns, strict=True), strict=True)}


def print_rows(task: str, loops: Mapping[str, Turn]) -> None:
    """Print a row for each loop."""
    ours = next(iter(loops.values()))
    for name, turn in loops.items():
        speed, cpu = ours.steps_per_second / turn.steps_per_second, ours.cpu_sum_ms / turn.cpu_sum_ms
        figures = f"{turn.steps_per_second:9.0f}{turn.cpu_sum_ms:13.2f}{speed:15.2f}{cpu:13.2f}"
        print(f"{task:20}{name:20}{figures}   " + ", ".join(f"{part} {ms:.2f}" for part, ms in turn.cpu_ms.items()), flush=True)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = parser_of(__doc__)
    parser.add_argument("--steps", type=int, default=1_000, help="environment steps in a turn, rounded up to whole rollouts")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each loop")
    parser.add_argument("--humanoid", action="store_true", help="compare on the humanoid, too")
    parser.add_argument("--processes", action="store_true", help="a process for each environment with Gymnasium's frames")
    return parser.parse_args()


def main() -> None:
    """Print the table, and write it as JSON."""
    options = arguments()
    torch.set_num_threads(1)
    if options.humanoid:
        choose_backend()  # before the processes of environments inherit it
    # A process of an environment imports this file, too.
    multiprocessing.set_forkserver_preload(["stable_baselines3", "vlm_rm_sweeps.training.trainer"])
    logging.getLogger("ray.rllib").setLevel(logging.ERROR)
    # Gymnasium's, about the rewards that this project writes into RLlib's episodes. Trials have it in Ray's logs.
    warnings.filterwarnings("ignore", message=".*Casting input x to numpy array")
    print(f"{'':62}{'ours / loop:':>15}{'ours / loop:':>13}")
    print(f"{'task':20}{'loop':20}{'steps/s':>9}{'CPU ms/step':>13}{'speed':>15}{'CPU':>13}   CPU ms/step by process")
    results: dict[str, dict[str, Turn]] = {}
    with quiet_ray():
        for sweep in (*CASES, HUMANOID) if options.humanoid else CASES:
            case = Case.of(sweep)
            results[case.task.name] = compare(case, options.steps, options.rounds, options.processes)
            print_rows(case.task.name, results[case.task.name])
    write_figures(options, results)


if __name__ == "__main__":
    main()
