"""What `torch.compile` would save of a gradient update on a CPU, and what compiling takes.

The update is that of DQN's loss with the quick start's networks:

    .venv/bin/python benchmarks/compiled_update.py

Both ways have the same networks, batch and fused Adam, and take turns; torch has one thread. *pays after* is the number of updates
whose savings are the time of the first, which compiles, in each process that trains.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from measuring import Cost, parser_of, take_turns, write_figures

OBSERVATIONS, ACTIONS, HIDDEN, BATCH = 4, 2, 128, 64
DISCOUNT = 0.98


@dataclass(frozen=True)
class Found:
    """What was measured.

    Attributes:
        eager: Cost of one update.
        compiled: Cost of one compiled update.
        compiling_seconds: Time of the first compiled update.
    """

    eager: Cost
    compiled: Cost
    compiling_seconds: float


def make_update(wrap: Callable[[Callable[[], torch.Tensor]], Callable[[], torch.Tensor]]) -> Callable[[], None]:
    """Make the function that does one update.

    Args:
        wrap: What is done to the function that computes the loss.

    Returns:
        The update.
    """
    torch.manual_seed(0)
    network, target = (
        torch.nn.Sequential(
            torch.nn.Linear(OBSERVATIONS, HIDDEN),
            torch.nn.ReLU(),
            torch.nn.Linear(HIDDEN, HIDDEN),
            torch.nn.ReLU(),
            torch.nn.Linear(HIDDEN, ACTIONS),
        )
        for _ in range(2)
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, fused=True)
    now, after = torch.randn(BATCH, OBSERVATIONS), torch.randn(BATCH, OBSERVATIONS)
    actions, rewards = torch.randint(ACTIONS, (BATCH, 1)), torch.randn(BATCH)

    def loss() -> torch.Tensor:
        with torch.no_grad():
            goal = rewards + DISCOUNT * target(after).max(1).values
        return torch.nn.functional.huber_loss(network(now).gather(1, actions)[:, 0], goal)

    wrapped = wrap(loss)

    def update() -> None:
        optimizer.zero_grad()
        wrapped().backward()
        optimizer.step()

    return update


def measure(updates: int, rounds: int) -> Found:
    """Measure both ways.

    Args:
        updates: Updates in a turn.
        rounds: Turns of each way.

    Returns:
        The figures.
    """

    def repeated(update: Callable[[], None]) -> None:
        for _ in range(updates):
            update()

    eager, compiled = make_update(lambda loss: loss), make_update(torch.compile)
    started = time.perf_counter()
    compiled()
    compiling = time.perf_counter() - started
    turns = take_turns(
        {name: functools.partial(repeated, each) for name, each in (("eager", eager), ("compiled", compiled))}, rounds
    )
    costs = {name: Cost(each.seconds / updates, each.cpu_seconds / updates) for name, each in turns.items()}
    return Found(costs["eager"], costs["compiled"], compiling)


def main() -> None:
    """Print the figures and write them as JSON."""
    parser = parser_of(__doc__)
    parser.add_argument("--updates", type=int, default=200, help="updates in a turn")
    parser.add_argument("--rounds", type=int, default=9, help="turns of each way")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = measure(options.updates, options.rounds)
    eager, compiled = (1e3 * each.cpu_seconds for each in (found.eager, found.compiled))
    saved = (eager - compiled) / 1e3
    print(f"eager     {eager:7.3f} CPU ms an update")
    print(f"compiled  {compiled:7.3f} CPU ms an update, after {found.compiling_seconds:.0f} s of compiling")
    print(f"pays after {found.compiling_seconds / saved:,.0f} updates" if saved > 0 else "does not pay")
    write_figures(options, found)


if __name__ == "__main__":
    main()
