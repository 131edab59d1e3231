"""Reward servers that several sweeps on one cluster share, and that outlive the sweep which started them.

A keeper, a detached Ray actor, starts the servers of one model in one configuration, knows who holds them, and ends them, and
itself, when nobody has held them for a while. Who is killed holds them no longer, because the keeper does not hear of it any more.
"""

import hashlib
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import GetTimeoutError, RayActorError, RayError

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.rewards.reward_model import RewardModel
from vlm_rm_sweeps.serving.packed_model import PackedModel
from vlm_rm_sweeps.serving.pool import NAMESPACE, PoolConfig, cause_of_death, start_pool
from vlm_rm_sweeps.serving.ray_internals import actor_id, is_dead
from vlm_rm_sweeps.serving.scaling import ServerScaling

logger = logging.getLogger(__name__)

_BEAT_S = 10.0
"""Seconds between two signs of life of a holder."""
_LOOK_S = 1.0
_START_S = 120.0
"""Seconds to wait until a keeper answers, or the servers of the one before it have ended."""
_PACKAGE = __name__.partition(".")[0]


def named_if_shared(config: PoolConfig, model: RewardModel) -> PoolConfig:
    """Name a shared pool after what its servers are, so that all who want the same ones find them.

    Args:
        config: The pool's configuration.
        model: The model, not loaded.

    Returns:
        The configuration. It is not shared if two models of one id may differ, as a user's own classes do, or if the model keeps a
        budget of its own.
    """
    if not config.shared:
        return config
    if type(model).__module__.partition(".")[0] != _PACKAGE or model.judges_only:
        return replace(config, shared=False)
    weights = getattr(model, "weights_identity", model.identity)
    what = asdict(replace(config, name="", spread=False)) | {"weights": weights, "version": version(_PACKAGE)}
    return replace(config, name=f"shared-{hashlib.sha256(repr(sorted(what.items())).encode()).hexdigest()[:12]}")


@dataclass(frozen=True)
class Patience:
    """How long a keeper waits.

    Attributes:
        kept_s: Seconds that servers are kept for the next holder.
        silence_s: Seconds without a sign of life after which a holder is taken for dead.
    """

    kept_s: float = 300.0
    silence_s: float = 60.0


@contextmanager
def reward_servers(config: PoolConfig, model: RewardModel) -> Iterator[list[ActorHandle]]:
    """Start the servers of one model, or share those that run, without waiting for them.

    Args:
        config: Configuration of the pool, from `named_if_shared`.
        model: The model, not loaded, as for `start_pool`.

    Yields:
        Ray handles of the servers. After the `with` block those that are not shared have ended.

    Raises:
        UserError: The pool's backend cannot run the model, or the keeper of the shared servers does not answer.
    """
    if config.shared:
        with SharedServers(config, model) as handles:
            yield handles
        return
    servers = start_pool(config, model)
    try:
        yield servers
    finally:
        for server in servers:
            ray.kill(server)


class ServerKeeper:
    """Keeps the servers of one model while anybody holds them, and for a while after: a Ray actor, see `SharedServers`.

    Args:
        config: Configuration of the pool.
        packed: The model.
        patience: How long it waits.
    """

    def __init__(self, config: PoolConfig, packed: PackedModel, patience: Patience) -> None:
        self._config, self._model, self._patience = replace(config, shared=False), packed.unpack(), patience
        self._servers = _until_names_are_free(lambda: start_pool(config, self._model))
        self._heard_of: dict[str, float] = {}
        self._holders: set[str] = set()
        """All that ever held the servers."""
        self._held_at = time.monotonic()
        self._lock = threading.Lock()
        self._has_ended = False
        self._myself = ray.get_runtime_context().current_actor
        threading.Thread(target=self._watch, name="watch", daemon=True).start()

    def hold(self, holder: str) -> list[ActorHandle] | None:
        """Take or keep a hold on the servers; to be called again before the keeper takes the holder for dead.

        Args:
            holder: A name that nobody else has.

        Returns:
            Ray handles of the servers from the start that are left, or of all if none is: the dead ones tell the first holders of what
            they died. None if they are being ended; then the next keeper starts new ones.
        """
        with self._lock:
            comes_late = bool(self._holders) and holder not in self._holders
            if self._has_ended or (comes_late and self._are_lost()):
                return None
            self._holders.add(holder)
            self._heard_of[holder] = time.monotonic()
            return self._left() or self._servers

    def release(self, holder: str) -> None:
        """Give a hold up."""
        with self._lock:
            self._heard_of.pop(holder, None)

    def _are_lost(self) -> bool:
        """Whether all servers are dead for good. Without `grows` nobody replaces them; a new keeper starts new ones."""
        return not (self._config.grows or self._left())

    def _left(self) -> list[ActorHandle]:
        return [server for server in self._servers if not is_dead(actor_id(server))]

    def _watch(self) -> None:
        with suppress(RayError):  # a model that cannot be loaded
            ray.get([server.ready.remote() for server in self._servers])
        with ServerScaling(self._config, self._model, self._servers, logger.info):
            while True:
                with suppress(RayError):  # what does not answer now may do so later
                    if self._is_over():
                        break
                time.sleep(_LOOK_S)
        for server in self._servers:
            ray.kill(server)
        ray.kill(self._myself)

    def _is_over(self) -> bool:
        now = time.monotonic()
        with self._lock:
            self._heard_of = {
                holder: heard for holder, heard in self._heard_of.items() if now < heard + self._patience.silence_s
            }
            if self._heard_of:
                self._held_at = now
            self._has_ended = now > self._held_at + self._patience.kept_s or self._are_lost()
            return self._has_ended


def _until_names_are_free(start: Callable[[], list[ActorHandle]]) -> list[ActorHandle]:
    """Start servers whose names those of a keeper that died may still have for some seconds."""
    ends = time.monotonic() + _START_S
    while True:
        try:
            return start()
        except ValueError:
            if time.monotonic() > ends:
                raise
            time.sleep(_LOOK_S)


class SharedServers:
    """A hold on shared servers for the duration of a `with` block. The first holder's keeper starts them.

    Args:
        config: Configuration of the pool, from `named_if_shared`.
        model: The model, not loaded.
        patience: How long the keeper waits; the first holder's counts.
    """

    def __init__(self, config: PoolConfig, model: RewardModel, patience: Patience = Patience()) -> None:
        self._config, self._model, self._patience = config, model, patience
        self._holder = uuid.uuid4().hex
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"hold on {config.model_id}", daemon=True)

    def __enter__(self) -> list[ActorHandle]:
        self._model.use_backend(self._config.backend, self._config.device, self._config.precision)
        self._packed = PackedModel.of(self._model)  # once, and not at each beat
        ends, reason = time.monotonic() + _START_S, "those of before are still ending"
        while time.monotonic() < ends:
            try:
                handles: list[ActorHandle] | None = ray.get(self._keeper().hold.remote(self._holder), timeout=_START_S)
                if handles is not None:
                    self._thread.start()
                    return handles
            except (RayActorError, GetTimeoutError) as error:  # perhaps it was about to end
                reason = cause_of_death(error)
            time.sleep(_LOOK_S)
        raise UserError(f"the shared reward servers of {self._config.model_id} do not start: {reason}")

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()
        with suppress(RayError, ValueError):
            keeper: Any = ray.get_actor(self._keeper_name, namespace=NAMESPACE)
            ray.get(keeper.release.remote(self._holder), timeout=_BEAT_S)

    def _beat(self) -> None:
        while not self._ends.wait(_BEAT_S):
            with suppress(RayError):  # the next beat may reach it
                ray.get(self._keeper().hold.remote(self._holder), timeout=_BEAT_S)

    @property
    def _keeper_name(self) -> str:
        return f"{self._config.name}/{self._config.model_id}/keeper"

    def _keeper(self) -> Any:
        """Find the keeper, or start one: the first, or another one after its node was lost."""
        actor: Any = ray.remote(ServerKeeper)
        return actor.options(
            name=self._keeper_name,
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            num_cpus=0,
            max_restarts=-1,
        ).remote(self._config, self._packed, self._patience)
