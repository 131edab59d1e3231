"""Who may use a label page that other machines reach: whoever has its token, which the browser keeps as a cookie."""

import hmac
import ipaddress
import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from vlm_rm_sweeps.errors import UserError

LOOPBACK = "127.0.0.1"
TOKEN = "VLM_RM_LABEL_TOKEN"
"""Environment variable of a token of the user's own, by which raters' browsers are known after a restart, too."""
PARAMETER = "token"
_FORM = re.compile(r"[A-Za-z0-9_-]{16,200}")
_MADE_BYTES = 24


@dataclass(frozen=True)
class Access:
    """What the label page listens on, and the token that it asks for.

    Attributes:
        host: IP address, or name of this machine.
        token: None if the page asks for none, because only this machine reaches it.
        is_own: Whether the user has chosen the token.
    """

    host: str = LOOPBACK
    token: str | None = None
    is_own: bool = False

    @classmethod
    def of(cls, host: str, environment: Mapping[str, str] = os.environ) -> "Access":
        """Choose the token: the user's own, or else a random one if other machines reach the page.

        Args:
            host: What the page listens on.
            environment: The environment.

        Returns:
            The access.

        Raises:
            UserError: The user's token is too short, or has characters that would have to be written otherwise in an address.
        """
        if own := environment.get(TOKEN):
            if not _FORM.fullmatch(own):
                raise UserError(
                    f"{TOKEN}, which has {len(own)} characters, is no token: expected 16 to 200 letters, digits, `-` and `_`, as "
                    "`openssl rand -hex 24` prints"
                )
            return cls(host, own, is_own=True)
        return cls(host, None if _is_loopback(host) else secrets.token_urlsafe(_MADE_BYTES))

    def address(self, port: int) -> str:
        """Return the page's address, with the token unless the user knows it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{port}/" + (f"?{PARAMETER}={self.token}" if self.token and not self.is_own else "")

    def admits(self, given: str | None) -> bool:
        """Tell whether what a request gives is the token; all do if there is none."""
        return self.token is None or hmac.compare_digest((given or "").encode(), self.token.encode())


THIS_MACHINE = Access()
"""Of a page that no other machine reaches."""


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name
        return False
