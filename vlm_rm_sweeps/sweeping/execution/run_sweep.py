"""Runs a sweep: starts the reward pools, then runs the trials.

A sweep is a list of independent trials, each of which resumes from its own folder. Resuming a sweep therefore means running its
unfinished trials. Tune's own snapshots are not used: they would have to be unpickled, and contain neither replay buffers nor
MLflow runs.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pandas as pd

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.metrics import RunStatus
from vlm_rm_sweeps.serving.pool import PoolConfig, await_pool
from vlm_rm_sweeps.serving.scaling import ServerScaling
from vlm_rm_sweeps.storage import RemoteFolder
from vlm_rm_sweeps.sweeping.config.named_files import stored_name
from vlm_rm_sweeps.sweeping.config.plan import Plan, make_plan
from vlm_rm_sweeps.sweeping.config.sweep import Sweep
from vlm_rm_sweeps.sweeping.execution.pools import start_pools
from vlm_rm_sweeps.sweeping.execution.remaining import Remaining
from vlm_rm_sweeps.sweeping.execution.thresholds import measure_thresholds
from vlm_rm_sweeps.sweeping.tracking.folder import SweepFolder, default_tracking_uri
from vlm_rm_sweeps.sweeping.tracking.journal import ended_trials, read_entries
from vlm_rm_sweeps.sweeping.tracking.progress import Watcher
from vlm_rm_sweeps.sweeping.tracking.results import SweepOutcome
from vlm_rm_sweeps.sweeping.tracking.tracking_uri import check_tracking_uri
from vlm_rm_sweeps.sweeping.tracking.upload import FolderUpload


def resumed_plan(plan: Plan, folder: SweepFolder) -> Plan:
    """Check that a plan is that of the sweep in a folder, so that it can be resumed.

    Args:
        plan: The plan of the sweep file as it is now, on this machine.
        folder: The folder of the sweep to resume.

    Returns:
        The plan with the ids of the stored trials, drawn as they were, and with their version of the embedded family.

    Raises:
        UserError: They differ; the message has the differences. Or trials have started that the plan lacks.
    """
    stored = folder.stored_sweep()
    drawn = plan.going_on_with(stored).drawn_as(stored)
    differences = folder.differences(drawn)
    if differences:
        raise UserError(
            f"the sweep in {folder.place} cannot be resumed, because its sweep file has changed since. Undo the changes, or start a "
            f"new sweep with --new:\n{differences}"
        )
    named = drawn.with_ids_of(stored)
    planned = {trial.trial_id for trial in named.trials}
    others = [started.name for started in folder.trials() if started.name not in planned]
    if others:
        raise UserError(
            f"the sweep in {folder.place} cannot be resumed, because a file that its sweep file names has changed since, such as the "
            f"head of a learned reward: {len(others)} of its trials had another one ({others[0]}). Restore the file, or start a new "
            "sweep with --new"
        )
    return named


def run_sweep(
    sweep: Sweep | Plan,
    results: Path | RemoteFolder = Path("results"),
    tracking_uri: str | None = None,
    say: Callable[[str], None] = print,
    resumed: SweepFolder | None = None,
    watch: Watcher | None = None,
) -> SweepOutcome:
    """Run all trials of a sweep into a new folder, or resume the one in `resumed`.

    A resumed sweep keeps its finished trials, continues the others from their last checkpoints (failed ones are retried), and
    writes into the same MLflow runs. Ray is started on this machine unless it runs already or `RAY_ADDRESS` names a cluster.

    Args:
        sweep: The sweep, or its plan.
        results: The folder or address below which the sweep gets a folder of its own.
        tracking_uri: The MLflow server or database; by default a SQLite database in `results`, or in its copy on this machine.
        say: Prints a line of progress.
        resumed: The folder of the sweep to resume; None starts a new one.
        watch: Called with the progress after every result, to show it; None prints lines of it.

    Returns:
        The outcome of each trial. A trial that fails does not stop the others.

    Raises:
        KeyboardInterrupt: The user, or SIGTERM, stopped it before or after its trials, or for the second time.
        UserError: The sweep names something that does not exist, the task draws with OpenGL and there is none, Ray does not
            start, the servers and one trial cannot be placed, a model cannot be loaded, or the resumed folder is in use or of
            another sweep. Nothing is left behind then.
        StoreError: Results are at an address that does not answer.
    """
    plan = sweep if isinstance(sweep, Plan) else make_plan(sweep)
    folder = resumed or SweepFolder.new(plan.sweep, results)
    try:
        return _run_sweep(plan, folder, tracking_uri or default_tracking_uri(results), say, resumed, watch)
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
    plan: Plan,
    folder: SweepFolder,
    tracking_uri: str,
    say: Callable[[str], None],
    resumed: SweepFolder | None,
    watch: Watcher | None,
) -> SweepOutcome:
    with ExitStack() as cleanup:
        if resumed:
            machines, plan = plan.sweep.profile, resumed_plan(plan, resumed)
            if plan.sweep.profile != machines:
                say(f"frames are drawn in the {plan.sweep.profile} profile, as before; this machine's would be {machines}")
            cleanup.enter_context(resumed.locked())
            cleanup.enter_context(FolderUpload(resumed, tracking_uri, say))
            _set_up_store_if_it_answers(tracking_uri, say)
        else:
            check_tracking_uri(tracking_uri)  # before anything starts; a sweep that is resumed goes on without MLflow
        needed = bool(Remaining.of(plan, folder))
        pools, servers = start_pools(plan, folder, say, cleanup) if needed else ({}, {})
        cleanup.enter_context(_terminated_as_by_ctrl_c())  # after Ray has started, which sets a handler of its own
        # RLlib, Tune and MLflow take seconds to import, and MLflow to make its tables: meanwhile the servers load their models.
        from vlm_rm_sweeps.sweeping.execution.sweep_run import SweepRun
        from vlm_rm_sweeps.sweeping.tracking.mlflow_store import set_up_store

        if not resumed:
            set_up_store(tracking_uri)
        for model_id, pool in pools.items():
            # A model that only judges may be unavailable: the audit will say so.
            specs = [] if plan.models[model_id].judges_only else plan.served_specs(model_id)
            await_pool(pool, servers[model_id], specs, say=say)
            cleanup.enter_context(ServerScaling(pool, plan.models[model_id], servers[model_id], say))
        thresholds = measure_thresholds(plan, folder, pools) if needed else {}
        plan = plan.with_thresholds(thresholds)
        measured = _measured(plan, folder, pools, say) if needed else None
        if not resumed:
            folder.create(plan.sweep)
            cleanup.enter_context(folder.locked())
            cleanup.enter_context(FolderUpload(folder, tracking_uri, say))
        run = cleanup.enter_context(SweepRun(plan, folder, tracking_uri, say, watch))
        if needed:
            run.run(pools, measured, thresholds)
        return run.outcome()


@contextmanager
def _terminated_as_by_ctrl_c() -> Iterator[None]:
    """End in order on SIGTERM, which Slurm and Kubernetes send some seconds before they kill; Ray would print a stack trace."""

    def interrupt(number: int, frame: object) -> None:
        if callable(signal.getsignal(signal.SIGINT)):
            signal.raise_signal(signal.SIGINT)
        else:  # a job in the background ignores Ctrl-C
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def _set_up_store_if_it_answers(tracking_uri: str, say: Callable[[str], None]) -> None:
    from vlm_rm_sweeps.sweeping.tracking.mlflow_store import set_up_store

    try:
        set_up_store(tracking_uri)
    except UserError as error:  # the results wait in the journal
        say(f"{error}. The sweep continues without it")


def _measured(plan: Plan, folder: SweepFolder, pools: dict[str, PoolConfig], say: Callable[[str], None]) -> pd.DataFrame | None:
    """Return the EPIC distances from before training; None if the sweep measures none."""
    from vlm_rm_sweeps.sweeping.execution.reward_metrics import known_measures, measure_sweep

    if not plan.sweep.epic_states:
        return None
    known = known_measures(folder.epic)
    if known is not None:
        names = {stored_name(model_id, known["model"]): model_id for model_id in plan.models}
        return known.assign(model=known["model"].replace(names))
    say(f"measuring the reward models on {plan.sweep.described_epic_states()}")
    return measure_sweep(plan, pools)
