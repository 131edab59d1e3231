"""What a search may draw is checked before anything starts; the ids of its trials do not depend on what is drawn."""

from pathlib import Path
from typing import Any

import pytest
from small_sweeps import SWEEP

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.sweeping.config.plan import plan_of
from vlm_rm_sweeps.sweeping.config.screening import plan_file
from vlm_rm_sweeps.sweeping.config.sweep import Sweep
from vlm_rm_sweeps.sweeping.config.trial import Trial

SPACE = {"alpha": {"low": 0, "high": 1}, "settings.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}}
SEARCH: dict[str, Any] = SWEEP | {"alphas": [], "seeds": [0, 1], "search": {"space": SPACE, "samples": 3}}


def test_each_sample_has_a_trial_for_each_seed_whose_id_stays_when_it_is_drawn() -> None:
    plan = plan_of(SEARCH)
    trials = [trial for trial in plan.trials if trial.sample is not None]
    assert [(trial.sample.number, trial.seed) for trial in trials if trial.sample] == [
        (s, k) for s in (1, 2, 3) for k in (0, 1)
    ]
    assert len({trial.trial_id for trial in plan.trials}) == len(plan.trials)
    assert trials[2].known_alpha is None
    assert trials[2].label == "embedded/tiny, sample 2, prompt task, seed 0"

    drawn = plan.with_samples({2: {"alpha": 0.25, "settings.learning_rate": 0.003}})
    assert [trial.trial_id for trial in drawn.trials] == [trial.trial_id for trial in plan.trials]
    second = next(trial for trial in drawn.trials if trial.trial_id == trials[2].trial_id)
    assert second.known_alpha == 0.25
    assert second.label == "embedded/tiny, sample 2 (alpha 0.25, learning_rate 0.003), prompt task, seed 0"
    assert drawn.algorithm_of(second).learning_rate == 0.003
    assert drawn.algorithm_of(drawn.trials[-1]) == plan.algorithm
    assert Trial.from_dict(second.to_dict()) == second


def test_a_stored_search_can_be_read_again_and_plans_the_same_trials() -> None:
    plan = plan_of(SEARCH)
    stored = Sweep.model_validate(plan.sweep.model_dump(mode="json"))
    assert "learning_rate" not in stored.settings
    again = plan_of(stored.model_dump(mode="json"))
    assert [trial.trial_id for trial in again.with_ids_of(stored).trials] == [trial.trial_id for trial in plan.trials]


def test_the_dry_run_says_what_is_drawn() -> None:
    assert (
        "search: 3 samples, drawn by tpe for success: alpha: 0 to 1; settings.learning_rate: 0.0001 to 0.01 (logarithmic)"
        in plan_of(SEARCH).describe()
    )


def with_space(**space: Any) -> dict[str, Any]:
    return {"search": {"space": {key.replace("settings_", "settings."): values for key, values in space.items()}}}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"search": {"space": {}}}, "expected at least one of `alpha` and `settings.NAME`"),
        (with_space(alpha={"low": 0, "high": 2}), r"alpha must be in \[0, 1\], got 2"),
        (with_space(alpha=["a", "b"]), r"alpha = \['a', 'b'\]: expected numbers from 0 to 1"),
        (with_space(alpha=0.5), r"alpha = 0.5: expected a list of values, or a range: \{low: 0, high: 1\}"),
        (with_space(alpha=[0.5]), r"alpha = \[0.5\]: expected at least two values, each once"),
        (
            with_space(alpha={"low": 0, "high": 1, "env": 0}),
            r"unknown key 'alpha\.env' \(value 0\): expected one of low, high, log",
        ),
        (with_space(alpha={"low": 0}), r"'alpha\.high' is missing"),
        (with_space(alpha={"low": 1, "high": 0}), "low = 1 and high = 0: expected low to be less than high"),
        (
            with_space(alpha=[0, 1], settings_learning_rate={"low": 0, "high": 1, "log": True}),
            "logarithmic scale has only positive",
        ),
        (with_space(alpha=[0, 1], settings_learning_rate=[0.1, None]), "None cannot be drawn"),
        (
            with_space(alpha=[0, 1], settings_learning_rate={"low": -1, "high": 1}),
            r"settings\.learning_rate = -1: .*a setting of dqn",
        ),
        (
            with_space(alpha=[0, 1], settings_rollout_steps=[8, 1_000_000]),
            r"search\.space: settings: each trial would train 8,000,000 steps",
        ),
        (
            with_space(alpha=[0, 1], settings_learn_rate=[1, 2]),
            r"unknown key 'settings\.learn_rate'.* did you mean 'learning_rate'",
        ),
        (with_space(alpha=[0, 1], steps=[1, 2]), r"steps: expected `alpha`, or a setting of the algorithm"),
        ({"alphas": [0]}, "search: `alpha` is drawn and given"),
        ({"settings": {"learning_rate": 1e-3}}, r"search: settings\.learning_rate is drawn and given: leave out one of them"),
        ({"models": ["embedded/tiny", "embedded/small"]}, "search: found 2 models: a search is of one combination"),
        ({"epic_states": 30}, "search: `epic_states` measures rewards before alpha is drawn"),
        ({"search": {"space": SPACE, "sampler": "grid"}}, "search.sampler = 'grid'"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_words(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        plan_of(SEARCH | changed)


def test_a_screening_has_nothing_to_search_by() -> None:
    with pytest.raises(UserError, match="search: a screening trains nothing that could be searched by"):
        plan_file(Path("screening.yaml"), SEARCH | {"screen": {"states": "data/states"}})


def test_a_task_without_a_success_test_is_searched_by_true_return() -> None:
    pendulum: dict[str, Any] = {"task": None, "env": {"id": "Pendulum-v1", "episode_steps": 50}}
    pendulum |= {"prompts": [{"id": "up", "goal": "an upright pole", "baseline": "a pole"}]}
    with pytest.raises(UserError, match=r"search\.by: .* has no success test: expected 'true_return'"):
        plan_of(SEARCH | pendulum)
    plan_of(SEARCH | pendulum | {"search": {"space": {"alpha": [0, 1]}, "by": "true_return"}})
