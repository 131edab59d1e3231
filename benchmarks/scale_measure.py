"""Measures the service times of this machine for `scale.py`, and compares real trials with their simulation.

Run it on a machine that does nothing else. A time is the median of several turns, in CPU time where work is done in one process.
`--check` runs CartPole as in the quick start with the pools, trials and env runners of `CHECKS`. In some, a server waits instead of
encoding, as if a GPU of its own did it: so the check has servers that are slower than this machine's cores. *others* are the cores that
all other processes used meanwhile, Ray's own among them; the simulation has the rest.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import functools
import json
import multiprocessing
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import psutil
import ray
import torch
from measuring import cpu_seconds, machine, parser_of, process_of, quiet_ray, take_turns, write_figures
from random_weights import clip_model
from scale import CPU, FILE, Figures, Scenario, read_figures, simulate, times_of
from trials import RealTrial, recipe, spec_of

from vlm_rm_sweeps.frames import FrameFormat
from vlm_rm_sweeps.rewards.clip import ClipRewardModel
from vlm_rm_sweeps.rewards.reward_model import RewardModel
from vlm_rm_sweeps.serving.pool import PoolConfig, RewardPool, await_pool, start_pool
from vlm_rm_sweeps.tasks.registry import find_task
from vlm_rm_sweeps.tasks.rendering import Rendering, render_frame
from vlm_rm_sweeps.training.stopwatch import Stopwatch
from vlm_rm_sweeps.training.trainer import build_trainer

TURNS = 3
SWEEPS = {"cartpole": "paper_cartpole_fast", "humanoid": "paper_humanoid_kneeling"}
SOURCE = f"measured by scale_measure.py on a core of this processor: {machine()['processor']}"
SPEC = spec_of(find_task("cartpole-upright"))


class Waiting(RewardModel):
    """Gives each frame the reward 0, after some milliseconds for each micro-batch in which it computes nothing.

    Args:
        wait_ms: Milliseconds for each micro-batch.
        pixels: Edge of its frames.
    """

    def __init__(self, wait_ms: float = 0.0, pixels: int = 64) -> None:
        super().__init__("waiting")
        self.frame_format = FrameFormat(pixels)
        self._wait_ms = wait_ms

    def score(self, frames: np.ndarray, specs: Any) -> np.ndarray:
        """Return zeros, later."""
        for _ in range(0, len(frames), self.micro_batch):
            time.sleep(self._wait_ms / 1e3)
        return np.zeros((len(frames), len(specs)), np.float32)


def cpu_ms(actions: dict[str, Any], calls: int) -> dict[str, float]:
    """Return the CPU milliseconds of one call of each action, which take turns; medians."""

    def repeated(action: Any) -> None:
        for _ in range(calls):
            action()

    costs = take_turns({name: functools.partial(repeated, action) for name, action in actions.items()}, TURNS)
    return {name: 1e3 * cost.cpu_seconds / calls for name, cost in costs.items()}


def rendering() -> dict[str, float]:
    """Measure one frame of each task, size and profile."""

    def drawing(task: str, pixels: int, profile: Any) -> Any:
        frame_format = FrameFormat(pixels)
        found = find_task("cartpole-upright" if task == "cartpole" else "humanoid-kneeling")
        env = found.make_native_env(Rendering(found.textures[0], found.cameras[0], profile), frame_format)
        env.reset(seed=0)
        return functools.partial(render_frame, env, frame_format)

    wanted: list[tuple[str, int, str]] = [("cartpole", 64, "fast"), ("humanoid", 64, "fast"), ("humanoid", 224, "fast")]
    return cpu_ms(
        {f"{task}, {pixels} pixels, {profile}": drawing(task, pixels, profile) for task, pixels, profile in wanted}, 20
    )


def encoding() -> dict[str, float]:
    """Measure one micro-batch on a CPU."""

    def scoring(model_id: str, micro_batch: int) -> Any:
        model = ClipRewardModel(model_id)
        model.load(micro_batch=micro_batch)
        return functools.partial(model.score, _frames(micro_batch, model.frame_format.size), [SPEC])

    wanted = [(model_id, micro_batch) for model_id in ("embedded/tiny", "embedded/small") for micro_batch in (32, 64)]
    return cpu_ms(
        {f"{model_id}, micro-batch {micro_batch}": scoring(model_id, micro_batch) for model_id, micro_batch in wanted}, 8
    )


def preparing() -> float:
    """Measure what a server does on the CPU with one frame of 224 pixels before a GPU normalises and encodes it.

    Returns:
        Milliseconds to bring its bytes into the model's form and to copy them, as they are copied on their way to a GPU.
    """
    preprocessing, frames = clip_model("ViT-B-32").source.preprocessing, _frames(128, 224)
    sent = np.empty_like(frames)
    return cpu_ms({"": lambda: np.copyto(sent, preprocessing.visible(frames))}, 4)[""] / 128


def crowding() -> float:
    """Measure the speed of a process that draws and encodes while another one does, as a share of its speed alone."""
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        turns = [(pool.apply(_drawing_and_encoding), pool.map(_drawing_and_encoding, [0.5] * 2, 1)) for _ in range(1 + TURNS)]
    return statistics.median(alone / statistics.mean(crowded) for alone, crowded in turns[1:])


def _drawing_and_encoding(seconds: float = 0.5) -> float:
    """Draw frames of CartPole and encode as many for some seconds, in a process of its own; return CPU seconds of a micro-batch."""
    torch.set_num_threads(1)
    env, model = _cart_pole()
    frames, rounds, ends, before = _frames(32, 64), 0, time.perf_counter() + seconds, time.process_time()
    while time.perf_counter() < ends:
        for _ in frames:
            render_frame(env, model.frame_format)
        model.score(frames, [SPEC])
        rounds += 1
    return (time.process_time() - before) / rounds


@functools.cache
def _cart_pole() -> tuple[Any, ClipRewardModel]:
    model, task = ClipRewardModel("embedded/small"), find_task("cartpole-upright")
    model.load(micro_batch=32)
    env = task.make_native_env(Rendering(task.textures[0], task.cameras[0], "fast"), model.frame_format)
    env.reset(seed=0)
    return env, model


def _frames(count: int, pixels: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, pixels, pixels, 3), np.uint8)


def requests() -> Figures:
    """Measure requests of a micro-batch to a server that does nothing with their frames, on a running Ray."""
    model = Waiting()
    config = PoolConfig.of("requests", model, micro_batch=1_000)
    (server,) = servers = start_pool(config, model)
    await_pool(config, servers, [SPEC])
    pool, process, calls = RewardPool(config, servers), process_of(server), 20

    def turn(frames: list[np.ndarray]) -> None:
        for _ in range(calls):
            pool.submit(np.stack(frames), [SPEC]).result()

    turns = {
        "224 pixels": functools.partial(turn, list(_frames(128, 224))),
        "64 pixels": functools.partial(turn, list(_frames(32, 64))),
    }
    alone, both = take_turns(turns, TURNS), take_turns(turns, TURNS, {name: [process] for name in turns})
    ray.kill(server)
    send = {name: 1e3 * cost.cpu_seconds / calls for name, cost in alone.items()}
    small = both["64 pixels"]
    latency, serve = 1e3 * (small.seconds - small.cpu_seconds) / calls, 1e3 * small.cpu_seconds / calls - send["64 pixels"]
    return {"send": _measured(send), "serve": _measured({"any": serve}), "latency": _measured({"any": latency})}


def training(task: str, envs: int, rounds: int, env_runners: int = 0) -> tuple[float, float, float]:
    """Train without frames, and measure the parts of a round.

    Args:
        task: `cartpole` or `humanoid`.
        envs: Sub-environments of each process that samples.
        rounds: Rollouts in a turn.
        env_runners: Remote env runners.

    Returns:
        Milliseconds of a rollout, of an update, and of the rest.
    """
    found, settings = recipe(SWEEPS[task], envs=envs)
    frames = envs * settings.rollout_steps * (env_runners or 1)
    trainer: Any = build_trainer(settings, found, None, 0, rounds * frames, 1, env_runners)
    sampling = Stopwatch(*((trainer.env_runner_group, "foreach_env_runner") if env_runners else (trainer.env_runner, "sample")))
    updating = [
        Stopwatch(trainer.learner_group, "update"),
        *(Stopwatch(trainer.local_replay_buffer, each) for each in ("draw", "gather")),
    ]
    turns = []
    for _ in range(1 + TURNS):
        started = time.perf_counter()
        trainer.train()
        total, sampled, updated = time.perf_counter() - started, sampling.lap(), sum(each.lap() for each in updating)
        updates = rounds * round(settings.updates_per_step * frames)
        turns.append((1e3 * sampled / rounds, 1e3 * updated / updates, 1e3 * (total - sampled - updated) / rounds))
    trainer.stop()
    rollout, update, rest = (statistics.median(column) for column in zip(*turns[1:], strict=True))
    return rollout, update, rest


def learning() -> Figures:
    """Measure vector steps, updates and rounds of both tasks, and what remote env runners add, on a running Ray."""
    figures: Figures = {name: {} for name in ("vector_step", "env_step", "update", "round")}
    for task, few, rounds in (("cartpole", 2, 16), ("humanoid", 8, 1)):
        steps = recipe(SWEEPS[task])[1].rollout_steps
        small, large = training(task, few, rounds), training(task, 32, rounds)
        slope = (large[0] - small[0]) / (32 - few) / steps
        figures["env_step"] |= _measured({task: slope})
        figures["vector_step"] |= _measured({task: small[0] / steps - few * slope})
        figures["update"] |= _measured({task: large[1]})
        figures["round"] |= _measured({task: small[2]})
    one, two = (training("cartpole", 8, 16, env_runners) for env_runners in (1, 2))
    local = 8 * (figures["vector_step"]["cartpole"][0] + 8 * figures["env_step"]["cartpole"][0])
    return figures | {
        "hand_over": _measured({"any": one[0] - local}),
        "gather": _measured({"any": (two[2] - figures["round"]["cartpole"][0]) / 2}),
    }


def in_turn(figures: Figures) -> float:
    """Measure the speed of a trial's process as a share of that of its parts alone, on a running Ray.

    The process does its parts in turn. Its server computes nothing.

    Args:
        figures: The figures of the parts.

    Returns:
        The share, 1 at most.
    """
    model, rounds = Waiting(), 16
    config = PoolConfig.of("in-turn", model, micro_batch=32)
    servers = start_pool(config, model)
    await_pool(config, servers, [SPEC])
    start: Any = ray.remote(num_cpus=1)(RealTrial)
    trial = start.remote(SWEEPS["cartpole"], config, rollouts=rounds)
    ray.get(trial.train.remote())
    process, taken = process_of(trial), []
    for _ in range(TURNS):
        before = sum(process.cpu_times()[:2])
        ray.get(trial.train.remote())
        taken.append(1e3 * (sum(process.cpu_times()[:2]) - before) / rounds)
    for actor in (trial, *servers):
        ray.kill(actor)
    times, _ = times_of(figures, "cartpole", "cartpole, 64 pixels, fast", "embedded/small", 32, CPU)
    return min(1.0, Scenario(replace(times, in_turn=1.0)).trial_ms / statistics.median(taken))


def _measured(values: dict[str, float]) -> dict[str, tuple[float, str]]:
    return {name: (round(max(0.0, value), 4), SOURCE) for name, value in values.items()}


def measure() -> Figures:
    """Measure all figures that this machine can."""
    torch.set_num_threads(1)
    figures: Figures = {"render": _measured(rendering()), "encode": _measured(encoding())}
    figures["prepare_frame"] = _measured({"224 pixels": preparing()})
    figures["crowded"] = {"any": (round(min(1.0, crowding()), 4), f"{SOURCE}: two processes on two cores")}
    with quiet_ray(cpus=8):
        figures |= requests() | learning()
        known = read_figures() | figures  # the spread of times is not measured
        figures["in_turn"] = _measured({"any": in_turn(known | {"in_turn": {"any": (1.0, "")}})})
    return figures


def write_times(figures: Figures) -> None:
    """Write figures to service_times.json; what it has beside them, such as data sheets' figures, is kept."""
    known = read_figures()
    merged = {quantity: known.get(quantity, {}) | figures.get(quantity, {}) for quantity in known | figures}
    FILE.write_text(json.dumps(merged, indent=1) + "\n")


@dataclass(frozen=True)
class Check:
    """A sweep on this machine: trials, servers, env runners of each trial, and how long a server waits for each micro-batch.

    Without waiting it is `embedded/small` on a core.
    """

    trials: int
    servers: int
    env_runners: int = 0
    wait_ms: float | None = None


CHECKS = (Check(1, 1), Check(2, 1), Check(1, 1, 2), Check(1, 1, 0, 100), Check(2, 1, 0, 100), Check(2, 2, 0, 100))


def real_speed(check: Check, results: int = 2) -> tuple[float, float]:
    """Run real trials on a running Ray.

    Args:
        check: The sweep.
        results: Results of each trial that are timed.

    Returns:
        Steps per second of all trials together, and how many cores all else on this machine used meanwhile.
    """
    model = ClipRewardModel("embedded/small") if check.wait_ms is None else Waiting(check.wait_ms)
    pool = PoolConfig.of(f"check-{time.monotonic_ns()}", model, servers=check.servers, micro_batch=32)
    servers = start_pool(pool, model)
    await_pool(pool, servers, [SPEC])
    start: Any = ray.remote(num_cpus=1)(RealTrial)
    trials = [start.remote(SWEEPS["cartpole"], pool, seed, 16, check.env_runners) for seed in range(check.trials)]
    ray.get([trial.train.remote() for trial in trials])
    pids = {pid for each in ray.get([trial.processes.remote() for trial in trials]) for pid in each}
    own = [*map(process_of, servers), *map(psutil.Process, pids)]
    started, before = time.perf_counter(), _others_seconds(own)
    answers = ray.get([trial.train.remote(results) for trial in trials])
    others = (_others_seconds(own) - before) / (time.perf_counter() - started)
    for actor in (*trials, *servers):
        ray.kill(actor)
    return sum(float(steps / seconds) for steps, seconds in answers), others


def _others_seconds(own: list[psutil.Process]) -> float:
    """Return the CPU seconds that all processes of this machine but some have used so far."""
    machine = psutil.cpu_times()
    return float(machine.user + machine.nice + machine.system) - (cpu_seconds(own) - time.process_time())


def simulated_speed(check: Check, figures: Figures, others: float) -> float:
    """Return the steps per second of the simulated trials, on the cores that others have left."""
    times, _ = times_of(figures, "cartpole", "cartpole, 64 pixels, fast", "embedded/small", 32, CPU)
    replayed = 64 * 16 * 2 * (check.env_runners or 1)  # in the middle of the results that were timed
    cores = (psutil.cpu_count() or 1) - others
    scenario = Scenario(times, check.trials, check.env_runners, replayed=replayed, servers=check.servers, cores=cores)
    if check.wait_ms is not None:
        scenario = replace(scenario, times=replace(times, encode=check.wait_ms), gpus=check.servers)
    return simulate(scenario).steps_per_second


def checked(figures: Figures) -> Iterator[tuple[Check, float, float, float]]:
    """Yield each check with its real and its simulated steps per second, and the cores that others used."""
    with quiet_ray(cpus=8):
        for check in CHECKS:
            real, others = real_speed(check)
            yield check, real, simulated_speed(check, figures, others), others


def main() -> None:
    """Measure and write service_times.json, or compare and print a table."""
    parser: argparse.ArgumentParser = parser_of(__doc__)
    parser.add_argument("--check", action="store_true", help="compare real trials with the simulation")
    options = parser.parse_args()
    if not options.check:
        write_times(measure())
        return
    print(
        f"{'trials':>6}{'servers':>9}{'env runners':>13}{'a micro-batch':>16}{'others':>8}{'real':>7}{'simulated':>11}{'/ real':>8}"
    )
    rows = []
    for check, real, simulated, others in checked(read_figures()):
        encoding_time = "embedded/small" if check.wait_ms is None else f"{check.wait_ms:g} ms"
        figures = f"{encoding_time:>16}{others:8.2f}{real:7.0f}{simulated:11.0f}{simulated / real:8.2f}"
        print(f"{check.trials:6}{check.servers:9}{check.env_runners:13}{figures}", flush=True)
        rows.append(vars(check) | {"real": real, "simulated": simulated, "others": others})
    write_figures(options, rows)


if __name__ == "__main__":
    main()
