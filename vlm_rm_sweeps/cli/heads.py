"""Commands that train rewards from labels."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlm_rm_sweeps.cli.options import LARGEST_SEED, DatasetFolder, new_file
from vlm_rm_sweeps.cli.terminal import say

if TYPE_CHECKING:
    from vlm_rm_sweeps.evaluation.heads.train import TrainedHead

reward_app = typer.Typer(help="Train rewards from labels.", no_args_is_help=True)


@reward_app.callback()
def reward() -> None:
    """Train rewards from labels."""


@reward_app.command("train")
def reward_train(
    dataset: DatasetFolder,
    model: Annotated[str, typer.Option(help="Model id; its image embeddings stay as they are.")],
    truth: Annotated[
        str | None,
        typer.Option(
            help="What the states are labelled by: `success`, `rater:NAME`, `raters` (their majority), or a condition on the data "
            "set's state variables, such as 'abs(theta) < 0.1'. Of pairs: `raters` or `rater:NAME`.",
            show_default="success; raters for --pairs",
        ),
    ] = None,
    pairs: Annotated[
        bool, typer.Option("--pairs", help="Learn from pairs that raters have compared (`vlm-rm label DATASET --pairs`).")
    ] = False,
    hidden: Annotated[int, typer.Option(min=0, max=64, help="Hidden units of a small network; 0: logistic regression.")] = 0,
    seed: Annotated[
        int, typer.Option(min=0, max=LARGEST_SEED, help="Seed of the cross-validation and of a network's first weights.")
    ] = 0,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            callback=new_file,
            help="File of the head; its model card is FILE.md.",
            show_default="results/heads/DATASET-MODEL.safetensors",
        ),
    ] = None,
) -> None:
    """Train a small head on a model's image embeddings, in seconds, and measure it on episodes that it has not seen."""
    from vlm_rm_sweeps.evaluation.heads.train import card_file, refuse_existing, train_head, write_trained
    from vlm_rm_sweeps.evaluation.states import load_states

    states = load_states(dataset)
    file = output or Path("results/heads") / f"{dataset.resolve().name}-{model.replace('/', '-')}.safetensors"
    refuse_existing(file)
    say(f"embedding {len(states)} states of {states.task.name} with {model}")
    trained = train_head(states, model, truth, pairs, hidden, seed)
    write_trained(file, trained)
    print(f"{_summary(trained)}\nwritten to {file}, model card: {card_file(file)}")


def _summary(trained: "TrainedHead") -> str:
    about = trained.head.about
    counts = ", ".join(f"{count} {answer}" for answer, count in about.counts.items())
    lines = [f"{about.kind} on {about.model}, truth {about.truth}: {counts}"]
    lines += [
        f"  {name.replace('_', ' '):20}{interval.value:.3f} ({interval.low:.3f} to {interval.high:.3f})"
        for name, interval in trained.validation.measures.items()
    ]
    return "\n".join(lines)
