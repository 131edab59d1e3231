"""What a trial's process is told, as plain data."""

from pathlib import Path

import pytest
from small_sweeps import SWEEP

from vlm_rm_sweeps.sweeping.config.plan import plan_of
from vlm_rm_sweeps.sweeping.execution.pools import pool_configs
from vlm_rm_sweeps.sweeping.execution.trial_jobs import training_job
from vlm_rm_sweeps.sweeping.tracking.folder import SweepFolder
from vlm_rm_sweeps.sweeping.tracking.journal import TakenOver
from vlm_rm_sweeps.training.trial import Takeover


def test_an_audit_asks_for_the_models_own_columns(tmp_path: Path) -> None:
    audited = {"models": ["embedded/tiny", "own_rewards:Sceptical"], "audit": {"alphas": [0.0]}}
    plan = plan_of(SWEEP | audited)
    pools = pool_configs(plan, "pool")
    jobs = [training_job(plan, SweepFolder(tmp_path), trial, pools) for trial in plan.trials]
    audits = [(trial, job.audit) for trial, job in zip(plan.trials, jobs, strict=True)]
    columns = {trial.model_id: audit.columns for trial, audit in audits if audit is not None}
    (spec,) = {trial.spec() for trial, audit in audits if audit is not None}
    assert spec is not None
    assert columns == {"embedded/tiny": {}, "own_rewards:Sceptical": {"dark": spec.column("dark")}}
    assert [trial.model_id for trial, audit in audits if audit is None] == ["true reward"]


def test_a_judge_without_embeddings_is_asked_about_goal_and_baseline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    softmax = {"kind": "softmax", "negatives": ["pole hanging down"], "name": "softmax"}
    rewards = [softmax, {"kind": "history", "name": "last"}, {"kind": "goal_baseline", "alpha": 0.5, "name": "half"}]
    keys = SWEEP | {"alphas": [], "rewards": rewards, "audit": {"models": ["openai/vlm"]}, "true_reward": False}
    plan = plan_of(keys)
    pools = pool_configs(plan, "pool")
    audits = [training_job(plan, SweepFolder(tmp_path), trial, pools).audit for trial in plan.trials]
    by_prompts = {"openai/vlm": plan.prompts[0].spec(0.0)}
    assert [audit and dict(audit.judged_by) for audit in audits] == [by_prompts, by_prompts, {}]
    assert "openai/vlm cannot compute the reward softmax, last: it judges by goal and baseline alone" in plan.describe()


def test_a_takeover_names_the_other_training_and_its_new_values(tmp_path: Path) -> None:
    space = {"settings.learning_rate": {"low": 1e-4, "high": 1e-2}}
    plan = plan_of(
        SWEEP
        | {"search": {"space": space, "samples": 2}, "trial": {"evaluation_interval": 128}}
        | {"scheduler": {"kind": "pbt", "quantile": 0.5, "interval_steps": 128}}
    ).with_samples({number: {"settings.learning_rate": number / 1000} for number in (1, 2)})
    reference, first, second = plan.trials
    pools, folder = pool_configs(plan, "pool"), SweepFolder(tmp_path)
    jobs = [training_job(plan, folder, trial, pools) for trial in (reference, first, second)]
    assert [job.compared_every for job in jobs] == [None, 128, 128]
    assert [job.takeover for job in jobs] == [None] * 3
    assert [job.settings.learning_rate for job in jobs] == [1e-3, 1e-3, 2e-3]
    takeover = TakenOver(
        trial=first.trial_id, step=128, source=second.trial_id, source_step=128, values={"settings.learning_rate": 3e-3}
    )
    job = training_job(plan, folder, first, pools, takeover)
    assert job.takeover == Takeover(folder.trial(second.trial_id).resolve(), 128)
    assert job.settings.learning_rate == 3e-3


def test_a_trial_learns_on_a_gpu_where_the_sweep_file_says_so(tmp_path: Path) -> None:
    for trial, learns_on_gpu in (({}, False), ({"gpus": 0.5}, False), ({"gpus": 0.5, "learner": "gpu"}, True)):
        plan = plan_of(SWEEP | {"trial": trial})
        pools = pool_configs(plan, "pool")
        jobs = [training_job(plan, SweepFolder(tmp_path), each, pools) for each in plan.trials]
        assert {job.learns_on_gpu for job in jobs} == {learns_on_gpu}
