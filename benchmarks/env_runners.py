"""One trial of the humanoid with several env runners, drawn in full: how its speed grows.

Run `make bench-trials`, or `.venv/bin/python benchmarks/env_runners.py`; `--json FILE` writes the figures to a file, too. A row for
each number of env runners has the environment steps per second of one trial with the settings of `sweeps/humanoid_kneeling.yaml`, times
those of the first row (0: the trial's own process steps the environments), and the CPU time of a step in all processes. Each process
has one thread, so on a machine with fewer cores than processes they take time from each other: compare *CPU* with the cores that there
are.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import functools
from typing import Any

import psutil
import ray
from measuring import Cost, parser_of, process_of, quiet_ray, take_turns, write_figures
from trials import RealTrial, recipe, spec_of

from vlm_rm_sweeps.rewards.clip import ClipRewardModel
from vlm_rm_sweeps.serving.pool import PoolConfig, await_pool, start_pool

SWEEP = "humanoid_kneeling"


def compare(options: argparse.Namespace) -> dict[str, Cost]:
    """Train trials with different numbers of env runners by turns, one rollout of each env runner in a turn.

    Args:
        options: The command line.

    Returns:
        The cost of one environment step, by number of env runners.
    """
    model = ClipRewardModel(options.model)
    config = PoolConfig.of("benchmark-env-runners", model, micro_batch=64)
    servers = start_pool(config, model)
    await_pool(config, servers, [spec_of(recipe(SWEEP)[0])])
    start: Any = ray.remote(num_cpus=1)(RealTrial)
    contestants, helpers = {}, {}
    for count in options.env_runners:
        trial = start.remote(SWEEP, config, rollouts=1, env_runners=count, profile=options.profile)
        contestants[str(count)] = functools.partial(lambda each: ray.get(each.train.remote()), trial)
        processes = [psutil.Process(pid) for pid in ray.get(trial.processes.remote())]
        helpers[str(count)] = [process_of(servers[0]), *processes]
    costs = take_turns(contestants, options.rounds, helpers)
    settings = recipe(SWEEP)[1]
    steps = {count: settings.envs * settings.rollout_steps * (int(count) or 1) for count in costs}
    return {count: Cost(cost.seconds / steps[count], cost.cpu_seconds / steps[count]) for count, cost in costs.items()}


def main() -> None:
    """Print the table, and write it as JSON."""
    parser = parser_of(__doc__)
    parser.add_argument("--model", default="embedded/small")
    parser.add_argument("--env-runners", type=int, nargs="+", default=[0, 1, 2, 4])
    parser.add_argument("--profile", choices=["fast", "full"], default="full", help="how much OpenGL draws")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each")
    options = parser.parse_args()
    # As many CPUs to give away as all trials together ask for; only one of them trains at a time.
    with quiet_ray(cpus=sum(1 + count for count in options.env_runners)):
        costs = compare(options)
    first = next(iter(costs.values()))
    print(f"{'env runners':>11}{'steps/s':>10}{'times':>8}{'CPU ms a step':>16}")
    for count, cost in costs.items():
        print(f"{count:>11}{1 / cost.seconds:10.1f}{first.seconds / cost.seconds:8.2f}{1e3 * cost.cpu_seconds:16.2f}")
    write_figures(options, {"env_runners": costs})


if __name__ == "__main__":
    main()
