"""The command line: one thin function for each command. Heavy libraries are imported where they are needed."""

import shutil
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from vlm_rm_sweeps.errors import UserError

app = typer.Typer(
    help="Train policies from one sentence: CLIP scores the frames, an RL agent learns from the scores, and sweeps over prompts, "
    "models and alpha show which reward can be trusted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_MIN_WIDTH = 110
_console = Console(highlight=False, soft_wrap=True, width=max(_MIN_WIDTH, shutil.get_terminal_size().columns))

EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130


@app.command()
def sweep(
    file: Annotated[Path, typer.Argument(help="The sweep file, such as sweeps/quickstart.yaml.")],
    results: Annotated[Path, typer.Option(help="Folder in which the sweep gets a folder of its own.")] = Path("results"),
    tracking_uri: Annotated[
        str | None,
        typer.Option(envvar="MLFLOW_TRACKING_URI", help="MLflow server or database; by default sqlite in the results folder."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the trials and what they need, and start nothing.")] = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with the newest sweep of this file, also with trials that failed; start it if there is none.",
        ),
    ] = False,
    new: Annotated[
        bool, typer.Option("--new", help="Start anew, even if the newest sweep of this file was interrupted.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Go on with an interrupted sweep without asking.")] = False,
) -> None:
    """Run every trial of a sweep file and compare them in MLflow. A sweep that was interrupted can go on where it was."""
    from vlm_rm_sweeps.sweeping.spec import describe_plan, load_sweep

    plan = load_sweep(file)
    if dry_run:
        print(describe_plan(plan))
        return

    from vlm_rm_sweeps.sweeping.progress import duration
    from vlm_rm_sweeps.sweeping.runner import run_sweep
    from vlm_rm_sweeps.sweeping.tracking import default_tracking_uri, mlflow_ui_command

    started = time.monotonic()
    uri = tracking_uri or default_tracking_uri(results)
    resumed = None if new else _sweep_to_resume(plan, results, resume, yes)
    outcome = run_sweep(plan, results, uri, say=lambda line: print(line, flush=True), resumed=resumed)
    _console.print(_rendered(outcome))
    for each in outcome.outcomes:
        if each.status == "failed":
            _console.print(f"failed: {each.trial.label}: {each.reason}")
    if outcome.best:
        _console.print(f"best trial: {outcome.best.trial.label}")
    _console.print(f"time: {duration(time.monotonic() - started)}")
    _console.print(f"results, with each trial's final checkpoint: {outcome.folder}")
    _console.print(f"MLflow data: {outcome.tracking_uri}\nopen it with: {mlflow_ui_command(outcome.tracking_uri)}")
    if outcome.interrupted:
        finished = sum(each.status == "finished" for each in outcome.outcomes)
        _console.print(
            f"interrupted: {finished} of {len(outcome.outcomes)} trials are finished; to go on: vlm-rm sweep {file} --resume"
        )
        raise typer.Exit(EXIT_INTERRUPTED)
    if not outcome.all_finished:
        raise typer.Exit(EXIT_FAILED)


def _sweep_to_resume(plan: "Sweep", results: Path, resume: bool, yes: bool) -> "SweepFolder | None":  # type: ignore[name-defined] # noqa: F821
    """The sweep to go on with, or None for a new one."""
    from vlm_rm_sweeps.sweeping.folder import SweepFolder

    found = SweepFolder.newest(plan, results)
    if found is None:
        if resume:
            print(f"there is no sweep {plan.name!r} in {results} yet: it starts")
        return None
    if resume:
        return found
    trials = plan.trials()
    ended = found.ended_trials()
    if len(ended) >= len(trials) or found.differences(plan) or found.in_use():
        return None
    finished = sum(status == "FINISHED" for status in ended.values())
    state = f"{found.path} was interrupted, with {finished} of {len(trials)} trials finished"
    if yes:
        return found
    if not sys.stdin.isatty():
        raise UserError(f"{state}: --resume (or --yes) goes on with it, --new starts another")
    return found if typer.confirm(f"{state}. Go on with it?", default=True) else None


@app.command()
def evaluate(
    checkpoint: Annotated[
        Path, typer.Argument(help="A checkpoint's folder, or a trial's for its best policy: RESULTS/trials/ID.")
    ],
    episodes: Annotated[int, typer.Option(min=1, help="Episodes with the greedy policy.")] = 20,
    video: Annotated[
        bool, typer.Option("--video", help="Also write the first episode as mp4 and gif, with its reward.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="New folder for the results; by default below the trial's.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the first episode; the next has the next.")] = 10_000,
    device: Annotated[str, typer.Option(help="Where the reward model runs.")] = "cpu",
) -> None:
    """Evaluate the policy of a checkpoint: CLIP return, true return and success, with confidence intervals."""
    from vlm_rm_sweeps.evaluation import rollouts

    found = rollouts.find_checkpoint(checkpoint)
    folder = out or found.folder.parent / "evaluations" / f"{found.folder.name}-{datetime.now():%Y%m%d-%H%M%S}"
    if folder.exists():
        raise UserError(f"{folder} exists already: name a new folder with --out")
    ran = rollouts.evaluate(found, episodes, seed, pictures=video, device=device)
    summary = rollouts.write_evaluation(found, ran, seed, folder)
    print(f"{found.folder}: {summary['task']}, step {summary['env_steps']:,}, {episodes} episodes")
    for name, heading in (("clip_return", "CLIP return"), ("true_return", "true return"), ("success", "success")):
        if name in summary:
            interval = summary[name]["interval"]
            between = f"  (95 % interval {interval[0]:.2f} to {interval[1]:.2f})" if interval else ""
            print(f"  {heading:12s} {summary[name]['mean']:.2f}{between}")
    for file in rollouts.write_videos(found, ran[0], folder) if video else []:
        print(f"  {file}")
    print(f"  {folder / 'evaluation.csv'}")


@app.command()
def tasks() -> None:
    """List the tasks: their prompts, and what counts as success."""
    from vlm_rm_sweeps.tasks.task import TASKS

    for task in TASKS.values():
        print(f"{task.name}")
        print(f"  goal      {task.goal_prompt}")
        print(f"  baseline  {task.baseline_prompt}")
        print(f"  success   {task.success_criterion}, for at least half of {task.episode_steps} steps")


@app.command()
def models(
    containing: Annotated[str, typer.Argument(help="Only models whose id contains this.")] = "",
) -> None:
    """List the models: the embedded family, then every pair that open_clip can download."""
    import open_clip

    from vlm_rm_sweeps.rewards.catalog import EMBEDDED, embedded_sizes, find_model

    embedded = [f"{EMBEDDED}/{size}" for size in embedded_sizes()]
    downloadable = [f"{architecture}/{tag}" for architecture, tag in open_clip.list_pretrained()]
    listed = [model_id for model_id in [*embedded, *downloadable] if containing.lower() in model_id.lower()]
    if not listed:
        raise UserError(f"no model id contains {containing!r}; `vlm-rm models` without it lists all")
    for model_id in listed:
        if model_id in embedded:
            print(f"{model_id}  ({find_model(model_id).parameters / 1e6:.2f} M parameters, ships with the package)")
        else:
            print(model_id)
    print("a checkpoint file works too: ARCHITECTURE/path/to/file.safetensors")


@app.command()
def pretrain(
    sizes: Annotated[list[str], typer.Argument(help="Sizes of the embedded family to train, one after the other.")],
    out: Annotated[
        Path, typer.Option(help="Folder for configs, vocabulary, weights and model card; a training goes on there.")
    ] = Path("results/pretraining"),
    samples: Annotated[int, typer.Option(min=1, help="Images seen in training, with repetition.")] = 500_000,
    images: Annotated[int, typer.Option(min=1, help="Different images rendered.")] = 40_000,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    threads: Annotated[int, typer.Option(min=1, help="Threads to train with.")] = 1,
) -> None:
    """Train models of the embedded family on rendered states and written captions."""
    import torch

    from vlm_rm_sweeps.pretraining.evaluate import write_model_card
    from vlm_rm_sweeps.pretraining.train import pretrain as train_family

    torch.set_num_threads(threads)
    train_family(sizes, samples, images, seed, out)
    print(f"evaluating; the model card is {write_model_card(out)}")


def _rendered(outcome: "SweepOutcome") -> Table:  # type: ignore[name-defined] # noqa: F821
    table = Table(title="trials: the greedy policy at the end")
    for heading in ("model", "alpha", "prompt", "seed", "CLIP return", "true return", "success", "steps/s", "status"):
        table.add_column(heading, justify="left" if heading in ("model", "prompt", "status") else "right", overflow="fold")

    def shown(value: float, digits: int) -> str:
        return "-" if value != value else f"{value:.{digits}f}"

    for position, row in outcome.table.iterrows():
        best = outcome.best is not None and outcome.outcomes[int(position)] is outcome.best
        table.add_row(
            row["model"],
            shown(row["alpha"], 2),
            row["prompt"],
            str(row["seed"]),
            shown(row["clip_return"], 1),
            shown(row["true_return"], 1),
            shown(row["success"], 2),
            shown(row["steps_per_second"], 0),
            "best" if best else row["status"],
            style="bold" if best else None,
        )
    return table


def main() -> None:
    """Entry point: bad input is one message on standard error and exit status 2."""
    try:
        app()
    except UserError as error:
        print(f"vlm-rm: {error}", file=sys.stderr)
        sys.exit(EXIT_BAD_INPUT)
    except KeyboardInterrupt:  # before the first trial; from then on Tune ends the sweep in order
        print("vlm-rm: interrupted", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
