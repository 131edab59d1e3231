"""Checks the address of a Ray cluster that the user names, without importing Ray, so that it can be done first of all."""

import os
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from vlm_rm_sweeps.errors import UserError

_ANSWER_S = 5.0
"""Seconds in which a cluster must answer."""
_ALL_NODES = "/ray.rpc.NodeInfoGcsService/GetAllNodeInfo"
"""A request that asks for no more than the token."""
_PLACES_OF_TOKENS = "~/.ray/auth_token, in RAY_AUTH_TOKEN, or in the file that RAY_AUTH_TOKEN_PATH names"


def check_ray_address() -> None:
    """Refuse a `RAY_ADDRESS` with which Ray would wait for minutes, deaf to Ctrl-C, or end this process.

    Raises:
        UserError: The address is none, or one of Ray Client; nothing answers there within seconds, or not Ray; the cluster refuses
            the token; or this machine is none of its nodes.
    """
    address = os.environ.get("RAY_ADDRESS")
    if not address or address == "local":
        return
    named = f"RAY_ADDRESS={address!r}"
    advice = "correct it, start a cluster there with `ray start --head`, or unset it to have Ray started on this machine"
    if address == "auto":
        from vlm_rm_sweeps.serving.ray_internals import address_of_auto  # imports Ray

        # Ray may find one that has ended, or of which another user's processes run.
        found = address_of_auto()
        if found is None:
            raise UserError(f"{named}: no Ray runs on this machine; {advice}")
        address, named = found, f"{named}, which is {found} here"
    host, port = _host_and_port(address, named, advice)
    nodes = _check_answer(host, port, named, advice)
    from vlm_rm_sweeps.serving.ray_internals import addresses_of_nodes, runs_a_node  # imports Ray, which takes a second

    # From elsewhere, connecting ends this process with a stack trace in C++.
    if not runs_a_node() or (nodes is not None and not addresses_of_nodes(nodes) & _own_addresses()):
        raise UserError(
            f"{named}: this machine is no node of that cluster, and only a node can run a sweep: join it here with `ray start "
            f"--address={host}:{port}`, run this on one of its nodes, or submit it there with `ray job submit -- vlm-rm sweep ...`"
        )


def _host_and_port(address: str, named: str, advice: str) -> tuple[str, int]:
    try:
        parsed = urlsplit(address if "://" in address else f"//{address}")
        host, port = parsed.hostname, parsed.port
    except ValueError:
        host = port = None
    if not host or not port:
        raise UserError(f"{named}: expected host:port, such as 10.0.0.1:6379; {advice}")
    if parsed.scheme == "ray":
        raise UserError(
            f"{named}: Ray Client (ray://) keeps this process apart from the cluster, and trials could not report to it: run this on a "
            f"node, with RAY_ADDRESS={host}:6379, or submit it there with `ray job submit -- vlm-rm sweep ...`"
        )
    return host, port


def _own_addresses() -> set[str]:
    import psutil  # Ray brings a copy

    return {address.address.partition("%")[0] for each in psutil.net_if_addrs().values() for address in each}


def _check_answer(host: str, port: int, named: str, advice: str) -> bytes | None:
    """Refuse what does not answer as a Ray that takes this user's token.

    Returns:
        What the cluster says of its nodes; None if it was not asked, or is of another version.
    """
    import grpc  # type: ignore[import-untyped]  # here: few set an address

    try:
        socket.create_connection((host, port), timeout=_ANSWER_S).close()
    except (OSError, UnicodeError) as error:  # UnicodeError: no name of a machine, such as `a..b`
        raise UserError(f"{named}: nothing answers there ({getattr(error, 'strerror', None) or error}); {advice}") from error
    if os.environ.get("RAY_USE_TLS", "0") == "1":  # a plain connection would be refused
        return None
    # As Ray's own channels: a proxy of the environment is for web pages.
    channel = grpc.insecure_channel(f"{host}:{port}", options=[("grpc.enable_http_proxy", 0)])
    try:
        grpc.channel_ready_future(channel).result(timeout=_ANSWER_S)
        return _check_token(channel, named)
    except grpc.FutureTimeoutError as error:
        raise UserError(f"{named}: what answers there is not Ray, or hangs; {advice}") from error
    finally:
        channel.close()


def _check_token(channel: Any, named: str) -> bytes | None:
    """Refuse a cluster that would refuse each request of this process.

    Ray repeats them for a minute, and never names the cause.

    Returns:
        What the cluster says of its nodes; None if it is of another version.

    Raises:
        UserError: It asks for a token, and gets none or another one.
    """
    import grpc

    mode = os.environ.get("RAY_AUTH_MODE", "")
    # Without the variable Ray sends none to an address that is named, and one that it has to a cluster that it finds itself.
    sends = mode.lower() == "token" or (not mode and os.environ.get("RAY_ADDRESS") == "auto")
    token = _token() if sends else None
    if mode.lower() == "token" and token is None:
        raise UserError(f"{named}: RAY_AUTH_MODE=token, but there is no token: put the cluster's into {_PLACES_OF_TOKENS}")
    try:
        told = [("authorization", f"Bearer {token}")] if token else []
        nodes: bytes = channel.unary_unary(_ALL_NODES)(b"", timeout=_ANSWER_S, metadata=told)
        return nodes
    except grpc.RpcError as error:
        if error.code() not in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
            return None  # another version of Ray, which has other requests
        where = f"the cluster's token (`ray get-auth-token` prints it on its head) in {_PLACES_OF_TOKENS}"
        if token:
            raise UserError(f"{named}: the cluster refuses this token: put {where}") from error
        unset = f"with RAY_AUTH_MODE={mode}" if mode else "without RAY_AUTH_MODE"
        raise UserError(
            f"{named}: the cluster asks for a token, and {unset} none is sent: set RAY_AUTH_MODE=token, and put {where}"
        ) from error


def _token() -> str | None:
    """Return the token that Ray would send; None if there is none."""
    if token := os.environ.get("RAY_AUTH_TOKEN", "").strip():
        return token
    file = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    try:
        return file.read_text(encoding="utf-8").strip() or None
    except (OSError, ValueError):
        return None
