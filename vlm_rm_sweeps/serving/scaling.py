"""More reward servers of a model while frames wait for those that run, fewer while hardly any do.

Rewards do not depend on it: a frame's reward is the same on every server.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import GetTimeoutError, RayError

from vlm_rm_sweeps.rewards.reward_model import RewardModel
from vlm_rm_sweeps.serving.pool import PoolConfig, cause_of_death, start_server

_LOOK_S = 1.0
_LOOKS_TO_ADD = 5
"""A server is added if frames waited at each of so many looks."""
_LOOKS_TO_END = 60
"""A server is ended if the others could have had its frames at each of so many looks."""
_PATIENCE_S = 10.0


@dataclass
class QueueRule:
    """Decides by the frames that wait how many servers a model needs.

    A server is added while more than two micro-batches wait for each server: one is being scored, and one is next in any case. It is
    ended while less than half a micro-batch would wait for each of the others.

    Attributes:
        least: Servers at least.
        most: Servers at most.
        micro_batch: Frames in one forward pass.
    """

    least: int
    most: int
    micro_batch: int
    _waiting: deque[int] = field(default_factory=lambda: deque(maxlen=_LOOKS_TO_END))

    def look(self, waiting: int, servers: int) -> int:
        """Take the frames that wait at one look into account.

        Args:
            waiting: Frames that all servers have accepted and not scored yet.
            servers: Number of servers that run.

        Returns:
            1 for one server more, -1 for one less, 0 for as many.
        """
        self._waiting.append(waiting)
        looks = list(self._waiting)
        if servers < self.most and _each(looks, _LOOKS_TO_ADD, lambda frames: frames > 2 * self.micro_batch * servers):
            self._waiting.clear()
            return 1
        if servers > self.least and _each(looks, _LOOKS_TO_END, lambda frames: 2 * frames < self.micro_batch * (servers - 1)):
            self._waiting.clear()
            return -1
        return 0


def _each(looks: Sequence[int], count: int, holds: Callable[[int], bool]) -> bool:
    return len(looks) >= count and all(map(holds, looks[-count:]))


class ServerScaling:
    """Starts and ends the further servers of one model in a thread, for the duration of a `with` block.

    Clients find new servers by name, and send the requests of one that was ended to another.

    Args:
        config: Configuration of the pool, whose `servers` run already.
        model: The model, not loaded, as for `start_pool`.
        handles: Ray handles of the servers that run.
        say: Prints a line.
    """

    def __init__(
        self, config: PoolConfig, model: RewardModel, handles: Iterable[ActorHandle], say: Callable[[str], None]
    ) -> None:
        self._config, self._model, self._say = config, model, say
        self._first = list(handles)
        self._further: dict[str, ActorHandle] = {}
        self._starting: tuple[str, ray.ObjectRef] | None = None
        self._rule = QueueRule(config.servers, config.most_servers, config.micro_batch)
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"servers of {config.model_id}", daemon=True)

    def __enter__(self) -> "ServerScaling":
        if self._config.further_names():
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        if self._thread.is_alive():
            self._thread.join()
        for handle in self._further.values():
            ray.kill(handle)

    def _run(self) -> None:
        while not self._ends.wait(_LOOK_S):
            try:
                self._look()
            except (RayError, GetTimeoutError):  # a server is being restarted, or the cluster is about to end
                continue

    def _look(self) -> None:
        if self._starting is not None and not self._has_started(*self._starting):
            return
        handles: list[Any] = [*self._first, *self._further.values()]
        waiting = sum(ray.get([handle.backlog.remote() for handle in handles], timeout=_PATIENCE_S))
        change = self._rule.look(waiting, len(handles))
        if change > 0:
            self._add(waiting, len(handles) + 1)
        elif change < 0:
            self._end(len(handles) - 1)

    def _has_started(self, name: str, ready: ray.ObjectRef) -> bool:
        if not ray.wait([ready], timeout=0)[0]:
            return False
        self._starting = None
        try:
            ray.get(ready)
        except RayError as error:
            ray.kill(self._further.pop(name))
            self._rule.most = len(self._first) + len(self._further)
            self._say(
                f"a further reward server of {self._config.model_id} did not start, so {self._rule.most} go on: {cause_of_death(error)}"
            )
        return True

    def _add(self, waiting: int, servers: int) -> None:
        name = next(each for each in self._config.further_names() if each not in self._further)
        handle: Any = start_server(self._config, self._model, name)
        self._further[name], self._starting = handle, (name, handle.ready.remote())
        self._say(f"{waiting:,} frames wait for {self._config.model_id}: starting a reward server more, {servers} in all")

    def _end(self, servers: int) -> None:
        _, handle = self._further.popitem()
        ray.kill(handle)
        self._say(f"few frames wait for {self._config.model_id}: a reward server was ended, {servers} are left")
