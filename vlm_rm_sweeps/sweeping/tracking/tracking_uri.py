"""Addresses of MLflow stores: without the secrets in them, which are neither printed nor stored."""

import re
import socket
from importlib.metadata import entry_points
from pathlib import Path
from urllib.parse import unquote, urlsplit

from vlm_rm_sweeps.errors import UserError

_HIDDEN = "***"
_SECRET_VALUE = re.compile(r"((?:^|[?&])[^=&]*(?:pass|pwd|secret|token|key)[^=&]*=)([^&#]*)", re.IGNORECASE)
_LOCAL = ("", "sqlite", "file")
_STORES = ("http", "https", "sqlite", "postgresql", "mysql", "mssql", "file", "databricks", "databricks-uc", "uc")
"""What the addresses of MLflow's own stores begin with."""
_ANSWER_S = 5.0


def without_secrets(uri: str) -> str:
    """Hide the user, the password and secret parameters of an address.

    Args:
        uri: The MLflow server or database, such as `https://anna:secret@mlflow.example`.

    Returns:
        The address with `***` in their places, such as `https://***@mlflow.example`.
    """
    scheme, separator, rest = uri.partition("://")
    if scheme.partition("+")[0] in _LOCAL or not separator:
        return uri
    user, at, place = rest.rpartition("@") if _credentials(uri) else ("", "", rest)
    return f"{scheme}://{_HIDDEN if user else ''}{at}{_SECRET_VALUE.sub(_without_value, place)}"


def hide_secrets(text: str, uri: str) -> str:
    """Hide the secrets of an address in a text that may quote it, such as an error's message.

    Args:
        text: The text.
        uri: The address.

    Returns:
        The text with `***` in their places.
    """
    hidden = text.replace(uri, without_secrets(uri))
    user, _, password = _credentials(uri).partition(":")
    values = [match.group(2) for match in _SECRET_VALUE.finditer(uri)]
    secrets = {_credentials(uri), password or user, *values}
    for secret in sorted(secrets | {unquote(each) for each in secrets}, key=len, reverse=True):
        if secret and secret != uri:
            hidden = hidden.replace(secret, _HIDDEN)
    return hidden


def _without_value(found: re.Match[str]) -> str:
    return f"{found.group(1)}{_HIDDEN}"


def _credentials(uri: str) -> str:
    """Return what stands before the host: `user:password`, `user`, a token, or nothing."""
    scheme, _, rest = uri.partition("://")
    if scheme.partition("+")[0] in _LOCAL:
        return ""
    host = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" in host:
        return host.rpartition("@")[0]
    port = host.rpartition(":")[2] if ":" in host else ""
    # A slash in a password, which it should have been quoted for, has cut the host short.
    return rest.rpartition("@")[0] if port and not port.rstrip("]").isdigit() else ""


def sqlite_file(uri: str) -> Path | None:
    """Return the file of an SQLite database; None for any other store."""
    scheme, separator, path = uri.partition(":///")
    return Path(unquote(path)) if separator and scheme.partition("+")[0] == "sqlite" else None


def check_tracking_uri(uri: str) -> None:
    """Refuse an address at which no MLflow can be, in seconds and without importing MLflow.

    Args:
        uri: The MLflow server or database.

    Raises:
        UserError: MLflow knows no such kind of address, or nothing answers at a server's.
    """
    scheme, separator, _ = uri.partition("://")
    if separator and scheme.partition("+")[0] not in _STORES:
        known = (*_STORES, *entry_points(group="mlflow.tracking_store").names)  # of plugins: to look for them takes a while
        if scheme not in known:
            raise UserError(
                f"MLflow knows no address that begins with {scheme}://: expected one of {', '.join(known)}; name another with "
                "--tracking-uri"
            )
    if scheme not in ("http", "https") or not separator:
        return
    try:
        parsed = urlsplit(uri)
        port = parsed.port or (443 if scheme == "https" else 80)
        socket.create_connection((parsed.hostname or "", port), timeout=_ANSWER_S).close()
    except (OSError, ValueError) as error:  # ValueError: no number of a port, or no name of a machine
        reason = hide_secrets(str(getattr(error, "strerror", None) or error), uri)
        raise UserError(
            f"MLflow at {without_secrets(uri)} does not answer: {reason}. Start its server, or name another with --tracking-uri"
        ) from error
