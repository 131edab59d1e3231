"""What a trial's process is told, as plain data."""

from pathlib import Path

from small_sweeps import SWEEP

from vlm_rm_sweeps.sweeping.config.plan import plan_of
from vlm_rm_sweeps.sweeping.execution.pools import pool_configs
from vlm_rm_sweeps.sweeping.execution.trial_jobs import training_job
from vlm_rm_sweeps.sweeping.tracking.folder import SweepFolder


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
