"""Commands that collect data sets of states and label them."""

from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlm_rm_sweeps.cli.options import (
    LARGEST_SEED,
    MOST_STATES,
    MOST_STEPS,
    DatasetFolder,
    ImageFormatOption,
    JsonOutput,
    NewDataset,
    RenderedCamera,
    RenderedTextures,
    folder_here,
    new_file,
    new_folder,
    refuse_to_overwrite,
    write_table,
)
from vlm_rm_sweeps.cli.terminal import print_json, records, say, say_aside
from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.labelling.access import LOOPBACK
from vlm_rm_sweeps.storage import place_named

if TYPE_CHECKING:
    from vlm_rm_sweeps.evaluation.states import State
    from vlm_rm_sweeps.tasks.task import Task

states_app = typer.Typer(help="Make data sets of states, for measuring reward models without training.", no_args_is_help=True)


@states_app.command("sample")
def states_sample(
    task: Annotated[str, typer.Argument(help="Name of a task; `vlm-rm tasks` lists them.")],
    output: NewDataset,
    count: Annotated[int, typer.Option(min=1, max=MOST_STATES, help="Number of states.")] = 1_000,
    seed: Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Seed of the random states.")] = 0,
    textures: RenderedTextures = None,
    camera: RenderedCamera = None,
    image_format: ImageFormatOption = "png",
) -> None:
    """Make a data set of random states of a task, with the results of its success test."""
    from vlm_rm_sweeps.evaluation.collect_states import sampled_states
    from vlm_rm_sweeps.tasks.registry import find_task

    chosen = find_task(task)
    states = sampled_states(chosen, count, seed, chosen.rendering(textures, camera))
    _write_states(output, chosen, states, image_format)


class Which(StrEnum):
    """Which of a trial's checkpoints to use."""

    BEST = "best"
    LAST = "last"
    ALL = "all"


@states_app.command("rollouts")
def states_rollouts(
    sources: Annotated[
        list[str],
        typer.Argument(help="Folders or addresses of sweeps (all of their trials), of trials, or of checkpoints."),
    ],
    output: NewDataset,
    which: Annotated[
        Which,
        typer.Option("--checkpoint", help="Checkpoint of each trial to use; all: each that is kept (the best and the newest)."),
    ] = Which.BEST,
    episodes: Annotated[int, typer.Option(min=1, max=MOST_STEPS, help="Episodes for each policy.")] = 5,
    every: Annotated[int, typer.Option(min=1, help="Keep one state in this many steps of an episode.")] = 10,
    seed: Annotated[
        int,
        typer.Option(
            min=0, max=LARGEST_SEED, help="Seed of each policy's first episode; it rises by 1 for each further episode."
        ),
    ] = 10_000,
    image_format: ImageFormatOption = "png",
) -> None:
    """Make a data set of the states that learned policies visit, with the results of the task's success test."""
    from vlm_rm_sweeps.evaluation.collect_states import states_of_policies, task_of_all
    from vlm_rm_sweeps.sweeping.tracking.trained_policies import trained_policies

    refuse_to_overwrite(output)
    policies = trained_policies([place_named(source) for source in sources], which.value, say)
    states = states_of_policies(policies, episodes, every, seed, say)
    _write_states(output, task_of_all(policies), states, image_format)


@states_app.command("images")
def states_images(
    images: Annotated[Path, typer.Argument(help="Folder with PNG, JPEG or WebP images.")],
    task: Annotated[str, typer.Option(help="Task whose states the images show.")],
    output: NewDataset,
    image_format: ImageFormatOption = "png",
) -> None:
    """Make a data set from a folder of images, to be labelled by raters."""
    from vlm_rm_sweeps.evaluation.collect_states import states_of_images
    from vlm_rm_sweeps.tasks.registry import find_task

    _write_states(output, find_task(task), states_of_images(images), image_format)


@states_app.command("show")
def states_show(dataset: DatasetFolder, as_json: JsonOutput = False) -> None:
    """Check a data set and describe its contents."""
    from vlm_rm_sweeps.evaluation.states import load_states

    states = load_states(dataset)
    if as_json:
        print_json(
            {
                "task": states.task.name,
                "states": len(states),
                "in_goal": int(states.table["success"].dropna().sum()),
                "success_known": int(states.table["success"].notna().sum()),
                "sources": states.table["source"].value_counts().to_dict(),
                "variables": list(states.variables),
            }
        )
    else:
        print(states.summary())


def _write_states(output: Path, task: "Task", states: "Iterable[State]", image_format: str) -> None:
    from vlm_rm_sweeps.evaluation.states import image_format_named, write_states

    written = write_states(output, task, states, image_format_named(image_format))
    print(f"{written.summary()}\nwritten to {output}; label it with `vlm-rm label {output}`")


def label(
    folder: Annotated[
        str,
        typer.Argument(
            help="A data set of states, a sweep's folder or address (for the videos of its trials), or any folder of mp4 videos.",
        ),
    ],
    into: Annotated[
        Path | None,
        typer.Option(
            callback=new_folder,
            help="Folder to which the videos of a sweep at an address are copied, and in which labels are kept.",
        ),
    ] = None,
    criterion: Annotated[str | None, typer.Option(help="What raters judge by. Default: the task's success criterion.")] = None,
    task: Annotated[str | None, typer.Option(help="Task that the videos show, if they are not from a sweep.")] = None,
    pairs: Annotated[
        bool, typer.Option("--pairs", help="Show two states side by side: which one is closer to the goal?")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Seed of the pairs.")] = 0,
    host: Annotated[
        str, typer.Option(help="Address of this machine to listen on. If others reach it, the page asks for a token.")
    ] = LOOPBACK,
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port on this machine; 0 takes any free one.")] = 0,
    open_browser: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in a browser.")] = True,
) -> None:
    """Label states, pairs of them, or videos in the browser, by keyboard or mouse; each label is saved at once."""
    from vlm_rm_sweeps.evaluation.label_jobs import label_job
    from vlm_rm_sweeps.labelling.page import serve

    labelled = _folder_to_label(folder, into)
    serve(label_job(labelled, task, criterion, seed if pairs else None), host, port, open_browser, say=say)


def _folder_to_label(folder: str, into: Path | None) -> Path:
    place = place_named(folder)
    if isinstance(place, Path):
        if into is not None:
            raise UserError(f"--into is for a sweep at an address, and {place} is labelled where it is")
        return place
    if into is None:
        raise UserError(
            f"{place} is an address, and labels are kept in a folder, which several raters may share: add --into FOLDER, to which its "
            "videos are copied"
        )
    from vlm_rm_sweeps.sweeping.tracking.folder import SweepFolder

    SweepFolder.at(place).copy_videos(into)
    return into


def labels(
    folder: Annotated[
        Path,
        typer.Argument(
            callback=folder_here, help="A labelled data set of states, or a labelled folder of videos, such as a sweep's."
        ),
    ],
    pairs: Annotated[bool, typer.Option("--pairs", help="The pairs of states that raters have compared.")] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", callback=new_file, help="Write all labels to this CSV file.")
    ] = None,
    as_json: JsonOutput = False,
) -> None:
    """Summarise labels by rater, agreement between raters (Cohen's kappa) and, for videos, with the success test."""
    from vlm_rm_sweeps.evaluation.label_jobs import describe_labels, stored_labels

    if output:
        refuse_to_overwrite(output)
    given = stored_labels(folder, pairs)
    if as_json:
        from vlm_rm_sweeps.labelling.agreement import agreement

        pairs_of_raters = records(agreement(given.table, given.scale))
        print_json({"labels": records(given.table), "agreement": pairs_of_raters, "elsewhere": given.elsewhere})
    else:
        print(describe_labels(given))
    if output:
        write_table(output, given.table)
        (say_aside if as_json else say)(f"written to {output}")
