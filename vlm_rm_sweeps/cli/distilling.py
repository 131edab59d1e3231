"""The command that distils a model for a task."""

from pathlib import Path
from typing import Annotated

import typer

from vlm_rm_sweeps.cli.options import LARGEST_SEED, MOST_STATES, RenderedCamera, RenderedTextures, new_folder
from vlm_rm_sweeps.cli.terminal import say


def distill(
    teacher: Annotated[str, typer.Argument(help="Model id of the teacher, such as embedded/large.")],
    task: Annotated[str, typer.Option(help="Name of a task; `vlm-rm tasks` lists them.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", callback=new_folder, help="Folder for weights and card; must not exist yet.")
    ],
    student: Annotated[
        str, typer.Option(help="Model of the embedded family whose image tower is trained further.")
    ] = "embedded/small",
    states: Annotated[
        list[Path],
        typer.Option(help="Folder of a data set with further states, such as of `vlm-rm states rollouts`; may be repeated."),
    ] = [],  # noqa: B006
    images: Annotated[
        int, typer.Option(min=100, max=MOST_STATES, help="States to draw from the task's state space; a fifth is held out.")
    ] = 2_500,
    textures: RenderedTextures = None,
    camera: RenderedCamera = None,
    epochs: Annotated[int, typer.Option(min=1, max=10_000, help="How often each training image is seen.")] = 15,
    seed: Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Seed of states, split and batches.")] = 0,
) -> None:
    """Train a small image tower to embed a task's states as a teacher does, in minutes; the teacher still embeds all texts."""
    from vlm_rm_sweeps.evaluation.states import load_states
    from vlm_rm_sweeps.pretraining import distill as distillation
    from vlm_rm_sweeps.rewards.distilled import DISTILLED, STUDENT_FILE
    from vlm_rm_sweeps.tasks.registry import find_task

    chosen, datasets = find_task(task), [load_states(each) for each in states]
    drawn = chosen.rendering(textures, camera)
    rewards = distillation.distill(teacher, chosen, student, datasets, images, epochs, seed, output, say, drawn)
    print(rewards.to_string(index=False, float_format="%.3f"))
    print(f"written to {output}, with its card {distillation.CARD}; its model id is {DISTILLED}/{output / STUDENT_FILE}")
