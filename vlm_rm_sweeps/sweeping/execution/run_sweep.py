"""Runs a sweep: starts the reward pools, then runs the trials.

A sweep is a list of independent trials, each of which resumes from its own folder. Resuming a sweep therefore means running its
unfinished trials. Tune's own snapshots are not used: they would have to be unpickled, and contain neither replay buffers nor
MLflow runs.
"""

import os
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pandas as pd
import ray
from ray.actor import ActorHandle

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.metrics import RunStatus
from vlm_rm_sweeps.serving.cluster import ray_cluster
from vlm_rm_sweeps.serving.pool import PoolConfig, await_pool, check_placement, start_pool
from vlm_rm_sweeps.sweeping.config.labelled_states import read_labelled
from vlm_rm_sweeps.sweeping.config.plan import Plan, make_plan
from vlm_rm_sweeps.sweeping.config.sections import LabelledStates
from vlm_rm_sweeps.sweeping.config.sweep import Sweep
from vlm_rm_sweeps.sweeping.execution.reward_metrics import known_measures, measure_sweep
from vlm_rm_sweeps.sweeping.execution.sweep_run import Remaining, SweepRun
from vlm_rm_sweeps.sweeping.execution.trial_jobs import pool_configs
from vlm_rm_sweeps.sweeping.tracking.folder import SweepFolder
from vlm_rm_sweeps.sweeping.tracking.journal import ended_trials, read_entries
from vlm_rm_sweeps.sweeping.tracking.mlflow_store import default_tracking_uri, set_up_store
from vlm_rm_sweeps.sweeping.tracking.results import SweepOutcome
from vlm_rm_sweeps.tasks.opengl import choose_backend


def check_resumable(plan: Plan, folder: SweepFolder) -> None:
    """Check that a plan is that of the sweep in a folder, so that it can be resumed.

    Args:
        plan: The plan of the sweep file as it is now.
        folder: The folder of the sweep to resume.

    Raises:
        UserError: They differ; the message has the differences.
    """
    differences = folder.differences(plan)
    if differences:
        raise UserError(
            f"the sweep in {folder.path} cannot be resumed, because its sweep file has changed since. Undo the changes, or start a new "
            f"sweep with --new:\n{differences}"
        )


def run_sweep(
    sweep: Sweep | Plan,
    results: Path = Path("results"),
    tracking_uri: str | None = None,
    say: Callable[[str], None] = print,
    resumed: SweepFolder | None = None,
) -> SweepOutcome:
    """Run all trials of a sweep into a new folder, or resume the one in `resumed`.

    A resumed sweep keeps its finished trials, continues the others from their last checkpoints (failed ones are retried), and
    writes into the same MLflow runs. Ray is started on this machine unless it runs already or `RAY_ADDRESS` names a cluster.

    Args:
        sweep: The sweep, or its plan.
        results: The folder below which the sweep gets a folder of its own.
        tracking_uri: The MLflow server or database; by default a SQLite database in `results`.
        say: Prints a line of progress.
        resumed: The folder of the sweep to resume; None starts a new one.

    Returns:
        The outcome of each trial. A trial that fails does not stop the others.

    Raises:
        UserError: The sweep names something that does not exist, the task draws with OpenGL and there is none, Ray does not
            start, the servers and one trial cannot be placed, a model cannot be loaded, or the resumed folder is in use or of
            another sweep. Nothing is left behind then.
    """
    plan = sweep if isinstance(sweep, Plan) else make_plan(sweep)
    folder = resumed or SweepFolder.new(plan.sweep, results)
    try:
        return _run_sweep(plan, folder, tracking_uri or default_tracking_uri(results), say, resumed)
    except KeyboardInterrupt:
        # While trials run, Tune handles the first Ctrl-C and ends them in order. This one came before or after, or is the
        # second.
        if not folder.sweep_file.is_file():
            say("interrupted before the sweep began: nothing was written")
            raise
        finished = sum(status == RunStatus.FINISHED for status in ended_trials(read_entries(folder.journal)).values())
        state = f"interrupted: {finished} of {len(plan.trials)} trials have finished"
        say(f"{state}; the same command with --resume, and without --new, continues")
        raise


def _run_sweep(
    plan: Plan, folder: SweepFolder, tracking_uri: str, say: Callable[[str], None], resumed: SweepFolder | None
) -> SweepOutcome:
    with ExitStack() as cleanup:
        if resumed:
            check_resumable(plan, resumed)
            cleanup.enter_context(resumed.locked())
            _set_up_store_if_it_answers(tracking_uri, say)
        needed = bool(Remaining.of(plan, folder))
        pools, servers = _start_pools(plan, folder, say, cleanup) if needed else ({}, {})
        if not resumed:
            set_up_store(tracking_uri)  # takes seconds, in which the servers load their models
        for model_id, pool in pools.items():
            await_pool(pool, servers[model_id], plan.served_specs())
        measured = _measured(plan, folder, pools, say) if needed else None
        if not resumed:
            folder.create(plan.sweep)
            cleanup.enter_context(folder.locked())
        run = cleanup.enter_context(SweepRun(plan, folder, tracking_uri, say))
        if needed:
            run.run(pools, measured)
        return run.outcome()


def _set_up_store_if_it_answers(tracking_uri: str, say: Callable[[str], None]) -> None:
    try:
        set_up_store(tracking_uri)
    except UserError as error:  # the results wait in the journal
        say(f"{error}. The sweep continues without it")


def _start_pools(
    plan: Plan, folder: SweepFolder, say: Callable[[str], None], cleanup: ExitStack
) -> tuple[dict[str, PoolConfig], dict[str, list[ActorHandle]]]:
    """Start Ray and the servers of each model, without waiting for them; `cleanup` stops them."""
    if isinstance(plan.sweep.epic_states, LabelledStates) and known_measures(folder.epic) is None:
        read_labelled(plan.sweep.epic_states, plan, "epic_states")  # reports its problems before anything starts
    # On a cluster the trials draw on its nodes, and this machine may have no OpenGL of its own.
    if plan.task.draws_with_opengl and not os.environ.get("RAY_ADDRESS"):
        choose_backend()
    cleanup.enter_context(ray_cluster(say))
    # A unique name: the servers of a killed driver may still be running.
    pools = pool_configs(plan, f"{folder.path.name}-{uuid.uuid4().hex[:6]}")
    reserved = plan.sweep.trial
    check_placement(list(pools.values()), reserved.cpus, reserved.gpus, reserved.env_runners)
    say(f"starting {plan.sweep.pool.servers} reward server(s) of each of {', '.join(pools)}")
    servers = {model_id: start_pool(pool, plan.models[model_id]) for model_id, pool in pools.items()}
    cleanup.callback(lambda: [ray.kill(server) for started in servers.values() for server in started])
    return pools, servers


def _measured(plan: Plan, folder: SweepFolder, pools: dict[str, PoolConfig], say: Callable[[str], None]) -> pd.DataFrame | None:
    """Return the EPIC distances from before training; None if the sweep measures none."""
    if not plan.sweep.epic_states:
        return None
    known = known_measures(folder.epic)
    if known is not None:
        return known
    say(f"measuring the reward models on {plan.sweep.described_epic_states()}")
    return measure_sweep(plan, pools)
