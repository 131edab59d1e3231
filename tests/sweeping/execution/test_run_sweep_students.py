"""A small real sweep of a distilled model: the audit says where its policy goes to states that the student does not know."""

from pathlib import Path

import pytest
from small_sweeps import SWEEP

from vlm_rm_sweeps.pretraining.distill import distill
from vlm_rm_sweeps.rewards.distilled import STUDENT_FILE
from vlm_rm_sweeps.rewards.known_states import AUDIT_DRIFT, REMARKABLE
from vlm_rm_sweeps.sweeping.config.plan import plan_of
from vlm_rm_sweeps.sweeping.execution.run_sweep import run_sweep
from vlm_rm_sweeps.sweeping.tracking.report import write_report
from vlm_rm_sweeps.tasks.registry import find_task


@pytest.mark.sweeps
def test_the_training_says_that_its_policy_went_where_the_student_does_not_know_the_states(
    tmp_path: Path, ray_cluster: None, mlflow_database: Path
) -> None:
    student, said = tmp_path / "student", list[str]()
    # So few images and epochs that many of a policy's frames are unlike those that it has learned from.
    distill(
        "embedded/base",
        find_task("cartpole-upright"),
        "embedded/tiny",
        [],
        images=100,
        epochs=1,
        seed=0,
        folder=student,
        say=lambda line: None,
    )
    keys = SWEEP | {
        "name": "student",
        "models": [f"distilled/{student / STUDENT_FILE}"],
        "true_reward": False,
        "videos": False,
        "audit": {"alphas": [0.25], "every": 128},
    }
    outcome = run_sweep(plan_of(keys), tmp_path / "results", f"sqlite:///{mlflow_database}", said.append)
    (trial,) = outcome.outcomes
    share = trial.metrics[AUDIT_DRIFT]
    assert share > REMARKABLE
    assert outcome.table[AUDIT_DRIFT].tolist() == [share]
    (told,) = [line for line in said if "drift at step" in line]
    assert trial.trial.label in told
    assert "unlike those that it was trained on" in told
    assert "vlm-rm distill --states" in told
    page = write_report(outcome.folder).read_text(encoding="utf-8")
    assert f"In 1 of 1 audited trials of distilled models, more than {100 * REMARKABLE:g} %" in page
