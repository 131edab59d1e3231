"""What there is to label in a folder: the states of a data set, or videos of trials."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.evaluation.ground_truth import refuse_foreign_labels
from vlm_rm_sweeps.evaluation.states import LABELS, TABLE, StateDataset, load_states
from vlm_rm_sweeps.labelling.agreement import agreement
from vlm_rm_sweeps.labelling.items import LabelItem, LabelJob, videos_to_label
from vlm_rm_sweeps.labelling.scales import SHARE, YES_NO, Scale
from vlm_rm_sweeps.labelling.store import LabelStore
from vlm_rm_sweeps.metrics import is_success
from vlm_rm_sweeps.tasks.registry import find_task, known_task
from vlm_rm_sweeps.videos import read_episode


def label_job(folder: Path, task_name: str | None, criterion: str | None) -> LabelJob:
    """Decide what a rater is asked about a folder.

    Args:
        folder: A data set of states, or a folder with videos.
        task_name: The task that videos show; None takes the name that lies beside them.
        criterion: What the rater judges by; None takes the task's success criterion.

    Raises:
        UserError: There is nothing to label or nothing to judge it by, the task is unknown, or the labels are those of another data
            set.
    """
    if (folder / TABLE).is_file():
        return _job_of_states(load_states(folder), criterion)
    items = videos_to_label(folder)
    task = find_task(task_name) if task_name else None
    criterion = criterion or (task.success_criterion if task else _criterion_of(folder, items))
    if criterion is None:
        raise UserError(
            f"{folder}: nothing says what its videos are judged by: name their task with --task, or give a --criterion"
        )
    return LabelJob(
        title=f"{folder.name}: {len(items)} videos",
        question="For how much of its time is it in the goal?",
        criterion=criterion,
        items=items,
        scale=SHARE,
        labels_file=folder / LABELS,
    )


def _criterion_of(folder: Path, videos: list[LabelItem]) -> str | None:
    """The success criterion of the task that videos of trials show; None if they name no task, or several."""
    names = {read_episode(video.file).get("task") for video in videos}
    name = names.pop() if len(names) == 1 else None
    if name is None:
        return None
    try:
        return known_task(str(name)).success_criterion
    except UserError as error:
        raise UserError(f"{folder}: {error}; or say what its videos are judged by with --criterion") from error


def _job_of_states(dataset: StateDataset, criterion: str | None) -> LabelJob:
    task = dataset.task
    if dataset.labels_file.is_file():
        _labels_of_states(dataset)
    return LabelJob(
        title=f"{task.name}: {len(dataset)} states",
        question="Is this state in the goal?",
        criterion=criterion or task.success_criterion or task.goal_prompt,
        items=[
            LabelItem(each, dataset.image_file(index), str(dataset.table["sha256"].iloc[index]))
            for index, each in enumerate(dataset.ids)
        ],
        scale=YES_NO,
        labels_file=dataset.labels_file,
    )


def _labels_of_states(dataset: StateDataset) -> LabelStore:
    store = LabelStore(dataset.labels_file, YES_NO)
    refuse_foreign_labels(dataset, sorted(set(store.table()["item"])))
    return store


@dataclass(frozen=True)
class GivenLabels:
    """What raters said about what lies in a folder now.

    `table`: as of `LabelStore.table`; of videos also `video`, the file, and `goal_fraction`, the share of its steps that the task's
    success test finds in the goal (NaN where nothing is known of the episode). `elsewhere`: labels of videos that are not there.
    """

    table: pd.DataFrame
    scale: Scale
    elsewhere: int = 0


def stored_labels(folder: Path) -> GivenLabels:
    """The labels that lie in a folder; UserError if there are none, or if they are those of another data set."""
    if not (folder / LABELS).is_file():
        raise UserError(f"{folder} has no labels: give some with `vlm-rm label {folder}`")
    if (folder / TABLE).is_file():
        store = _labels_of_states(load_states(folder))
        return GivenLabels(store.table(), store.scale)
    videos = {item.id: item.file for item in videos_to_label(folder)}
    table = LabelStore(folder / LABELS, SHARE).table()
    present = table[table["item"].isin(videos)].reset_index(drop=True)
    files = present["item"].map(videos)
    described = present.assign(
        video=[str(file.relative_to(folder)) for file in files], goal_fraction=[_goal_fraction(file) for file in files]
    )
    return GivenLabels(described, SHARE, len(table) - len(present))


def _goal_fraction(video: Path) -> float:
    """What the success test says of the episode that a video shows; NaN if that is not known."""
    known = read_episode(video).get("goal_fraction")
    return float("nan") if known is None else float(known)


def describe_labels(given: GivenLabels) -> str:
    """What people read: answers of each rater, how far they are from the success test, and the agreement of each pair."""
    lines = []
    for rater, own in given.table.groupby("rater"):
        counts = [
            f"{int((own['value'] == answer.value).sum())} {answer.text}"
            for answer in given.scale.answers
            if (own["value"] == answer.value).any()
        ]
        skipped = int(own["value"].isna().sum())
        lines.append(f"{rater}: {', '.join(counts + ([f'{skipped} skipped'] if skipped else []))}")
        if given.scale is SHARE:
            lines += _beside_the_success_test(own)
    for pair in agreement(given.table, given.scale).to_dict("records"):
        kappa = "undefined" if pair["kappa"] != pair["kappa"] else f"{pair['kappa']:.2f}"
        equal = "-" if pair["equal"] != pair["equal"] else f"{100 * pair['equal']:.0f} %"
        lines.append(
            f"{pair['first']} and {pair['second']}: {pair['items']} items by both, {equal} equal, Cohen's kappa {kappa}"
        )
    if given.elsewhere:
        lines.append(f"{given.elsewhere} labels of videos that are not in the folder are left out")
    return "\n".join(lines) or "no labels yet"


def _beside_the_success_test(own: pd.DataFrame) -> list[str]:
    """One rater's shares beside those of the success test, if there are videos of which both are known."""
    both = own.dropna(subset=["value", "goal_fraction"])
    if both.empty:
        return []
    said, measured = both["value"] / 100, both["goal_fraction"]
    equal = float((said.map(is_success) == measured.map(is_success)).mean())
    return [
        f"  beside the success test, {len(both)} videos: {100 * equal:.0f} % equal on success, shares "
        f"{100 * float((said - measured).abs().mean()):.0f} points apart on average"
    ]
