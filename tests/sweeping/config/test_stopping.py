"""What may end trials early is checked before anything starts: there must be something to compare, on one scale."""

from typing import Any

import pytest

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.sweeping.config.plan import plan_of
from vlm_rm_sweeps.sweeping.config.stopping import SchedulerSettings
from vlm_rm_sweeps.sweeping.config.sweep import Sweep

SWEEP: dict[str, Any] = {
    "name": "early",
    "task": "cartpole-upright",
    "models": ["embedded/tiny"],
    "alphas": [0, 0.5],
    "steps": 10_000,
    "trial": {"evaluation_interval": 1_000},
}


def test_a_kind_alone_is_a_scheduler_and_is_stored_whole() -> None:
    sweep = Sweep.model_validate(SWEEP | {"scheduler": "asha"})
    assert sweep.scheduler == SchedulerSettings(kind="asha", by="success")
    assert Sweep.model_validate(sweep.model_dump(mode="json")) == sweep
    assert sweep.scheduler is not None
    assert sweep.scheduler.in_words(10_000) == "asha: about one trial in 3 goes on at each rung, by success, from step 1,000"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"scheduler": "pbd"}, r"scheduler\.kind = 'pbd': .*'asha', 'median' or 'pbt'"),
        (
            {"scheduler": {"kind": "asha", "by": "clip_return"}},
            r"scheduler\.by = 'clip_return': each model, prompt and reward has a",
        ),
        ({"scheduler": {"kind": "median", "reduction": 2}}, "reduction = 2 is no parameter of median"),
        ({"scheduler": {"kind": "asha", "least_trials": 2}}, "least_trials = 2 is no parameter of asha"),
        ({"scheduler": {"kind": "median", "quantile": 0.5}}, r"quantile = 0\.5 is no parameter of median"),
        ({"scheduler": {"kind": "pbt", "grace_steps": 5}}, "grace_steps = 5 is no parameter of pbt"),
        ({"scheduler": {"kind": "pbt", "by": "epic_distance"}}, "by = 'epic_distance' of pbt: it is known before training"),
        ({"scheduler": {"kind": "asha", "reduction": 1}}, "input should be greater than or equal to 1.1"),
        ({"scheduler": "asha", "trial": {}}, r"scheduler: .* set `trial\.evaluation_interval`, such as 1000"),
        ({"stop": {"success": 0.9}, "trial": {}}, r"stop: .* set `trial\.evaluation_interval`"),
        ({"scheduler": "asha", "trial": {"evaluation_interval": 10_000}}, "evaluated every 10,000 steps, .* only at the end"),
        ({"scheduler": "asha", "steps_per_result": 10_000}, r"in results of 10,000, .* lower .*`steps_per_result`"),
        ({"scheduler": {"kind": "asha", "by": "epic_distance"}}, "by = 'epic_distance' needs `epic_states`"),
        ({"scheduler": {"kind": "asha", "grace_steps": 10_000}}, r"scheduler\.grace_steps = 10000: expected less than steps"),
        ({"stop": {}}, "expected `success`, `true_return`, or both"),
        ({"stop": {"clip_return": 3}}, r"unknown key 'stop\.clip_return'"),
        ({"max_concurrent": 0}, "max_concurrent = 0: input should be greater than 0"),
        ({"time_budget_s": 0}, "time_budget_s = 0: input should be greater than 0"),
    ],
)
def test_what_could_not_decide_or_would_compare_scales_is_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        plan_of(SWEEP | changed)


def test_epic_distances_are_there_before_training_and_need_no_evaluation() -> None:
    plan_of(SWEEP | {"trial": {}, "epic_states": 100, "scheduler": {"kind": "median", "by": "epic_distance"}})


def test_success_of_a_task_that_does_not_know_it_is_refused() -> None:
    env = {"id": "Pendulum-v1", "episode_steps": 20}
    prompts = [{"id": "up", "goal": "a pole upright", "baseline": "a pole"}]
    unknown = {key: value for key, value in SWEEP.items() if key != "task"} | {"env": env, "prompts": prompts}
    with pytest.raises(UserError, match=r"scheduler\.by: Pendulum-v1 has no success test: expected 'true_return'"):
        plan_of(unknown | {"scheduler": "asha"})
    plan_of(unknown | {"scheduler": {"kind": "asha", "by": "true_return"}, "stop": {"true_return": -200}})


def test_a_dry_run_says_what_may_end_trials_early() -> None:
    plan = plan_of(SWEEP | {"scheduler": "median", "stop": {"success": 0.9}, "max_concurrent": 2, "time_budget_s": 60})
    said = plan.describe()
    assert "median: trials below the median of at least 3 others are stopped, by success, from step 1,000" in said
    assert "a trial ends when its greedy policy reaches success 0.9; references run to their end" in said
    assert "at most 2 trials run at once" in said
    assert "what has not finished 60 s after the first trial has started waits for --resume" in said
