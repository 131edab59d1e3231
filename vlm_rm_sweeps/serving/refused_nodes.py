"""Nodes that cannot run a sweep's trials, as this process knows them: it drives one sweep at a time.

A node that joins late is looked at by the first trial that comes to it. That trial has not failed: it goes to another node, and no
further one comes there.
"""

from collections.abc import Mapping
from typing import Any

from ray.exceptions import RayActorError

_refused: dict[str, str] = {}


class NodeRefused(RayActorError):  # noqa: N818 - as Ray's
    """A node cannot run a trial. It is of Ray's kind, so Tune gives the trial another node, as it does when one was preempted.

    Args:
        node: The node's id in Ray.
        reason: What it lacks, with its name.
    """

    preempted = True

    def __init__(self, node: str, reason: str) -> None:
        super().__init__(error_msg=reason, preempted=True)
        self.node, self.reason = node, reason

    def __reduce__(self) -> tuple[Any, ...]:
        return NodeRefused, (self.node, self.reason)


def refuse(refusal: NodeRefused) -> bool:
    """Give a node no further trials.

    Args:
        refusal: What was raised there.

    Returns:
        Whether that is news.
    """
    is_new = refusal.node not in _refused
    _refused[refusal.node] = refusal.reason
    return is_new


def refused_nodes() -> Mapping[str, str]:
    """Return why nodes are given no trials, by their ids in Ray."""
    return _refused


def forget_refused_nodes() -> None:
    """Begin a sweep anew: what a node lacked may be there now."""
    _refused.clear()
