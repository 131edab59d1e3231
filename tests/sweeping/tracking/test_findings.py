"""What a sweep found, in sentences: no more is claimed than its seeds show."""

import pandas as pd

from vlm_rm_sweeps.sweeping.tracking.findings import findings

KEYS = ["model", "alpha", "prompt", "seed", "success", "true_return", "status"]


def found(*rows: tuple[str, float, str, list[float]], status: str = "finished") -> str:
    """The findings of trials: model, alpha, prompt, and the success of each seed."""
    trials = [
        (model, alpha, prompt, seed, success, 100 * success, status)
        for model, alpha, prompt, rates in rows
        for seed, success in enumerate(rates)
    ]
    return " ".join(findings("a-task", pd.DataFrame(trials, columns=KEYS)))


def test_says_what_was_compared_what_won_by_how_much_and_how_sure() -> None:
    references = [("true reward", float("nan"), "-", [1.0, 1.0]), ("untrained", float("nan"), "-", [0.0, 0.1])]
    good, bad = [0.9, 0.95, 1.0, 0.9, 0.95], [0.1, 0.2, 0.15, 0.1, 0.2]
    said = found(*references, ("tiny", 0.0, "p", bad), ("small", 0.0, "p", good))
    assert said.startswith(
        "Compared on a-task: 2 models, 5 seeds each. Best is small, alpha 0, prompt p, with a success of 0.9"
    )
    assert "; next is tiny, alpha 0, prompt p, with a success of 0.1" in said
    assert "For comparison: true reward 1.00, untrained 0.05." in said
    assert said.endswith(
        "A run of the first has more success than one of the next with probability 1.00: 5 seeds tell the two apart (permutation test, "
        "p = 0.0079)."
    )


def test_trials_that_were_stopped_because_they_were_good_enough_count() -> None:
    said = found(("tiny", 0.0, "p", [0.2, 0.3]), ("small", 0.0, "p", [0.9, 0.95]), status="stopped")
    assert "Highest is small" in said
    assert "with probability 1.00: 2 seeds do not tell the two apart (permutation test, p = 0.33)." in said


def test_seeds_that_overlap_do_not_tell_two_combinations_apart() -> None:
    said = found(("tiny", 0.0, "p", [0.2, 0.9, 0.5]), ("tiny", 0.5, "p", [0.3, 0.8, 0.6]))
    assert "2 alphas, 3 seeds each" in said
    assert "(0.00 to 1.00): 3 seeds do not tell the two apart (permutation test, p = 1)." in said


def test_three_seeds_never_tell_two_combinations_apart() -> None:
    """Of 20 ways to divide six values, two are as far apart as the farthest."""
    three = found(("tiny", 0.0, "p", [0.0, 0.1, 0.2]), ("tiny", 0.5, "p", [0.8, 0.9, 1.0]))
    assert "Highest is tiny, alpha 0.5" in three
    assert "3 seeds do not tell" in three
    four = found(("tiny", 0.0, "p", [0.0, 0.1, 0.2, 0.3]), ("tiny", 0.5, "p", [0.8, 0.9, 1.0, 1.0]))
    assert "Best is tiny, alpha 0.5" in four
    assert "4 seeds tell" in four


def test_one_seed_claims_no_difference() -> None:
    said = found(("tiny", 0.0, "p", [0.2]), ("tiny", 0.5, "q", [1.0]))
    assert "2 alphas and 2 prompts, 2 combinations, 1 seed each" in said
    assert "Highest is tiny, alpha 0.5, prompt q" in said
    assert "With one seed this may be luck: no difference is claimed." in said
    assert "probability" not in said


def test_equally_good_combinations_are_not_ranked() -> None:
    said = found(*((model, 0.0, "p", [1.0]) for model in "abcdef"), ("g", 0.0, "p", [0.5]))
    assert "Six combinations are equally good, with a success of 1.00 and a true return of 100.0" in said
    assert said.count("prompt p") == 3
    assert "; 3 more." in said
    assert "next is" not in said


def test_a_combination_with_fewer_seeds_does_not_compete() -> None:
    said = found(("lucky", 0.0, "p", [1.0]), ("a", 0.0, "p", [0.5, 0.6]), ("b", 0.0, "p", [0.1, 0.2]))
    assert "Highest is a," in said
    assert "lucky" not in said


def test_one_combination_and_none() -> None:
    assert found(("tiny", 0.0, "p", [0.5])).startswith(
        "One combination was trained on a-task, from a sentence: tiny, alpha 0, prompt p"
    )
    references = [("true reward", float("nan"), "-", [1.0])]
    assert found(*references) == "Trained on a-task without a reward model, 1 seed each: true reward 1.00."
    failed = pd.DataFrame([("tiny", 0.0, "p", 0, float("nan"), float("nan"), "failed")], columns=KEYS)
    trials = pd.concat([pd.DataFrame([("true reward", float("nan"), "-", 0, 1.0, 100.0, "finished")], columns=KEYS), failed])
    assert " ".join(findings("a-task", trials)) == (
        "No trial that learns a-task from a reward model has finished. For comparison: true reward 1.00."
    )


def test_without_success_the_true_return_decides() -> None:
    trials = [
        (model, 0.0, "p", seed, float("nan"), value + seed, "finished")
        for model, value in (("a", 5), ("b", 90))
        for seed in (0, 1)
    ]
    said = " ".join(findings("t", pd.DataFrame(trials, columns=KEYS)))
    assert "Highest is b, alpha 0, prompt p, with a true return of 90.5 (90.0 to 91.0)" in said
    assert "has more true return than one of the next with probability 1.00" in said
