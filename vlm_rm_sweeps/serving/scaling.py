"""More reward servers of a model while frames wait for those that run, fewer while hardly any do.

Rewards do not depend on it: servers on like machines give the same reward for a frame.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import ActorDiedError, RayError

from vlm_rm_sweeps.rewards.reward_model import RewardModel
from vlm_rm_sweeps.serving.lost_servers import LostServers
from vlm_rm_sweeps.serving.packed_model import PackedModel
from vlm_rm_sweeps.serving.pool import PoolConfig, cause_of_death, start_server

_LOOK_S = 1.0
_LOOKS_TO_ADD = 5
"""A server is added if frames waited at each of so many looks."""
_LOOKS_TO_END = 60
"""A server is ended if the others could have had its frames at each of so many looks."""
_PATIENCE_S = 2.0
"""Seconds to wait for what servers say of their frames; one that is being restarted says nothing."""
_USUAL_START_S = 60.0


@dataclass
class QueueRule:
    """Decides by the frames that wait how many servers a model needs.

    A server is added while more than a micro-batch waits for each one. It is ended while less than half a micro-batch would wait for
    each of the others.

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
            servers: Number of servers that run or start.

        Returns:
            1 for one server more, -1 for one less, 0 for as many.
        """
        if servers < min(self.least, self.most):  # one was lost
            return 1
        self._waiting.append(waiting)
        looks = list(self._waiting)
        if servers < self.most and _each(looks, _LOOKS_TO_ADD, lambda frames: frames > self.micro_batch * servers):
            self._waiting.clear()
            return 1
        if servers > self.least and _each(looks, _LOOKS_TO_END, lambda frames: 2 * frames < self.micro_batch * (servers - 1)):
            self._waiting.clear()
            return -1
        return 0


def _each(looks: Sequence[int], count: int, holds: Callable[[int], bool]) -> bool:
    return len(looks) >= count and all(map(holds, looks[-count:]))


@dataclass
class _Starting:
    """A server that loads its model, or waits for room."""

    name: str
    handle: Any
    ready: ray.ObjectRef
    since: float = field(default_factory=time.monotonic)
    was_said: bool = False


class ServerScaling:
    """Starts and ends the further servers of one model in a thread, for the duration of a `with` block.

    It also says which servers are lost, see `LostServers`.

    Clients find new servers by name, and send the requests of one that was ended to another. A server that is dead for good is
    replaced when it is needed, and at once if fewer than those of the start are left. Of shared servers their keeper sees to it.

    Args:
        config: Configuration of the pool, whose `servers` run already.
        model: The model, not loaded, as for `start_pool`.
        handles: Ray handles of the servers that run.
        say: Prints a line.
    """

    def __init__(
        self, config: PoolConfig, model: RewardModel, handles: Iterable[ActorHandle], say: Callable[[str], None]
    ) -> None:
        # Packed now: a file that is gone later would end the thread.
        self._config, self._packed, self._say = config, PackedModel.of(model), say
        # There are fewer handles than names if some shared servers are gone.
        self._running: dict[str, Any] = dict(zip(config.server_names(), handles, strict=False))
        self._lost = LostServers(config, say)
        self._started: set[str] = set()
        self._starting: _Starting | None = None
        self._most = config.most_servers
        self._rule = QueueRule(config.servers, self._most, config.micro_batch)
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"servers of {config.model_id}", daemon=True)

    def __enter__(self) -> "ServerScaling":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()
        for name in self._started & self._running.keys():
            ray.kill(self._running[name])
        if self._starting is not None:
            ray.kill(self._starting.handle)

    def _run(self) -> None:
        while not self._ends.wait(_LOOK_S):
            try:
                self._lost.look(self._running)
                if self._config.grows and not self._config.shared:
                    self._look()
            except RayError:  # the cluster is about to end
                continue

    def _look(self) -> None:
        if self._starting is not None:
            self._look_at_start(self._starting)
        waiting = self._waiting()
        servers = len(self._running) + (self._starting is not None)
        # One after the other: the next is started when the last one works.
        self._rule.most = servers if self._starting is not None else self._most
        change = self._rule.look(sum(waiting.values()), servers)
        if change > 0:
            self._add(sum(waiting.values()))
        elif change < 0:
            self._end(waiting)

    def _waiting(self) -> dict[str, int]:
        """Return the frames that wait, by server; without those that do not answer now."""
        asked = {handle.backlog.remote(): name for name, handle in self._running.items()}
        waiting = {}
        for answer in ray.wait(list(asked), num_returns=len(asked), timeout=_PATIENCE_S)[0]:
            name = asked[answer]
            try:
                waiting[name] = ray.get(answer)
            except ActorDiedError as error:
                del self._running[name]
                self._say(f"a reward server of {self._config.model_id} is lost: {cause_of_death(error)} ({self._left()})")
            except RayError:  # it is being restarted
                continue
        return waiting

    def _look_at_start(self, starting: _Starting) -> None:
        if not ray.wait([starting.ready], timeout=0)[0]:
            if time.monotonic() > starting.since + _USUAL_START_S and not starting.was_said:
                starting.was_said = True
                needs = f"{self._config.cpus:g} CPUs and {self._config.gpus:g} GPUs"
                self._say(f"another reward server of {self._config.model_id} does not start: is there room for {needs}?")
            return
        try:
            ray.get(starting.ready)
            self._running[starting.name] = starting.handle
            self._starting = None
        except ActorDiedError as error:
            self._starting, self._most = None, len(self._running)
            self._say(
                f"another reward server of {self._config.model_id} did not start: {cause_of_death(error)} ({self._left()})"
            )
        except RayError:  # its process died, and another one is started
            starting.ready = starting.handle.ready.remote()

    def _add(self, waiting: int) -> None:
        names = (*self._config.server_names(), *self._config.further_names())
        name = next(each for each in names if each not in self._running)
        handle: Any = start_server(self._config, self._packed, name)
        self._starting = _Starting(name, handle, handle.ready.remote())
        self._started.add(name)
        self._say(f"{waiting:,} frames wait for {self._config.model_id}: starting another reward server ({self._left()})")

    def _end(self, waiting: dict[str, int]) -> None:
        """End the server that starts, or else a further one that has no frames now."""
        if self._starting is not None:
            handle, self._starting = self._starting.handle, None
        else:
            idle = [name for name in self._started & self._running.keys() if waiting.get(name) == 0]
            if not idle:
                return
            handle = self._running.pop(max(idle))
        ray.kill(handle)
        self._say(f"few frames wait for {self._config.model_id}: a reward server was ended ({self._left()})")

    def _left(self) -> str:
        return f"servers that run: {len(self._running)}"
