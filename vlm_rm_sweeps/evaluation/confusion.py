"""Does a reward mean its own task, or any task that looks alike? Each task's sentence, measured on each task's states."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
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
from vlm_rm_sweeps.metrics import INTERVALS, REWARD, ROC_AUC
from vlm_rm_sweeps.rewards.reward_model import RewardModel

_COLUMNS = ("model", "alpha", REWARD, "prompt", "task", "states", ROC_AUC, *INTERVALS[ROC_AUC], "undefined")


@dataclass(frozen=True)
class Matrix:
    """The confusion matrix of one model and reward.

    Attributes:
        model_id: The model.
        reward: The reward in words, such as `alpha 0.5`.
        areas: ROC-AUC, a row for each prompt and a column for each task; NaN where it is undefined.
        low: Lower ends of the 95 % intervals of the same cells.
        high: Their upper ends.
    """

    model_id: str
    reward: str
    areas: pd.DataFrame
    low: pd.DataFrame
    high: pd.DataFrame

    @property
    def tasks_told_apart(self) -> int:
        """Number of tasks whose own sentence has the highest ROC-AUC for their success, among all tasks' sentences."""
        own = self.areas.loc[self.areas.columns]
        return int((np.diag(own) >= own.max(axis=0).to_numpy()).sum())


def confusion(
    datasets: Sequence[StateDataset],
    model_ids: Sequence[str],
    specs: Specs,
    load: Callable[[str], RewardModel] = load_for_measuring,
    say: Callable[[str], None] | None = None,
) -> pd.DataFrame:
    """Measure how well each prompt tells the states that fulfil each task from the task's other states.

    Args:
        datasets: States of at least two tasks, a data set for each, with results of the success test.
        model_ids: The models. One at a time is in memory, and encodes each image once.
        specs: Rewards by prompt, among which is each task's own sentence, by the name of the task.
        load: Loads a model by its id.
        say: Is told what models remark on the states.

    Returns:
        A row for each model, reward, prompt and task: the ROC-AUC of the prompt's reward for the task's success, its interval,
        and why it is undefined.

    Raises:
        UserError: There is a single data set, two have states of the same task, or a data set has no success that varies; or
            as `compare_models`.
    """
    names = [dataset.task.name for dataset in datasets]
    if len(set(names)) < max(2, len(names)):
        raise UserError(f"data sets of {', '.join(names)}: expected at least two, each of another task")
    truths = [read_truth(dataset, SUCCESS) for dataset in datasets]
    check_models(model_ids, specs)
    measured = list(zip(names, datasets, truths, strict=True))
    return pd.concat([_of_model(load(each), each, measured, specs, say) for each in model_ids], ignore_index=True)


def _of_model(
    model: RewardModel,
    model_id: str,
    measured: Sequence[tuple[str, StateDataset, Truth]],
    specs: Specs,
    say: Callable[[str], None] | None,
) -> pd.DataFrame:
    parts = [
        compared.table.assign(task=name)
        for name, dataset, truth in measured
        for compared in compare_models(dataset, truth, [model_id], specs, lambda _: model, say)
    ]
    table = pd.concat(parts, ignore_index=True)
    return table[[name for name in _COLUMNS if name in table]]


def matrices(table: pd.DataFrame) -> Iterator[Matrix]:
    """Arrange a table as matrices.

    Args:
        table: As `confusion` returns it.

    Yields:
        The matrix of each model and reward, in the order of the table.
    """
    named = REWARD if REWARD in table else "alpha"
    for (model_id, reward), part in table.groupby(["model", named], sort=False):
        cells = [
            part.pivot(index="prompt", columns="task", values=name).loc[part["prompt"].unique(), part["task"].unique()]
            for name in (ROC_AUC, *INTERVALS[ROC_AUC])
        ]
        yield Matrix(str(model_id), reward if isinstance(reward, str) else f"alpha {reward:g}", *cells)


def save_confusion(folder: Path, table: pd.DataFrame) -> None:
    """Write `confusion.csv` and `confusion.png` (a matrix for each model and reward) into a new folder.

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
    found = list(matrices(table))
    rows = len(dict.fromkeys(each.model_id for each in found))
    columns = len(found) // rows
    prompts, tasks = found[0].areas.shape
    edge, space = 0.62, 1.2
    figure = Figure(
        figsize=((edge * tasks + space) * columns + 2.6, (edge * prompts + space) * rows + 1.4), layout="constrained"
    )
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for axes, each in zip(panels.flat, found, strict=True):
        cells = each.areas
        # Blue is better than chance, red is worse.
        image = axes.imshow(cells, cmap="RdBu", vmin=0, vmax=1, aspect="equal")
        axes.set_title(f"{each.model_id}, {each.reward}", fontsize=9)
        axes.set_xticks(range(tasks), cells.columns, rotation=35, ha="right", fontsize=8)
        axes.set_yticks(range(prompts), cells.index, fontsize=8)
        for (prompt, task), area in np.ndenumerate(cells.to_numpy()):
            shade = "white" if abs(area - 0.5) > 0.35 else "0.2"
            text = "-" if np.isnan(area) else f"{area:.2f}"
            axes.text(task, prompt, text, ha="center", va="center", color=shade, fontsize=8)
        for place, task in enumerate(cells.columns):
            corner = place - 0.48, cells.index.tolist().index(task) - 0.48
            axes.add_patch(Rectangle(corner, 0.96, 0.96, fill=False, edgecolor="tab:orange", linewidth=2))
    figure.supxlabel("states: success of the task", fontsize=9)
    figure.supylabel("prompt (of a task: its own sentence)", fontsize=9)
    figure.colorbar(image, ax=panels, label="ROC-AUC (0.5: chance)", shrink=0.8)
    return figure
