"""The items that raters judge, states, pairs of them, or videos, and the question about them."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.files import UNFINISHED, file_inside, read_whole, sha256_of
from vlm_rm_sweeps.labelling.pairs import draw_pairs, pair_id, states_of_pair
from vlm_rm_sweeps.labelling.scales import Scale
from vlm_rm_sweeps.videos import PLAIN_VIDEO

VIDEO_SUFFIX = ".mp4"


@dataclass(frozen=True)
class LabelItem:
    """One state or video to judge.

    Attributes:
        id: Stable: derived from the item itself, not from its position in a list.
        file: The image or video.
        sha256: Checksum of the file when the job was set up; a file that has changed since then is not shown.
    """

    id: str
    file: Path
    sha256: str

    @property
    def is_video(self) -> bool:
        """Whether the page plays it instead of showing a picture."""
        return self.file.suffix == VIDEO_SUFFIX

    def is_intact(self) -> bool:
        """Check that the file exists and is unchanged."""
        return self.file.is_file() and sha256_of(self.file) == self.sha256


@dataclass(frozen=True)
class Question:
    """What a rater answers at a time.

    Attributes:
        id: Id of the item, or of the pair; labels are stored by it.
        shown: One item, or two side by side, the left one first.
    """

    id: str
    shown: tuple[LabelItem, ...]


@dataclass(frozen=True)
class LabelJob:
    """Everything that the label page needs to know.

    Attributes:
        title: Heading of the page.
        question: Asked about each item, or pair.
        criterion: What raters judge by.
        items: In any order.
        scale: The possible answers.
        labels_file: Where labels are stored; made if it does not exist.
        pair_seed: Seed of the pairs in which raters compare the items; None if they judge each item by itself.
    """

    title: str
    question: str
    criterion: str
    items: Sequence[LabelItem]
    scale: Scale
    labels_file: Path
    pair_seed: int | None = None

    def questions(self, rater: str) -> list[Question]:
        """List a rater's questions in their order.

        The order of items is arbitrary, so that neighbouring states of an episode do not follow each other, and the same for all
        raters, so that the first few hundred labels of two raters can be compared. So is every second pair, see `draw_pairs`.

        Args:
            rater: Name of the rater.

        Returns:
            A question for each item, or for each of the rater's pairs.
        """
        items = {item.id: item for item in self.items}
        if self.pair_seed is None:
            return [Question(item_id, (items[item_id],)) for item_id in sorted(items)]
        pairs = draw_pairs(list(items), self.pair_seed, rater)
        return [Question(pair_id(*pair), tuple(items[each] for each in pair)) for pair in pairs]

    def without_others(self, labels: pd.DataFrame) -> pd.DataFrame:
        """Leave out labels of items that are not in this job.

        Args:
            labels: As `LabelStore.table` returns them.

        Returns:
            Those of the job's items, or of pairs of them, of any rater and seed.
        """
        known = {item.id for item in self.items}
        if self.pair_seed is None:
            return labels[labels["item"].isin(known)]
        return labels[[known.issuperset(states_of_pair(pair) or [pair]) for pair in labels["item"]]]


def videos_to_label(folder: Path) -> list[LabelItem]:
    """List the videos of a folder: its own mp4 files or, if there are none, the plain videos of a sweep's trials below it.

    Args:
        folder: Searched by file name.

    Returns:
        At least one item.

    Raises:
        UserError: There is no video, or one is a symbolic link that leads out of the folder.
    """
    names = sorted(folder.glob(f"*{VIDEO_SUFFIX}")) or sorted(folder.rglob(PLAIN_VIDEO))
    inside = [file_inside(folder, file.relative_to(folder)) for file in names]
    files = [file for file in inside if file.is_file() and not _is_half_written(file.relative_to(folder))]
    if not files:
        raise UserError(
            f"{folder} has nothing to label: expected a data set of states, a folder of {VIDEO_SUFFIX} files, or a sweep's folder with "
            "videos"
        )
    return [LabelItem(_content_id(folder, file), file, sha256_of(file)) for file in files]


def _is_half_written(file: Path) -> bool:
    return any(part.startswith(UNFINISHED) for part in file.parts)


def _content_id(folder: Path, file: Path) -> str:
    """Derive an id from name and content, so that labels stay with a video when others are added or the folder moves."""
    content = hashlib.sha256(str(file.relative_to(folder)).encode() + b"\0" + read_whole(file, "remove it"))
    return content.hexdigest()[:16]
