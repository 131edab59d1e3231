"""The Ray cluster that reward servers and trials run on."""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ray

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.process_defaults import prepare_ray
from vlm_rm_sweeps.serving.pool import NAMESPACE
from vlm_rm_sweeps.user_modules import imported_user_modules

_LOOPBACK = "127.0.0.1"
_RAY_TRIES = 3


@contextmanager
def ray_cluster(say: Callable[[str], None]) -> Iterator[None]:
    """Connect this process to Ray for the duration of a `with` block.

    If Ray is initialized already, it is used as it is. Otherwise it is started on this machine, or the cluster that
    `RAY_ADDRESS` names is joined, until the end of the block. The user's own modules are part of Ray's runtime environment, so
    all of its processes can import them.

    Args:
        say: Prints a line.

    Yields:
        Nothing.

    Raises:
        UserError: Ray does not start, or it runs already and its processes cannot import one of the user's modules.
    """
    if ray.is_initialized():
        _check_user_modules()
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
    """Start Ray, and retry if that fails: its own processes have 30 s to start, which a busy machine may exceed.

    Raises:
        UserError: Ray did not start at any try.
    """
    prepare_ray()
    modules = [str(module) for module in imported_user_modules()]
    runtime_env = {"py_modules": modules} if modules else None
    for tries_left in reversed(range(_RAY_TRIES)):
        try:
            return ray.init(
                # Otherwise Ray joins the cluster that a file in the temporary folder names, which anybody may have written, and
                # sends it the user's token.
                address=os.environ.get("RAY_ADDRESS") or "local",
                namespace=NAMESPACE,
                log_to_driver=False,
                logging_level=logging.ERROR,
                configure_logging=False,
                runtime_env=runtime_env,
            )
        except Exception as error:  # Ray raises many kinds
            ray.shutdown()
            if not tries_left:
                raise UserError(
                    f"Ray does not start: {_last_line(error)} If this machine is busy, try again later; if RAY_ADDRESS is set, it "
                    "must name a cluster that runs"
                ) from error
            say(f"Ray does not start ({_last_line(error)}): retrying")


def _check_user_modules() -> None:
    """Refuse a running Ray whose processes cannot import one of the user's modules.

    Raises:
        UserError: A module is missing there. The message explains how to start Ray with it.
    """
    modules = imported_user_modules()
    names = [module.stem for module in modules]
    missing = ray.get(ray.remote(num_cpus=0)(_not_importable).remote(names)) if names else []
    if missing:
        raise UserError(
            f"Ray runs already, and its processes cannot import {', '.join(missing)}: start it with "
            f"ray.init(runtime_env={{'py_modules': {[str(module) for module in modules]}}}), or let it be started here"
        )


def _not_importable(names: list[str]) -> list[str]:
    """Return the names of the modules that cannot be found in the process that this runs in."""
    from importlib.util import find_spec

    return [name for name in names if find_spec(name) is None]


def _last_line(error: Exception) -> str:
    """Return the last line of Ray's message, which states the cause."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]
