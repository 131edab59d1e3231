"""Population-based training is checked before anything starts: there is a population, and what it changes can be changed."""

from typing import Any

import pytest

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.sweeping.config.plan import plan_of
from vlm_rm_sweeps.sweeping.config.population import populations
from vlm_rm_sweeps.sweeping.config.sweep import Sweep

RATES = {"low": 1e-4, "high": 1e-2, "log": True}
SWEEP: dict[str, Any] = {
    "name": "population",
    "task": "cartpole-upright",
    "models": ["embedded/tiny"],
    "alphas": [0.5],
    "steps": 10_000,
    "seeds": [0, 1],
    "trial": {"evaluation_interval": 500},
    "search": {"space": {"settings.learning_rate": RATES}, "samples": 4},
    "scheduler": "pbt",
}


def test_a_population_is_the_samples_of_a_seed() -> None:
    plan = plan_of(SWEEP)
    found = populations(plan.trials)
    assert [[trial.seed for trial in members] for members in found] == [[0] * 4, [1] * 4]
    assert [[trial.sample and trial.sample.number for trial in members] for members in found] == [[1, 2, 3, 4]] * 2
    assert populations(trial for trial in plan.trials if trial.prompt is None) == []


def test_it_is_compared_about_ten_times_after_an_evaluation_or_as_often_as_is_said() -> None:
    assert plan_of(SWEEP).sweep.compared_every == 1_000
    assert plan_of(SWEEP | {"trial": {"evaluation_interval": 600}}).sweep.compared_every == 1_200
    assert plan_of(SWEEP | {"scheduler": {"kind": "pbt", "interval_steps": 2_000}}).sweep.compared_every == 2_000
    assert plan_of(SWEEP | {"scheduler": "asha"}).sweep.compared_every is None
    sweep = Sweep.model_validate(SWEEP)
    assert Sweep.model_validate(sweep.model_dump(mode="json")) == sweep


def test_a_dry_run_says_what_it_does() -> None:
    said = plan_of(SWEEP | {"scheduler": {"kind": "pbt", "by": "true_return", "quantile": 0.5, "resample": 0}}).describe()
    assert (
        "about every 1,000 steps the 4 samples of each seed wait for each other, and the 2 with the least true return go on"
        in said
    )
    assert "or drawn anew with probability 0." in said
    assert "stopped early" not in said


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"search": None}, "scheduler: pbt changes what a `search` draws, .* found no `search`"),
        (
            {"alphas": [], "search": {"space": {"alpha": {"low": 0, "high": 1}}}},
            "another alpha is another reward: expected only settings",
        ),
        ({"search": {"space": {"settings.learning_rate": RATES}, "samples": 3}}, "of 3 less than one: expected at least 4"),
        ({"trial": {}}, r"scheduler: the greedy policy .* set `trial\.evaluation_interval`"),
        (
            {"scheduler": {"kind": "pbt", "interval_steps": 700}},
            r"interval_steps = 700: .* every 500 steps: expected a multiple of `trial\.evaluation_interval`",
        ),
        (
            {"scheduler": {"kind": "pbt", "interval_steps": 9_500}},
            r"every 9,500 steps, in results of 1,024, so not before the end of 10,240: lower `scheduler\.interval_steps`",
        ),
        (
            {"search": {"space": {"settings.learning_rate": RATES, "settings.batch": [32, 64]}}},
            "search.space: batch cannot change while dqn trains, .* expected one of learning_rate, gamma, double_q",
        ),
        ({"scheduler": {"kind": "pbt", "quantile": 0.6}}, "input should be less than or equal to 0.5"),
        ({"scheduler": {"kind": "pbt", "interval_steps": 0}}, "input should be greater than 0"),
    ],
)
def test_what_could_not_be_changed_or_compared_is_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        plan_of(SWEEP | changed)
