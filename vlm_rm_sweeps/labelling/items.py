"""What is put before a rater: states or videos, with the question about them."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.files import file_inside
from vlm_rm_sweeps.labelling.scales import Scale
from vlm_rm_sweeps.videos import PLAIN_VIDEO

VIDEO_SUFFIX = ".mp4"


@dataclass(frozen=True)
class LabelItem:
    """One state or video. `id` is stable: it comes from what the file shows, not from its place in a list.

    `sha256` is the checksum of the file, so that raters judge what was written and nothing that took its place.
    """

    id: str
    file: Path
    sha256: str

    @property
    def is_video(self) -> bool:
        return self.file.suffix == VIDEO_SUFFIX

    def is_intact(self) -> bool:
        """Whether the file is there, as it was."""
        return self.file.is_file() and _sha256(self.file) == self.sha256


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
    """The mp4 files of a folder, or else the plain videos below it, as the folder of a sweep has one for each trial.

    UserError if there are none, or if one is a link that leads out of the folder.
    """
    names = sorted(folder.glob(f"*{VIDEO_SUFFIX}")) or sorted(folder.rglob(PLAIN_VIDEO))
    files = [file_inside(folder, file.relative_to(folder)) for file in names]
    if not files:
        raise UserError(
            f"{folder} has nothing to label: expected a data set of states, a folder of {VIDEO_SUFFIX} files, or that of a sweep with "
            "videos"
        )
    return [LabelItem(_content_id(folder, file), file, _sha256(file)) for file in files]


def _content_id(folder: Path, file: Path) -> str:
    """From name and content, so that labels stay with a video when others are added or the folder moves."""
    content = hashlib.sha256(str(file.relative_to(folder)).encode() + b"\0" + file.read_bytes())
    return content.hexdigest()[:16]


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
