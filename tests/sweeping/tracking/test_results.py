"""The table of a sweep, and its best trial."""

from pathlib import Path

import pytest
from small_sweeps import SWEEP

from vlm_rm_sweeps.metrics import TrialStatus
from vlm_rm_sweeps.sweeping.config.plan import plan_of
from vlm_rm_sweeps.sweeping.config.sections import Prompt
from vlm_rm_sweeps.sweeping.config.trial import TRUE_REWARD, Trial
from vlm_rm_sweeps.sweeping.tracking.findings import within_model
from vlm_rm_sweeps.sweeping.tracking.journal import TakenOver
from vlm_rm_sweeps.sweeping.tracking.results import TrialOutcome, best_cells, cells_of, read_results, results_table
from vlm_rm_sweeps.tasks.rendering import Rendering


def outcome_of(model_id: str, status: TrialStatus = TrialStatus.FINISHED, seed: int = 0, **metrics: float) -> TrialOutcome:
    prompt = Prompt(id="p", goal=("a",), baseline=("b",))
    trial = Trial.of(model_id, 0.5, None if model_id == TRUE_REWARD else prompt, Rendering(), seed)
    return TrialOutcome(trial, status, "", {f"evaluation_{name}": value for name, value in metrics.items()})


def test_the_best_trial_is_never_chosen_by_clip_return() -> None:
    """Scales differ between models; the reference does not compete, nor does a trial that did not finish."""
    outcomes = [
        outcome_of(TRUE_REWARD, success=1.0, true_return=200),
        outcome_of("a", success=0.5, true_return=120, clip_return=190),
        outcome_of("b", success=0.9, true_return=150, clip_return=20),
        outcome_of("c", success=0.9, true_return=170, clip_return=10),
        outcome_of("d", status=TrialStatus.FAILED, success=1.0, true_return=200),
    ]
    (best,) = best_cells(outcomes)
    assert best.outcomes[0].trial.model_id == "c"
    assert results_table(outcomes)["clip_return"].tolist()[1:4] == [190, 20, 10]


def test_combinations_that_are_exactly_as_good_are_best_together() -> None:
    outcomes = [
        outcome_of("a", success=0.9, true_return=10),
        outcome_of("b", success=1.0, true_return=20),
        outcome_of("c", success=1.0, true_return=20),
    ]
    assert [cell.outcomes[0].trial.model_id for cell in best_cells(outcomes)] == ["b", "c"]
    assert best_cells(outcomes[:0]) == []


def test_where_success_is_unknown_the_best_trial_is_by_true_return() -> None:
    outcomes = [outcome_of("a", true_return=-900, clip_return=9), outcome_of("b", true_return=-300, clip_return=1)]
    (best,) = best_cells(outcomes)
    assert best.outcomes[0].trial.model_id == "b"
    assert results_table(outcomes)["success"].isna().all()


def test_the_table_names_renderings_only_where_they_are_compared() -> None:
    compared = plan_of(SWEEP | {"task": "mountaincar-summit", "textures": ["modified", "original"]})
    table = results_table([TrialOutcome(trial, TrialStatus.FINISHED, "", {}) for trial in compared.trials])
    assert table["textures"].tolist() == ["modified", "modified", "original"]
    assert not {"textures", "camera"} & set(results_table([outcome_of("a")]).columns)


def test_drift_is_a_column_where_a_trial_has_it() -> None:
    drifting = outcome_of("distilled/s")
    drifting.metrics["audit_column/drift"] = 0.25
    assert results_table([drifting])["audit_column/drift"].tolist() == [0.25]
    assert "audit_column/drift" not in results_table([outcome_of("a")])


def test_the_best_of_several_seeds_is_the_best_mean_not_the_luckiest_seed() -> None:
    outcomes = [
        outcome_of("lucky", seed=0, success=1.0, true_return=200),
        outcome_of("lucky", seed=1, success=0.0, true_return=10),
        outcome_of("steady", seed=0, success=0.7, true_return=120),
        outcome_of("steady", seed=1, success=0.8, true_return=130),
        outcome_of("half", seed=0, success=1.0, true_return=200),
        outcome_of("half", seed=1, status=TrialStatus.FAILED),
    ]
    (best,) = best_cells(outcomes)
    assert best.label == "steady, alpha 0.5, prompt p, over seeds 0, 1"
    assert best.metrics == {"evaluation_success": 0.75, "evaluation_true_return": 125}
    (alone,) = best_cells(outcomes[:1])
    assert alone.label == outcomes[0].trial.label


def test_an_evaluation_of_the_middle_is_no_result() -> None:
    table = results_table([outcome_of("a", success=1.0), outcome_of("b", TrialStatus.FAILED, success=1.0)])
    assert table["success"].isna().tolist() == [False, True]


def test_combinations_are_compared_by_what_is_left_without_lucky_and_unlucky_seeds() -> None:
    rates = {"lucky": (0.5, 0.5, 0.5, 1.0), "steady": (0.55, 0.6, 0.55, 0.6)}
    outcomes = [
        outcome_of(model_id, seed=seed, success=rate, true_return=10)
        for model_id, of_seeds in rates.items()
        for seed, rate in enumerate(of_seeds)
    ]
    table = cells_of(results_table([outcome_of(TRUE_REWARD, success=1.0, true_return=200), *outcomes])).set_index("model")
    assert table["seeds"].to_dict() == {TRUE_REWARD: 1, "lucky": 4, "steady": 4}
    assert table["success_iqm"].to_dict() == pytest.approx({TRUE_REWARD: 1.0, "lucky": 0.5, "steady": 0.575})
    ((low, high),) = table.loc[["steady"], ["success_low", "success_high"]].to_numpy().tolist()
    assert low < 0.575 < high
    (best,) = best_cells(outcomes)
    assert best.outcomes[0].trial.model_id == "steady", "the mean of the other is larger, by one seed"


def test_one_seed_has_no_interval_nor_have_equal_seeds() -> None:
    alone = cells_of(results_table([outcome_of("a", success=0.5, true_return=9)]))
    equal = cells_of(results_table([outcome_of("a", seed=seed, success=1.0, true_return=9) for seed in (0, 1)]))
    unfinished = cells_of(results_table([outcome_of("a", TrialStatus.FAILED, success=1.0)]))
    for table in (alone, equal, unfinished):
        assert table[["success_low", "success_high", "true_return_low"]].isna().all(axis=None)
    assert (alone["seeds"][0], equal["seeds"][0], unfinished["seeds"][0]) == (1, 2, 0)
    assert unfinished["success_iqm"].isna().all()


def test_the_table_says_what_takeovers_made_of_the_values_that_a_trial_is_named_by(tmp_path: Path) -> None:
    space = {"settings.learning_rate": {"low": 1e-4, "high": 1e-2}}
    search = {"space": space, "samples": 2}
    plan = plan_of(SWEEP | {"search": search}).with_samples(
        {1: {"settings.learning_rate": 1e-3}, 2: {"settings.learning_rate": 5e-3}}
    )
    takeovers = tuple(
        TakenOver(trial="x", step=step, source="y", source_step=step, values={"settings.learning_rate": rate})
        for step, rate in ((100, 4e-3), (200, 6e-3))
    )
    reference, first, second = (
        TrialOutcome(trial, TrialStatus.FINISHED, "", {"evaluation_success": 0.1 * number, "evaluation_true_return": 1.0})
        for number, trial in enumerate(plan.trials)
    )
    plain = results_table([reference, first, second])
    assert not [name for name in map(str, plain) if name == "takeovers" or name.startswith("at_end.")]
    second = TrialOutcome(second.trial, second.status, "", second.metrics, takeovers)
    table = results_table([reference, first, second])
    assert table["settings.learning_rate"].tolist()[1:] == [1e-3, 5e-3]
    assert table["at_end.learning_rate"].tolist()[1:] == [1e-3, 6e-3]
    assert table["takeovers"].tolist()[1:] == [0, 2]
    assert table[["takeovers", "at_end.learning_rate"]].iloc[0].isna().all()
    table.to_csv(tmp_path / "trials.csv", index=False)
    assert read_results(tmp_path / "trials.csv")["at_end.learning_rate"].tolist()[1:] == [1e-3, 6e-3]
    cells = cells_of(table)
    assert cells["takeovers"].tolist()[1:] == [0, 2]
    kept, changed = (within_model(row) for row in cells.to_dict("records")[1:])
    assert kept[-1] == "learning_rate 0.001"
    assert changed[-2:] == ["learning_rate 0.005 at first", "2 takeovers"]
    (best,) = best_cells([first, second])
    assert best.label.endswith("sample 2 (learning_rate 0.005), prompt task, seed 0 (values at first, 2 takeovers since)")
