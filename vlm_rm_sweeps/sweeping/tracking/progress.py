"""Progress of a sweep: calm lines for a log, or what a live table on a terminal shows."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from vlm_rm_sweeps.sweeping.config.trial import Trial

_QUIET_SECONDS = 15.0


def duration(seconds: float) -> str:
    """Format a duration in seconds, such as 75 as `1 min 15 s`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


@dataclass
class TrialProgress:
    """How far a trial is that has reported something.

    Attributes:
        label: What the trial is called.
        steps: Its environment steps so far.
        whole: Its environment steps in all.
        metrics: Its newest metrics.
        outcome: How it ended; empty until then.
    """

    label: str
    steps: int
    whole: int
    metrics: Mapping[str, float] = field(default_factory=dict)
    outcome: str = ""


Watcher = Callable[["Progress"], None]
"""Is called with the progress after every change; shows it in the place of lines."""


class Progress:
    """Counts trials and environment steps, and prints a line of progress at most every 15 seconds.

    Args:
        steps: Number of environment steps of each whole trial, by trial id.
        say: Prints a line.
        watch: Shows the progress instead, except for how a trial ended, which is printed all the same.

    Attributes:
        trials: The trials that have reported in this execution, by trial id, in the order of their first report.
    """

    def __init__(self, steps: Mapping[str, int], say: Callable[[str], None], watch: Watcher | None = None) -> None:
        self._whole, self._say, self._watch = dict(steps), say, watch
        self.trials: dict[str, TrialProgress] = {}
        self._steps: dict[str, int] = {}
        self._ended: set[str] = set()
        self._started = self._last = time.monotonic()
        self._first_result = True
        self._done_before = 0

    def result(self, trial: Trial, env_steps: int, metrics: Mapping[str, float] | None = None) -> None:
        """Count the steps of a trial up to a result.

        Args:
            trial: The trial.
            env_steps: Its steps so far.
            metrics: Its newest metrics, for a live table.
        """
        # A retried trial starts at its last checkpoint; the steps after that were counted already.
        self._steps[trial.trial_id] = max(min(env_steps, self._whole[trial.trial_id]), self._steps.get(trial.trial_id, 0))
        shown = self._trial(trial)
        shown.steps, shown.metrics = self._steps[trial.trial_id], metrics or shown.metrics
        if self._watch:
            self._watch(self)
            return
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
        shown = self._trial(trial)
        shown.steps, shown.outcome = shown.whole, outcome
        if self._watch:
            self._watch(self)
        self._say(f"{self._clock()} {trial.label}: {outcome}")

    def _trial(self, trial: Trial) -> TrialProgress:
        return self.trials.setdefault(trial.trial_id, TrialProgress(trial.label, 0, self._whole[trial.trial_id]))

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
