"""A client of any endpoint that speaks OpenAI's chat completions: paced, within a budget, and silent about its key.

The key is read from the environment for each request and stored nowhere. It is struck out of whatever an endpoint answers.
"""

import http.client
import json
import math
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from vlm_rm_sweeps.errors import UserError, reason_of, shown
from vlm_rm_sweeps.rewards.reward_model import JudgeUnavailableError

BASE_URL, API_KEY = "OPENAI_BASE_URL", "OPENAI_API_KEY"
REQUESTS, PER_MINUTE, TIMEOUT = "VLM_RM_OPENAI_REQUESTS", "VLM_RM_OPENAI_PER_MINUTE", "VLM_RM_OPENAI_TIMEOUT"
_OPENAI = "https://api.openai.com/v1"
_TEMPORARY = (408, 409, 425, 429)
_LONGEST_ANSWER = 2**20
_LONGEST_REASON = 300
_SHOWN = 80


@dataclass(frozen=True)
class Limits:
    """What one process may ask of an endpoint.

    Attributes:
        requests: Number of requests, tries included.
        per_minute: Requests in a minute.
        timeout_s: Seconds without a sign of the endpoint after which a try has failed.
        tries: How often a request is sent before it has failed.
        first_wait_s: Seconds before the second try; each further wait is twice as long.
        seconds: Longest time for the frames of one scoring request, in seconds.
    """

    requests: int = 2_000
    per_minute: float = 120.0
    timeout_s: float = 30.0
    tries: int = 3
    first_wait_s: float = 1.0
    seconds: float = 900.0

    @classmethod
    def from_environment(cls) -> "Limits":
        """Return the limits with those that the environment sets.

        Returns:
            The limits.

        Raises:
            UserError: A variable is not a number above 0.
        """
        return cls(
            requests=int(_positive(REQUESTS, cls.requests)),
            per_minute=_positive(PER_MINUTE, cls.per_minute),
            timeout_s=_positive(TIMEOUT, cls.timeout_s),
        )


def _positive(variable: str, default: float) -> float:
    text = os.environ.get(variable, "").strip()
    try:
        value = float(text) if text else default
    except ValueError:
        value = 0.0
    if not 1e-3 <= value <= 1e9:
        raise UserError(f"{variable} is {shown(text)}: expected a number above 0, such as {default:g}")
    return value


class Pace:
    """Spreads requests evenly over time.

    Args:
        per_minute: Requests in a minute.
        now: Returns the time in seconds.
        sleep: Waits for a number of seconds.
    """

    def __init__(
        self,
        per_minute: float,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._seconds, self._now, self._sleep = 60.0 / per_minute, now, sleep
        self._next = float("-inf")

    def wait(self) -> None:
        """Wait until the next request may be sent."""
        early = self._next - self._now()
        if early > 0:
            self._sleep(early)
        self._next = self._now() + self._seconds


class RefusedError(JudgeUnavailableError):
    """The endpoint understood the request and refuses it: to send it again would not help."""


class _TemporaryError(Exception):
    """Another try may succeed.

    Args:
        reason: Why this one failed.
        wait_s: Seconds that the endpoint asks to wait before.
    """

    def __init__(self, reason: str, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Follows no redirection: the key would go to an address that the user has not named."""

    def redirect_request(self, *_: Any) -> None:
        return None


class Endpoint:
    """One endpoint, and what this process has asked of it.

    Args:
        limits: What this process may ask.
        sleep: Waits for a number of seconds.

    Attributes:
        base_url: Its address.
        ends: Time (of `time.monotonic`) beyond which nothing is waited for.

    Raises:
        UserError: The environment names no endpoint that can be used.
    """

    def __init__(self, limits: Limits, sleep: Callable[[float], None] = time.sleep) -> None:
        self.base_url = base_url()
        self.ends = math.inf
        self._sleep = sleep
        api_key()
        self._limits = limits
        self._pace = Pace(limits.per_minute)
        self._sent = 0
        self._opener = urllib.request.build_opener(_NoRedirects)

    def ask(self, body: Mapping[str, Any]) -> Any:
        """Send a request to `chat/completions`, several times if need be.

        Args:
            body: The request.

        Returns:
            The answer, parsed as JSON.

        Raises:
            RefusedError: The endpoint refuses the request.
            JudgeUnavailableError: It does not answer, answers nonsense, or the budget is used up.
        """
        reason, asked_s = "", 0.0
        for attempt in range(self._limits.tries):
            if attempt:
                self._wait(max(self._limits.first_wait_s * 2 ** (attempt - 1), asked_s), reason)
            self._spend()
            self._pace.wait()
            try:
                return self._post(json.dumps(body).encode())
            except _TemporaryError as error:
                reason, asked_s = str(error), error.wait_s
        raise JudgeUnavailableError(
            f"{self.base_url} gave no answer in {self._limits.tries} tries ({reason}): is the endpoint up, and its address right?"
        )

    def _wait(self, seconds: float, reason: str) -> None:
        if time.monotonic() + seconds > self.ends:
            raise JudgeUnavailableError(
                f"{self.base_url} is to be asked again in {seconds:,.0f} s ({reason}), which is longer than a request may take"
            )
        self._sleep(seconds)

    def _spend(self) -> None:
        if self._sent >= self._limits.requests:
            raise JudgeUnavailableError(
                f"the budget of {self._limits.requests:,} requests to {self.base_url} is used up: {REQUESTS} sets it for each process"
            )
        self._sent += 1

    def _post(self, body: bytes) -> Any:
        headers = {"Content-Type": "application/json"}
        if key := api_key():
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(f"{self.base_url}/chat/completions", body, headers)
        try:
            with self._opener.open(request, timeout=self._limits.timeout_s) as response:
                content = response.read(_LONGEST_ANSWER)
        except urllib.error.HTTPError as error:
            with error:
                said = _without_key(error.read(_LONGEST_ANSWER).decode(errors="replace"))[:_LONGEST_REASON]
            reason = f"status {error.code}: {' '.join(said.split())}"
            if error.code in _TEMPORARY or error.code >= http.HTTPStatus.INTERNAL_SERVER_ERROR:
                raise _TemporaryError(reason, _seconds_of(error.headers.get("Retry-After", ""))) from None
            raise RefusedError(f"{self.base_url} refuses the request ({reason})") from None
        except (OSError, http.client.HTTPException) as error:
            raise _TemporaryError(_without_key(reason_of(error))) from None
        try:
            return json.loads(content)
        except (ValueError, RecursionError):  # no JSON, or thousands of brackets
            raise JudgeUnavailableError(
                f"{self.base_url} answered {shown_answer(content)}: expected JSON, as of OpenAI's chat completions"
            ) from None


def _seconds_of(retry_after: str) -> float:
    """Return how long the header `Retry-After`, a number of seconds or a date, asks to wait; 0 if it is neither."""
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(retry_after).astimezone(UTC) - datetime.now(UTC)).total_seconds()
        except (ValueError, OverflowError):
            return 0.0
    return seconds if 0 < seconds < math.inf else 0.0


def base_url() -> str:
    """Return the endpoint's address without a slash at its end: that of OPENAI_BASE_URL, or OpenAI's own.

    Returns:
        The address.

    Raises:
        UserError: It is none of a web server, or has secrets in it (it is printed). The message does not show it.
    """
    address = os.environ.get(BASE_URL, "").strip().rstrip("/") or _OPENAI
    try:
        parts = urlsplit(address)
        usable = parts.scheme in ("http", "https") and parts.hostname and "@" not in parts.netloc
        usable = usable and parts.port != 0 and not parts.query and not parts.fragment and address.isascii()
    except ValueError:
        usable = False
    if not usable or not address.isprintable() or " " in address:
        raise UserError(
            f"{BASE_URL} cannot be used: expected the address of an endpoint, such as http://127.0.0.1:8000/v1, without user, "
            f"password or parameters; a key belongs into {API_KEY}"
        )
    return address


def api_key() -> str | None:
    """Return the key of OPENAI_API_KEY; None if an endpoint of one's own needs none.

    Returns:
        The key.

    Raises:
        UserError: OpenAI's own endpoint is asked without a key, or it has characters that no key has. The message does not show it.
    """
    key = os.environ.get(API_KEY, "").strip()
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise UserError(f"{API_KEY} cannot be used: expected a key of letters, digits and signs, without spaces or line breaks")
    if not key and base_url() == _OPENAI:
        raise UserError(f"{API_KEY} is not set: expected a key of {_OPENAI}, or another endpoint's address in {BASE_URL}")
    return key or None


def shown_answer(answer: object) -> str:
    """Return what a message shows of what an endpoint answered: the beginning, without the key.

    Args:
        answer: The answer, or a part of it.

    Returns:
        Its repr, shortened.
    """
    # Struck out before it is shortened: what is left of a key that is cut is still a secret.
    text = _without_key(shown(answer, 4 * _LONGEST_ANSWER))
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _without_key(text: str) -> str:
    key = os.environ.get(API_KEY, "").strip()
    return text.replace(key, "***") if key else text
