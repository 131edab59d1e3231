"""Where results come from, as far as it was written down."""

from pathlib import Path

from vlm_rm_sweeps.metrics import RunStatus
from vlm_rm_sweeps.sweeping.tracking.folder import SweepFolder
from vlm_rm_sweeps.sweeping.tracking.journal import Entry, SweepEnded, SweepStarted, TrialStarted
from vlm_rm_sweeps.sweeping.tracking.provenance import provenance, seconds_of


def test_the_time_of_a_sweep_is_that_of_its_executions() -> None:
    """The second one was killed: it has no end."""
    ended = SweepEnded(time=61_000, status=RunStatus.KILLED, step=0, metrics={})
    entries: list[Entry] = [
        SweepStarted(id="a", time=1_000),
        ended,
        SweepStarted(id="a", time=500_000),
        TrialStarted(trial="t", time=530_000),
        SweepStarted(id="a", time=900_000),
        TrialStarted(trial="t", time=905_000),
    ]
    assert seconds_of(entries) == 60 + 30 + 5
    assert seconds_of([]) == 0


def test_what_is_unknown_is_said_to_be(tmp_path: Path) -> None:
    found = provenance(SweepFolder(tmp_path))
    assert (found.commit, found.machine, found.started, found.seconds) == ("", "", None, 0)
    assert "mlflow.json" in found.problem
