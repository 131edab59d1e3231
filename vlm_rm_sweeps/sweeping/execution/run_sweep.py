"""Runs a sweep: starts the reward pools, and has an attempt run the trials.

A sweep is a list of plain trials, each of which knows from its own folder how far it is. So to go on with a sweep is to run
those of its trials that have not finished; Tune's own snapshots, which would have to be unpickled and know nothing of replay
buffers and MLflow runs, are not used.
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
from vlm_rm_sweeps.serving.pool import PoolConfig, await_pool, check_placement, start_pool
from vlm_rm_sweeps.sweeping.config.labelled_states import read_labelled
from vlm_rm_sweeps.sweeping.config.sweep import LabelledStates, Sweep
from vlm_rm_sweeps.sweeping.execution.cluster import ray_cluster
from vlm_rm_sweeps.sweeping.execution.reward_metrics import known_measures, measure_sweep
from vlm_rm_sweeps.sweeping.execution.sweep_run import Attempt
from vlm_rm_sweeps.sweeping.execution.trial_jobs import pool_configs
from vlm_rm_sweeps.sweeping.tracking.folder import SweepFolder
from vlm_rm_sweeps.sweeping.tracking.journal import ended_trials, read_entries
from vlm_rm_sweeps.sweeping.tracking.mlflow_mirror import set_up_store
from vlm_rm_sweeps.sweeping.tracking.results import SweepOutcome
from vlm_rm_sweeps.tasks.opengl import choose_backend


def check_resumable(sweep: Sweep, folder: SweepFolder) -> None:
    """UserError, with the differences, if the sweep in the folder is not this one."""
    differences = folder.differences(sweep)
    if differences:
        raise UserError(
            f"the sweep in {folder.path} cannot be resumed, because its sweep file has changed since. Undo the changes, or start a new "
            f"sweep with --new:\n{differences}"
        )


def run_sweep(
    sweep: Sweep, results: Path, tracking_uri: str, say: Callable[[str], None], resumed: SweepFolder | None = None
) -> SweepOutcome:
    """Run all trials of a checked sweep into a new folder below `results`, or go on with the one in `resumed`.

    A resumed sweep keeps its finished trials, goes on with the others from their last checkpoints (failed ones are tried
    again), and writes into the same MLflow runs. Starts Ray on this machine unless `RAY_ADDRESS` names a cluster.

    Raises UserError if the task is drawn with OpenGL here and there is none, Ray does not start, the servers and one trial cannot be
    placed, a model cannot be loaded, or the resumed folder is in use or of another sweep; nothing is left behind then. A trial
    that fails does not stop the others.
    """
    folder = resumed or SweepFolder.named(sweep, results)
    try:
        return _run_sweep(sweep, folder, tracking_uri, say, resumed)
    except KeyboardInterrupt:
        # While trials run, Tune ends them in order and returns, the first time: this is before or after them, or the second.
        finished = sum(status == "FINISHED" for status in ended_trials(read_entries(folder.journal)).values())
        say(f"interrupted: {finished} of {len(sweep.trials())} trials are finished; the same command with --resume goes on")
        raise


def _run_sweep(
    sweep: Sweep, folder: SweepFolder, tracking_uri: str, say: Callable[[str], None], resumed: SweepFolder | None
) -> SweepOutcome:
    with ExitStack() as cleanup:
        attempt = None
        if resumed:
            check_resumable(sweep, resumed)
            cleanup.enter_context(resumed.locked())
            try:
                set_up_store(tracking_uri)
            except UserError as error:  # its results can wait for it
                say(f"{error}. The sweep goes on without it")
            attempt = cleanup.enter_context(Attempt(sweep, folder, tracking_uri, say))
            if not attempt.needs_servers:
                return attempt.outcome()
        if isinstance(sweep.epic_states, LabelledStates) and known_measures(folder.epic) is None:
            read_labelled(sweep.epic_states, sweep, "epic_states")  # what is wrong with it is said before anything starts
        # On a cluster the trials draw on its nodes, and this machine may have no OpenGL of its own.
        if sweep.the_task().draws_with_opengl and not os.environ.get("RAY_ADDRESS"):
            choose_backend()
        cleanup.enter_context(ray_cluster(say))
        pools, servers = _serve(sweep, folder.path.name, say, cleanup)
        if not resumed:
            # The database takes seconds to set up: while the servers load their models.
            set_up_store(tracking_uri)
        for model_id, pool in pools.items():
            await_pool(pool, servers[model_id], sweep.served_specs())
        measured = _measured(sweep, folder, pools, say)
        if attempt is None:
            folder.create(sweep)
            cleanup.enter_context(folder.locked())
            attempt = cleanup.enter_context(Attempt(sweep, folder, tracking_uri, say))
        attempt.run(pools, measured)
        return attempt.outcome()


def _serve(
    sweep: Sweep, name: str, say: Callable[[str], None], cleanup: ExitStack
) -> tuple[dict[str, PoolConfig], dict[str, list[ActorHandle]]]:
    """Start the servers of each model, without waiting for them; `cleanup` ends them."""
    # A name of its own: the servers of a driver that was killed may not be gone yet.
    pools = pool_configs(sweep, f"{name}-{uuid.uuid4().hex[:6]}")
    check_placement(list(pools.values()), sweep.trial.cpus, sweep.trial.gpus, sweep.trial.env_runners)
    say(f"starting {sweep.pool.servers} reward server(s) of each of {', '.join(pools)}")
    servers = {model_id: start_pool(pool) for model_id, pool in pools.items()}
    cleanup.callback(lambda: [ray.kill(server) for started in servers.values() for server in started])
    return pools, servers


def _measured(
    sweep: Sweep, folder: SweepFolder, pools: dict[str, PoolConfig], say: Callable[[str], None]
) -> pd.DataFrame | None:
    """What the sweep measures before training; None if it measures nothing."""
    if not sweep.epic_states:
        return None
    known = known_measures(folder.epic)
    if known is not None:
        return known
    say(f"measuring the reward models on {sweep.described_epic_states()}")
    return measure_sweep(sweep, pools)
