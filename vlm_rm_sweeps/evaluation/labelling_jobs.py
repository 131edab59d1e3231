"""What there is to label in a folder: the states of a data set, or videos of trials."""

from pathlib import Path

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.evaluation.states import LABELS, TABLE, StateDataset, load_states
from vlm_rm_sweeps.evaluation.truth import refuse_foreign_labels
from vlm_rm_sweeps.labelling.agreement import agreement
from vlm_rm_sweeps.labelling.items import LabelItem, LabelJob, videos_to_label
from vlm_rm_sweeps.labelling.scales import SHARE, YES_NO
from vlm_rm_sweeps.labelling.store import LabelStore
from vlm_rm_sweeps.tasks.task import get_task


def label_job(folder: Path, task_name: str | None, criterion: str | None) -> LabelJob:
    """What a rater is asked about a folder. The criterion is the task's success criterion unless one is given.

    Raises UserError if there is nothing to label, nothing to judge it by, or its labels are those of another data set.
    """
    if (folder / TABLE).is_file():
        return _job_of_states(load_states(folder), criterion)
    items = videos_to_label(folder)
    criterion = criterion or (get_task(task_name).success_criterion if task_name else None)
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


def _job_of_states(dataset: StateDataset, criterion: str | None) -> LabelJob:
    task = dataset.task
    if dataset.labels_file.is_file():
        _labels_of_states(dataset)
    return LabelJob(
        title=f"{task.name}: {len(dataset)} states",
        question="Is this state in the goal?",
        criterion=criterion or task.success_criterion or task.goal_prompt,
        items=[LabelItem(each, dataset.image_file(index)) for index, each in enumerate(dataset.ids)],
        scale=YES_NO,
        labels_file=dataset.labels_file,
    )


def _labels_of_states(dataset: StateDataset) -> LabelStore:
    store = LabelStore(dataset.labels_file, YES_NO)
    refuse_foreign_labels(dataset, sorted(set(store.table()["item"])))
    return store


def stored_labels(folder: Path) -> LabelStore:
    """The labels that lie in a folder; UserError if there are none, or if they are those of another data set."""
    if not (folder / LABELS).is_file():
        raise UserError(f"{folder} has no labels: give some with `vlm-rm label {folder}`")
    if not (folder / TABLE).is_file():
        return LabelStore(folder / LABELS, SHARE)
    return _labels_of_states(load_states(folder))


def describe_labels(store: LabelStore) -> str:
    """What people read: answers of each rater, and the agreement of each pair."""
    table = store.table()
    lines = []
    for rater, given in table.groupby("rater"):
        counts = [
            f"{int((given['value'] == answer.value).sum())} {answer.text}"
            for answer in store.scale.answers
            if (given["value"] == answer.value).any()
        ]
        skipped = int(given["value"].isna().sum())
        lines.append(f"{rater}: {', '.join(counts + ([f'{skipped} skipped'] if skipped else []))}")
    for pair in agreement(table, store.scale).to_dict("records"):
        kappa = "undefined" if pair["kappa"] != pair["kappa"] else f"{pair['kappa']:.2f}"
        equal = "-" if pair["equal"] != pair["equal"] else f"{100 * pair['equal']:.0f} %"
        lines.append(
            f"{pair['first']} and {pair['second']}: {pair['items']} items by both, {equal} equal, Cohen's kappa {kappa}"
        )
    return "\n".join(lines) or "no labels yet"
