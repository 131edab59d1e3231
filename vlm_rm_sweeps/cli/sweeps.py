"""Commands that run sweeps and screenings, watch them, evaluate their policies and report on them."""

import shlex
import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlm_rm_sweeps.cli.options import LARGEST_SEED, MOST_STEPS, JsonOutput, NewResults, Overrides, listed, new_file, new_folder
from vlm_rm_sweeps.cli.terminal import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    cells_table,
    console,
    measures_table,
    print_json,
    records,
    say,
    say_aside,
    trials_table,
    undefined_lines,
    watching,
)
from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.files import file_inside
from vlm_rm_sweeps.metrics import RunStatus, TrialStatus
from vlm_rm_sweeps.serving.ray_address import check_ray_address
from vlm_rm_sweeps.storage import RemoteFolder, place_named
from vlm_rm_sweeps.sweeping.config.yaml_file import SCREEN, read_sweep_keys
from vlm_rm_sweeps.sweeping.tracking.tracking_uri import without_secrets
from vlm_rm_sweeps.user_modules import make_importable

if TYPE_CHECKING:
    from vlm_rm_sweeps.sweeping.config.plan import Plan
    from vlm_rm_sweeps.sweeping.config.screening import Screening
    from vlm_rm_sweeps.sweeping.tracking.folder import SweepFolder
    from vlm_rm_sweeps.sweeping.tracking.results import SweepOutcome

_RANKS_SHOWN = 10


def sweep(
    file: Annotated[Path, typer.Argument(help="The sweep file, such as sweeps/quickstart.yaml.")],
    overrides: Overrides = [],  # noqa: B006
    results: NewResults = "results",
    tracking_uri: Annotated[
        str | None,
        typer.Option(
            envvar="MLFLOW_TRACKING_URI", help="MLflow server or database; by default a sqlite file in the results folder."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the trials and the resources that they need, and exit.")
    ] = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Resume the newest sweep of this file and retry its failed trials; start one if there is none.",
        ),
    ] = False,
    new: Annotated[
        bool, typer.Option("--new", help="Start another sweep, even if the newest of this file was interrupted.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Resume an interrupted sweep without asking.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the results as JSON, for programs; lines of progress go to standard error.")
    ] = False,
) -> None:
    """Run all trials of a sweep file and log them to MLflow; with `screen`, rank them on labelled states instead.

    An interrupted sweep can be resumed where it stopped.
    """
    if new and (resume or yes):
        raise UserError("--new starts another sweep, --resume and --yes continue the newest one: give only one of them")
    keys = read_sweep_keys(file, overrides, make_importable)
    place = place_named(results)
    if not dry_run and SCREEN not in keys:
        check_ray_address()  # before the plan, which takes seconds
    if not dry_run and isinstance(place, RemoteFolder):
        place.check()

    from vlm_rm_sweeps.sweeping.config.screening import Screening, plan_file

    plan = plan_file(file, keys)
    if isinstance(plan, Screening):
        if resume:
            raise UserError(f"{file} is a screening, which cannot be resumed: leave out --resume to run it from its start")
        _screen(plan, place, tracking_uri, dry_run, as_json)
        return
    if dry_run:
        from vlm_rm_sweeps.sweeping.config.labelled_states import check_labelled

        check_labelled(plan)
        if as_json:
            print_json(_planned(plan))
        else:
            print(plan.describe())
        return
    tell = say_aside if as_json else say
    for remark in plan.remarks():
        tell(remark)

    from vlm_rm_sweeps.sweeping.execution.run_sweep import run_sweep

    started = time.monotonic()
    resumed = None if new else _sweep_to_resume(plan, place, resume, yes, tell)
    with watching(not as_json) as watch:
        outcome = run_sweep(plan, place, tracking_uri, say=tell, resumed=resumed, watch=watch)

    seconds = time.monotonic() - started
    if as_json:
        print_json(_results(outcome, place) | {"seconds": seconds})
    else:
        _print_results(outcome, place, several=len(plan.sweep.seeds) > 1, seconds=seconds)
    if outcome.interrupted:
        tell(
            f"interrupted: {outcome.finished} of {len(outcome.outcomes)} trials have finished; continue with: {_resume_command()}"
        )
        raise typer.Exit(EXIT_INTERRUPTED)
    if not outcome.all_finished:
        raise typer.Exit(EXIT_FAILED)


def _print_results(outcome: "SweepOutcome", results: Path | RemoteFolder, several: bool, seconds: float) -> None:
    # Not before the sweep, which starts Ray first: MLflow takes seconds to import.
    from vlm_rm_sweeps.sweeping.tracking.mlflow_store import mlflow_ui_command
    from vlm_rm_sweeps.sweeping.tracking.progress import duration

    console.print(trials_table(outcome))
    if several:
        console.print(cells_table(outcome))
    for each in outcome.outcomes:
        if each.status in (TrialStatus.FAILED, TrialStatus.STOPPED):
            console.print(f"{each.status}: {each.trial.label}: {each.reason}")
    if outcome.best:
        others = f" ({outcome.as_good} more just as good)" if outcome.as_good else ""
        console.print(f"best {'combination' if several else 'trial'}: {outcome.best.label}{others}")
    if not several:
        console.print("1 seed: a difference between trials may be luck; `--set seeds=[0,1,2]` trains more, and gives intervals")
    console.print(f"time: {duration(seconds)}")
    console.print(f"results, with each trial's final checkpoint: {results / outcome.folder.name}")
    console.print(
        f"MLflow data: {without_secrets(outcome.tracking_uri)}\nopen it with: {mlflow_ui_command(outcome.tracking_uri)}"
    )


def _planned(plan: "Plan") -> dict[str, Any]:
    """Return the trials of a plan as plain data."""
    trials = [{"trial_id": each.trial_id, "label": each.label, "steps": plan.steps_of(each)} for each in plan.trials]
    return {"name": plan.sweep.name, "trials": trials, "remarks": plan.remarks()}


def _results(outcome: "SweepOutcome", results: Path | RemoteFolder) -> dict[str, Any]:
    """Return the results of a sweep as plain data."""
    return {
        "folder": str(results / outcome.folder.name),
        "tracking_uri": without_secrets(outcome.tracking_uri),
        "interrupted": outcome.interrupted,
        "best": [each.trial.trial_id for each in outcome.best.outcomes] if outcome.best else [],
        "trials": records(outcome.table),
        "cells": records(outcome.cells),
    }


def _resume_command() -> str:
    """Return the command that the user gave, with every option that it needs, but resuming; without passwords."""
    given = [without_secrets(part) for part in sys.argv[1:] if part not in {"--new", "--resume", "--yes", "-y"}]
    return shlex.join(["vlm-rm", *given, "--resume"])


def _screen(plan: "Screening", results: Path | RemoteFolder, tracking_uri: str | None, dry_run: bool, as_json: bool) -> None:
    from vlm_rm_sweeps.sweeping.execution.run_screening import read_screened, run_screening
    from vlm_rm_sweeps.sweeping.tracking.folder import default_tracking_uri
    from vlm_rm_sweeps.sweeping.tracking.mlflow_store import mlflow_ui_command
    from vlm_rm_sweeps.sweeping.tracking.progress import duration

    if as_json and dry_run:
        raise UserError("--dry-run --json: a screening has no trials: leave out one of them")
    if dry_run:
        read_screened(plan)
    tell = say_aside if as_json else say
    tell(plan.describe())
    for remark in plan.plan.remarks():
        tell(remark)
    if dry_run:
        return
    uri = tracking_uri or default_tracking_uri(results)
    outcome = run_screening(plan, results.copy if isinstance(results, RemoteFolder) else results, uri, say=tell)
    if isinstance(results, RemoteFolder):
        results.put_folder(outcome.folder.name)
    if as_json:
        found = {"folder": str(outcome.folder), "best_file": str(outcome.best_file), "combinations": records(outcome.ranking)}
        print_json(found | {"seconds": outcome.seconds, "images_encoded": outcome.images_encoded})
        return
    console.print(measures_table(outcome.ranking.head(_RANKS_SHOWN)))
    for line in undefined_lines(outcome.ranking):
        print(line)
    print(
        f"{len(outcome.ranking):,} combinations ranked in {duration(outcome.seconds)}; images encoded: {outcome.images_encoded:,}, "
        f"instead of {len(outcome.ranking) * outcome.states:,}\nall of them: {outcome.folder / 'combinations.csv'}\n"
        f"MLflow data: {without_secrets(uri)}\nopen it with: {mlflow_ui_command(uri)}\n"
        f"train the best with: vlm-rm sweep {outcome.best_file}"
    )


def _sweep_to_resume(
    plan: "Plan", results: Path | RemoteFolder, resume: bool, yes: bool, tell: Callable[[str], None]
) -> "SweepFolder | None":
    """Find the sweep to resume; None starts a new one. UserError if the user must decide and cannot be asked."""
    from vlm_rm_sweeps.sweeping.execution.run_sweep import resumed_plan
    from vlm_rm_sweeps.sweeping.tracking.folder import SweepFolder
    from vlm_rm_sweeps.sweeping.tracking.journal import ended_in_order, ended_trials, read_entries

    found = SweepFolder.newest(plan.sweep, results)
    if found is None:
        if resume:
            tell(f"there is no sweep {plan.sweep.name!r} in {results} yet: it starts")
        return None
    if resume:
        return found
    entries = read_entries(found.journal)
    if ended_in_order(entries):
        return None
    if found.in_use():
        tell(f"{found.place} is being run by another process: starting another sweep")
        return None
    # If the file has changed, this raises: the sweep cannot be resumed, and a new one might not be intended.
    resumed_plan(plan, found)
    finished = sum(status == RunStatus.FINISHED for status in ended_trials(entries).values())
    state = f"{found.place} was interrupted, with {finished} of {len(plan.trials)} trials finished"
    if yes:
        return found
    if sys.stdin is None or not sys.stdin.isatty():  # None if it was closed
        raise UserError(f"{state}: --resume (or --yes) continues it, --new starts another")
    return found if typer.confirm(f"{state}. Resume it?", default=True) else None


def status(
    folder: Annotated[
        str | None,
        typer.Argument(help="Folder of the sweep, or its address. Default: the newest in the results folder."),
    ] = None,
    results: Annotated[
        str, typer.Option(help="Results folder, or its address, in which the newest sweep is looked for.")
    ] = "results",
    as_json: JsonOutput = False,
) -> None:
    """Show how a sweep stands, on any machine that sees its folder: trials, speed, time left, failures, where to look.

    It reads the folder alone: neither Ray nor MLflow need run.
    """
    from vlm_rm_sweeps.sweeping.tracking.status import lines_of, newest_sweep, standing_of

    standing = standing_of(place_named(folder) if folder else newest_sweep(place_named(results)))
    if as_json:
        print_json(standing.as_data())
    else:
        print("\n".join(lines_of(standing)))


def dashboard(
    results: Annotated[
        Path,
        typer.Option(callback=new_folder, help="Results folder; the data of Prometheus and Grafana is kept in its `watching`."),
    ] = Path("results"),
    prometheus_port: Annotated[
        int, typer.Option(min=1, max=65_535, help="Ray's dashboard looks for Prometheus at 9090.")
    ] = 9090,
    grafana_port: Annotated[int, typer.Option(min=1, max=65_535, help="Ray's dashboard looks for Grafana at 3000.")] = 3000,
) -> None:
    """Show the running sweep in Prometheus and Grafana, if they are installed, until it ends or Ctrl-C."""
    from vlm_rm_sweeps.dashboard.watch import find_cluster, ray_folder, watch

    cluster = find_cluster(ray_folder())
    watch(cluster, results / "watching", prometheus_port, grafana_port, say=say)


def evaluate(
    checkpoint: Annotated[
        str,
        typer.Argument(
            help="Folder or address of a checkpoint, or of a trial (RESULTS/trials/ID) for its best policy.",
        ),
    ],
    episodes: Annotated[int, typer.Option(min=1, max=MOST_STEPS, help="Episodes with the greedy policy.")] = 20,
    video: Annotated[
        bool, typer.Option("--video", help="Also write a video of the first episode with its reward, as mp4 and gif.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="New folder for the results; by default in the trial's folder.")] = None,
    seed: Annotated[
        int,
        typer.Option(min=0, max=LARGEST_SEED, help="Seed of the first episode; it rises by 1 for each further episode."),
    ] = 10_000,
    device: Annotated[str, typer.Option(help="PyTorch device of the reward models, such as cpu or cuda.")] = "cpu",
    judge: Annotated[
        list[str],
        typer.Option(
            "--judge",
            help="Other models that score the same frames for the same prompts, as in an audit, and for the same reward if they can "
            "compute it; may be repeated.",
        ),
    ] = [],  # noqa: B006
) -> None:
    """Evaluate the policy of a checkpoint: CLIP return, true return and success, with confidence intervals."""
    from vlm_rm_sweeps.evaluation import rollouts

    place = place_named(checkpoint)
    found = rollouts.find_checkpoint(place)
    # With microseconds: two evaluations of one checkpoint may start in the same second.
    stamped = f"evaluations/{found.folder.name}-{datetime.now():%Y%m%d-%H%M%S-%f}"
    folder = out or file_inside(found.folder.parent, stamped)
    if folder.exists():
        raise UserError(f"{folder} exists already: name a new folder with --out")
    new_folder(folder)
    judges = listed("--judge", judge) if judge else []
    ran = rollouts.evaluate(found, episodes, seed, pictures=video, device=device, judges=judges, say=say)
    summary = rollouts.write_evaluation(found, ran, seed, folder, video)
    if isinstance(place, RemoteFolder) and out is None:
        trial = place.above if place.name == found.folder.name else place
        trial.put_folder(stamped)
    chosen = f", {found.chosen}" if found.chosen else ""
    print(f"{found.folder}: {summary['task']}, step {summary['env_steps']:,}{chosen}, {episodes} greedy episodes")
    named = {"CLIP return": "clip_return", "true return": "true_return", "success": "success"}
    shown = {heading: summary[name] for heading, name in named.items() if name in summary}
    shown |= {f"return by {model_id}": found for model_id, found in summary.get("judged", {}).items()}
    for heading, measured in shown.items():
        interval = measured["interval"]
        between = f"  (95 % interval {interval[0]:.2f} to {interval[1]:.2f})" if interval else ""
        print(f"  {heading:12s} {measured['mean']:.2f}{between}")
    for file in sorted(folder.glob("episode.*")):
        print(f"  {file}")
    print(f"  {folder / 'evaluation.csv'}")


def report(
    folder: Annotated[str, typer.Argument(help="Folder of the sweep, such as results/quickstart-..., or its address.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", callback=new_file, help="New HTML file; by default report.html in the folder, which is replaced."
        ),
    ] = None,
    tracking_uri: Annotated[
        str | None,
        typer.Option(
            envvar="MLFLOW_TRACKING_URI",
            help="MLflow server or database with the sweep's run; by default the sqlite file in the results folder.",
        ),
    ] = None,
) -> None:
    """Write the results of a sweep into one HTML file that opens offline: figures, trials, videos, sweep file, versions."""
    from vlm_rm_sweeps.sweeping.tracking.report import write_report

    print(write_report(place_named(folder), output, tracking_uri))
