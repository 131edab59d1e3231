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
from ray.actor import ActorHandle
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from vlm_rm_sweeps.frames import FrameFormat
from vlm_rm_sweeps.machine.resources import cores, free_disk, free_memory
from vlm_rm_sweeps.rewards.reward_model import RewardModel
from vlm_rm_sweeps.serving.cluster import ray_cluster
from vlm_rm_sweeps.serving.pool import NAMESPACE
from vlm_rm_sweeps.serving.reward_pool import reward_pool
from vlm_rm_sweeps.sweeping.config.plan import Plan
from vlm_rm_sweeps.sweeping.execution.fit import SERVER_BYTES, Machine, Measured
from vlm_rm_sweeps.sweeping.execution.fit_schedule import Work
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
        UserError: Ray does not start, a server cannot be placed, or a model cannot be loaded.
    """
    torch.set_num_threads(1)
    encoding, model_bytes = {}, {}
    models = {model_id: model for model_id, model in plan.models.items() if not model.judges_only}
    with ray_cluster(lambda _: None):
        say(f"measuring {plan.sweep.algorithm} on {plan.task.name}")
        training, acting, policy_bytes, state_bytes = _trainer_work(plan)
        trial_bytes = _memory_bytes()
        for model_id, model in models.items():
            say(f"measuring {model_id}")
            encoding[model_id], model_bytes[model_id] = _encoding(plan, model)
        crowded = _crowded(plan, next((model.frame_format for model in models.values()), None))
    # From here on, because Ray's own processes would count as others.
    busy_before, own_before, started = _busy_seconds(), _own_seconds(), time.perf_counter()
    not_drawn = _stepping(plan.task, None, plan.renderings[0])
    drawing = {
        model_id: _stepping(plan.task, model.frame_format, plan.renderings[0]).longer_than(not_drawn)
        for model_id, model in models.items()
    }
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


def _stepping(task: Task, frame_format: FrameFormat | None, rendering: Rendering) -> Work:
    """Measure a step of the environment with a random action, drawn if there is a format."""
    env = task.make_env(frame_format, rendering)
    try:
        env.reset(seed=0)
        env.action_space.seed(0)

        def step() -> int:
            _, _, terminated, truncated, _ = env.step(env.action_space.sample())
            if terminated or truncated:
                env.reset()
            return 1

        step()  # loads textures
        return _work(step)
    finally:
        env.close()


class _Stepper:
    """Measures steps in a process of its own.

    Args:
        task: As of `_stepping`, and so are the others. Making them here imports what they need before anything is measured.
        frame_format: What to draw.
        rendering: How.
    """

    def __init__(self, task: Task, frame_format: FrameFormat | None, rendering: Rendering) -> None:
        torch.set_num_threads(1)
        self._of = task, frame_format, rendering

    def work(self) -> Work:
        return _stepping(*self._of)


def _crowded(plan: Plan, frame_format: FrameFormat | None) -> float:
    """Measure the speed of a core while the others work, too, as a part of its speed alone, by steps of the environment."""
    count = min(math.floor(cores()), _MOST_STEPPERS)
    if count < 2:
        return 1.0
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    stepper: Any = ray.remote(num_cpus=0)(_Stepper).options(scheduling_strategy=here)
    steppers = [stepper.remote(plan.task, frame_format, plan.renderings[0]) for _ in range(count)]
    try:
        ray.get([each.__ray_ready__.remote() for each in steppers])
        alone = ray.get(steppers[0].work.remote())
        together = ray.get([each.work.remote() for each in steppers])
    finally:
        for each in steppers:
            ray.kill(each)
    return min(1.0, alone.cpu_seconds / statistics.mean(work.cpu_seconds for work in together))


def _encoding(plan: Plan, model: RewardModel) -> tuple[Work, float]:
    """Start a server of a model as the sweep would, and measure one frame, scored for one spec; return also the model's memory."""
    settings = plan.sweep.pool.model_dump(include={"precision", "backend", "micro_batch", "gpus", "threads"})
    edge, spec = model.frame_format.size, plan.prompts[0].spec()
    frames = np.random.default_rng(0).integers(0, 256, (plan.sweep.pool.micro_batch, edge, edge, 3), np.uint8)
    with reward_pool(model, spec, **settings) as pool:
        (name,) = pool.config.server_names()
        server = ray.get_actor(name, namespace=NAMESPACE)
        in_model: list[float] = []

        def score() -> int:
            in_model.append(pool.submit(frames, [spec]).result().seconds)
            return len(frames)

        score()  # the first request is slower
        in_model.clear()
        before, _ = _of_server(server)
        asking = _work(score)
        after, memory = _of_server(server)
    count = len(in_model) * len(frames)
    work = Work(sum(in_model) / count, asking.cpu_seconds + (after - before) / count)
    return work, max(memory - SERVER_BYTES, model.parameters * 4.0)


def _of_server(server: ActorHandle) -> tuple[float, float]:
    """Return the CPU seconds that a server has used, and its memory."""
    asked: Any = server.__ray_call__.remote(lambda _: (time.process_time(), _memory_bytes()))
    cpu_seconds, memory = ray.get(asked)
    return cpu_seconds, memory


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


def _memory_bytes() -> float:
    """Return the memory of this process; of what it shares with others, its part."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    (kilobytes,) = (int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return kilobytes * 1024.0


def _busy_seconds() -> float:
    """Return the CPU seconds that all programs of the machine have used."""
    user, nice, system, *_ = map(int, Path("/proc/stat").read_text().splitlines()[0].split()[1:])
    return (user + nice + system) / _TICKS


def _own_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
