"""Progress of a sweep as plain lines: calm on a terminal and in a log file alike."""

import time
from collections.abc import Callable, Mapping

from vlm_rm_sweeps.sweeping.config.sweep import Trial

_QUIET_SECONDS = 15.0


def duration(seconds: float) -> str:
    """`75` as `1 min 15 s`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


class Progress:
    """Counts trials and environment steps and says where the sweep stands, at most every 15 seconds.

    `steps`: how many environment steps each trial is to take, by its id.
    """

    def __init__(self, steps: Mapping[str, int], say: Callable[[str], None]) -> None:
        self._whole, self._say = steps, say
        self._steps: dict[str, int] = {}
        self._ended: set[str] = set()
        self._started = self._last = time.monotonic()
        self._first_result = True
        self._done_before = 0

    def result(self, trial: Trial, env_steps: int) -> None:
        # One that is tried again starts at its last checkpoint; the steps after that were counted already.
        self._steps[trial.trial_id] = max(min(env_steps, self._whole[trial.trial_id]), self._steps.get(trial.trial_id, 0))
        now = time.monotonic()
        if self._first_result or now - self._last >= _QUIET_SECONDS:
            self._first_result, self._last = False, now
            self._say(self.line())

    def resumed(self, trial: Trial, env_steps: int, finished: bool) -> None:
        """How far an earlier attempt brought a trial."""
        whole = self._whole[trial.trial_id]
        self._steps[trial.trial_id] = whole if finished else min(env_steps, whole)
        self._done_before += self._steps[trial.trial_id]
        if finished:
            self._ended.add(trial.trial_id)

    def ended(self, trial: Trial, outcome: str) -> None:
        self._steps[trial.trial_id] = self._whole[trial.trial_id]
        self._ended.add(trial.trial_id)
        self._say(f"{self._clock()} {trial.label}: {outcome}")

    def line(self) -> str:
        done, total = sum(self._steps.values()), sum(self._whole.values())
        elapsed = time.monotonic() - self._started
        gained = done - self._done_before
        left = f", about {duration(elapsed * (total - done) / gained)} left" if gained > 0 else ""
        return f"{self._clock()} {len(self._ended)} of {len(self._whole)} trials done, {done:,} of {total:,} steps{left}"

    def _clock(self) -> str:
        minutes, seconds = divmod(round(time.monotonic() - self._started), 60)
        return f"[{minutes:02d}:{seconds:02d}]"
