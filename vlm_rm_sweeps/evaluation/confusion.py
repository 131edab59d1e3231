"""Does a reward mean its own task, or any task that looks alike? Each task's sentence, measured on each task's states."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.evaluation.compare import Specs, check_models, compare_models, load_for_measuring
from vlm_rm_sweeps.evaluation.ground_truth import SUCCESS, Truth, read_truth
from vlm_rm_sweeps.evaluation.states import StateDataset
from vlm_rm_sweeps.files import new_output
from vlm_rm_sweeps.metrics import INTERVALS, ROC_AUC
from vlm_rm_sweeps.rewards.reward_model import RewardModel, RewardSpec

_COLUMNS = ["model", "alpha", "prompt", "task", "states", ROC_AUC, *INTERVALS[ROC_AUC], "undefined"]


def confusion(
    datasets: Sequence[StateDataset],
    model_ids: Sequence[str],
    alphas: Sequence[float],
    load: Callable[[str], RewardModel] = load_for_measuring,
) -> pd.DataFrame:
    """Measure how well each task's sentence tells the states that fulfil each task from the task's other states.

    Args:
        datasets: States of at least two tasks, a data set for each, with results of the success test.
        model_ids: The models. One at a time is in memory, and encodes each image once.
        alphas: Values of alpha.
        load: Loads a model by its id.

    Returns:
        A row for each model, alpha, prompt (the name of the task whose sentence it is) and task: the ROC-AUC of the prompt's
        reward for the task's success, its interval, and why it is undefined.

    Raises:
        UserError: There is a single data set, two have states of the same task, or a data set has no success that varies; or
            as `compare_models`.
    """
    tasks = [dataset.task for dataset in datasets]
    names = [task.name for task in tasks]
    if len(set(names)) < max(2, len(names)):
        raise UserError(f"data sets of {', '.join(names)}: expected at least two, each of another task")
    truths = [read_truth(dataset, SUCCESS) for dataset in datasets]
    specs = {
        (alpha, task.name): RewardSpec((task.goal_prompt,), (task.baseline_prompt,), alpha)
        for alpha in alphas
        for task in tasks
    }
    check_models(model_ids, specs)
    measured = list(zip(names, datasets, truths, strict=True))
    return pd.concat([_of_model(load(each), each, measured, specs) for each in model_ids], ignore_index=True)


def _of_model(
    model: RewardModel, model_id: str, measured: Sequence[tuple[str, StateDataset, Truth]], specs: Specs
) -> pd.DataFrame:
    parts = [
        compared.table.assign(task=name)[_COLUMNS]
        for name, dataset, truth in measured
        for compared in compare_models(dataset, truth, [model_id], specs, lambda _: model)
    ]
    return pd.concat(parts, ignore_index=True)


def matrix(table: pd.DataFrame, model_id: str, alpha: float) -> pd.DataFrame:
    """Return the confusion matrix of one model and alpha.

    Args:
        table: As `confusion` returns it.
        model_id: The model.
        alpha: The alpha.

    Returns:
        ROC-AUC, a row for each prompt and a column for each task, in the same order; NaN where it is undefined.
    """
    part = table[(table["model"] == model_id) & (table["alpha"] == alpha)]
    order = part["task"].unique()
    return part.pivot(index="prompt", columns="task", values=ROC_AUC).loc[order, order]


def tasks_told_apart(cells: pd.DataFrame) -> int:
    """Count the tasks whose own sentence has the highest ROC-AUC for their success, among all sentences.

    Args:
        cells: As `matrix` returns it.

    Returns:
        A number of columns.
    """
    return int((np.diag(cells) >= cells.max(axis=0).to_numpy()).sum())


def save_confusion(folder: Path, table: pd.DataFrame) -> None:
    """Write `confusion.csv` and `confusion.png` (a matrix for each model and alpha) into a new folder.

    Args:
        folder: Must not exist yet. It appears when it is complete.
        table: As `confusion` returns it.

    Raises:
        UserError: The folder cannot be written.
    """
    with new_output(folder) as unfinished:
        unfinished.mkdir()
        table.to_csv(unfinished / "confusion.csv", index=False)
        _drawn(table).savefig(unfinished / "confusion.png", dpi=120)


def _drawn(table: pd.DataFrame) -> Figure:
    models, alphas = list(table["model"].unique()), list(table["alpha"].unique())
    tasks = len(table["task"].unique())
    edge = 0.62 * tasks + 1.2
    figure = Figure(figsize=(edge * len(alphas) + 2.6, edge * len(models) + 1.4), layout="constrained")
    panels = figure.subplots(len(models), len(alphas), squeeze=False, sharex=True, sharey=True)
    for row, model_id in enumerate(models):
        for column, alpha in enumerate(alphas):
            axes, cells = panels[row, column], matrix(table, model_id, alpha)
            # Blue is better than chance, red is worse.
            image = axes.imshow(cells, cmap="RdBu", vmin=0, vmax=1, aspect="equal")
            axes.set_title(f"{model_id}, alpha {alpha:g}", fontsize=9)
            axes.set_xticks(range(tasks), cells.columns, rotation=35, ha="right", fontsize=8)
            axes.set_yticks(range(tasks), cells.index, fontsize=8)
            for (prompt, task), area in np.ndenumerate(cells.to_numpy()):
                shade = "white" if abs(area - 0.5) > 0.35 else "0.2"
                axes.text(
                    task, prompt, "-" if np.isnan(area) else f"{area:.2f}", ha="center", va="center", color=shade, fontsize=8
                )
            for own in range(tasks):
                axes.add_patch(Rectangle((own - 0.48, own - 0.48), 0.96, 0.96, fill=False, edgecolor="tab:orange", linewidth=2))
    figure.supxlabel("states: success of the task", fontsize=9)
    figure.supylabel("prompt: the task's own sentence", fontsize=9)
    figure.colorbar(image, ax=panels, label="ROC-AUC (0.5: chance)", shrink=0.8)
    return figure
