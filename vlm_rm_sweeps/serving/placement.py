"""Whether a cluster has room for all reward servers and a trial, and the wait for machines that join it."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import ray
from ray.exceptions import GetTimeoutError
from ray.util.placement_group import placement_group, remove_placement_group

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.serving.pool import PoolConfig

_PARTS = 10_000
"""Ray counts CPUs and GPUs in ten-thousandths, so that ten tenths are one."""


class _Demand(NamedTuple):
    """What one process reserves."""

    what: str
    cpus: float
    gpus: float
    of_trial: bool = False


def check_placement(pools: Sequence[PoolConfig], trial_cpus: float, trial_gpus: float, env_runners: int = 0) -> None:
    """Refuse pools and trials that do not fit on the cluster, for which Ray would silently wait forever.

    Args:
        pools: The pools to be started.
        trial_cpus: CPUs reserved for a trial's own process.
        trial_gpus: GPUs reserved for a trial's own process.
        env_runners: Number of further processes of a trial, each with one CPU.

    Raises:
        UserError: The cluster has no room for all servers together with one trial and its env runners.
    """
    lacking = _lacking(_demands(pools, trial_cpus, trial_gpus, env_runners))
    if lacking is not None:
        raise UserError(
            f"{lacking}. Ask for fewer servers, or for less for each, under `pool:` and `trial:` in the sweep file; if machines will "
            "join, such as by an autoscaler, set `wait_for_nodes_s`"
        )


def await_placement(
    pools: Sequence[PoolConfig],
    trial_cpus: float,
    trial_gpus: float,
    env_runners: int,
    wait_s: float,
    say: Callable[[str], None],
) -> bool:
    """Wait until the cluster has room for all servers together with one trial and its env runners.

    Ray's autoscaler learns what is missing from a placement group that waits, and adds machines for it.

    Args:
        pools: The pools to be started.
        trial_cpus: CPUs reserved for a trial's own process.
        trial_gpus: GPUs reserved for a trial's own process.
        env_runners: Number of further processes of a trial, each with one CPU.
        wait_s: Longest time to wait, in seconds.
        say: Prints a line, if there is something to wait for.

    Returns:
        Whether machines have joined.

    Raises:
        UserError: After this time there is still no room.
    """
    demands = _demands(pools, trial_cpus, trial_gpus, env_runners)
    lacking = _lacking(demands)
    if lacking is None:
        return False
    say(f"{lacking}: waiting at most {wait_s:g} s for machines that join the cluster")
    group = placement_group([_bundle(demand) for demand in demands if _bundle(demand)])
    try:
        ray.get(group.ready(), timeout=wait_s)
    except GetTimeoutError as error:
        raise UserError(
            f"after {wait_s:g} s, {_lacking(demands) or lacking}. Look at the autoscaler's log, or start more machines; "
            "`wait_for_nodes_s` says how long is waited"
        ) from error
    finally:
        remove_placement_group(group)
    return True


def has_room_without(
    refused: Collection[str], pools: Sequence[PoolConfig], trial_cpus: float, trial_gpus: float, env_runners: int = 0
) -> bool:
    """Return whether a trial fits beside all servers on nodes that refuse none.

    Args:
        refused: Ids of the nodes that do. Servers may run there.
        pools: The pools, which run.
        trial_cpus: CPUs reserved for a trial's own process.
        trial_gpus: GPUs reserved for a trial's own process.
        env_runners: Number of further processes of a trial, each with one CPU.

    Returns:
        Whether there is such room, or may be: where the servers are is not known.
    """
    return trials_that_fit(1, refused, pools, trial_cpus, trial_gpus, env_runners) == 1


def trials_that_fit(
    at_most: int,
    refused: Collection[str],
    pools: Sequence[PoolConfig],
    trial_cpus: float,
    trial_gpus: float,
    env_runners: int = 0,
) -> int:
    """Count the trials that fit on the cluster at once, if nobody else used it.

    Args:
        at_most: The number of trials to place.
        refused: Ids of the nodes on which no trial may run.
        pools: The pools, which run.
        trial_cpus: CPUs reserved for a trial's own process.
        trial_gpus: GPUs reserved for a trial's own process.
        env_runners: Number of further processes of a trial, each with one CPU.

    Returns:
        The number, which may be too large: where the servers are is not known.
    """
    demands = _demands(pools, trial_cpus, trial_gpus, env_runners)
    of_trial = [demand for demand in demands if demand.of_trial]
    servers = demands[: len(demands) - len(of_trial)]
    placed = _placed([*servers, *of_trial * at_most], _rooms(refused))
    return max(0, placed - len(servers)) // len(of_trial)


def _demands(pools: Sequence[PoolConfig], trial_cpus: float, trial_gpus: float, env_runners: int) -> list[_Demand]:
    """List what is reserved, the largest server first."""
    servers = [_Demand(f"reward server {name}", pool.cpus, pool.gpus) for pool in pools for name in pool.server_names()]
    return [
        *sorted(servers, key=lambda demand: demand[1:], reverse=True),
        _Demand("one trial beside the reward servers", trial_cpus, trial_gpus, of_trial=True),
        *(_Demand(f"env runner {index + 1} of a trial", 1.0, 0.0, of_trial=True) for index in range(env_runners)),
    ]


def _bundle(demand: _Demand) -> dict[str, float]:
    return {name: amount for name, amount in (("CPU", demand.cpus), ("GPU", demand.gpus)) if amount}


@dataclass
class _Room:
    """What a node has left, in ten-thousandths.

    Attributes:
        cpus: What is left of all its CPUs together.
        gpus: What is left of each GPU.
        refuses: Whether no trial may run there.
    """

    cpus: float
    gpus: list[float]
    refuses: bool

    def take(self, demand: _Demand) -> bool:
        """Take what one process reserves, if there is room for it.

        As by Ray, a fraction of a GPU is on one GPU: of those on which it fits, the one that has the least left.

        Args:
            demand: What the process reserves.

        Returns:
            Whether there was room.
        """
        cpus, gpus = _in_parts(demand.cpus), _in_parts(demand.gpus)
        if cpus > self.cpus or gpus > sum(self.gpus) or (self.refuses and demand.of_trial):
            return False
        whole, fraction = divmod(gpus, _PARTS)
        left = list(self.gpus)
        for part in [_PARTS] * int(whole) + [fraction] * bool(fraction):
            tightest = min((each for each in left if each >= part), default=None)
            if tightest is None:
                return False
            left[left.index(tightest)] -= part
        self.cpus, self.gpus = self.cpus - cpus, left
        return True


def _in_parts(amount: float) -> float:
    """Return a whole number of ten-thousandths, as a float: of an amount that no cluster has they may be infinite."""
    return round(amount * _PARTS, 0)


def _rooms(refused: Collection[str] = ()) -> list[_Room]:
    """Return what each node has; first those on which no trial may run, so that servers take them."""
    rooms = [
        _Room(
            _in_parts(node["Resources"].get("CPU", 0.0)),
            [_PARTS] * int(node["Resources"].get("GPU", 0)),
            node["NodeID"] in refused,
        )
        for node in ray.nodes()
        if node["Alive"]
    ]
    return sorted(rooms, key=lambda room: not room.refuses)


def _placed(demands: Sequence[_Demand], rooms: Sequence[_Room]) -> int:
    """Place demands in turn, and return how many have room before one has none."""
    for number, demand in enumerate(demands):
        if not any(room.take(demand) for room in rooms):
            return number
    return len(demands)


def _lacking(demands: Sequence[_Demand]) -> str | None:
    """Say which demand the cluster has no room for; None if it has room for all."""
    rooms = _rooms()
    cluster = ", ".join(f"{room.cpus / _PARTS:g} CPUs and {len(room.gpus)} GPUs" for room in rooms)
    placed = _placed(demands, rooms)
    if placed == len(demands):
        return None
    what, cpus, gpus, _ = demands[placed]
    left = "left on one GPU" if 0 < gpus < 1 else "left"
    return f"{what} needs {cpus:g} CPUs and {gpus:g} GPUs, and no node has that much {left}; the cluster's nodes have {cluster}"
