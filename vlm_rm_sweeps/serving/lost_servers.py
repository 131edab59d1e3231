"""Reward servers that were lost and for which no node has room: said, and given up in the end.

Ray starts a lost server again, wherever there is room, and waits for that without end and without a word. So do its clients.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import ray

from vlm_rm_sweeps.serving.pool import LONGEST_START_S, PoolConfig
from vlm_rm_sweeps.serving.ray_internals import actor_id, is_dead, restarts_of_running
from vlm_rm_sweeps.serving.telemetry import PoolMetrics

_USUAL_S = 30.0
"""Seconds in which a lost server is usually there again."""


@dataclass
class _Lost:
    since: float
    said_s: float = 0.0
    """How long it had been lost when that was said last; 0 if never."""


class LostServers:
    """Looks for lost servers of one model, and counts those that run.

    Args:
        config: Configuration of the pool.
        say: Prints a line.
    """

    def __init__(self, config: PoolConfig, say: Callable[[str], None]) -> None:
        self._config, self._say = config, say
        self._lost: dict[str, _Lost] = {}
        self._metrics = PoolMetrics(config.model_id)

    def look(self, servers: Mapping[str, Any], now: float | None = None) -> None:
        """Say after 30 s that a server is lost, again after twice that time, and so on; after ten minutes, end it for good.

        Clients then send its frames to another server, or fail at once.

        Args:
            servers: Handles of the servers that have been running, by name. Those that are dead for good are left to clients.
            now: Time in seconds, as by `time.monotonic`, which is the default.
        """
        now = time.monotonic() if now is None else now
        for name in self._lost.keys() - servers.keys():
            del self._lost[name]
        runs = {name: restarts_of_running(actor_id(handle)) is not None for name, handle in servers.items()}
        for name, handle in servers.items():
            if runs[name]:
                if (lost := self._lost.pop(name, None)) is not None and lost.said_s:
                    self._say(f"the reward server of {self._config.model_id} runs again")
            elif is_dead(actor_id(handle)):
                self._lost.pop(name, None)
            else:
                self._look_at(handle, self._lost.setdefault(name, _Lost(now)), now)
        self._metrics.running(sum(runs.values()))

    def _look_at(self, handle: Any, lost: _Lost, now: float) -> None:
        seconds = now - lost.since
        if seconds >= LONGEST_START_S:
            ray.kill(handle)
            self._say(
                f"a reward server of {self._config.model_id} is given up: it did not start again for {LONGEST_START_S:.0f} s"
            )
        elif seconds >= max(_USUAL_S, 2 * lost.said_s):
            lost.said_s = seconds
            needs = f"{self._config.cpus:g} CPUs and {self._config.gpus:g} GPUs"
            self._say(
                f"a reward server of {self._config.model_id} is lost, and has not started again for {seconds:.0f} s: is there room for "
                f"{needs}? It is given up after {LONGEST_START_S:.0f} s"
            )
