"""All private members and texts of Ray that serving uses.

They may change with any release; one test for each shows what breaks.
"""

import ray
from ray._private.services import canonicalize_bootstrap_address, find_gcs_addresses
from ray._private.state import actors, available_resources_per_node
from ray._raylet import getproctitle, setproctitle  # type: ignore[attr-defined]
from ray.actor import ActorHandle
from ray.core.generated.gcs_pb2 import GcsNodeInfo  # type: ignore[attr-defined]
from ray.core.generated.gcs_service_pb2 import GetAllNodeInfoReply  # type: ignore[attr-defined]
from ray.exceptions import ActorUnavailableError, RayActorError

_NODE_DIED = "because its node has died"
_PROCESS_DIED = "because its worker process has died"


def actor_id(handle: ActorHandle) -> str:
    """Return the id of an actor in hexadecimal digits, which handles do not make public."""
    return handle._actor_id.hex()


def restarts_of_running(actor: str) -> int | None:
    """Return how often a running actor was restarted.

    Ray's public API for it needs the dashboard, which may not run.

    Args:
        actor: The actor's id in hexadecimal digits.

    Returns:
        The number of restarts; None while the actor does not run.
    """
    known = actors(actor)
    return int(known["NumRestarts"]) if known and known["State"] == "ALIVE" else None


def is_dead(actor: str) -> bool:
    """Return whether an actor, by its id in hexadecimal digits, is dead for good."""
    known = actors(actor)
    return bool(known) and known["State"] == "DEAD"


def has_place(actor: str) -> bool:
    """Return whether an actor, by its id in hexadecimal digits, has a process, or had one, rather than waiting for room."""
    known = actors(actor)
    return not known or known["State"] not in ("DEPENDENCIES_UNREADY", "PENDING_CREATION") or known["Address"]["Port"] != 0


def free_resources() -> dict[str, dict[str, float]]:
    """Return what is free on each node that is alive, by the nodes' ids. It may be seconds old."""
    free: dict[str, dict[str, float]] = available_resources_per_node()
    return free


def show_work(what: str) -> None:
    """Add to the title of an actor's process what it does now, for the dashboard and `ps`; Ray replaces it with the next call."""
    if ray.is_initialized() and ray.get_runtime_context().get_actor_id() is not None:
        setproctitle(f"{getproctitle().partition(' ')[0]} {what}")


def died_with_its_node(error: BaseException) -> bool:
    """Return whether an error is that of an actor whose node died. Ray keeps no more of it than the text."""
    return isinstance(error, RayActorError) and _NODE_DIED in str(error)


def count_no_lost_nodes() -> None:
    """Have Tune treat any node that died as one that was preempted: a trial that was on it has not failed, and starts again.

    Some seconds pass until Ray takes a node for dead. Until then its actors cannot be reached. Of an actor whose process alone died,
    Ray knows that at once.
    """

    def preempted(error: RayActorError) -> bool:
        if isinstance(error, ActorUnavailableError):
            known = actors(error.actor_id)
            return _PROCESS_DIED not in str(known.get("DeathCause", ""))
        return error._preempted or died_with_its_node(error)

    RayActorError.preempted = property(preempted)  # type: ignore[method-assign, assignment]


def address_of_auto() -> str | None:
    """Return the address that Ray takes for `auto`.

    Returns:
        Host and port of the last `ray start`, or of any cluster of which a process runs on this machine; neither need answer. None if
        there is none.
    """
    try:
        return canonicalize_bootstrap_address("auto")
    except ConnectionError:
        return None


def runs_a_node() -> bool:
    """Look for processes of a Ray cluster on this machine, of whatever cluster.

    Returns:
        Whether there are any.
    """
    return bool(find_gcs_addresses())


def addresses_of_nodes(reply: bytes) -> set[str]:
    """Read where the nodes of a cluster are.

    Args:
        reply: The answer of its head to `GetAllNodeInfo`.

    Returns:
        IP addresses of the nodes that are alive.
    """
    nodes = GetAllNodeInfoReply.FromString(reply).node_info_list
    return {node.node_manager_address for node in nodes if node.state == GcsNodeInfo.ALIVE}
