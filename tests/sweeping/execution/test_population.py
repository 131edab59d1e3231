"""Tune's scheduler decides who takes over whose training, from recorded results alone. No trial is run here."""

import pickle
import random
from collections.abc import Sequence
from typing import Any

import pytest
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import TrialScheduler

from vlm_rm_sweeps.metrics import COMPARED, ENV_STEPS
from vlm_rm_sweeps.sweeping.config.plan import Plan, plan_of
from vlm_rm_sweeps.sweeping.config.searching import Drawn
from vlm_rm_sweeps.sweeping.config.trial import Trial
from vlm_rm_sweeps.sweeping.execution.population import Compared, PopulationScheduler, decide
from vlm_rm_sweeps.sweeping.tracking.journal import Entry, TakenOver

SPACE: dict[str, Any] = {
    "settings.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
    "settings.target_update_every": {"low": 100, "high": 1_000},
    "settings.double_q": [True, False],
}


def plan_with(space: dict[str, Any] = SPACE, scheduler: Any = None, **changed: Any) -> Plan:
    keys = {
        "name": "population",
        "task": "cartpole-upright",
        "models": ["embedded/tiny"],
        "alphas": [0.5],
        "steps": 1_024,
        "steps_per_result": 128,
        "trial": {"evaluation_interval": 100},
        "search": {"space": space, "samples": 4},
        "scheduler": {"kind": "pbt", "interval_steps": 200} | (scheduler or {}),
    }
    return plan_of(keys | changed)


def values(rate: float = 1e-3) -> dict[str, Drawn]:
    return {"settings.learning_rate": rate, "settings.target_update_every": 500, "settings.double_q": True}


def compared(merits: Sequence[float | None], step: int = 256) -> list[Compared]:
    return [Compared(f"trial {number}", step, merit, values(1e-3 + number / 1e4)) for number, merit in enumerate(merits)]


def test_the_worst_goes_on_from_the_best_with_other_values_of_the_ranges() -> None:
    (takeover,) = decide(plan_with(), compared([0.5, 0.1, 0.9, 0.4]))
    assert (takeover.trial, takeover.step, takeover.source, takeover.source_step) == ("trial 1", 256, "trial 2", 256)
    assert takeover.values != values(1e-3 + 2 / 1e4)
    assert takeover.values.keys() == SPACE.keys()
    halves = decide(plan_with(scheduler={"quantile": 0.5}), compared([0.5, 0.1, 0.9, 0.4]))
    assert {each.trial for each in halves} == {"trial 1", "trial 3"}
    assert {each.source for each in halves} <= {"trial 0", "trial 2"}


def test_values_stay_in_their_ranges_and_whole_where_the_setting_is() -> None:
    for step in range(200, 4_000, 10):
        members = [Compared("a", step, 0.0, values()), Compared("b", step, 1.0, values(1e-2))]
        (takeover,) = decide(plan_with(), members)
        rate, every = takeover.values["settings.learning_rate"], takeover.values["settings.target_update_every"]
        assert isinstance(rate, float)
        assert 1e-4 <= rate <= 1e-2
        assert isinstance(every, int)
        assert 100 <= every <= 1_000
        assert isinstance(takeover.values["settings.double_q"], bool)


def test_without_resampling_values_are_those_of_the_best_a_little_changed() -> None:
    space = {"settings.learning_rate": SPACE["settings.learning_rate"]}
    drawn = set()
    for step in range(200, 400):
        members = [
            Compared("a", step, 0.0, {"settings.learning_rate": 5e-3}),
            Compared("b", step, 1.0, {"settings.learning_rate": 1e-3}),
        ]
        (takeover,) = decide(plan_with(space, {"resample": 0}), members)
        drawn.add(takeover.values["settings.learning_rate"])
    assert drawn == {1e-3 * 0.8, 1e-3 * 1.2}


def test_a_copy_that_would_be_the_same_to_the_bit_is_explored_again() -> None:
    """At the end of its range a value cannot grow."""
    space = {"settings.learning_rate": SPACE["settings.learning_rate"]}
    for step in range(200, 260):
        members = [Compared(name, step, merit, {"settings.learning_rate": 1e-2}) for name, merit in (("a", 0.0), ("b", 1.0))]
        (takeover,) = decide(plan_with(space, {"resample": 0}), members)
        assert takeover.values == {"settings.learning_rate": pytest.approx(8e-3)}


def test_a_decision_depends_on_seed_trial_and_step_alone() -> None:
    members = compared([0.5, 0.1, 0.9, 0.4])
    before = random.getstate()
    (first,), (second,) = decide(plan_with(), members), decide(plan_with(), members)
    assert random.getstate() == before, "who draws random numbers elsewhere does not notice"
    assert first.model_copy(update={"uid": "", "time": 0}) == second.model_copy(update={"uid": "", "time": 0})
    (later,) = decide(plan_with(), compared([0.5, 0.1, 0.9, 0.4], step=384))
    (seeded,) = decide(plan_with(search={"space": SPACE, "samples": 4, "seed": 1}), members)
    assert len({str(each.values) for each in (first, later, seeded)}) == 3


def test_who_is_as_good_keeps_its_own_training_and_who_has_no_result_takes_no_part() -> None:
    assert decide(plan_with(), compared([0.5, 0.5, 0.5, 0.5])) == []
    assert decide(plan_with(), compared([0.5])) == []
    (takeover,) = decide(plan_with(), compared([None, 0.1, float("nan"), 0.4]))
    assert (takeover.trial, takeover.source) == ("trial 1", "trial 3")


class Controller:
    """What the scheduler asks of Tune's controller, whose interface this is."""

    def pause_trial(self, trial: TuneTrial, should_checkpoint: bool) -> None:
        assert not should_checkpoint
        trial.status = TuneTrial.PAUSED


class Run:
    """A scheduler with Tune's trials, none of which is run."""

    def __init__(self, plan: Plan, entries: Sequence[Entry] = (), running: Sequence[Trial] | None = None) -> None:
        self.takeovers: list[TakenOver] = []
        trials = [trial for trial in plan.trials if trial.sample] if running is None else running
        plan = plan.with_samples({number: values(number / 1e4) for number in (1, 2, 3, 4)})
        self.planned = {trial.trial_id: trial for trial in plan.trials}
        self.controller = Controller()
        self.scheduler = PopulationScheduler(plan, trials, entries, self.take_over, self.configured)
        self.trials: dict[str, TuneTrial] = {}
        for trial in trials:
            tune_trial = TuneTrial("trainable", config=self.configured(trial), stub=True)
            self.trials[trial.trial_id] = tune_trial
            self.start(tune_trial)

    def start(self, trial: TuneTrial) -> None:
        self.scheduler.on_trial_add(self.controller, trial)
        trial.status = TuneTrial.RUNNING

    def take_over(self, takeovers: Sequence[tuple[Trial, TakenOver]]) -> None:
        self.takeovers += [takeover for _, takeover in takeovers]

    def configured(self, trial: Trial) -> dict[str, Any]:
        values = [each.values for each in self.takeovers if each.trial == trial.trial_id][-1:]
        return {"run": {"trial": self.planned[trial.trial_id].to_dict(), "now": values}}

    def result(self, trial_id: str, step: int, merit: float, **more: Any) -> str:
        result = {ENV_STEPS: step, "evaluation_success": merit, COMPARED: True} | more
        return self.scheduler.on_trial_result(self.controller, self.trials[trial_id], result)

    def next(self) -> str | None:
        chosen = self.scheduler.choose_trial_to_run(self.controller)
        return next((trial_id for trial_id, trial in self.trials.items() if trial is chosen), None)


def test_samples_wait_for_each_other_and_then_go_on() -> None:
    run = Run(plan_with())
    first, second, third, fourth = run.trials
    assert run.scheduler.on_trial_result(run.controller, run.trials[first], {ENV_STEPS: 128}) == TrialScheduler.CONTINUE
    for trial, merit in ((second, 0.1), (first, 0.9), (fourth, 0.5)):
        assert run.result(trial, 256, merit) == TrialScheduler.NOOP
        assert run.trials[trial].status == TuneTrial.PAUSED
        assert run.next() is None
    assert not run.takeovers
    run.result(third, 256, 0.4)
    assert run.next() == first
    (takeover,) = run.takeovers
    assert (takeover.trial, takeover.source) == (second, first)
    assert run.trials[second].config["run"]["now"] == [takeover.values]
    assert run.trials[third].config["run"]["now"] == []
    # Each reports the same result again when it goes on.
    run.trials[first].status = TuneTrial.RUNNING
    assert run.result(first, 256, 0.9) == TrialScheduler.CONTINUE
    # What it goes on with is what the next decision begins from.
    for trial, merit in ((second, 1.0), (first, 0.9), (fourth, 0.5), (third, 0.4)):
        run.result(trial, 512, merit)
    run.next()
    assert run.takeovers[-1].source == second
    rate = run.takeovers[0].values["settings.learning_rate"]
    assert isinstance(rate, float)
    changed = run.takeovers[-1].values
    assert changed != takeover.values
    assert changed["settings.double_q"] in (True, False)


def test_nobody_waits_for_trials_that_have_ended_and_all_do_for_one_that_is_retried() -> None:
    run = Run(plan_with())
    first, second, third, fourth = run.trials
    for trial, merit in ((first, 0.9), (second, 0.1)):
        run.result(trial, 256, merit)
    run.scheduler.on_trial_error(run.controller, run.trials[third])
    run.scheduler.on_trial_complete(run.controller, run.trials[fourth], {})
    run.start(run.trials[third])
    assert run.next() is None
    run.scheduler.on_trial_error(run.controller, run.trials[third])
    assert run.next() == first
    assert [(each.trial, each.source) for each in run.takeovers] == [(second, first)]


def test_a_resumed_sweep_does_not_decide_again_what_its_journal_has() -> None:
    plan = plan_with()
    whole = Run(plan)
    merits = dict(zip(whole.trials, (0.9, 0.1, 0.5, 0.4), strict=True))
    for trial, merit in merits.items():
        whole.result(trial, 256, merit)
    whole.next()
    resumed = Run(plan, entries=whole.takeovers)
    for trial, merit in merits.items():
        assert resumed.result(trial, 256, merit) == TrialScheduler.CONTINUE
    for run in (whole, resumed):
        for trial, merit in merits.items():
            run.trials[trial].status = TuneTrial.RUNNING
            assert run.result(trial, 512, merit) == TrialScheduler.NOOP
        run.next()
    (again,) = resumed.takeovers
    assert again.values == whole.takeovers[-1].values, "it knows the values that the first takeover left"
    assert isinstance(pickle.loads(pickle.dumps(resumed.scheduler)), TrialScheduler)  # Tune pickles it


def test_one_that_failed_and_is_behind_catches_up_and_the_others_wait() -> None:
    plan = plan_with()
    first, second, third, fourth = (trial.trial_id for trial in plan.trials if trial.sample)
    known = TakenOver(trial=second, step=256, source=first, source_step=256, values=values())
    run = Run(plan, entries=[known])
    for trial in (first, second, third):
        assert run.result(trial, 512, 0.5) == TrialScheduler.NOOP
    assert run.result(fourth, 256, 0.0) == TrialScheduler.CONTINUE, "that was decided without it"
    assert run.next() is None
    run.result(fourth, 512, 0.0)
    run.next()
    assert [each.trial for each in run.takeovers] == [fourth]


def test_populations_are_apart_and_references_wait_for_nobody() -> None:
    plan = plan_with(seeds=[0, 1])
    run = Run(plan, running=plan.trials)
    for trial in plan.trials:
        result = run.result(trial.trial_id, 256, 0.1 * (trial.sample.number if trial.sample else 0))
        assert result == (TrialScheduler.NOOP if trial.sample else TrialScheduler.CONTINUE)
    run.next()
    seeds = {trial.trial_id: trial.seed for trial in plan.trials}
    assert len(run.takeovers) == 2
    assert all(seeds[each.trial] == seeds[each.source] for each in run.takeovers)


def test_no_more_run_at_once_than_may_and_those_that_wait_do_not_count() -> None:
    run = Run(plan_with(max_concurrent=4))
    first, second, third, fourth = run.trials
    assert not run.scheduler.has_room()
    run.result(first, 256, 0.9)
    assert run.scheduler.has_room()
    for trial in (second, third, fourth):
        run.result(trial, 256, 0.1)
    started = []
    while (chosen := run.next()) is not None:
        run.trials[chosen].status = TuneTrial.PENDING
        started.append(chosen)
    assert started == [first, second, third, fourth]
    limited = Run(plan_with(max_concurrent=1))
    for trial in limited.trials:
        limited.result(trial, 256, 0.5)
    only = limited.next()
    assert only is not None
    limited.trials[only].status = TuneTrial.RUNNING
    assert limited.next() is None
