"""What servers answer. Apart from the server, so that clients need not load what it loads."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ScoredFrames:
    """A server's answer.

    `rewards`: float32 (N, number of specs); `seconds`: time spent on the model; `backlog`: frames that the server had
    accepted and not scored yet when it answered, by which clients choose the least busy server; `micro_batch`: frames in each
    forward pass, smaller than configured if the server ran out of memory.
    """

    rewards: np.ndarray
    seconds: float
    backlog: int
    micro_batch: int
