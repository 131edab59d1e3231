"""The Ray cluster that reward servers and trials run on."""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.files import try_to_write
from vlm_rm_sweeps.process_defaults import prepare_ray
from vlm_rm_sweeps.serving.pool import NAMESPACE
from vlm_rm_sweeps.serving.ray_address import check_ray_address
from vlm_rm_sweeps.user_modules import imported_user_modules

_LOOPBACK = "127.0.0.1"
_RAY_TRIES = 3
_SOCKET = "/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
"""The longest path of a socket below Ray's temporary folder."""
_LONGEST_SOCKET = 107
"""Bytes that the system allows for the path of a socket."""


@contextmanager
def ray_cluster(say: Callable[[str], None]) -> Iterator[None]:
    """Connect this process to Ray for the duration of a `with` block.

    If Ray is initialized already, it is used as it is. Otherwise the cluster that `RAY_ADDRESS` names is joined, or one of its own
    is started here, whatever else runs on this machine, until the end of the block. The user's own modules are part of Ray's
    runtime environment, so all of its processes can import them.

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
    address = os.environ.get("RAY_ADDRESS")
    check_ray_address()
    if not address:
        _check_token_file()
        _check_temporary_folder()
    prepare_ray()
    modules = [str(module) for module in imported_user_modules()]
    runtime_env = {"py_modules": modules} if modules else None
    for tries_left in reversed(range(_RAY_TRIES)):
        try:
            return ray.init(
                # Without an address Ray would join the cluster that a file in the temporary folder names, which `ray start` has left or
                # anybody may have written, and send it the user's token.
                address=address or "local",
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


def _check_token_file() -> None:
    """Refuse a home folder in which Ray could not keep the token of a cluster of this user's own.

    Raises:
        UserError: There is no token, and no place for one.
    """
    if (
        os.environ.get("RAY_AUTH_TOKEN")
        or os.environ.get("RAY_AUTH_TOKEN_PATH")
        or os.environ.get("RAY_AUTH_MODE") == "disabled"
    ):
        return
    file = Path.home() / ".ray" / "auth_token"
    if not os.access(file, os.R_OK) and not _can_create(file):
        raise UserError(
            f"Ray keeps its token in {file}, which cannot be written: set HOME to a folder of yours, or RAY_AUTH_TOKEN to a long "
            "random text"
        )


def _check_temporary_folder() -> None:
    """Refuse a temporary folder in which Ray's processes could not open their sockets.

    Raises:
        UserError: Its path is too long, or it cannot be written.
    """
    variable = next((name for name in ("RAY_TMPDIR", "TMPDIR") if name in os.environ), None)
    folder = os.environ[variable] if variable else "/tmp"
    named = f"{variable}={folder!r}" if variable else folder
    too_long = len(os.fsencode(folder)) + len(_SOCKET) - _LONGEST_SOCKET
    if too_long > 0:
        raise UserError(
            f"{named}: Ray's sockets in it would have paths of more than {_LONGEST_SOCKET} bytes: set RAY_TMPDIR to a path that is "
            f"{too_long} bytes shorter, such as /tmp"
        )
    if not _can_create(Path(folder) / "ray" / "session"):
        raise UserError(f"{named}: Ray cannot write there: set RAY_TMPDIR to a folder of yours with a short path")


def _can_create(path: Path) -> bool:
    try:
        try_to_write(path.parent)
    except OSError:
        return False
    return True


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
            f"ray.init(address='local', runtime_env={{'py_modules': {[str(module) for module in modules]}}}), or let it be started here"
        )


def _not_importable(names: list[str]) -> list[str]:
    """Return the names of the modules that cannot be found in the process that this runs in."""
    from importlib.util import find_spec

    return [name for name in names if find_spec(name) is None]


def _last_line(error: Exception) -> str:
    """Return the last line of Ray's message, which states the cause."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]
