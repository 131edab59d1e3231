"""Checks the address of a Ray cluster that the user names, without importing Ray, so that it can be done first of all."""

import os
import socket
from urllib.parse import urlsplit

from vlm_rm_sweeps.errors import UserError

_ANSWER_S = 5.0
"""Seconds in which a cluster must answer."""


def check_ray_address() -> None:
    """Refuse a `RAY_ADDRESS` at which no Ray answers, for which Ray itself would wait minutes, deaf to Ctrl-C.

    Raises:
        UserError: Nothing answers there within seconds, or the address is none.
    """
    address = os.environ.get("RAY_ADDRESS")
    if not address or address == "local":
        return
    import grpc  # type: ignore[import-untyped]  # here: few set an address

    named = f"RAY_ADDRESS={address!r}"
    advice = "correct it, start a cluster there with `ray start --head`, or unset it to have Ray started on this machine"
    if address == "auto":
        from vlm_rm_sweeps.serving.ray_internals import address_of_auto  # imports Ray

        # Ray may find one that has ended, or of which another user's processes run.
        found = address_of_auto()
        if found is None:
            raise UserError(f"{named}: no Ray runs on this machine; {advice}")
        address, named = found, f"{named}, which is {found} here"
    try:
        parsed = urlsplit(address if "://" in address else f"ray://{address}")
        host, port = parsed.hostname, parsed.port
    except ValueError:
        host = port = None
    if not host or not port:
        raise UserError(f"{named}: expected host:port, such as 10.0.0.1:6379, or ray://host:10001; {advice}")
    try:
        socket.create_connection((host, port), timeout=_ANSWER_S).close()
    except OSError as error:
        raise UserError(f"{named}: nothing answers there ({error.strerror or error}); {advice}") from error
    if os.environ.get("RAY_USE_TLS", "0") == "1":  # a plain connection would be refused
        return
    channel = grpc.insecure_channel(f"{host}:{port}")
    try:
        grpc.channel_ready_future(channel).result(timeout=_ANSWER_S)
    except grpc.FutureTimeoutError as error:
        raise UserError(f"{named}: what answers there is not Ray, or hangs; {advice}") from error
    finally:
        channel.close()
