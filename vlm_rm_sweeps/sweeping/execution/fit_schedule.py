"""Plays the trials of a sweep through on paper: which run at once, how fast, and what limits them. For `vlm-rm fit`."""

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

_LEAST = 1e-6
"""Units of a part that count as none: what rounding leaves."""


@dataclass(frozen=True)
class Work:
    """Seconds that one step, or one frame, takes.

    Attributes:
        seconds: Time.
        cpu_seconds: CPU time.
    """

    seconds: float
    cpu_seconds: float

    def __add__(self, other: "Work") -> "Work":
        return Work(self.seconds + other.seconds, self.cpu_seconds + other.cpu_seconds)

    def __truediv__(self, count: float) -> "Work":
        return Work(self.seconds / count, self.cpu_seconds / count)

    def longer_than(self, other: "Work") -> "Work":
        """Return how much more this is, at least nothing."""
        return Work(max(0.0, self.seconds - other.seconds), max(0.0, self.cpu_seconds - other.cpu_seconds))


NOTHING = Work(0.0, 0.0)


@dataclass(frozen=True)
class Part:
    """A part of a trial that does the same from its beginning to its end.

    Attributes:
        units: How often: steps, for most parts.
        work: What each takes in the trial's own process.
        encoding: What the frame of each takes in a server, meanwhile.
        model_id: The model that encodes it.
        processes: In how many processes of the trial they are done, side by side.
    """

    units: float
    work: Work
    encoding: Work = NOTHING
    model_id: str | None = None
    processes: int = 1


@dataclass(frozen=True)
class Schedule:
    """How the trials of a sweep went.

    Attributes:
        trials_s: Seconds from the first trial's start to the last one's end.
        seconds: Seconds until all videos have been recorded, too.
        bound_by: What limited the trials for most of the time: `trials`, `servers` or `cores`.
    """

    trials_s: float
    seconds: float
    bound_by: str


@dataclass(frozen=True)
class Places:
    """What trials run on.

    Attributes:
        trials: Trials at once.
        recorders: Processes that record videos.
        servers: Servers of each model.
        on_cpu: Whether servers work on the CPU.
        free_cores: The cores' worth of work that a number of processes get done in a second.
    """

    trials: int
    recorders: int
    servers: int
    on_cpu: bool
    free_cores: Callable[[int], float]


def play(trials: Iterable[Sequence[Part]], video: Part | None, places: Places) -> Schedule:
    """Play trials through in their order: whenever one ends, the next one starts, and a video is recorded beside it.

    Args:
        trials: The parts of each trial.
        video: The recording of a trial's videos; `None` if there are none.
        places: What they run on.

    Returns:
        How long it takes.
    """
    waiting, to_record = deque(map(deque, trials)), 0
    running: list[deque[Part]] = []
    recording: list[Part] = []
    now, trials_s = 0.0, 0.0
    bound: dict[str, float] = defaultdict(float)
    while waiting or running or recording or to_record:
        while waiting and len(running) < places.trials:
            running.append(waiting.popleft())
        while video is not None and to_record and len(recording) < places.recorders:
            recording.append(video)
            to_record -= 1
        parts = [trial[0] for trial in running] + recording
        rates, limit = _rates(parts, places)
        took = min(part.units / rate for part, rate in zip(parts, rates, strict=True))
        left = [replace(part, units=part.units - took * rate) for part, rate in zip(parts, rates, strict=True)]
        now += took
        for trial, part in zip(running, left[: len(running)], strict=True):
            trial.popleft()
            if part.units > _LEAST:
                trial.appendleft(part)
        if running:
            bound[limit] += took
            trials_s = now
        recording = [part for part in left[len(running) :] if part.units > _LEAST]
        to_record += sum(not trial for trial in running) if video is not None else 0
        running = [trial for trial in running if trial]
    return Schedule(trials_s, now, max(bound, key=lambda limit: bound[limit], default="trials"))


def _rates(parts: Sequence[Part], places: Places) -> tuple[list[float], str]:
    """Return the units per second of parts that run at once, and what limits them."""
    # Nobody is faster than the own process.
    rates, limit = [part.processes / max(part.work.seconds, 1e-9) for part in parts], "trials"
    frames: Mapping[str | None, float] = {
        model_id: sum(
            rate * part.encoding.seconds for part, rate in zip(parts, rates, strict=True) if part.model_id == model_id
        )
        for model_id in {part.model_id for part in parts if part.encoding.seconds}
    }
    for model_id, busy in frames.items():
        if busy > places.servers:
            limit = "servers"
            rates = [
                rate * places.servers / busy if part.model_id == model_id else rate
                for part, rate in zip(parts, rates, strict=True)
            ]
    wanted = sum(
        rate * (part.work.cpu_seconds + (part.encoding.cpu_seconds if places.on_cpu else 0.0))
        for part, rate in zip(parts, rates, strict=True)
    )
    free = places.free_cores(sum(part.processes for part in parts) + len(frames) * places.servers)
    if wanted > free:
        return [rate * free / wanted for rate in rates], "cores"
    return rates, limit
