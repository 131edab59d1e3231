"""What further reward specs cost: the same frames scored for 1, 10, 100 and 1,000 (goal, baseline, alpha) in one request.

Run `make bench`, or `.venv/bin/python benchmarks/specs.py`; `--json FILE` writes the figures to a file, too. A reward server encodes
each frame once, whatever the number of specs; a spec costs the products of its embeddings with the frames'. *first* is a request
whose prompts the server has not seen, and has to encode; ten specs, one for each alpha, share a prompt. The later requests take
turns, and their figures are medians. CPU time is that of client and server. The server has one thread.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import functools

import numpy as np
from measuring import Cost, cost_of, parser_of, process_of, quiet_ray, take_turns, write_figures

from vlm_rm_sweeps.rewards.clip import ClipRewardModel
from vlm_rm_sweeps.rewards.reward_model import RewardSpec
from vlm_rm_sweeps.serving.pool import PoolConfig, RewardPool, await_pool, start_pool

ALPHAS = 10


def make_specs(count: int) -> list[RewardSpec]:
    """Make different specs, up to ten with each prompt."""
    alphas = [index / (ALPHAS - 1) for index in range(ALPHAS)]
    return [
        RewardSpec((f"pole at {index // ALPHAS} of {count} degrees",), ("pole and cart",), alphas[index % ALPHAS])
        for index in range(count)
    ]


def compare(options: argparse.Namespace) -> dict[str, dict[str, Cost]]:
    """Score requests with each number of specs, on a running Ray.

    Args:
        options: The command line.

    Returns:
        By number of specs: the cost of the first request and of a later one.
    """
    model = ClipRewardModel(options.model)
    config = PoolConfig.of("benchmark-specs", model, micro_batch=64)
    servers = start_pool(config, model)
    await_pool(config, servers, [])
    pool, helpers = RewardPool(config, servers), [process_of(server) for server in servers]
    edge = model.frame_format.size
    frames = np.random.default_rng(0).integers(0, 256, (options.frames, edge, edge, 3), np.uint8)

    def request(specs: list[RewardSpec]) -> None:
        pool.submit(frames, specs).result()

    request(make_specs(1))  # warms up everything but the prompts of the others
    requests = {str(count): functools.partial(request, make_specs(count)) for count in options.specs}
    first = {name: cost_of(each, helpers) for name, each in requests.items()}
    later = take_turns(requests, options.rounds, dict.fromkeys(requests, helpers))
    return {name: {"first": first[name], "later": later[name]} for name in requests}


def main() -> None:
    """Print the table, and write it as JSON."""
    parser = parser_of(__doc__)
    parser.add_argument("--model", default="embedded/small")
    parser.add_argument("--frames", type=int, default=512, help="frames in a request")
    parser.add_argument("--specs", type=int, nargs="+", default=[1, 10, 100, 1_000])
    parser.add_argument("--rounds", type=int, default=7, help="turns of each number of specs")
    options = parser.parse_args()
    with quiet_ray():
        results = compare(options)
    print(f"{options.model}, {options.frames} frames in a request")
    print(f"{'specs':>7}{'time':>12}{'CPU':>12}{'times that of ' + str(options.specs[0]):>20}{'first':>12}")
    least = results[str(options.specs[0])]["later"].cpu_seconds
    for name, costs in results.items():
        later, first = costs["later"], costs["first"]
        figures = f"{1e3 * later.seconds:9.1f} ms{1e3 * later.cpu_seconds:9.1f} ms{later.cpu_seconds / least:20.2f}"
        print(f"{name:>7}{figures}{1e3 * first.seconds:9.1f} ms")
    write_figures(options, results)


if __name__ == "__main__":
    main()
