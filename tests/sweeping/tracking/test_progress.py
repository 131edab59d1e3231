"""Progress lines."""

import pytest

from vlm_rm_sweeps.sweeping.config.trial import TRUE_REWARD, Trial
from vlm_rm_sweeps.sweeping.tracking.progress import Progress, duration
from vlm_rm_sweeps.tasks.rendering import Rendering

TRIALS = [Trial.of(TRUE_REWARD, 0.0, None, Rendering(), seed) for seed in range(3)]


@pytest.mark.parametrize(("seconds", "text"), [(0, "0 s"), (59.6, "1 min 0 s"), (75, "1 min 15 s"), (7500, "2 h 5 min")])
def test_durations_read_as_people_say_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_says_the_first_result_at_once_and_then_stays_calm(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("vlm_rm_sweeps.sweeping.tracking.progress.time.monotonic", lambda: now)
    said: list[str] = []
    progress = Progress({trial.trial_id: 1000 for trial in TRIALS}, said.append)
    now = 110.0
    progress.result(TRIALS[0], 250)
    progress.result(TRIALS[1], 250)
    assert said == ["[00:10] 0 of 3 trials done, 250 of 3,000 steps, about 1 min 50 s left"]
    now = 130.0
    progress.result(TRIALS[0], 500)
    assert said[1:] == ["[00:30] 0 of 3 trials done, 750 of 3,000 steps, about 1 min 30 s left"]
    progress.ended(TRIALS[0], "success 1.00")
    assert said[2:] == ["[00:30] true reward, seed 0: success 1.00"]
    assert progress.line() == "[00:30] 1 of 3 trials done, 1,250 of 3,000 steps, about 42 s left"


def test_a_trial_without_training_has_no_steps() -> None:
    said: list[str] = []
    progress = Progress({TRIALS[0].trial_id: 0, TRIALS[1].trial_id: 1000}, said.append)
    progress.ended(TRIALS[0], "success 0.00")
    assert progress.line().endswith("1 of 2 trials done, 0 of 1,000 steps")
