"""The command line: one thin function for each command. Heavy libraries are imported where they are needed."""

import shutil
import sys
import time
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
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
states_app = typer.Typer(help="Data sets of states, for measuring reward models without training.", no_args_is_help=True)
app.add_typer(states_app, name="states")
pretrain_app = typer.Typer(help="Train the embedded family, or test it.")
app.add_typer(pretrain_app, name="pretrain")
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
    """Run every trial of a sweep file and compare them in MLflow; or screen them on labelled states, if it has `screen`.

    A sweep that was interrupted can go on where it was.
    """
    from vlm_rm_sweeps.sweeping.screen import Screening, load_plan
    from vlm_rm_sweeps.sweeping.spec import describe_plan

    plan = load_plan(file)
    if isinstance(plan, Screening):
        _screen(plan, results, tracking_uri, dry_run)
        return
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


def _screen(plan: "Screening", results: Path, tracking_uri: str | None, dry_run: bool) -> None:  # type: ignore[name-defined] # noqa: F821
    from vlm_rm_sweeps.sweeping.progress import duration
    from vlm_rm_sweeps.sweeping.screening import run_screening
    from vlm_rm_sweeps.sweeping.tracking import default_tracking_uri, mlflow_ui_command

    print(plan.describe())
    if dry_run:
        return
    uri = tracking_uri or default_tracking_uri(results)
    outcome = run_screening(plan, results, uri, say=lambda line: print(line, flush=True))
    _console.print(_measures_table(outcome.ranking.head(_RANKS_SHOWN)))
    print(
        f"{len(outcome.ranking):,} combinations ranked in {duration(outcome.seconds)}; images encoded: {outcome.images_encoded:,}, "
        f"instead of {len(outcome.ranking) * outcome.states:,}\nall of them: {outcome.folder / 'combinations.csv'}\n"
        f"MLflow data: {uri}\nopen it with: {mlflow_ui_command(uri)}\n"
        f"train the best with: vlm-rm sweep {outcome.best_file}"
    )


_RANKS_SHOWN = 10


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
def dashboard(
    results: Annotated[Path, typer.Option(help="Folder of the results; the graphs' data is kept in its `watching`.")] = Path(
        "results"
    ),
    prometheus_port: Annotated[
        int, typer.Option(min=1, max=65_535, help="Ray's dashboard looks for Prometheus at 9090.")
    ] = 9090,
    grafana_port: Annotated[int, typer.Option(min=1, max=65_535, help="Ray's dashboard looks for Grafana at 3000.")] = 3000,
) -> None:
    """Watch the sweep that runs on this machine: Prometheus and Grafana, where they are installed, until it ends or Ctrl-C."""
    from vlm_rm_sweeps.watching import find_cluster, ray_folder, watch

    cluster = find_cluster(ray_folder())
    watch(cluster, results / "watching", prometheus_port, grafana_port, say=lambda line: print(line, flush=True))


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
def report(
    folder: Annotated[Path, typer.Argument(help="The sweep's folder, such as results/quickstart-...")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="New HTML file; by default report.html in the folder, made anew.")
    ] = None,
) -> None:
    """Write what a sweep found into one HTML file that opens offline: figures, trials, videos, sweep file, versions."""
    from vlm_rm_sweeps.sweeping.report import write_report

    print(write_report(folder, output))


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
def poses(
    out: Annotated[Path, typer.Option(help="Folder for poses.csv and poses.png.")] = Path("results/poses"),
    samples: Annotated[int, typer.Option(min=1, help="Perturbed states for each reference pose.")] = 200,
    degrees: Annotated[float, typer.Option(min=0, help="Standard deviation of the noise on each joint.")] = 3.0,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Check the humanoid's success tests against its reference poses."""
    from vlm_rm_sweeps.evaluation.poses import success_by_pose, write_success_by_pose

    shares = success_by_pose(samples, degrees, seed)
    print(shares.rename(columns=lambda task: task.removeprefix("humanoid-")).to_string(float_format="%.2f"))
    csv, picture = write_success_by_pose(shares, out)
    print(f"share of {samples} perturbed states (noise of {degrees:g} degrees) in the goal: {csv}, {picture}")


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


@pretrain_app.callback(invoke_without_command=True)
def pretrain(
    context: typer.Context,
    sizes: Annotated[
        list[str], typer.Option("--size", "--sizes", help="Sizes to train; repeat it, or separate them by commas.")
    ] = ["tiny,small,base,large"],  # noqa: B006
    out: Annotated[
        Path, typer.Option(help="Folder for configs, vocabulary, weights and model card; a training goes on there.")
    ] = Path("results/pretraining/seed-0"),
    samples: Annotated[int, typer.Option(min=1, help="Images seen in training, with repetition.")] = 700_000,
    images: Annotated[int, typer.Option(min=1, help="Different images rendered.")] = 100_000,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    threads: Annotated[int, typer.Option(min=1, help="Threads to train with.")] = 1,
) -> None:
    """Train models of the embedded family on rendered states and written captions, and write their model card."""
    if context.invoked_subcommand:
        return
    import torch

    from vlm_rm_sweeps.pretraining.train import pretrain as train_family

    torch.set_num_threads(threads)
    train_family(_listed(sizes), samples, images, seed, out)
    pretrain_evaluate([out])


@pretrain_app.command("evaluate")
def pretrain_evaluate(
    folders: Annotated[list[Path], typer.Argument(help="Folders that `vlm-rm pretrain` wrote, one for each training seed.")],
) -> None:
    """Test models on states, wordings and cameras that no training sees; write the model card into the first folder."""
    from vlm_rm_sweeps.pretraining.evaluate import evaluate_family, render_test_sets
    from vlm_rm_sweeps.pretraining.model_card import write_model_card

    for folder in folders:
        if not (folder / "manifest.json").is_file():
            raise UserError(f"{folder}: no manifest.json there; expected a folder that `vlm-rm pretrain` wrote")
    tests = render_test_sets()
    print(f"the model card is {write_model_card([evaluate_family(folder, tests) for folder in folders])}")


class Profile(StrEnum):
    """How much OpenGL draws."""

    FAST = "fast"
    FULL = "full"


class Policy(StrEnum):
    """How actions are chosen where nothing is learned."""

    RANDOM = "random"
    ZERO = "zero"


@app.command()
def render(
    task: Annotated[str, typer.Argument(help="One of `vlm-rm tasks`, or a sweep file, of which the first rendering is shown.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="A .png of the last step, or an .mp4 or .gif of all steps.")],
    model: Annotated[str, typer.Option(help="The model whose input is shown.")] = "embedded/small",
    textures: Annotated[str | None, typer.Option(help="Textures of the task; by default its first.")] = None,
    camera: Annotated[str | None, typer.Option(help="Camera of the task; by default its first.")] = None,
    profile: Annotated[Profile | None, typer.Option(help="How much OpenGL draws; by default what this machine can.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps; by default 1 for a picture, an episode for a video.")] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    policy: Annotated[Policy, typer.Option(help="How actions are chosen.")] = Policy.RANDOM,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
) -> None:
    """Show what a reward model sees of a task: frames at the model's own input size."""
    from vlm_rm_sweeps.rewards.catalog import find_model
    from vlm_rm_sweeps.tasks.preview import frames_of_episode
    from vlm_rm_sweeps.videos import PICTURE_SUFFIX, VIDEO_SUFFIXES, write_picture, write_video

    if output.suffix not in (PICTURE_SUFFIX, *VIDEO_SUFFIXES):
        raise UserError(f"{output}: expected a name that ends in {PICTURE_SUFFIX}, {' or '.join(VIDEO_SUFFIXES)}")
    if output.exists() and not force:
        raise UserError(f"{output} exists already: choose another name, or replace it with --force")
    if not output.parent.is_dir():
        raise UserError(f"{output}: there is no folder {output.parent}; make it first")
    chosen, rendering = _task_and_rendering(task, textures, camera, profile)
    preprocessing = find_model(model).preprocessing
    still = output.suffix == PICTURE_SUFFIX
    count = steps or (1 if still else chosen.episode_steps)
    frames = frames_of_episode(chosen, rendering, preprocessing.frame_format, count, seed, random=policy == Policy.RANDOM)
    visible = preprocessing.visible(frames[-1:] if still else frames)
    if still:
        write_picture(visible[0], output)
    else:
        write_video(list(visible), output)
    print(
        f"{output}: {len(visible)} frame(s) of {chosen.name} as {model} sees them, {preprocessing.size} x {preprocessing.size} "
        f"pixels, {rendering.textures} textures, {rendering.camera} camera, {rendering.profile} profile"
    )


def _task_and_rendering(
    name: str, textures: str | None, camera: str | None, profile: Profile | None
) -> "tuple[Task, Rendering]":  # type: ignore[name-defined] # noqa: F821
    """The task of this name or of this sweep file, drawn as asked, else as the sweep file says, else as the task's default."""
    from vlm_rm_sweeps.sweeping.spec import load_sweep
    from vlm_rm_sweeps.tasks.rendering import machine_profile
    from vlm_rm_sweeps.tasks.task import get_task

    if Path(name).suffix not in (".yaml", ".yml"):
        task = get_task(name)
        return task, task.rendering(textures, camera, profile.value if profile else machine_profile())
    sweep = load_sweep(Path(name))
    first = sweep.renderings()[0]
    drawn = sweep.the_task().rendering(
        textures or first.textures, camera or first.camera, profile.value if profile else first.profile
    )
    return sweep.the_task(), drawn


def _listed(values: list[str]) -> list[str]:
    """Values of an option that may be repeated, and may hold several separated by commas."""
    return [value.strip() for each in values for value in each.split(",") if value.strip()]


def _alphas(values: list[str]) -> list[float]:
    try:
        return [float(value) for value in _listed(values)]
    except ValueError as error:
        raise UserError(f"--alpha {','.join(values)}: expected numbers from 0 to 1, such as 0,0.25,0.5") from error


Models = Annotated[list[str], typer.Option("--model", "--models", help="Model ids; repeat it, or separate them by commas.")]
Alphas = Annotated[list[str], typer.Option("--alpha", "--alphas", help="Strengths from 0 to 1, separated by commas.")]
Prompts = Annotated[
    list[str],
    typer.Option(
        "--prompt", "--prompts", help="A goal, or a .txt or .yaml file of goals; may be repeated. By default the task's own."
    ),
]
Baseline = Annotated[
    str | None, typer.Option(help="Baseline prompt of all goals that have none of their own; by default the task's.")
]
DatasetFolder = Annotated[Path, typer.Argument(help="A data set of states, as `vlm-rm states` makes it.")]
NewDataset = Annotated[Path, typer.Option("--output", "-o", help="Folder of the new data set; it must not exist yet.")]
ImageFormatOption = Annotated[str, typer.Option(help="png, or webp (lossless, smaller, slower).")]
RenderedTextures = Annotated[str | None, typer.Option(help="Textures of the task; by default its first.")]
RenderedCamera = Annotated[str | None, typer.Option(help="Camera of the task; by default its first.")]


@states_app.command("sample")
def states_sample(
    task: Annotated[str, typer.Argument(help="One of `vlm-rm tasks`.")],
    output: NewDataset,
    count: Annotated[int, typer.Option(min=1, help="Number of states.")] = 1_000,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    textures: RenderedTextures = None,
    camera: RenderedCamera = None,
    image_format: ImageFormatOption = "png",
) -> None:
    """Make a data set of random states of a task, labelled by its success test."""
    from vlm_rm_sweeps.evaluation.collecting import sampled_states
    from vlm_rm_sweeps.tasks.task import get_task

    chosen = get_task(task)
    states = sampled_states(chosen, count, seed, chosen.rendering(textures, camera))
    _write_states(output, chosen, states, image_format)


@states_app.command("images")
def states_images(
    images: Annotated[Path, typer.Argument(help="Folder with PNG, JPEG or WebP images.")],
    task: Annotated[str, typer.Option(help="The task whose states they show.")],
    output: NewDataset,
    image_format: ImageFormatOption = "png",
) -> None:
    """Make a data set from a folder of images, to be labelled by people."""
    from vlm_rm_sweeps.evaluation.collecting import states_of_images
    from vlm_rm_sweeps.tasks.task import get_task

    _write_states(output, get_task(task), states_of_images(images), image_format)


@states_app.command("show")
def states_show(dataset: DatasetFolder) -> None:
    """Say what a data set holds, after checking it."""
    from vlm_rm_sweeps.evaluation.states import load_states

    print(load_states(dataset).summary())


def _write_states(output: Path, task: "Task", states: "Iterable[State]", image_format: str) -> None:  # type: ignore[name-defined] # noqa: F821
    from vlm_rm_sweeps.evaluation.states import image_format_named, write_states

    written = write_states(output, task, states, image_format_named(image_format))
    print(f"{written.summary()}\nwritten to {output}; label it with: vlm-rm label {output}")


@app.command()
def label(
    folder: Annotated[Path, typer.Argument(help="A data set of states, or a folder of mp4 videos of trials.")],
    criterion: Annotated[
        str | None, typer.Option(help="What the rater judges by; by default the task's success criterion.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="For videos: the task that they show.")] = None,
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port on this machine; 0 takes any that is free.")] = 0,
    open_browser: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in a browser.")] = True,
) -> None:
    """Label states or videos in the browser: keys answer, skip and undo; every label is on disk at once."""
    from vlm_rm_sweeps.evaluation.labelling_jobs import label_job
    from vlm_rm_sweeps.labelling.page import serve

    serve(label_job(folder, task, criterion), port, open_browser, say=lambda line: print(line, flush=True))


@app.command()
def labels(
    folder: Annotated[Path, typer.Argument(help="A labelled data set of states, or labelled folder of videos.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write all labels to this CSV file.")] = None,
) -> None:
    """Say who has labelled how much and how far raters agree (Cohen's kappa)."""
    from vlm_rm_sweeps.evaluation.labelling_jobs import describe_labels, stored_labels

    given = stored_labels(folder)
    print(describe_labels(given))
    if output:
        _refuse_to_overwrite(output)
        given.table().to_csv(output, index=False)
        print(f"written to {output}")


@app.command()
def epic(
    dataset: DatasetFolder,
    model: Models,
    alpha: Alphas = ["0"],  # noqa: B006
    prompt: Prompts = [],  # noqa: B006
    baseline: Baseline = None,
    truth: Annotated[
        str,
        typer.Option(
            help="What the rewards are measured against: `success`, `rater:NAME`, `raters` (their majority), or a formula over the "
            "data set's variables, such as '-abs(theta)'."
        ),
    ] = "success",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Also write the table to this CSV file.")] = None,
) -> None:
    """Measure how far reward models agree with labels, without training: EPIC distance, correlations, false positives."""
    import pandas as pd

    from vlm_rm_sweeps.evaluation.comparison import compare_models
    from vlm_rm_sweeps.evaluation.states import load_states
    from vlm_rm_sweeps.evaluation.truth import read_truth
    from vlm_rm_sweeps.sweeping.prompts import prompts_to_compare

    if output:
        _refuse_to_overwrite(output)
    states = load_states(dataset)
    truth_values = read_truth(states, truth)
    task = states.task
    prompts = prompts_to_compare(prompt, baseline, task)
    specs = {(strength, each.id): each.spec(strength) for strength in _alphas(alpha) for each in prompts}
    known = int(truth_values.known.sum())
    print(f"{known} of {len(states)} states of {task.name}, truth: {truth}")
    comparisons = list(compare_models(states, truth_values, _listed(model), specs))
    table = pd.concat([each.table for each in comparisons], ignore_index=True)
    _console.print(_measures_table(table))
    print(f"images encoded: {sum(each.images_encoded for each in comparisons):,}, for {len(table) * len(states):,} rewards")
    if output:
        output.parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(output, index=False)
        print(f"written to {output}")


@app.command()
def landscape(
    task: Annotated[str, typer.Option(help="One of `vlm-rm tasks`.")],
    model: Models,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for figure and table; it must not exist yet.")],
    alpha: Alphas = ["0,0.25,0.5,0.75,1"],  # noqa: B006
    prompt: Prompts = [],  # noqa: B006
    baseline: Baseline = None,
    variable: Annotated[
        list[str],
        typer.Option(
            help="A state variable, over its whole range or a part of it, such as theta=-0.25:0.25; repeat it for a heat map over "
            "two. By default the task's first."
        ),
    ] = [],  # noqa: B006
    points: Annotated[int | None, typer.Option(min=3, help="Values of each variable; by default 181, or 41 over two.")] = None,
    textures: RenderedTextures = None,
    camera: RenderedCamera = None,
) -> None:
    """Draw the reward as a function of a state variable (paper, Figure 2), models side by side."""
    import pandas as pd

    from vlm_rm_sweeps.evaluation import landscape as landscapes
    from vlm_rm_sweeps.evaluation.comparison import check_models, load_for_measuring
    from vlm_rm_sweeps.evaluation.landscape_figure import save_landscape
    from vlm_rm_sweeps.evaluation.state_spaces import state_space
    from vlm_rm_sweeps.sweeping.prompts import prompts_to_compare
    from vlm_rm_sweeps.tasks.task import get_task

    _refuse_to_overwrite(output)
    chosen = get_task(task)
    names = variable or [state_space(chosen).variables[0].name]
    values_each = points or (_CURVE_POINTS if len(names) == 1 else _MAP_POINTS)
    axes = [landscapes.make_axis(chosen, name, values_each) for name in names]
    prompts = prompts_to_compare(prompt, baseline, chosen)
    specs = {(strength, each.id): each.spec(strength) for strength in _alphas(alpha) for each in prompts}
    check_models(_listed(model), specs)
    walked = landscapes.walk(chosen, axes, chosen.rendering(textures, camera))
    table = pd.concat(
        [landscapes.landscape(walked, load_for_measuring(each), specs) for each in _listed(model)], ignore_index=True
    )
    shapes = save_landscape(output, walked, table)
    _console.print(_shapes_table(shapes, walked.goal_units))
    print(f"images encoded: {len(walked.frames) * len(_listed(model)):,}, for {len(table):,} rewards\nwritten to {output}")


_CURVE_POINTS, _MAP_POINTS = 181, 41


def _shapes_table(shapes: "pd.DataFrame", units: str) -> Table:  # type: ignore[name-defined] # noqa: F821
    table = Table(
        box=SIMPLE_HEAD, caption="distance: of the largest reward from the goal; Spearman: of reward and closeness to the goal"
    )
    peaks = [column for column in shapes if column.startswith("peak_") and column != "peak_distance"]
    for heading in ("model", "alpha", "prompt", *(peak.replace("_", " ") for peak in peaks), f"distance ({units})", "Spearman"):
        table.add_column(heading, justify="left" if heading in ("model", "prompt") else "right", overflow="fold")
    for row in shapes.to_dict("records"):
        numbers = (_shown(row[key], 3) for key in (*peaks, "peak_distance", "spearman"))
        table.add_row(row["model"], f"{row['alpha']:.2f}", row["prompt"], *numbers)
    return table


def _refuse_to_overwrite(path: Path) -> None:
    if path.exists():
        raise UserError(f"{path} exists already and is not overwritten: choose another name")


def _measures_table(measures: "pd.DataFrame") -> Table:  # type: ignore[name-defined] # noqa: F821
    table = Table(box=SIMPLE_HEAD, caption="FPR95: false positives at the threshold that keeps 95 % of the true positives")
    for heading in ("model", "alpha", "prompt", "EPIC", "95 % interval", "Pearson", "Spearman", "ROC-AUC", "FPR95"):
        text = heading in ("model", "prompt")
        table.add_column(heading, justify="left" if text else "right", overflow="fold", no_wrap=heading != "prompt")
    for row in measures.to_dict("records"):
        table.add_row(
            row["model"],
            f"{row['alpha']:.2f}",
            row["prompt"],
            _shown(row["epic_distance"], 3),
            f"{row['epic_low']:.3f}..{row['epic_high']:.3f}",
            *(_shown(row[key], 3) for key in ("pearson", "spearman", "roc_auc", "false_positive_rate")),
        )
    return table


def _shown(value: float, digits: int) -> str:
    return "-" if value != value else f"{value:.{digits}f}"


def _rendered(outcome: "SweepOutcome") -> Table:  # type: ignore[name-defined] # noqa: F821
    table = Table(title="trials: the greedy policy at the end")
    drawn = [heading for heading in ("textures", "camera") if heading in outcome.table.columns]
    words = ("model", "prompt", *drawn, "status")
    for heading in ("model", "alpha", "prompt", *drawn, "seed", "CLIP return", "true return", "success", "steps/s", "status"):
        table.add_column(heading, justify="left" if heading in words else "right", overflow="fold")

    for position, row in outcome.table.iterrows():
        best = outcome.best is not None and outcome.outcomes[int(position)] is outcome.best
        table.add_row(
            row["model"],
            _shown(row["alpha"], 2),
            row["prompt"],
            *(row[heading] for heading in drawn),
            str(row["seed"]),
            _shown(row["clip_return"], 1),
            _shown(row["true_return"], 1),
            _shown(row["success"], 2),
            _shown(row["steps_per_second"], 0),
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
