"""All private members of Ray that serving uses. They may change with any release: one test for each says what breaks then."""

from ray._private.state import actors
from ray.actor import ActorHandle


def actor_id(handle: ActorHandle) -> str:
    """Return the id of an actor in hexadecimal digits. Handles have no public one."""
    return handle._actor_id.hex()


def restarts_of_running(actor: str) -> int | None:
    """How often an actor was restarted before it came up as it is now.

    Ray's public way to ask goes through its dashboard, which need not run.

    Args:
        actor: The actor's id.

    Returns:
        The number of restarts; None while the actor is not up.
    """
    known = actors(actor)
    return int(known["NumRestarts"]) if known and known["State"] == "ALIVE" else None
