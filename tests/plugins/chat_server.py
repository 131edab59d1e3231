"""An endpoint like OpenAI's, on the loopback address, which answers as a test says and records what it is asked."""

import json
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, Any] | tuple[int, Any, dict[str, str]]
"""Status, content and, if need be, headers; a text is sent as it is, everything else as JSON."""


def yes(probability: float) -> Answer:
    """The answer of a model that is asked for probabilities of tokens; the rest of the mass is on other words."""
    tokens = [("Yes", 0.8 * probability), ("no", 0.8 * (1 - probability)), ("Perhaps", 0.2)]
    top = [{"token": token, "logprob": float(_log(chance))} for token, chance in tokens]
    return 200, {"choices": [{"message": {"content": "Yes"}, "logprobs": {"content": [{"top_logprobs": top}]}}]}


def says(text: str) -> Answer:
    """The answer of a model that gives no probabilities of tokens."""
    return 200, {"choices": [{"message": {"content": text}}]}


def _log(chance: float) -> float:
    return math.log(chance) if chance else -9999.0


class ChatServer:
    """What was asked of the endpoint, and where it is.

    Attributes:
        url: Its address.
        asked: The bodies of the requests.
        headers: Their headers.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []


@contextmanager
def chat_server(answer: Callable[[dict[str, Any], int], Answer]) -> Iterator[ChatServer]:
    """Serve an endpoint until the block ends.

    Args:
        answer: Called with the body of a request and its number, from 0.

    Yields:
        The endpoint.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            served.asked.append(body)
            served.headers.append(dict(self.headers))
            status, content, *headers = answer(body, len(served.asked) - 1)
            sent = content.encode() if isinstance(content, str) else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(sent)))
            self.send_header("Location", "http://127.0.0.1:9/elsewhere")
            for name, value in (headers[0] if headers else {}).items():
                self.send_header(name, value)
            self.end_headers()
            with suppress(OSError):  # the client has given up
                self.wfile.write(sent)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served = ChatServer(f"http://127.0.0.1:{server.server_port}/v1")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
