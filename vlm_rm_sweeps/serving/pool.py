"""The reward pool: the named servers of one model, and the client that distributes frames among them.

The driver starts the first servers before any trial, outside the trials' placement groups; each trial then connects by name. All
trials of a sweep share one pool per model, so memory grows with the number of models, not with that of trials.
"""

import math
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from numbers import Real
from typing import Any, get_args

import numpy as np
import ray
from ray.actor import ActorHandle
from ray.exceptions import ActorDiedError, ActorUnavailableError, GetTimeoutError, RayActorError, RayError, RayTaskError
from ray.util import list_named_actors

from vlm_rm_sweeps.errors import UserError, reason_of, shown, unknown_name
from vlm_rm_sweeps.frames import FrameFormat
from vlm_rm_sweeps.rewards.columns import Columns
from vlm_rm_sweeps.rewards.reward_model import (
    BackendName,
    JudgeUnavailableError,
    Precision,
    RewardModel,
    RewardSpec,
    check_is_spec,
    check_request,
)
from vlm_rm_sweeps.serving.messages import ScoredFrames
from vlm_rm_sweeps.serving.packed_model import PackedModel
from vlm_rm_sweeps.serving.ray_internals import actor_id, died_with_its_node, has_place, is_dead, restarts_of_running
from vlm_rm_sweeps.serving.telemetry import ClientMetrics

NAMESPACE = "vlm-rm-sweeps"
"""Ray namespace of the servers, in which other processes find them by name."""

_RESTARTS = -1
_TRIES = 3
_SENDS = 6
"""How often a request is sent again after its server died or was not reached: the request itself may kill the server."""
_USUAL_S = 1.0
"""Seconds to wait before the first liveness check."""
_POLL_S = 0.5
_USUAL_PLACE_S = 30.0
"""Seconds in which a server for which there is room usually gets it."""
_REQUEST_FRAMES = 64
"""Frames in one request of `score`, rounded up to whole micro-batches: frames x specs x embedding must fit into a server's
memory."""
LONGEST_START_S = 600.0
"""Seconds in which a server that was lost must run again, see `LostServers`."""
_LOOK_FOR_SERVERS_S = 5.0
"""Seconds between two looks of a client for further servers."""
_THREADS = "OMP_NUM_THREADS"


class PoolError(RuntimeError):
    """The pool could not return one finite reward for each frame and spec."""


class PoolUnavailable(PoolError):  # noqa: N818 - as Ray's
    """No server is left, none answers, or each one dies. The machine may be the cause, so a retry may help."""


@dataclass(frozen=True)
class PoolConfig:
    """Configuration of the pool of one model: plain data, with which trials connect without the model's own code.

    Attributes:
        name: Name of the pool, unique on the cluster.
        model_id: Id of the model that is served.
        frame_format: Size and resizing of the model's frames.
        parameters: Number of parameters of the model.
        servers: Number of reward servers, from the start.
        most_servers: Number of reward servers while many frames wait, see `ServerScaling`; 0 for never more than `servers`.
        precision: Floating-point precision of the weights.
        backend: What runs the model's network.
        micro_batch: Frames in one forward pass.
        cpus: CPUs that Ray reserves for each server. 0 by default: on a small machine a server that reserved one could never
            be placed beside the trials.
        gpus: GPUs, or a fraction of one, that Ray reserves for each server.
        threads: Number of threads that each server uses, whatever it reserves.
        timeout_s: Seconds without an answer after which a running server is considered hung. Its start is not counted.
        columns: Names of what the model can tell of a frame beside rewards, see `RewardModel`.
        shared: Whether all sweeps on the cluster share the servers, see `sharing.py`.
        spread: Whether servers with GPUs are on as many nodes as there are, rather than together on few.

    Raises:
        UserError: One of the numbers is too small or none, or there is no such precision or backend.
    """

    name: str
    model_id: str
    frame_format: FrameFormat
    parameters: int = 0
    servers: int = 1
    most_servers: int = 0
    precision: Precision = "fp32"
    backend: BackendName = "torch"
    micro_batch: int = 64
    cpus: float = 0.0
    gpus: float = 0.0
    threads: int = 1
    timeout_s: float = 600.0
    columns: tuple[str, ...] = ()
    shared: bool = False
    spread: bool = False

    def __post_init__(self) -> None:
        for name in ("servers", "micro_batch", "threads"):
            value = getattr(self, name)
            whole = _is_number(value) and value >= 1 and value == int(value)
            self._check(name, whole, "at least 1, a whole number")
        more = self.most_servers
        is_count = _is_number(more) and more == int(more) and (more == 0 or more >= self.servers)
        self._check("most_servers", is_count, f"0, or a whole number that is not below `servers`, {self.servers}")
        for name in ("cpus", "gpus"):
            value = getattr(self, name)
            self._check(name, _is_number(value) and value >= 0, "at least 0")
        self._check("timeout_s", _is_number(self.timeout_s) and self.timeout_s > 0, "more than 0 seconds")
        for name, kinds in (("precision", Precision), ("backend", BackendName)):
            self._check(name, getattr(self, name) in get_args(kinds), f"one of {', '.join(get_args(kinds))}")

    def _check(self, name: str, valid: bool, expected: str) -> None:
        if not valid:
            raise UserError(f"pool of {self.model_id}: {name} is {shown(getattr(self, name))}: expected {expected}")

    @classmethod
    def of(cls, name: str, model: RewardModel, **settings: Any) -> "PoolConfig":
        """Configure a pool for a model.

        Args:
            name: Name of the pool, unique on the cluster.
            model: The model, which need not be loaded.
            **settings: Any other attributes: `servers`, `precision`, ...

        Returns:
            The configuration, with the model's own id, frame format, number of parameters and columns.

        Raises:
            UserError: There is no such setting, or it has a value that is none.
        """
        own = ("name", "model_id", "frame_format", "parameters", "columns")
        known = [field.name for field in fields(cls) if field.name not in own]
        for setting in settings:
            if setting not in known:
                raise UserError(unknown_name("setting of a pool", setting, known, "; `gpus` puts servers on GPUs"))
        return cls(name, model.model_id, model.frame_format, model.parameters, columns=model.columns, **settings)

    @property
    def device(self) -> str:
        """The torch device of each server: `cuda` if it reserves a GPU, else `cpu`."""
        return "cuda" if self.gpus else "cpu"

    def server_names(self) -> list[str]:
        """Return the names of the Ray actors of the servers that run from the start."""
        return self._names(range(self.servers))

    def further_names(self) -> list[str]:
        """Return the names of the Ray actors of the servers that run only while many frames wait."""
        return self._names(range(self.servers, self.most_servers))

    @property
    def grows(self) -> bool:
        """Whether there may be more servers than from the start."""
        return self.most_servers > self.servers

    def _names(self, indices: Iterable[int]) -> list[str]:
        return [f"{self.name}/{self.model_id}/{index}" for index in indices]


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


class PendingRewards:
    """Future for one scoring request.

    Args:
        pool: The client that sends the request, and sends it again if necessary.
        frames: Reference to frames uint8 (N, H, W, 3) in Ray's object store.
        count: Number of frames, N.
        specs: Prompts and function of each reward, each of single frames.
    """

    def __init__(self, pool: "RewardPool", frames: ray.ObjectRef, count: int, specs: tuple[RewardSpec, ...]) -> None:
        self._pool, self._frames, self._count, self._specs = pool, frames, count, specs
        self._server, self._answer = pool._send(frames, count, specs)
        self._sent_again = 0
        self._in_flight = True

    def give_up(self) -> None:
        """Count the frames as in flight no longer, because nobody waits for their rewards."""
        if self._in_flight:
            self._in_flight = False
            self._server.in_flight -= self._count

    def result(self) -> ScoredFrames:
        """Wait for the answer.

        If the server dies for good, another one gets the request; if it hangs, it is restarted.

        Returns:
            The server's answer, with one finite reward for each frame and spec.

        Raises:
            PoolUnavailable: No server is left, none answers in time (three tries), or this request keeps killing servers.
            PoolError: A reward is missing or not finite.
            JudgeUnavailableError: The model only judges, and cannot do so now.
        """
        model_id = self._pool.config.model_id
        try:
            scored = self._answer_in_some_tries()
        except BaseException:  # the server's own error, that none is left, or Ctrl-C
            self.give_up()
            raise
        self._in_flight = False
        self._server.node = scored.node
        self._pool._answered(self._server, self._count, scored.backlog, scored.answered_at)
        expected = (self._count, len(self._specs))
        if scored.rewards.shape != expected:
            raise PoolError(f"{model_id} gave rewards of shape {scored.rewards.shape}, expected {expected}")
        if not np.isfinite(scored.rewards).all():
            bad = int((~np.isfinite(scored.rewards)).sum())
            raise PoolError(
                f"{model_id} gave {bad} of {scored.rewards.size} rewards that are not finite: try fp32, or check its weights"
            )
        return scored

    def _answer_in_some_tries(self) -> ScoredFrames:
        timeout = self._pool.config.timeout_s
        for _ in range(_TRIES):
            try:
                return self._wait(timeout)
            except GetTimeoutError:
                self._pool._hangs(self._server)
                self._send_to_another()
        raise PoolUnavailable(
            f"the reward servers of {self._pool.config.model_id} did not answer {self._count} frames within {timeout:g} s, {_TRIES} "
            "times"
        )

    def _send_to_another(self) -> None:
        """Send the request to the server that is now the least busy."""
        before = self._server
        self._server, self._answer = self._pool._send(self._frames, self._count, self._specs)
        before.in_flight -= self._count
        self._pool.metrics.sent_again()

    def _wait(self, timeout: float) -> ScoredFrames:
        """Wait until a server answers.

        Raises:
            GetTimeoutError: The server ran for `timeout` seconds without a restart and did not answer, or it does not start.
        """
        latest_start, patience_ends, life = _deadlines(timeout)
        while True:
            try:
                scored: ScoredFrames = ray.get(self._answer, timeout=max(0.0, patience_ends - time.monotonic()))
                return scored
            except ActorDiedError as error:
                self._pool._lost(self._server, error)
                self._send_to_another()
                latest_start, patience_ends, life = _deadlines(timeout)
            except ActorUnavailableError as error:
                # It died with the request, or was not reached. Until Ray has restarted it, asking again raises the same error.
                time.sleep(_POLL_S * 2**self._sent_again)
                if self._server.is_dead():
                    self._pool._lost(self._server, error)
                    self._send_to_another()
                    latest_start, patience_ends, life = _deadlines(timeout)
                elif self._server.life() is not None:
                    self._send_again(error)
                    latest_start, patience_ends, life = _deadlines(timeout)
                elif time.monotonic() > latest_start:
                    raise GetTimeoutError(f"{self._pool.config.model_id} does not come up") from error
            except GetTimeoutError:
                life_before, life = life, self._server.life()
                # A server that is being restarted, perhaps because another trial had it killed, is not hung.
                if life is None:
                    patience_ends = time.monotonic() + _USUAL_S
                    if time.monotonic() > latest_start:
                        raise
                elif life == life_before:
                    raise
                else:
                    patience_ends = time.monotonic() + timeout
                    latest_start = patience_ends + LONGEST_START_S
            except RayTaskError as error:
                if isinstance(error.cause, JudgeUnavailableError):
                    raise error.cause from None
                raise

    def _send_again(self, error: Exception) -> None:
        """Send the request to the same server, which is running again.

        Raises:
            PoolUnavailable: It was sent as often as a request may be.
        """
        if self._sent_again == _SENDS:
            raise PoolUnavailable(
                f"a reward server of {self._pool.config.model_id} died or was not reached {_SENDS + 1} times while it had the same "
                f"{self._count} frames: is the machine's memory full? ({reason_of(error)})"
            ) from error
        self._sent_again += 1
        self._pool.metrics.sent_again()
        self._answer = self._server.handle.score.remote(self._frames, self._specs)


def _deadlines(timeout: float) -> tuple[float, float, None]:
    """Return for a request that is sent now: when its server must run at the latest, when to look at it, and its unknown life."""
    now = time.monotonic()
    return now + LONGEST_START_S, now + min(_USUAL_S, timeout), None


@dataclass
class _Server:
    """A client's view of one server: the backlog in its newest answer, and the frames that this client has in flight there.

    Its node is known from its last answer.
    """

    handle: ActorHandle
    name: str
    reported: int = 0
    reported_at: float = 0.0
    in_flight: int = 0
    node: str = ""

    @property
    def load(self) -> int:
        return self.reported + self.in_flight

    def life(self) -> int | None:
        """Return how often the running server was restarted; None while it does not run."""
        return restarts_of_running(actor_id(self.handle))

    def is_dead(self) -> bool:
        """Return whether it will not run again."""
        return is_dead(actor_id(self.handle))


class RewardPool(RewardModel):
    """Client of the servers of one model, and itself a reward model: `score` distributes frames among the servers.

    Args:
        config: Configuration of the pool.
        handles: Ray handles of its servers, those that run from the start.
    """

    embeds = True
    """The servers know whether their model does."""

    def __init__(self, config: PoolConfig, handles: Iterable[ActorHandle]) -> None:
        super().__init__(config.model_id)
        self.config = config
        self.frame_format, self.parameters, self.columns = config.frame_format, config.parameters, config.columns
        self.micro_batch = config.micro_batch
        self.metrics = ClientMetrics(config.model_id)
        self._servers = [_Server(handle, name) for handle, name in zip(handles, config.server_names(), strict=False)]
        self._starting: dict[str, tuple[ActorHandle, ray.ObjectRef]] = {}
        self._here = ray.get_runtime_context().get_node_id() if ray.is_initialized() else ""
        self._looked_at = -math.inf

    @classmethod
    def connect(cls, config: PoolConfig) -> "RewardPool":
        """Connect to servers that were started before, from any process of the cluster.

        Args:
            config: Configuration of the pool.

        Returns:
            A client of all servers that are left.

        Raises:
            PoolUnavailable: No server is left.
        """
        pool = cls(config, [])
        for names in (config.server_names(), config.further_names()):
            for name in names:
                with suppress(ValueError):  # it died for good, or was not started
                    pool._servers.append(_Server(ray.get_actor(name, namespace=NAMESPACE), name))
            if pool._servers:
                return pool
        raise PoolUnavailable(f"no reward server of {config.model_id} is left")

    def close(self) -> None:
        """Forget all servers, when the pool ends: requests are refused from then on."""
        self._servers.clear()
        self._starting.clear()

    def check_spec(self, spec: RewardSpec) -> None:
        """Refuse a spec that the served model cannot score: a server asks its model.

        Args:
            spec: Prompts and function of single frames to check.

        Raises:
            UserError: The model cannot score it.
            PoolUnavailable: No server answers.
        """
        check_is_spec(spec)
        for server in self._servers:
            try:
                ray.get(server.handle.check_spec.remote(spec), timeout=self.config.timeout_s)
                return
            except RayTaskError as error:
                if isinstance(error.cause, UserError):
                    raise error.cause from None
                raise
            except (RayActorError, GetTimeoutError):  # being restarted, or gone: another one may answer
                continue
        raise PoolUnavailable(f"no reward server of {self.config.model_id} answers")

    def submit(self, frames: np.ndarray, specs: Sequence[RewardSpec]) -> PendingRewards:
        """Send frames to the least busy server, without waiting for their rewards.

        Args:
            frames: uint8 (N, H, W, 3), of any height and width.
            specs: Prompts and function of each reward, each of single frames.

        Returns:
            A future for the rewards.

        Raises:
            PoolUnavailable: No server is left.
            UserError: The frames are none, or are not uint8 (N, H, W, 3), or there is no spec. Nothing is sent then.
        """
        check_request(frames, specs)
        if not len(frames):
            raise UserError(f"frames of shape {frames.shape}: expected at least one frame, uint8 (N, height, width, 3)")
        if not self._servers:  # before Ray is used: it would start or join a cluster by itself
            raise PoolUnavailable(f"no reward server of {self.config.model_id} is left: has the pool been closed?")
        # Put into the object store once: a retry sends the reference, not the frames.
        return PendingRewards(self, ray.put(frames), len(frames), tuple(specs))

    def score(self, frames: np.ndarray, specs: Sequence[RewardSpec]) -> np.ndarray:
        """Score frames in requests of bounded size, which are distributed among the servers.

        Args:
            frames: uint8 (N, H, W, 3), of any height and width.
            specs: Prompts and function of each reward, each of single frames.

        Returns:
            Rewards, float32 (N, number of specs), in the order of the frames.

        Raises:
            PoolUnavailable: No server is left, none answers, or each one dies.
            PoolError: A reward is missing or not finite.
            UserError: The frames are not uint8 (N, H, W, 3), or there is no spec. Nothing is sent then.
        """
        check_request(frames, specs)
        if not len(frames):
            return np.zeros((0, len(specs)), np.float32)
        # Whole micro-batches: a partial one is padded and takes as long.
        size = self.micro_batch * math.ceil(_REQUEST_FRAMES / self.micro_batch)
        pending = [self.submit(frames[start : start + size], specs) for start in range(0, len(frames), size)]
        try:
            return np.concatenate([each.result().rewards for each in pending])
        except BaseException:
            for each in pending:
                each.give_up()
            raise

    def _send(self, frames: ray.ObjectRef, count: int, specs: tuple[RewardSpec, ...]) -> tuple[_Server, ray.ObjectRef]:
        self._look_for_servers()
        if not self._servers:
            raise PoolUnavailable(f"no reward server of {self.config.model_id} is left")
        # Of equally busy ones, one on this node: frames need no network. One whose node is not known yet is tried, too.
        server = min(self._servers, key=lambda candidate: (candidate.load, candidate.node not in ("", self._here)))
        # Moved to the end, so that equally good servers take turns.
        self._servers.remove(server)
        self._servers.append(server)
        server.in_flight += count
        return server, server.handle.score.remote(frames, specs)

    def _look_for_servers(self) -> None:
        """Send also to servers that were started since, once they have loaded their model."""
        if not self.config.grows or time.monotonic() < self._looked_at + _LOOK_FOR_SERVERS_S:
            return
        self._looked_at = time.monotonic()
        known = {server.name for server in self._servers} | self._starting.keys()
        for name in running_servers(self.config) - known:
            with suppress(ValueError):  # it was ended meanwhile
                handle = ray.get_actor(name, namespace=NAMESPACE)
                self._starting[name] = handle, handle.ready.remote()
        for name, (handle, ready) in list(self._starting.items()):
            if ray.wait([ready], timeout=0)[0]:
                del self._starting[name]
                with suppress(RayError):  # as above
                    ray.get(ready)
                    self._servers.append(_Server(handle, name))

    def _answered(self, server: _Server, count: int, backlog: int, answered_at: float) -> None:
        server.in_flight -= count
        # Answers may be read in another order than they were given in: of an old one, the backlog is none any more.
        if answered_at >= server.reported_at:
            # The reported backlog includes what this client has in flight there.
            server.reported, server.reported_at = max(0, backlog - server.in_flight), answered_at

    def _hangs(self, server: _Server) -> None:
        """Have Ray kill and restart a server that does not answer."""
        self.metrics.killed_hung_server()
        ray.kill(server.handle, no_restart=False)

    def _lost(self, server: _Server, error: Exception) -> None:
        if server in self._servers:
            self._servers.remove(server)
        if not self._servers:
            raise PoolUnavailable(f"the last reward server of {self.config.model_id} died: {cause_of_death(error)}") from error


def running_servers(config: PoolConfig) -> set[str]:
    """List the names of a pool's servers that run or start; those that are dead for good are none."""
    actors = {actor["name"] for actor in list_named_actors(all_namespaces=True) if actor["namespace"] == NAMESPACE}
    return actors & {*config.server_names(), *config.further_names()}


def cause_of_death(error: Exception) -> str:
    """Return what an actor died of, in one line: the last one of Ray's message, which has the traceback of a model's error."""
    if isinstance(error, ActorUnavailableError):
        return "its node or process died, or cannot be reached"
    line = (str(error).strip().splitlines()[-1:] or [reason_of(error)])[0].strip()
    if died_with_its_node(error):
        of_node = line.removeprefix("the actor's node was ")
        return f"its node died ({of_node})"
    return line.removeprefix(f"{UserError.__module__}.{UserError.__qualname__}: ")


def start_pool(config: PoolConfig, model: RewardModel) -> list[ActorHandle]:
    """Start the servers of one model, without waiting for them.

    Args:
        config: Configuration of the pool.
        model: The model, not loaded: each server gets a copy, with its files, and loads it. Servers must be able to import its class.

    Returns:
        Ray handles of the servers, which keep them alive.

    Raises:
        UserError: The pool's backend cannot run the model, or one of its files cannot be read.
    """
    model.use_backend(config.backend, config.device, config.precision)
    packed = PackedModel.of(model)
    return [start_server(config, packed, name) for name in config.server_names()]


def start_server(config: PoolConfig, packed: PackedModel, name: str) -> ActorHandle:
    """Start one server, without waiting for it.

    Args:
        config: Configuration of its pool.
        packed: The model, packed after its backend was chosen.
        name: Name of its Ray actor, one of the configuration's.

    Returns:
        Its Ray handle, which keeps it alive.
    """
    # Imported here, because it imports torch, which clients do not need.
    from vlm_rm_sweeps.serving.server import RewardServer

    actor: Any = ray.remote(RewardServer)
    handle: ActorHandle = actor.options(
        name=name,
        namespace=NAMESPACE,
        num_cpus=config.cpus,
        num_gpus=config.gpus,
        scheduling_strategy="SPREAD" if config.spread and config.gpus else "DEFAULT",
        max_restarts=_RESTARTS,
        # Clients send lost requests again themselves, and limit how often.
        max_task_retries=0,
        runtime_env=server_environment(config),
    ).remote(packed, config.device, config.precision, config.micro_batch, config.threads)
    return handle


def server_environment(config: PoolConfig) -> dict[str, Any] | None:
    """Choose the runtime environment of a pool's servers, which sets the number of threads.

    A process with an environment of its own takes seconds longer to start, because it is not among those that Ray keeps ready.

    Args:
        config: The pool.

    Returns:
        Ray's runtime environment; None if the servers have as many threads anyway.
    """
    threads = str(config.threads)
    # Unless the variable is set, Ray sets it to the number of reserved CPUs, at least 1. Nodes of a cluster may have set it.
    usual = os.environ.get(_THREADS, str(max(1, int(config.cpus))))
    if threads == usual and not os.environ.get("RAY_ADDRESS"):
        return None
    return {"env_vars": {_THREADS: threads}}


def free_room(free: Mapping[str, float]) -> str:
    """Word what is free on a cluster, as `ray.available_resources` says."""
    return f"free on the cluster: {free.get('CPU', 0.0):g} CPUs and {free.get('GPU', 0.0):g} GPUs"


def await_pool(
    config: PoolConfig,
    handles: Sequence[ActorHandle],
    specs: Sequence[RewardSpec],
    timeout_s: float = 600.0,
    say: Callable[[str], None] = lambda line: None,
) -> None:
    """Wait until each server has loaded its model, then score one frame for all specs.

    Args:
        config: Configuration of the pool.
        handles: Ray handles of its servers.
        specs: All specs that the pool will have to score.
        timeout_s: Longest time to wait for the servers to start, in seconds.
        say: Prints a line, if servers wait for room.

    Raises:
        UserError: A server cannot be placed in time, cannot load its model, or cannot score a spec with finite rewards.
    """
    try:
        ends = time.monotonic() + timeout_s
        ready: list[ray.ObjectRef] = [handle.ready.remote() for handle in handles]
        ray.wait(ready, num_returns=len(ready), timeout=min(_USUAL_PLACE_S, timeout_s))
        if waits := sum(not has_place(actor_id(handle)) for handle in handles):
            servers = f"{waits} reward {'servers' if waits > 1 else 'server'} of {config.model_id}"
            needs = f"{config.cpus:g} CPUs and {config.gpus:g} GPUs"
            say(f"no room yet for {servers}: each needs {needs}; {free_room(ray.available_resources())}")
        ray.get(ready, timeout=max(0.0, ends - time.monotonic()))
        if specs:
            RewardPool(config, handles).score(np.zeros((1, 64, 64, 3), np.uint8), Columns(specs).asked)
    except GetTimeoutError as error:
        raise UserError(
            f"the {config.servers} reward servers of {config.model_id} were not ready within {timeout_s:.0f} s: each needs "
            f"{config.cpus:g} CPUs and {config.gpus:g} GPUs; {free_room(ray.available_resources())}"
        ) from error
    except RayTaskError as error:
        raise UserError(f"a reward server of {config.model_id} failed: {error.cause}") from error
    except RayActorError as error:
        raise UserError(f"a reward server of {config.model_id} could not start: {cause_of_death(error)}") from error
    except PoolError as error:
        raise UserError(str(error)) from error
