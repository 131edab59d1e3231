"""Memory of one model for eight clients, compared with that of a process with a model of its own.

Run `make bench`, or `.venv/bin/python benchmarks/sharing.py`; `--json FILE` writes the figures to a file, too. The memory of a process
is its proportional set size (`/proc/PID/smaps_rollup`): what it shares with others is divided among them. Clients are processes that
connect to a pool of one server, as trials do. The model's memory for eight clients is the server's, and by how much the clients grow
by using it; the goal is at most 1.1 times that of a process with a model of its own. Client processes that have used no model yet
are what trials need anyway. The model has random weights if `--model` is an architecture of open_clip.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
from measuring import Cost, parser_of, process_of, quiet_ray, take_turns, write_figures
from random_weights import clip_model

from vlm_rm_sweeps.rewards.reward_model import RewardModel, RewardSpec
from vlm_rm_sweeps.serving.pool import PoolConfig, RewardPool, await_pool, start_pool

SPEC = RewardSpec(("pole vertically upright on top of the cart",), ("pole and cart",), 0.5)


class Client:
    """A process that scores frames; a Ray actor."""

    def __init__(self) -> None:
        self._model: RewardModel | None = None

    def connect(self, config: PoolConfig) -> None:
        """Connect to a pool."""
        self._model = RewardPool.connect(config)

    def load(self, name: str, micro_batch: int) -> None:
        """Load a model into this process."""
        self._model = clip_model(name)
        self._model.load(micro_batch=micro_batch)

    def score(self, frames: int) -> None:
        """Score a number of random frames."""
        assert self._model is not None
        edge = self._model.frame_format.size
        self._model.score(np.random.default_rng(0).integers(0, 256, (frames, edge, edge, 3), np.uint8), [SPEC])


@dataclass(frozen=True)
class Memory:
    """Megabytes of processes.

    Attributes:
        own: A process with a model of its own.
        server_for_one: The server, when one client has used it.
        server_for_all: The server, when all clients have used it.
        clients_growth: By how much all clients together have grown since before their first request.
    """

    own: float
    server_for_one: float
    server_for_all: float
    clients_growth: float

    @property
    def times_one_model(self) -> float:
        """The model's memory for all clients, as a multiple of a model of one's own."""
        return (self.server_for_all + max(0.0, self.clients_growth)) / self.own


def megabytes(actor: Any) -> float:
    """Return the proportional set size of an actor's process, in MB."""
    lines = Path(f"/proc/{process_of(actor).pid}/smaps_rollup").read_text().splitlines()
    (kilobytes,) = (int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return kilobytes * 1024 / 1e6


def measure(options: argparse.Namespace) -> tuple[Memory, dict[str, Cost]]:
    """Measure memory and speed, on a running Ray.

    Args:
        options: The command line.

    Returns:
        The memory, and what scoring `--frames` frames costs one client and all clients together.
    """
    start: Any = ray.remote(num_cpus=0)(Client)
    alone = start.remote()
    ray.get(alone.load.remote(options.model, options.micro_batch))
    ray.get(alone.score.remote(options.frames))
    own = megabytes(alone)
    ray.kill(alone)

    model = clip_model(options.model)
    config = PoolConfig.of("benchmark-sharing", model, micro_batch=options.micro_batch)
    (server,) = servers = start_pool(config, model)
    await_pool(config, servers, [SPEC])
    clients = [start.remote() for _ in range(options.clients)]
    ray.get([client.connect.remote(config) for client in clients])
    before = sum(megabytes(client) for client in clients)
    ray.get(clients[0].score.remote(options.frames))
    server_for_one = megabytes(server)
    part = max(1, options.frames // options.clients)
    speeds = take_turns(
        {
            "1 client": lambda: ray.get(clients[0].score.remote(part * options.clients)),
            f"{options.clients} clients": lambda: ray.get([client.score.remote(part) for client in clients]),
        },
        options.rounds,
    )
    growth = sum(megabytes(client) for client in clients) - before
    return Memory(own, server_for_one, megabytes(server), growth), speeds


def main() -> None:
    """Print the table, and write it as JSON."""
    parser = parser_of(__doc__)
    parser.add_argument("--model", default="ViT-B-32", help="an architecture of open_clip, or embedded/<size>")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--frames", type=int, default=64, help="frames in a turn")
    parser.add_argument("--micro-batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3, help="turns of one client and of all")
    options = parser.parse_args()
    with quiet_ray():
        memory, speeds = measure(options)
    print(f"{options.model}, memory in MB (proportional set size)")
    print(f"{'a process with a model of its own':44}{memory.own:8.0f}")
    print(f"{'the server of 1 client':44}{memory.server_for_one:8.0f}")
    print(f"{f'the server of {options.clients} clients':44}{memory.server_for_all:8.0f}")
    print(f"{f'growth of {options.clients} clients together':44}{memory.clients_growth:8.0f}")
    print(f"{f'the model for {options.clients} clients / a model of its own':44}{memory.times_one_model:8.2f}")
    for name, cost in speeds.items():
        print(f"{f'frames/s, {name}':44}{options.frames / cost.seconds:8.1f}")
    write_figures(options, {"memory_mb": memory, "times_one_model": memory.times_one_model, "turns": speeds})


if __name__ == "__main__":
    main()
