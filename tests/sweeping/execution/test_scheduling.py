"""Tune's schedulers see what may be compared, and decide the same when a sweep is resumed. No trial is run here."""

import pickle
from pathlib import Path
from typing import Any

import pytest

from vlm_rm_sweeps.metrics import RunStatus
from vlm_rm_sweeps.sweeping.config.plan import Plan, plan_of
from vlm_rm_sweeps.sweeping.execution.remaining import Remaining
from vlm_rm_sweeps.sweeping.execution.scheduling import RankingScheduler, TimeBudget, scheduler_of
from vlm_rm_sweeps.sweeping.tracking.journal import Journal, ResultLogged, TrialEnded, TrialStarted, TrialStopped, open_trials


def plan(scheduler: Any, alphas: int = 4) -> Plan:
    return plan_of(
        {
            "name": "early",
            "task": "cartpole-upright",
            "models": ["embedded/tiny"],
            "alphas": [number / 10 for number in range(alphas)],
            "steps": 1_000,
            "steps_per_result": 100,
            "trial": {"evaluation_interval": 100},
            "epic_states": 100,
            "scheduler": scheduler,
        }
    )


def result(value: float) -> dict[str, float]:
    return {"evaluation_success": value, "clip_return": -1000 * value}


def made(planned: Plan, measured: Any = None, entries: Any = ()) -> RankingScheduler:
    scheduler = scheduler_of(planned, measured or {}, entries)
    assert scheduler is not None
    return scheduler


def test_asha_stops_what_is_not_among_the_best_and_says_why() -> None:
    planned = plan({"kind": "asha", "reduction": 2, "grace_steps": 100})
    scheduler = made(planned)
    first, second, third, fourth = (trial.trial_id for trial in planned.trials if trial.prompt)
    assert not scheduler.decide(first, 100, result(0.2))
    assert not scheduler.decide(second, 100, result(0.6))
    assert not scheduler.decide(third, 100, {"clip_return": 0.0}), "a result without evaluation decides nothing"
    assert scheduler.decide(third, 150, result(0.1))
    assert not scheduler.decide(fourth, 100, result(0.6))
    why = "asha: success 0.1 at step 150 was not among the best, one in 2, of the trials that had come so far"
    assert scheduler.stopped == {third: why}


def test_median_stops_what_never_reached_the_others() -> None:
    planned = plan({"kind": "median", "least_trials": 2, "grace_steps": 100})
    scheduler = made(planned)
    first, second, third, _ = (trial.trial_id for trial in planned.trials if trial.prompt)
    for step in (100, 200):
        assert not scheduler.decide(first, step, result(0.5))
        assert not scheduler.decide(second, step, result(0.6))
    assert scheduler.decide(third, 200, result(0.1))
    assert list(scheduler.stopped) == [third]


def test_references_neither_stop_nor_raise_what_others_are_compared_with() -> None:
    planned = plan({"kind": "asha", "reduction": 2, "grace_steps": 100})
    scheduler = made(planned)
    reference, first, second = (trial.trial_id for trial in planned.trials[:3])
    assert planned.trials[0].prompt is None
    assert not scheduler.decide(reference, 100, result(1.0))
    assert not scheduler.decide(first, 100, result(0.1))
    assert not scheduler.decide(second, 100, result(0.1))
    assert not scheduler.decide(reference, 200, result(0.0))


def test_of_epic_distances_the_smaller_is_better() -> None:
    planned = plan({"kind": "asha", "by": "epic_distance", "reduction": 2, "grace_steps": 100})
    first, second, *_ = (trial.trial_id for trial in planned.trials if trial.prompt)
    scheduler = made(planned, {first: {"epic_distance": 0.2}, second: {"epic_distance": 0.7}})
    assert not scheduler.decide(first, 100, {})
    assert scheduler.decide(second, 100, {})
    assert "epic_distance 0.7 at step 100" in scheduler.stopped[second]


def test_a_resumed_sweep_decides_as_an_undisturbed_one(tmp_path: Path) -> None:
    """Also of a trial that was stopped and whose stop was not written down; and a repeated result is no second one."""
    planned = plan({"kind": "asha", "reduction": 2, "grace_steps": 100})
    first, second, third, fourth = (trial.trial_id for trial in planned.trials if trial.prompt)
    journal = Journal(tmp_path / "journal.jsonl")
    for trial, value in ((first, 0.8), (second, 0.9), (third, 0.1)):
        journal.append(ResultLogged(time=1, trial=trial, step=100, metrics=result(value)))
    journal.append(ResultLogged(time=2, trial=first, step=1_000, metrics=result(0.8)))
    journal.append(TrialEnded(time=3, trial=first, status=RunStatus.FINISHED, tags={}))
    scheduler = made(planned, entries=journal.entries)
    assert list(scheduler.stopped) == [third]
    assert scheduler.decide(third, 200, result(1.0))
    assert not scheduler.decide(second, 100, result(0.0)), "it was seen before"
    assert scheduler.decide(fourth, 100, result(0.7)), "the trials before it are known"
    assert pickle.loads(pickle.dumps(scheduler)).stopped == scheduler.stopped  # Tune pickles it


def test_a_stopped_trial_is_neither_open_nor_left_to_do(tmp_path: Path) -> None:
    planned = plan("asha")
    good, given_up, open_one, *_ = (trial.trial_id for trial in planned.trials)
    journal = Journal(tmp_path / "journal.jsonl")
    for trial in (good, given_up, open_one):
        journal.append(TrialStarted(trial=trial))
    journal.append(TrialStopped(trial=good, step=300, reason="success 1 reached 0.9", reached=True))
    journal.append(TrialStopped(trial=given_up, step=100, reason="asha: ...", reached=False))
    assert open_trials(journal.entries) == {open_one}
    assert Journal(tmp_path / "journal.jsonl").entries == journal.entries
    remaining = Remaining(planned, journal.entries)
    assert {good, given_up}.isdisjoint(trial.trial_id for trial in remaining.trials)
    assert [trial.trial_id for trial in remaining.videos] == [good]


def test_a_time_budget_is_used_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([100.0, 105.0])
    monkeypatch.setattr("ray.tune.stopper.timeout.time.time", lambda: next(now, 111.0))
    budget = TimeBudget(10)
    assert [budget.stop_all(), budget.stop_all(), budget.stop_all()] == [False, False, True]
    assert budget.used_up
