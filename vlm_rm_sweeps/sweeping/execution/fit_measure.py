"""Measures the parts of a sweep on this machine, in seconds: a trainer, frames, and each of its models."""

import itertools
import math
import os
import pickle
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from vlm_rm_sweeps.frames import FrameFormat
from vlm_rm_sweeps.machine.resources import cores, free_disk, free_memory
from vlm_rm_sweeps.rewards.reward_model import RewardModel
from vlm_rm_sweeps.serving.cluster import ray_cluster
from vlm_rm_sweeps.sweeping.config.plan import Plan
from vlm_rm_sweeps.sweeping.execution.fit import Machine, Measured, Work
from vlm_rm_sweeps.sweeping.execution.pools import pool_configs
from vlm_rm_sweeps.tasks.rendering import Rendering
from vlm_rm_sweeps.tasks.task import Task

_LEAST_S = 3.0
"""Seconds for which each part is measured at least."""
_MOST_STEPS_AT_ONCE = 512
_MOST_STEPPERS = 8
"""Processes that work at once, at most, to see how they slow each other: each has some 0.3 GB."""
_TICKS = os.sysconf("SC_CLK_TCK")


def this_machine(results: Path) -> Machine:
    """Return what this machine has.

    Args:
        results: The results folder, which need not exist.

    Returns:
        Cores, GPUs, and free memory and disk.
    """
    return Machine(cores(), torch.cuda.device_count(), free_memory(), free_disk(results))


def measure(plan: Plan, say: Callable[[str], None]) -> Measured:
    """Measure the parts of a sweep. Ray is started for a moment, because RLlib's trainer asks for it.

    Args:
        plan: The sweep.
        say: Prints a line.

    Returns:
        What a step, an update and a frame take, and how large everything is.

    Raises:
        UserError: Ray does not start, or a model cannot be loaded.
    """
    torch.set_num_threads(1)
    with ray_cluster(lambda _: None):
        say(f"measuring {plan.sweep.algorithm} on {plan.task.name}")
        training, acting, policy_bytes, state_bytes = _trainer_work(plan)
        trial_bytes = _resident_bytes()
        crowded = _crowded(plan)
    # From here on, because Ray's own processes would count as others.
    busy_before, own_before, started = _busy_seconds(), _own_seconds(), time.perf_counter()
    encoding, drawing, model_bytes = {}, {}, {}
    for model_id, model in plan.models.items():
        say(f"measuring {model_id}")
        before = _resident_bytes()
        encoding[model_id] = _encoding(plan, model_id, model)
        model_bytes[model_id] = max(0.0, _resident_bytes() - before, model.parameters * 4.0)
        drawing[model_id] = _drawing(plan, model)
    elapsed = time.perf_counter() - started
    others = (_busy_seconds() - busy_before) - (_own_seconds() - own_before)
    return Measured(
        training=training,
        acting=acting,
        drawing=drawing,
        encoding=encoding,
        model_bytes=model_bytes,
        trial_bytes=trial_bytes,
        transition_bytes=_transition_bytes(plan),
        policy_bytes=policy_bytes,
        state_bytes=state_bytes,
        other_cores=max(0.0, others / elapsed),
        crowded=crowded,
    )


def _trainer_work(plan: Plan) -> tuple[Work, Work, float, float]:
    """Measure a trainer that learns from the environment's own reward; return also the sizes of its policy and of its state."""
    from vlm_rm_sweeps.training.resumption import get_training_state
    from vlm_rm_sweeps.training.trainer import build_trainer

    settings = plan.algorithm
    if "learning_starts" in type(settings).model_fields:  # or no update would be seen
        settings = settings.model_copy(update={"learning_starts": 0})
    at_once = min(plan.trained_steps[1], _MOST_STEPS_AT_ONCE)
    trainer: Any = build_trainer(settings, plan.task, None, 0, at_once, plan.sweep.evaluation_episodes)
    try:
        done = [0]

        def train() -> int:
            before, done[0] = done[0], int(trainer.train()["num_env_steps_sampled_lifetime"])
            return done[0] - before

        def evaluate() -> int:
            trainer.evaluate()
            return plan.sweep.evaluation_episodes * plan.task.episode_steps  # all episodes have the same length

        train()  # the first updates are slower
        training = _work(train)
        acting = _work(evaluate)
        policy = trainer.env_runner.module
        size = sum(each.numel() * each.element_size() for each in policy.parameters())
        state = len(pickle.dumps(get_training_state(trainer, settings), pickle.HIGHEST_PROTOCOL))
    finally:
        trainer.stop()
    replayed = min(getattr(settings, "buffer", 0), done[0]) * _transition_bytes(plan)
    return training, acting, float(size), max(0.0, state - replayed)


class _Stepper:
    """Steps a task's environment, drawn as for a model, in a process of its own.

    Args:
        task: The task.
        frame_format: What to draw; `None`: nothing.
        rendering: How to draw it.
    """

    def __init__(self, task: Task, frame_format: FrameFormat | None, rendering: Rendering) -> None:
        torch.set_num_threads(1)
        self._env = task.make_env(frame_format, rendering)
        self._env.reset(seed=0)
        self._env.action_space.seed(0)
        self._step()  # loads textures

    def work(self) -> Work:
        """Measure a step with a random action."""
        return _work(self._step)

    def close(self) -> None:
        """Close the environment."""
        self._env.close()

    def _step(self) -> int:
        _, _, terminated, truncated, _ = self._env.step(self._env.action_space.sample())
        if terminated or truncated:
            self._env.reset()
        return 1


def _crowded(plan: Plan) -> float:
    """Measure the speed of a core while the others work, too, as a part of its speed alone."""
    count = min(math.floor(cores()), _MOST_STEPPERS)
    if count < 2:
        return 1.0
    first = next(iter(plan.models.values()), None)
    of = (plan.task, first.frame_format if first else None, plan.renderings[0])
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    stepper: Any = ray.remote(num_cpus=0)(_Stepper).options(scheduling_strategy=here)
    steppers = [stepper.remote(*of) for _ in range(count)]
    try:
        ray.get([each.__ray_ready__.remote() for each in steppers])
        alone = ray.get(steppers[0].work.remote())
        together = ray.get([each.work.remote() for each in steppers])
    finally:
        for each in steppers:
            ray.kill(each)
    return min(1.0, alone.cpu_seconds / statistics.mean(work.cpu_seconds for work in together))


def _drawing(plan: Plan, model: RewardModel) -> Work:
    """Measure how much longer a step takes if it is drawn for a model."""
    drawn, not_drawn = (_Stepper(plan.task, each, plan.renderings[0]).work() for each in (model.frame_format, None))
    return Work(max(0.0, drawn.seconds - not_drawn.seconds), max(0.0, drawn.cpu_seconds - not_drawn.cpu_seconds))


def _encoding(plan: Plan, model_id: str, model: RewardModel) -> Work:
    """Load a model as its servers would, and measure one frame, scored for one spec."""
    config = pool_configs(plan, "fit")[model_id]
    model.use_backend(config.backend, config.device, config.precision)
    torch.set_num_threads(config.threads)
    try:
        model.load(config.device, config.precision, config.micro_batch)
        edge = model.frame_format.size
        frames = np.random.default_rng(0).integers(0, 256, (config.micro_batch, edge, edge, 3), np.uint8)
        specs = [plan.prompts[0].spec()]

        def score() -> int:
            model.score(frames, specs)
            return len(frames)

        score()  # encodes the sentences
        return _work(score)
    finally:
        torch.set_num_threads(1)


def _work(action: Callable[[], int]) -> Work:
    """Repeat an action for some seconds; return the work of one of the steps or frames that its calls return."""
    done, cpu, started = 0, time.process_time(), time.perf_counter()
    for _ in itertools.count():
        done += action()
        seconds = time.perf_counter() - started
        if seconds >= _LEAST_S:
            break
    return Work(seconds / done, (time.process_time() - cpu) / done)


def _transition_bytes(plan: Plan) -> float:
    """Return the size of a row of the replay buffer: two observations, an action, the reward and how it ended."""
    if not hasattr(plan.algorithm, "buffer"):
        return 0.0
    env = plan.task.make_env(None)
    try:
        observation, action = env.observation_space.sample(), np.asarray(env.action_space.sample())
    finally:
        env.close()
    return 2.0 * np.asarray(observation, np.float32).nbytes + action.nbytes + 4 + 2


def _resident_bytes() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * float(os.sysconf("SC_PAGE_SIZE"))


def _busy_seconds() -> float:
    """Return the CPU seconds that all programs of the machine have used."""
    user, nice, system, *_ = map(int, Path("/proc/stat").read_text().splitlines()[0].split()[1:])
    return (user + nice + system) / _TICKS


def _own_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
