"""What is left to do in a sweep."""

from vlm_rm_sweeps.metrics import RunStatus
from vlm_rm_sweeps.sweeping.config.plan import Plan
from vlm_rm_sweeps.sweeping.tracking.folder import SweepFolder
from vlm_rm_sweeps.sweeping.tracking.journal import Entry, FileWritten, ended_trials, read_entries, stopped_trials
from vlm_rm_sweeps.videos import VIDEO_FOLDER


class Remaining:
    """What is left to do in a sweep, according to its journal.

    Args:
        plan: The sweep.
        entries: The entries of its journal.

    Attributes:
        trials: The trials that have neither finished nor been stopped early.
        videos: The trials that have finished, or were good enough, whose video is missing: an earlier execution was killed while it
            recorded them.
    """

    def __init__(self, plan: Plan, entries: list[Entry]) -> None:
        ended, stopped = ended_trials(entries), stopped_trials(entries)
        whole = {trial for trial, status in ended.items() if status == RunStatus.FINISHED}
        whole |= {trial for trial, stop in stopped.items() if stop.reached}
        done = whole | stopped.keys()
        self.trials = [trial for trial in plan.trials if trial.trial_id not in done]
        recorded = {entry.trial for entry in entries if isinstance(entry, FileWritten) and entry.to == VIDEO_FOLDER}
        finished = [trial for trial in plan.trials if trial.trial_id in whole]
        self.videos = [trial for trial in finished if plan.sweep.videos and trial.trial_id not in recorded]

    @classmethod
    def of(cls, plan: Plan, folder: SweepFolder) -> "Remaining":
        """Return what is left to do in the sweep of a folder, which need not exist yet."""
        return cls(plan, read_entries(folder.journal))

    def __bool__(self) -> bool:
        return bool(self.trials or self.videos)
