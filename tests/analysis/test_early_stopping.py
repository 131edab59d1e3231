"""Recorded sweeps are repeated under a scheduler from their journals alone."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "analysis"))

from early_stopping import Recorded, recorded, repeat

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.metrics import RunStatus
from vlm_rm_sweeps.sweeping.config.stopping import SchedulerSettings
from vlm_rm_sweeps.sweeping.tracking.journal import Journal, ResultLogged, TrialEnded

ASHA = SchedulerSettings(kind="asha", reduction=2, grace_steps=100)


def learned(values: dict[str, list[float]]) -> Recorded:
    """Trials with a greedy success at each hundred steps."""
    results = {
        trial: [
            (100 * (number + 1), {"evaluation_success": value, "evaluation_true_return": value})
            for number, value in enumerate(each)
        ]
        for trial, each in values.items()
    }
    return Recorded(results, {})


def test_trials_that_are_ordered_from_the_start_save_steps_and_keep_the_winner() -> None:
    sweep = learned({name: [rank / 10] * 10 for rank, name in enumerate("abcdefgh")})
    found = repeat(sweep, ASHA, orders=20, concurrent=2)
    assert sweep.winner == "h"
    assert found.saved > 0.2
    assert found.winner_stopped == 0


def test_a_winner_that_starts_slowly_is_stopped() -> None:
    sweep = learned({"early": [0.5] * 10, "middle": [0.4] * 10, "late": [0.0] * 9 + [1.0]})
    found = repeat(sweep, ASHA, orders=50, concurrent=3)
    assert sweep.winner == "late"
    assert 0.3 < found.winner_stopped < 1  # it goes on if it is the first to come so far


def test_distances_that_were_not_measured_are_no_ranking() -> None:
    with pytest.raises(UserError, match="this sweep measured none before training"):
        repeat(learned({"a": [0.1], "b": [0.2]}), SchedulerSettings(kind="asha", by="epic_distance"), orders=1, concurrent=1)


def test_only_finished_trials_with_a_reward_model_are_compared(tmp_path: Path) -> None:
    rows = ["trial_id,model,alpha,prompt,seed,true_return,success,status,reason"]
    rows += ["r,true reward,,-,0,9,1,finished,", "a,m,0.5,task,0,9,1,finished,", "b,m,0.5,task,1,9,1,finished,"]
    rows += ["c,m,0.5,task,2,,,unfinished,interrupted"]
    (tmp_path / "trials.csv").write_text("\n".join(rows) + "\n")
    journal = Journal(tmp_path / "journal.jsonl")
    for trial in "rabc":
        journal.append(ResultLogged(trial=trial, step=100, metrics={"success": 0.5}))
        if trial != "c":
            journal.append(TrialEnded(trial=trial, status=RunStatus.FINISHED, tags={}))
    found = recorded(tmp_path)
    assert sorted(found.results) == ["a", "b"]
    assert not found.is_greedy


def test_a_folder_without_a_journal_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no journal: expected the folder of a sweep"):
        recorded(tmp_path)
