"""Progress of a sweep as plain lines, for terminals and log files alike."""

import time
from collections.abc import Callable, Mapping

from vlm_rm_sweeps.sweeping.config.trial import Trial

_QUIET_SECONDS = 15.0


def duration(seconds: float) -> str:
    """Format a duration in seconds, such as 75 as `1 min 15 s`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


class Progress:
    """Counts trials and environment steps, and prints a line of progress at most every 15 seconds.

    Args:
        steps: Number of environment steps of each whole trial, by trial id.
        say: Prints a line.
    """

    def __init__(self, steps: Mapping[str, int], say: Callable[[str], None]) -> None:
        self._whole, self._say = dict(steps), say
        self._steps: dict[str, int] = {}
        self._ended: set[str] = set()
        self._started = self._last = time.monotonic()
        self._first_result = True
        self._done_before = 0

    def result(self, trial: Trial, env_steps: int) -> None:
        """Count the steps of a trial up to a result."""
        # A retried trial starts at its last checkpoint; the steps after that were counted already.
        self._steps[trial.trial_id] = max(min(env_steps, self._whole[trial.trial_id]), self._steps.get(trial.trial_id, 0))
        now = time.monotonic()
        if self._first_result or now - self._last >= _QUIET_SECONDS:
            self._first_result, self._last = False, now
            self._say(self.line())

    def resumed(self, trial: Trial, env_steps: int, finished: bool, early: bool = False) -> None:
        """Count the steps of a trial that earlier executions of the sweep ran; `early`: it is finished with those."""
        if early:
            self._whole[trial.trial_id] = env_steps
        whole = self._whole[trial.trial_id]
        self._steps[trial.trial_id] = whole if finished else min(env_steps, whole)
        self._done_before += self._steps[trial.trial_id]
        if finished:
            self._ended.add(trial.trial_id)

    def ended(self, trial: Trial, outcome: str, early: bool = False) -> None:
        """Count a trial as ended, and print its outcome; `early`: the steps that it has left are not counted."""
        if early:
            self._whole[trial.trial_id] = self._steps.get(trial.trial_id, 0)
        self._steps[trial.trial_id] = self._whole[trial.trial_id]
        self._ended.add(trial.trial_id)
        self._say(f"{self._clock()} {trial.label}: {outcome}")

    def line(self) -> str:
        """Format the trials and steps done, and the estimated time left."""
        done, total = sum(self._steps.values()), sum(self._whole.values())
        elapsed = time.monotonic() - self._started
        gained = done - self._done_before
        left = f", about {duration(elapsed * (total - done) / gained)} left" if gained > 0 else ""
        return f"{self._clock()} {len(self._ended)} of {len(self._whole)} trials done, {done:,} of {total:,} steps{left}"

    def _clock(self) -> str:
        minutes, seconds = divmod(round(time.monotonic() - self._started), 60)
        return f"[{minutes:02d}:{seconds:02d}]"
