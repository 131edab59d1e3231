"""What the trials of a sweep and its reward servers are told: plain data, made of the sweep file."""

from collections.abc import Mapping
from dataclasses import replace

from vlm_rm_sweeps.metrics import BestBy
from vlm_rm_sweeps.rewards.open_clip_models import find_model
from vlm_rm_sweeps.serving.pool import PoolConfig
from vlm_rm_sweeps.sweeping.config.sweep import Sweep, Trial
from vlm_rm_sweeps.sweeping.tracking.folder import SweepFolder
from vlm_rm_sweeps.training.audit import AuditPlan
from vlm_rm_sweeps.training.connectors.reward import RewardSource
from vlm_rm_sweeps.training.trial import TrainingJob


def pool_configs(sweep: Sweep, pool_name: str) -> dict[str, PoolConfig]:
    """The pool of each model of the sweep and its audit."""
    settings = sweep.pool.model_dump()
    return {model_id: PoolConfig(name=pool_name, model_id=model_id, **settings) for model_id in sweep.served_models()}


def training_job(sweep: Sweep, folder: SweepFolder, trial: Trial, pools: Mapping[str, PoolConfig]) -> TrainingJob:
    """What one trial is to do. UserError if its folder leads out of the sweep's."""
    spec = trial.spec()
    job = TrainingJob(
        task=sweep.the_task(),
        env=sweep.env,
        settings=sweep.settings,
        reward=None,
        seed=trial.seed,
        steps=sweep.steps_of(trial),
        steps_per_result=sweep.steps_per_result,
        evaluation_episodes=sweep.evaluation_episodes,
        folder=folder.trial(trial.trial_id).resolve(),
        checkpoint_every=sweep.checkpoint_every,
        best_by=_best_by(sweep, trial),
        audit=_audit(sweep, trial, pools),
        rendering=trial.rendering,
        env_runners=sweep.trial.env_runners,
    )
    if spec is None:
        return job
    frame_format = find_model(trial.model_id).preprocessing.frame_format
    return replace(job, reward=RewardSource(pools[trial.model_id], spec, frame_format, trial.rendering))


def _audit(sweep: Sweep, trial: Trial, pools: Mapping[str, PoolConfig]) -> AuditPlan | None:
    if sweep.audit is None or trial.prompt is None:
        return None
    # A model is no judge of itself.
    gold = tuple(pools[model_id] for model_id in sweep.audit.models if model_id != trial.model_id)
    return AuditPlan(sweep.audit_specs(trial), gold, sweep.audit.every, sweep.audit.frames)


def _best_by(sweep: Sweep, trial: Trial) -> BestBy:
    """What the sweep asks for, if this trial has it: the true return always is."""
    unknown = {"success": sweep.the_task().success_criterion is None, "clip_return": trial.prompt is None}
    return "true_return" if unknown.get(sweep.best_by, False) else sweep.best_by
