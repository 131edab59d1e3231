"""Two reward servers compared with one, and two trials compared with one.

Run `make bench-trials`, or `.venv/bin/python benchmarks/servers.py`; `--json FILE` writes the figures to a file, too. The first rows
are frames per second of one client with a pool of one and of two servers. The others are environment steps per second of one trial
and of two side by side, which share a pool of one server, with the settings of `sweeps/paper_cartpole_fast.yaml`. Each process has one
thread. One and two take turns. On a machine with two cores the client and the server, which are processes too, take their part of the
cores: compare *CPU*, the CPU time of one frame or step in all processes, with the cores that there are.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import functools
from typing import Any

import numpy as np
import psutil
import ray
from measuring import Cost, parser_of, process_of, quiet_ray, take_turns, write_figures
from trials import RealTrial, recipe, spec_of

from vlm_rm_sweeps.rewards.clip import ClipRewardModel
from vlm_rm_sweeps.serving.pool import PoolConfig, RewardPool, await_pool, start_pool

SWEEP = "paper_cartpole_fast"
REQUEST = 64


def compare_servers(options: argparse.Namespace) -> dict[str, Cost]:
    """Score the same frames with one server and with two.

    Args:
        options: The command line.

    Returns:
        The cost of `--frames` frames, by number of servers.
    """
    model = ClipRewardModel(options.model)
    edge = model.frame_format.size
    requests = np.random.default_rng(0).integers(0, 256, (options.frames // REQUEST, REQUEST, edge, edge, 3), np.uint8)
    spec = spec_of(recipe(SWEEP)[0])

    def score(pool: RewardPool) -> None:
        for pending in [pool.submit(request, [spec]) for request in requests]:
            pending.result()

    contestants, helpers, all_servers = {}, {}, []
    for count in (1, 2):
        config = PoolConfig.of(f"benchmark-servers-{count}", model, servers=count, micro_batch=REQUEST)
        servers = start_pool(config, model)
        await_pool(config, servers, [spec])
        contestants[f"{count} servers"] = functools.partial(score, RewardPool(config, servers))
        helpers[f"{count} servers"] = [process_of(server) for server in servers]
        all_servers += servers
    costs = take_turns(contestants, options.rounds, helpers)
    for server in all_servers:
        ray.kill(server)
    return costs


def compare_trials(options: argparse.Namespace) -> dict[str, Cost]:
    """Train one trial and two trials, which share a pool of one server.

    Args:
        options: The command line.

    Returns:
        The cost of `--steps` environment steps in each trial, by number of trials.
    """
    model = ClipRewardModel(options.model)
    config = PoolConfig.of("benchmark-trials", model, micro_batch=32)
    servers = start_pool(config, model)
    task, settings = recipe(SWEEP)
    await_pool(config, servers, [spec_of(task)])
    start: Any = ray.remote(num_cpus=1)(RealTrial)
    rollouts = steps_in_a_turn(options) // (settings.envs * settings.rollout_steps)
    trials = [start.remote(SWEEP, config, seed, rollouts) for seed in range(2)]
    server = process_of(servers[0])
    processes = [[psutil.Process(pid) for pid in ray.get(trial.processes.remote())] for trial in trials]

    def train(count: int) -> None:
        ray.get([trial.train.remote() for trial in trials[:count]])

    contestants = {f"{count} trials": functools.partial(train, count) for count in (1, 2)}
    helpers = {"1 trials": [server, *processes[0]], "2 trials": [server, *processes[0], *processes[1]]}
    costs = take_turns(contestants, options.rounds, helpers)
    for actor in (*trials, *servers):
        ray.kill(actor)
    return costs


def steps_in_a_turn(options: argparse.Namespace) -> int:
    """Return the environment steps of a trial's turn: `--steps`, rounded down to whole rollouts."""
    rollout = recipe(SWEEP)[1].envs * recipe(SWEEP)[1].rollout_steps
    return max(rollout, int(options.steps) // rollout * rollout)


def print_rows(costs: dict[str, Cost], counts: dict[str, int], unit: str) -> None:
    """Print a row for each contestant.

    Args:
        costs: The costs by contestant, the first one is compared with.
        counts: How many frames or steps they had, by contestant.
        unit: What the counts count.
    """
    rates = {name: counts[name] / cost.seconds for name, cost in costs.items()}
    for name, rate in rates.items():
        cpu = 1e3 * costs[name].cpu_seconds / counts[name]
        print(f"{name:12}{rate:9.0f} {unit + '/s':9}{rate / next(iter(rates.values())):7.2f}{cpu:9.2f} ms", flush=True)


def main() -> None:
    """Print the tables, and write them as JSON."""
    parser = parser_of(__doc__)
    parser.add_argument("--model", default="embedded/small")
    parser.add_argument("--frames", type=int, default=4_096, help="frames in a turn of servers")
    parser.add_argument("--steps", type=int, default=1_024, help="environment steps in a turn of each trial")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each")
    options = parser.parse_args()
    print(f"{'':12}{'speed':>18}{'times':>7}{'CPU':>12}")
    with quiet_ray():
        servers = compare_servers(options)
        print_rows(servers, dict.fromkeys(servers, options.frames // REQUEST * REQUEST), "frames")
        trials = compare_trials(options)
        steps = steps_in_a_turn(options)
        print_rows(trials, {"1 trials": steps, "2 trials": 2 * steps}, "steps")
    write_figures(options, {"servers": servers, "trials": trials})


if __name__ == "__main__":
    main()
