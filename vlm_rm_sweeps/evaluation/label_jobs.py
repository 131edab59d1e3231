"""Labelling jobs for a folder (states, pairs of them, or videos), and a summary of the labels given so far."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.evaluation.ground_truth import refuse_foreign_labels
from vlm_rm_sweeps.evaluation.states import LABELS, PAIRS, TABLE, StateDataset, load_states
from vlm_rm_sweeps.files import file_inside
from vlm_rm_sweeps.labelling.agreement import agreement
from vlm_rm_sweeps.labelling.items import LabelItem, LabelJob, videos_to_label
from vlm_rm_sweeps.labelling.pairs import states_of_pair
from vlm_rm_sweeps.labelling.scales import CLOSER, SHARE, YES_NO, Scale
from vlm_rm_sweeps.labelling.store import LabelStore
from vlm_rm_sweeps.metrics import GOAL_FRACTION, is_success
from vlm_rm_sweeps.tasks.registry import find_task, known_task
from vlm_rm_sweeps.videos import read_episode


def label_job(folder: Path, task_name: str | None, criterion: str | None, pair_seed: int | None = None) -> LabelJob:
    """Set up the labelling of a folder.

    Args:
        folder: A data set of states, a sweep's folder, or any folder of mp4 videos.
        task_name: Task that the videos show; read from their descriptions by default. Unused for states.
        criterion: What raters judge by; the task's success criterion by default.
        pair_seed: Seed of the pairs in which states are compared; None to judge each by itself.

    Returns:
        The items to label, with question and answers.

    Raises:
        UserError: There is nothing to label, no criterion, or the labels in the folder belong to another data set.
    """
    if (folder / TABLE).is_file():
        return _job_of_states(load_states(folder), criterion, pair_seed)
    if pair_seed is not None:
        raise UserError(
            f"{folder} has no states to compare in pairs: expected a data set of states, as `vlm-rm states` makes it"
        )
    items = videos_to_label(folder)
    task = find_task(task_name) if task_name else None
    criterion = criterion or (task.success_criterion if task else _criterion_of(folder, items))
    if criterion is None:
        raise UserError(
            f"{folder}: no criterion for its videos: name the task that they show with --task, or give one with --criterion"
        )
    return LabelJob(
        title=f"{folder.name}: {len(items)} videos",
        question="For how much of its time is it in the goal?",
        criterion=criterion,
        items=items,
        scale=SHARE,
        labels_file=file_inside(folder, LABELS),
    )


def _criterion_of(folder: Path, videos: list[LabelItem]) -> str | None:
    """Find the success criterion of the videos' task in their descriptions; None if they name no task, or several."""
    described = [read_episode(video.file) for video in videos]
    names = {about["task"] if about else None for about in described}
    name = names.pop() if len(names) == 1 else None
    if name is None:
        return None
    try:
        return known_task(name).success_criterion
    except UserError as error:
        raise UserError(f"{folder}: {error}; or say what its videos are judged by with --criterion") from error


def _job_of_states(dataset: StateDataset, criterion: str | None, pair_seed: int | None) -> LabelJob:
    task = dataset.task
    are_pairs = pair_seed is not None
    if _labels_file(dataset, are_pairs).exists():
        _labels_of_states(dataset, are_pairs)
    return LabelJob(
        title=f"{task.name}: {len(dataset)} states",
        question="Which one is closer to this?" if are_pairs else "Is this state in the goal?",
        criterion=criterion or task.success_criterion or task.goal_prompt,
        items=[
            LabelItem(each, dataset.image_file(index), str(dataset.table["sha256"].iloc[index]))
            for index, each in enumerate(dataset.ids)
        ],
        scale=CLOSER if are_pairs else YES_NO,
        labels_file=_labels_file(dataset, are_pairs),
        pair_seed=pair_seed,
    )


def _labels_file(dataset: StateDataset, are_pairs: bool) -> Path:
    return dataset.pairs_file if are_pairs else dataset.labels_file


def _labels_of_states(dataset: StateDataset, are_pairs: bool) -> LabelStore:
    """Open the labels of states, or of pairs of them, all of which are in the data set."""
    store = LabelStore(_labels_file(dataset, are_pairs), CLOSER if are_pairs else YES_NO)
    items = store.table()["item"]
    states = [state for item in items for state in (states_of_pair(item) or [item])] if are_pairs else items
    refuse_foreign_labels(dataset, states, store.file)
    return store


@dataclass(frozen=True)
class GivenLabels:
    """Labels of the items in a folder.

    Attributes:
        table: As `LabelStore.table` returns it; for videos also `video`, the path relative to the folder, and `goal_fraction`,
            the share of the episode's steps that the task's success test accepts (NaN if unknown).
        scale: The possible answers.
        elsewhere: Number of labels that are left out, because their videos are not in the folder.
    """

    table: pd.DataFrame
    scale: Scale
    elsewhere: int = 0


def stored_labels(folder: Path, are_pairs: bool = False) -> GivenLabels:
    """Read the labels of a folder.

    Args:
        folder: A data set of states, a sweep's folder, or any folder of mp4 videos.
        are_pairs: Whether to read the pairs of states that raters have compared, instead of the labels of each state.

    Returns:
        All standing labels.

    Raises:
        UserError: There are no labels, or they belong to another data set.
    """
    file = file_inside(folder, PAIRS if are_pairs else LABELS)
    if not file.exists():
        what, option = ("compared pairs", " --pairs") if are_pairs else ("labels", "")
        compared = " (only compared pairs: --pairs shows them)" if not are_pairs and (folder / PAIRS).exists() else ""
        raise UserError(f"{folder} has no {what}{compared}: add some with `vlm-rm label {folder}{option}`")
    if (folder / TABLE).is_file():
        store = _labels_of_states(load_states(folder), are_pairs)
        return GivenLabels(store.table(), store.scale)
    videos = {item.id: item.file for item in videos_to_label(folder)}
    table = LabelStore(file, SHARE).table()
    present = table[table["item"].isin(videos)].reset_index(drop=True)
    files = present["item"].map(videos)
    described = present.assign(video=[str(file.relative_to(folder)) for file in files])
    described[GOAL_FRACTION] = [_goal_fraction(file) for file in files]
    return GivenLabels(described, SHARE, len(table) - len(present))


def _goal_fraction(video: Path) -> float:
    """Read the share of steps in the goal of a video's episode; NaN if unknown."""
    about = read_episode(video)
    known = about["goal_fraction"] if about else None
    return float("nan") if known is None else known


def describe_labels(given: GivenLabels) -> str:
    """Describe labels for people: each rater's answers, their difference from the success test, and each pair's agreement.

    Args:
        given: As `stored_labels` returns them.

    Returns:
        One or more lines.
    """
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
            lines += _compared_with_success_test(own)
    for pair in agreement(given.table, given.scale).to_dict("records"):
        kappa = "undefined" if pair["kappa"] != pair["kappa"] else f"{pair['kappa']:.2f}"
        equal = "-" if pair["equal"] != pair["equal"] else f"{100 * pair['equal']:.0f} %"
        lines.append(
            f"{pair['first']} and {pair['second']}: {pair['items']} items labelled by both, {equal} equal, Cohen's kappa {kappa}"
        )
    if given.elsewhere:
        lines.append(f"left out: {given.elsewhere} labels of videos that are not in the folder")
    return "\n".join(lines) or "no labels yet"


def _compared_with_success_test(own: pd.DataFrame) -> list[str]:
    """Compare one rater's answers with the success test, over the videos for which both are known."""
    both = own.dropna(subset=["value", GOAL_FRACTION])
    if both.empty:
        return []
    judged, measured = both["value"] / 100, both[GOAL_FRACTION]
    equal = float((judged.map(is_success) == measured.map(is_success)).mean())
    return [
        f"  compared with the success test on {len(both)} videos: {100 * equal:.0f} % equal on success, shares differ by "
        f"{100 * float((judged - measured).abs().mean()):.0f} percentage points on average"
    ]
