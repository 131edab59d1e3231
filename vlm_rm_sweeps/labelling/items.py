"""What is put before a rater: states or videos, with the question about them."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.files import file_inside
from vlm_rm_sweeps.labelling.scales import Scale

VIDEO_SUFFIX = ".mp4"


@dataclass(frozen=True)
class LabelItem:
    """One state or video. `id` is stable: it comes from what the file shows, not from its place in a list."""

    id: str
    file: Path

    @property
    def is_video(self) -> bool:
        return self.file.suffix == VIDEO_SUFFIX


@dataclass(frozen=True)
class LabelJob:
    """What a rater is asked: about each of the `items`, `question`, to be judged by `criterion`, with the answers of `scale`."""

    title: str
    question: str
    criterion: str
    items: Sequence[LabelItem]
    scale: Scale
    labels_file: Path

    def in_order(self) -> list[LabelItem]:
        """The items in the order in which everyone gets them: arbitrary, so that neighbours of an episode do not follow each
        other, and the same for all, so that the first few hundred labels of two raters can be compared."""
        return sorted(self.items, key=lambda item: item.id)


def videos_to_label(folder: Path) -> list[LabelItem]:
    """The mp4 files of a folder. UserError if there are none, or if one is a link that leads out of it."""
    files = [file_inside(folder, file.name) for file in sorted(folder.glob(f"*{VIDEO_SUFFIX}"))]
    if not files:
        raise UserError(f"{folder} has nothing to label: expected a data set of states, or a folder of {VIDEO_SUFFIX} files")
    return [LabelItem(_content_id(file), file) for file in files]


def _content_id(file: Path) -> str:
    """From name and content, so that labels stay with a video when others are added or the folder moves."""
    content = hashlib.sha256(file.name.encode() + b"\0" + file.read_bytes())
    return content.hexdigest()[:16]
