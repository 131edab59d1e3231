"""The Ray cluster that a sweep runs on."""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ray

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.process_defaults import prepare_ray
from vlm_rm_sweeps.serving.pool import NAMESPACE

_LOOPBACK = "127.0.0.1"
_RAY_TRIES = 3


@contextmanager
def ray_cluster(say: Callable[[str], None]) -> Iterator[None]:
    """Ray, as this process has it already, else started on this machine, or joined where `RAY_ADDRESS` names a cluster.

    Raises UserError if it does not start.
    """
    if ray.is_initialized():
        yield
        return
    context = _start_ray(say)
    try:
        if not os.environ.get("RAY_ADDRESS") and ray.nodes()[0]["NodeManagerAddress"] != _LOOPBACK:
            say(
                "Ray listens on every interface of this machine: RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0, which is this package's default, "
                "keeps it on the loopback address"
            )
        if context.dashboard_url:
            say(f"Ray dashboard: http://{context.dashboard_url} (it asks for a token: `ray get-auth-token` prints it)")
        yield
    finally:
        ray.shutdown()


def _start_ray(say: Callable[[str], None]) -> Any:
    """Ray gives its own processes 30 s to start, which a busy machine may exceed: it is tried again.

    Raises UserError if that does not help.
    """
    prepare_ray()
    for tries_left in reversed(range(_RAY_TRIES)):
        try:
            return ray.init(namespace=NAMESPACE, log_to_driver=False, logging_level=logging.ERROR, configure_logging=False)
        except Exception as error:  # of all kinds
            ray.shutdown()
            if not tries_left:
                raise UserError(
                    f"Ray does not start: {_last_line(error)} If this machine is busy, try again later; if RAY_ADDRESS is set, it "
                    "must name a cluster that runs"
                ) from error
            say(f"Ray does not start ({_last_line(error)}): it is tried again")


def _last_line(error: Exception) -> str:
    """Return what Ray says of the cause, after much else."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]
