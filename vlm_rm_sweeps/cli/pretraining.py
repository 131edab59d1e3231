"""Commands that train and evaluate the embedded family of models."""

from pathlib import Path
from typing import Annotated

import typer

from vlm_rm_sweeps.cli.options import LARGEST_SEED, MOST_THREADS, listed, new_folder
from vlm_rm_sweeps.errors import UserError

pretrain_app = typer.Typer(help="Train or evaluate the embedded family of models.")


@pretrain_app.callback(invoke_without_command=True)
def pretrain(
    context: typer.Context,
    sizes: Annotated[
        list[str], typer.Option("--size", "--sizes", help="Sizes to train, separated by commas; may be repeated.")
    ] = ["tiny,small,base,large"],  # noqa: B006
    out: Annotated[
        Path | None,
        typer.Option(
            callback=new_folder,
            help="Folder for configs, vocabulary, weights and model card; an interrupted training there resumes.",
            show_default="results/pretraining/seed-SEED",
        ),
    ] = None,
    samples: Annotated[
        int, typer.Option(min=1, max=10**9, help="Training samples: images with captions, with repetition.")
    ] = 256_000,
    images: Annotated[int, typer.Option(min=1, max=10**7, help="Distinct images to render.")] = 60_000,
    seed: Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Seed of images, captions and initial weights.")] = 0,
    start: Annotated[
        Path | None, typer.Option("--from", help="Start from the weights in this folder instead of random ones.")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, max=MOST_THREADS, help="CPU threads for training.")] = 1,
) -> None:
    """Train models of the embedded family on rendered states with generated captions."""
    if context.invoked_subcommand:
        return
    import torch

    from vlm_rm_sweeps.pretraining.train import pretrain as train_family

    torch.set_num_threads(threads)
    folder = out or Path(f"results/pretraining/seed-{seed}")
    train_family(listed("--size", sizes), samples, images, seed, folder, start)
    print(f"evaluate them, once they are final, on what they never saw: vlm-rm pretrain evaluate {folder}")


@pretrain_app.command("evaluate")
def pretrain_evaluate(
    folders: Annotated[list[Path], typer.Argument(help="Folders written by `vlm-rm pretrain`, one for each training seed.")],
) -> None:
    """Evaluate models on held-out states, wordings and cameras, and write the model card into the first folder."""
    from vlm_rm_sweeps.pretraining.evaluate import check_family, evaluate_family, render_test_sets
    from vlm_rm_sweeps.pretraining.model_card import write_model_card

    for folder in folders:
        if not (folder / "manifest.json").is_file():
            raise UserError(f"{folder} has no manifest.json: expected a folder written by `vlm-rm pretrain`")
        check_family(folder)
    tests = render_test_sets()
    print(f"model card written to {write_model_card([evaluate_family(folder, tests) for folder in folders])}")
