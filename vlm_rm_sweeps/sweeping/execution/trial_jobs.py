"""Builds each trial's job from the plan: plain data for its process."""

from collections.abc import Mapping
from dataclasses import replace

from vlm_rm_sweeps.metrics import BestBy
from vlm_rm_sweeps.serving.nodes import InCommon
from vlm_rm_sweeps.serving.pool import PoolConfig
from vlm_rm_sweeps.sweeping.config.plan import Plan
from vlm_rm_sweeps.sweeping.config.trial import Trial
from vlm_rm_sweeps.sweeping.tracking.folder import SweepFolder
from vlm_rm_sweeps.sweeping.tracking.journal import TakenOver
from vlm_rm_sweeps.training.audit import AuditPlan
from vlm_rm_sweeps.training.connectors.reward import RewardSource
from vlm_rm_sweeps.training.trial import Takeover, TrainingJob


def training_job(
    plan: Plan,
    folder: SweepFolder,
    trial: Trial,
    pools: Mapping[str, PoolConfig],
    takeover: TakenOver | None = None,
) -> TrainingJob:
    """Build the job of one trial.

    Args:
        plan: The sweep.
        folder: The sweep's folder.
        trial: One of the plan's trials.
        pools: The pool of each model, by model id.
        takeover: The trial's last takeover of another training, with other values; None if it had none.

    Returns:
        The job. Its reward is None for a reference.

    Raises:
        UserError: The trial's folder leads out of the sweep's.
    """
    sweep, spec = plan.sweep, trial.spec()
    job = TrainingJob(
        task=plan.task,
        env=sweep.env,
        settings=plan.algorithm_of(trial) if takeover is None else plan.algorithm_with(takeover.values),
        reward=None,
        seed=trial.seed,
        steps=plan.steps_of(trial),
        steps_per_result=sweep.steps_per_result,
        evaluation_episodes=sweep.evaluation_episodes,
        folder=folder.trial_place(trial.trial_id),
        checkpoint_every=sweep.checkpoint_every,
        best_by=_best_by(plan, trial),
        audit=_audit(plan, trial, pools),
        rendering=trial.rendering,
        env_runners=sweep.trial.env_runners,
        learns_on_gpu=sweep.trial.learner == "gpu",
        evaluation_interval=sweep.trial.evaluation_interval,
        goals=sweep.stop.goals if sweep.stop is not None and spec is not None else {},
        in_common=InCommon(folder.sweep_file_place),
        label=trial.label,
        compared_every=sweep.compared_every if trial.sample is not None else None,
        takeover=Takeover(folder.trial_place(takeover.source), takeover.source_step) if takeover is not None else None,
    )
    if spec is None:
        return job
    pool, label = pools[trial.model_id], trial.reward.label if trial.reward else None
    source = RewardSource(pool, spec, pool.frame_format, trial.rendering, label, sweep.score_every, sweep.score_between)
    return replace(job, reward=source)


def _audit(plan: Plan, trial: Trial, pools: Mapping[str, PoolConfig]) -> AuditPlan | None:
    audit, spec = plan.sweep.audit, trial.spec()
    if audit is None or audit.every is None or spec is None:
        return None
    judged_by = {pools[model_id]: judged for model_id, judged in plan.gold_specs(trial).items()}
    other = {pool.model_id: judged for pool, judged in judged_by.items() if judged != spec}
    columns = {name: spec.column(name) for name in pools[trial.model_id].columns}
    return AuditPlan(plan.audit_specs(trial), tuple(judged_by), audit.every, audit.frames, columns, other)


def _best_by(plan: Plan, trial: Trial) -> BestBy:
    """Return the sweep's `best_by` if this trial has that metric, else the true return, which always exists."""
    unknown = {"success": plan.task.success_criterion is None, "clip_return": trial.prompt is None}
    return "true_return" if unknown.get(plan.sweep.best_by, False) else plan.sweep.best_by
