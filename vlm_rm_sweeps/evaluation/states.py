"""Data sets of states: frames, the simulator's states that they show, and where they come from.

A data set is a folder with `states.parquet` (a row for each state), `images/` (a PNG or lossless WebP for each) and, once people
have labelled it, `labels.sqlite`. States and images are written once and never change, so labels and measurements can
name states by their ids.
"""

import hashlib
import io
import json
import re
import shutil
import tempfile
import typing
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow
from PIL import Image

from vlm_rm_sweeps.errors import UserError, unknown_name
from vlm_rm_sweeps.files import file_inside
from vlm_rm_sweeps.tasks.registry import known_task
from vlm_rm_sweeps.tasks.state_space import StateValue
from vlm_rm_sweeps.tasks.task import Task

ImageFormat = Literal["png", "webp"]
TABLE = "states.parquet"
LABELS = "labels.sqlite"
ROLLOUT = "rollout"
"""The source of states that a policy reached."""
_IMAGES = "images"
_IMAGE_NAME = re.compile(rf"{_IMAGES}/[A-Za-z0-9][A-Za-z0-9_.-]*\.(png|webp)")
_NAMED_AT_MOST = 5
_COLUMN_TYPES = {
    "id": "string",
    "image": "string",
    "sha256": "string",
    "task": "string",
    "success": "boolean",
    "source": "string",
    "origin": "string",
    "trial": "string",
    "checkpoint": "string",
    "step": "Int64",
    "seed": "Int64",
    "textures": "string",
    "camera": "string",
    "profile": "string",
}
"""The columns that every data set has; all others are state variables."""


@dataclass(frozen=True)
class Provenance:
    """Where a state comes from.

    `source` is `uniform`, `rollout` or `images`; `origin` the image file or the name of the sweep's folder; `step` counts environment
    steps of the episode (1 is the state after the first), or samples; `seed` is that of the sampling or of the episode, each of
    which has its own: checkpoint and seed name an episode. `textures`, `camera` and `profile` say how it was drawn (see
    `Rendering`); of images nobody knows.
    """

    source: str
    origin: str | None = None
    trial: str | None = None
    checkpoint: str | None = None
    step: int | None = None
    seed: int | None = None
    textures: str | None = None
    camera: str | None = None
    profile: str | None = None


@dataclass(frozen=True)
class State:
    """One state: its frame uint8 (H, W, 3), its variables, and whether it is in the goal (None: unknown)."""

    frame: np.ndarray
    provenance: Provenance
    variables: Mapping[str, StateValue] = field(default_factory=dict)
    success: bool | None = None


@dataclass(frozen=True)
class StateDataset:
    """A data set on disk. `table` has one row for each state, in a fixed order."""

    folder: Path
    table: pd.DataFrame

    def __len__(self) -> int:
        return len(self.table)

    @property
    def task(self) -> Task:
        """The task whose states these are."""
        return known_task(str(self.table["task"].iloc[0]))

    @property
    def ids(self) -> list[str]:
        return self.table["id"].tolist()

    @property
    def episodes(self) -> np.ndarray:
        """Numbers int (N,), the same for states of one episode, which depend on each other; all others have one of their own."""
        rollout = (self.table["source"] == ROLLOUT).to_numpy()
        of_episode = self.table.groupby(["origin", "trial", "checkpoint", "seed"], dropna=False).ngroup().to_numpy()
        alone = len(self) + np.arange(len(self))
        return np.where(rollout, of_episode, alone)

    @property
    def labels_file(self) -> Path:
        return self.folder / LABELS

    @property
    def variables(self) -> list[str]:
        """The columns that hold state variables."""
        return [str(column) for column in self.table if column not in _COLUMN_TYPES]

    def renderings(self) -> Counter[tuple[str, ...]]:
        """How many states were drawn with which textures, camera and profile, as far as that is known."""
        drawn = self.table[["textures", "camera", "profile"]].dropna()
        return Counter(zip(*(drawn[name].astype(str) for name in drawn), strict=True))

    def summary(self) -> str:
        """What people read: how many states of what, from where, and how many are in the goal."""
        known = self.table["success"].dropna()
        sources = ", ".join(f"{count} {source}" for source, count in self.table["source"].value_counts().items())
        drawn = "; ".join(f"{rendering_name(*each)} ({count})" for each, count in self.renderings().items())
        success = f"{int(known.sum())} of {len(known)} are in the goal" if len(known) else "unknown"
        return (
            f"{len(self)} states of {self.task.name} ({sources})\n  success    {success}\n"
            f"  drawn      {drawn or 'unknown'}\n  variables  {', '.join(self.variables) or 'none'}"
        )

    def image_file(self, position: int) -> Path:
        return self.folder / str(self.table["image"].iloc[position])

    def frame(self, position: int) -> np.ndarray:
        """The frame uint8 (H, W, 3) of a state. UserError, naming the file, if it is not what was written."""
        file = self.image_file(position)
        try:
            content = file.read_bytes()
        except OSError as error:
            raise UserError(f"{file} cannot be read ({error.strerror}): restore it, or make the data set again") from error
        if hashlib.sha256(content).hexdigest() != self.table["sha256"].iloc[position]:
            raise UserError(f"{file} is damaged: its checksum is not that of {TABLE}; restore it, or make the data set again")
        return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def rendering_name(textures: str, camera: str, profile: str) -> str:
    """How states are drawn, in words."""
    return f"{textures} textures, {camera} camera, {profile} profile"


def image_format_named(name: str) -> ImageFormat:
    """UserError unless it is a format that images can be kept in without loss."""
    for known in typing.get_args(ImageFormat):
        if name == known:
            return known
    raise UserError(unknown_name("image format", name, typing.get_args(ImageFormat)))


def write_states(folder: Path, task: Task, states: Iterable[State], image_format: ImageFormat = "png") -> StateDataset:
    """Write a new data set. The folder appears only once it is complete.

    Args:
        folder: The folder to make.
        task: The task whose states these are. It must be found by its name when the data set is opened.
        states: The states, at least one.
        image_format: How images are kept.

    Returns:
        The data set on disk.

    Raises:
        UserError: The folder exists, there are no states, or the task is not registered under its name.
    """
    if folder.exists():
        raise UserError(f"{folder} exists already and is not overwritten: choose another folder")
    known_task(task.name)
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        (partial / _IMAGES).mkdir()
        rows = [_write_state(partial, task, index, state, image_format) for index, state in enumerate(states)]
        if not rows:
            raise UserError(f"{folder}: there are no states to write")
        pd.DataFrame(rows).astype(_COLUMN_TYPES).to_parquet(partial / TABLE, index=False)
        partial.chmod(0o755)
        partial.rename(folder)
    except BaseException:
        shutil.rmtree(partial)
        raise
    return load_states(folder)


def _write_state(folder: Path, task: Task, index: int, state: State, image_format: ImageFormat) -> dict[str, object]:
    clash = state.variables.keys() & _COLUMN_TYPES.keys()
    if clash:
        raise ValueError(f"state variables {sorted(clash)} have the names of columns that every data set has")
    encoded = io.BytesIO()
    Image.fromarray(state.frame).save(encoded, image_format, lossless=True)
    image = f"{_IMAGES}/{index:06d}.{image_format}"
    (folder / image).write_bytes(encoded.getvalue())
    checksum = hashlib.sha256(encoded.getvalue()).hexdigest()
    provenance = asdict(state.provenance)
    variables = {name: _plain(value) for name, value in state.variables.items()}
    # The index tells states apart that look the same and come from the same place.
    identity = json.dumps([task.name, index, checksum, variables, provenance], sort_keys=True)
    return {
        "id": hashlib.sha256(identity.encode()).hexdigest()[:16],
        "image": image,
        "sha256": checksum,
        "task": task.name,
        "success": state.success,
        **provenance,
        **variables,
    }


def _plain(value: StateValue) -> float | list[float]:
    return float(value) if isinstance(value, int | float | np.number) else [float(number) for number in value]


def load_states(folder: Path) -> StateDataset:
    """Open a data set. Raises UserError, naming what is wrong, if it is not one, or if files are missing."""
    file = folder / TABLE
    if not file.is_file():
        raise UserError(f"{folder} is no data set of states: it has no {TABLE}; make one with `vlm-rm states sample`")
    try:
        table = pd.read_parquet(file)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{file} is damaged: {error}") from error
    missing_columns = [column for column in _COLUMN_TYPES if column not in table]
    if missing_columns or table.empty or table["id"].duplicated().any() or table["task"].nunique() != 1:
        raise UserError(
            f"{file} is no table of states: expected rows of one task with different ids and the columns {', '.join(_COLUMN_TYPES)}"
            + (f"; missing are {', '.join(missing_columns)}" if missing_columns else "")
        )
    known_task(str(table["task"].iloc[0]))
    _check_images(folder, [str(name) for name in table["image"]])
    return StateDataset(folder, table)


def _check_images(folder: Path, names: list[str]) -> None:
    for name in names:
        if not _IMAGE_NAME.fullmatch(name):
            raise UserError(f"{folder / TABLE}: image {name!r} is refused: expected a name such as '{_IMAGES}/000000.png'")
        file_inside(folder, name)
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        shown = ", ".join(missing[:_NAMED_AT_MOST]) + (", ..." if len(missing) > _NAMED_AT_MOST else "")
        raise UserError(
            f"{folder}: {len(missing)} of {len(names)} images are missing ({shown}): restore them, or make the data set again"
        )
