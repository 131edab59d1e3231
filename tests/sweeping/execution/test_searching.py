"""A sample depends on the seed, its number and what is known, and on nothing else; what was good is drawn more often."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from ray.tune.search import Searcher
from small_sweeps import SWEEP

from vlm_rm_sweeps.metrics import EVALUATION, TrialStatus
from vlm_rm_sweeps.sweeping.config.plan import Plan, plan_of
from vlm_rm_sweeps.sweeping.config.searching import Drawn
from vlm_rm_sweeps.sweeping.execution.searching import TrialsInTurn, draw, judged_samples
from vlm_rm_sweeps.sweeping.tracking.results import TrialOutcome

SPACE: dict[str, Any] = {
    "alpha": {"low": 0, "high": 1},
    "settings.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
    "settings.batch": {"low": 32, "high": 64},
}


def plan_with(*keys: str, **search: Any) -> Plan:
    space = {key: SPACE[key] for key in keys or SPACE}
    return plan_of(SWEEP | {"alphas": [], "seeds": [0, 1], "search": {"space": space} | search})


def test_values_are_of_the_space_and_whole_where_the_setting_is() -> None:
    drawn = [draw(plan_with(), number, []) for number in range(1, 20)]
    assert all(isinstance(each["alpha"], float) and 0 <= each["alpha"] <= 1 for each in drawn)
    assert all(isinstance(each["settings.batch"], int) and 32 <= each["settings.batch"] <= 64 for each in drawn)
    rates = [float(each["settings.learning_rate"]) for each in drawn]
    assert all(1e-4 <= rate <= 1e-2 for rate in rates)
    # Uniformly on a logarithmic scale: as many below 1e-3 as above.
    assert 4 <= sum(rate < 1e-3 for rate in rates) <= 15


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_drawing_can_be_repeated_from_what_was_known(sampler: str) -> None:
    plan = plan_with(sampler=sampler)
    judged: list[tuple[Mapping[str, Drawn], float]] = []
    for number in range(1, 13):
        values = draw(plan, number, judged)
        assert values == draw(plan, number, list(judged))
        judged.append((values, float(values["alpha"])))
    assert len({values["alpha"] for values, _ in judged}) == 12
    assert draw(plan, 1, []) != draw(plan_with(sampler=sampler, seed=1), 1, [])


def test_tpe_gathers_where_samples_were_good_and_random_does_not() -> None:
    def last_ten(sampler: str) -> np.ndarray:
        plan = plan_with("alpha", sampler=sampler)
        judged: list[tuple[Mapping[str, Drawn], float]] = []
        for number in range(1, 31):
            values = draw(plan, number, judged)
            judged.append((values, -abs(float(values["alpha"]) - 0.3)))
        return np.array([merit for _, merit in judged[20:]])

    assert last_ten("tpe").mean() > 2 * last_ten("random").mean()  # both are negative: less than half as far away


def test_a_sample_is_judged_by_the_mean_of_its_seeds_once_all_have_ended() -> None:
    plan = plan_with("alpha", samples=4).with_samples({1: {"alpha": 0.1}, 2: {"alpha": 0.2}, 3: {"alpha": 0.3}})
    ends: dict[int, list[tuple[TrialStatus, float | None]]] = {
        1: [(TrialStatus.FINISHED, 1.0), (TrialStatus.STOPPED, 0.0)],
        2: [(TrialStatus.FINISHED, 1.0), (TrialStatus.UNFINISHED, 1.0)],
        3: [(TrialStatus.FAILED, None), (TrialStatus.FINISHED, 0.25)],
        4: [(TrialStatus.UNFINISHED, None), (TrialStatus.UNFINISHED, None)],
    }
    outcomes = []
    for trial in plan.trials:
        if trial.sample is not None:
            status, success = ends[trial.sample.number][trial.seed]
            metrics = {} if success is None else {f"{EVALUATION}success": success}
            outcomes.append(TrialOutcome(trial, status, "", metrics))
    assert judged_samples(plan, outcomes) == [({"alpha": 0.1}, 0.5), ({"alpha": 0.3}, 0.25)]


def test_trials_come_in_turn_when_there_is_room_and_end_when_none_will_start_again() -> None:
    plan, room, over = plan_with("alpha"), [True, False, True], [False, True]
    first, second = plan.trials[:2]
    in_turn = TrialsInTurn([first, second], lambda trial: {"run": trial}, lambda: room.pop(0), lambda: over.pop(0))
    assert [in_turn.suggest("") for _ in range(5)] == [{"run": first}, None, {"run": second}, None, Searcher.FINISHED]
    assert TrialsInTurn([], lambda trial: {}).suggest("") == Searcher.FINISHED
