"""The answers of reward servers, in a module of their own: clients need not import what the server imports."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ScoredFrames:
    """A server's answer to one scoring request.

    Attributes:
        rewards: float32 (N, number of specs).
        seconds: Time spent on the model.
        backlog: Number of frames that the server had accepted but not scored when it answered. Clients choose the least busy
            server by it.
        answered_at: When that was, in seconds since the epoch by the server's clock.
        micro_batch: Frames in each forward pass, fewer than configured if the server ran out of memory.
        node: The id in Ray of the server's node; empty if that is not known.
    """

    rewards: np.ndarray
    seconds: float
    backlog: int
    answered_at: float
    micro_batch: int
    node: str = ""
