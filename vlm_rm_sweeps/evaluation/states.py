"""Data sets of states: frames, the simulator states that they show, and their provenance.

A data set is a folder with `states.parquet` (a row for each state), `images/` (a PNG or lossless WebP for each) and, once
raters have labelled it, `labels.sqlite`, or `pairs.sqlite` once they have compared states. States and images are written once
and never change, so labels and measurements can refer to states by id.
"""

import hashlib
import io
import json
import re
import typing
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from pandas.api.types import pandas_dtype
from PIL import Image

from vlm_rm_sweeps.errors import DamagedFileError, UserError, reason_of, unknown_name
from vlm_rm_sweeps.evaluation.trajectories import NO_EPISODE, Trajectories
from vlm_rm_sweeps.files import file_inside, new_output, read_whole
from vlm_rm_sweeps.tasks.registry import known_task
from vlm_rm_sweeps.tasks.rendering import Profile, Rendering
from vlm_rm_sweeps.tasks.state_space import StateValue
from vlm_rm_sweeps.tasks.task import Task

ImageFormat = Literal["png", "webp"]
TABLE = "states.parquet"
LABELS = "labels.sqlite"
PAIRS = "pairs.sqlite"
ROLLOUT = "rollout"
"""The provenance's `source` of states that a policy visited."""
_IMAGES = "images"
_IMAGE_NAME = re.compile(rf"{_IMAGES}/[A-Za-z0-9][A-Za-z0-9_.-]{{0,99}}\.(png|webp)")
_NAMED_AT_MOST = 5
_REMEDY = "restore it, or collect the data set again"
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
"""Columns of every data set; all others are state variables."""
_NEVER_EMPTY = ("id", "image", "sha256", "task", "source")


@dataclass(frozen=True)
class Provenance:
    """Origin of a state, and how it was rendered. None: unknown, or does not apply.

    Attributes:
        source: `uniform`, `rollout` or `images`.
        origin: The image file, or the name of the sweep's folder.
        trial: Id of the trial whose policy visited the state.
        checkpoint: Name of the checkpoint that holds the policy.
        step: Environment steps since the start of the episode (1: the state after the first step), or the number of the sample.
        seed: Seed of the sampling or of the episode; within a checkpoint, each episode has its own.
        textures: See `Rendering`; unknown for images, as are the next two.
        camera: See `Rendering`.
        profile: See `Rendering`.
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
    """One state to write into a data set.

    Attributes:
        frame: uint8 (H, W, 3).
        provenance: Its origin.
        variables: State variables by name; numbers, or vectors.
        success: Whether it is in the goal; None: unknown.
    """

    frame: np.ndarray
    provenance: Provenance
    variables: Mapping[str, StateValue] = field(default_factory=dict)
    success: bool | None = None


@dataclass(frozen=True)
class StateDataset:
    """A data set on disk.

    Attributes:
        folder: Where it is.
        table: A row for each state, in a fixed order; a position is the number of a row.
    """

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
        """Ids of the states, in the order of the table."""
        return self.table["id"].tolist()

    @property
    def episodes(self) -> np.ndarray:
        """Group of each state, int (N,): states of one episode share a number, every other state has its own."""
        of_episode = self.trajectories.episodes
        alone = len(self) + np.arange(len(self))
        return np.where(of_episode == NO_EPISODE, alone, of_episode)

    @property
    def trajectories(self) -> Trajectories:
        """Where the states lie along the episodes of policies."""
        rollout = (self.table["source"] == ROLLOUT).to_numpy()

        def numbered(*columns: str) -> np.ndarray:
            return np.where(rollout, self.table.groupby(list(columns), dropna=False).ngroup(), NO_EPISODE)

        policy = ("origin", "trial", "checkpoint")
        return Trajectories(
            episodes=numbered(*policy, "seed"),
            steps=self.table["step"].fillna(0).to_numpy(np.int64),
            policies=numbered(*policy),
            in_goal=self.table["success"].astype("float64").to_numpy(na_value=np.nan),
        )

    @property
    def labels_file(self) -> Path:
        """The file of the raters' labels, which may not exist yet. UserError: it is a link that leads out of the folder."""
        return file_inside(self.folder, LABELS)

    @property
    def pairs_file(self) -> Path:
        """The file of the pairs that raters have compared, which may not exist yet. UserError: see `labels_file`."""
        return file_inside(self.folder, PAIRS)

    @property
    def variables(self) -> list[str]:
        """Names of the state variables."""
        return [str(column) for column in self.table if column not in _COLUMN_TYPES]

    def state(self, position: int) -> dict[str, StateValue]:
        """Return the state variables at a position of the table; none of a state that came as an image."""
        return {name: self.table[name].iloc[position] for name in self.variables}

    def rendering(self, position: int) -> Rendering | None:
        """Return how the state at a position of the table was drawn; None if that, or the state itself, is unknown.

        Args:
            position: Position in the table.

        Returns:
            The rendering.

        Raises:
            UserError: The table names one that the task does not have.
        """
        row = self.table[["textures", "camera", "profile"]].iloc[position]
        if not self.variables or row.isna().any():
            return None
        textures, camera, profile = map(str, row)
        for known in typing.get_args(Profile):
            if profile == known:
                return self.task.rendering(textures, camera, known)
        raise DamagedFileError(
            f"{self.folder / TABLE}: {unknown_name('profile', profile, typing.get_args(Profile))}: {_REMEDY}"
        )

    def renderings(self) -> Counter[tuple[str, ...]]:
        """Count the states by textures, camera and profile, where these are known."""
        drawn = self.table[["textures", "camera", "profile"]].dropna()
        return Counter(zip(*(drawn[name].astype(str) for name in drawn), strict=True))

    def summary(self) -> str:
        """Describe the data set for people: task, sources, success, rendering and variables, over several lines."""
        known = self.table["success"].dropna()
        sources = ", ".join(f"{count} {source}" for source, count in self.table["source"].value_counts().items())
        drawn = "; ".join(f"{rendering_name(*each)} ({count})" for each, count in self.renderings().items())
        success = f"{int(known.sum())} of {len(known)} are in the goal" if len(known) else "unknown"
        return (
            f"{len(self)} states of {self.task.name} ({sources})\n  success    {success}\n"
            f"  drawn      {drawn or 'unknown'}\n  variables  {', '.join(self.variables) or 'none'}"
        )

    def image_file(self, position: int) -> Path:
        """Return the path of the image at a position of the table."""
        return self.folder / str(self.table["image"].iloc[position])

    def frame(self, position: int) -> np.ndarray:
        """Read the frame of a state.

        Args:
            position: Position in the table.

        Returns:
            uint8 (H, W, 3).

        Raises:
            UserError: The image file cannot be read, or has changed since it was written.
        """
        file = self.image_file(position)
        content = read_whole(file, _REMEDY)
        if hashlib.sha256(content).hexdigest() != self.table["sha256"].iloc[position]:
            raise DamagedFileError(f"{file} is damaged: its checksum differs from that in {TABLE}: {_REMEDY}")
        try:
            return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:  # it was no image from the start
            raise DamagedFileError(f"{file} is no image ({reason_of(error)}): {_REMEDY}") from error


def rendering_name(textures: str, camera: str, profile: str) -> str:
    """Describe how states were rendered, for messages."""
    return f"{textures} textures, {camera} camera, {profile} profile"


def image_format_named(name: str) -> ImageFormat:
    """Check the name of an image format.

    Args:
        name: As the user gave it.

    Returns:
        The name, if it is that of a lossless format.

    Raises:
        UserError: It is not.
    """
    for known in typing.get_args(ImageFormat):
        if name == known:
            return known
    raise UserError(unknown_name("image format", name, typing.get_args(ImageFormat)))


def write_states(folder: Path, task: Task, states: Iterable[State], image_format: ImageFormat = "png") -> StateDataset:
    """Write a new data set. The folder appears only when it is complete.

    Args:
        folder: Must not exist yet.
        task: The task whose states they are. It must be found by its name when the data set is opened.
        states: Consumed one by one, so that only one frame is in memory.
        image_format: Both formats are lossless; WebP is smaller and slower.

    Returns:
        The data set, read back from disk.

    Raises:
        UserError: The folder exists or cannot be written, there are no states, or the task is not registered under its name.
    """
    if folder.exists():
        raise UserError(f"{folder} exists already and is not overwritten: choose another folder")
    known_task(task.name)
    with new_output(folder) as unfinished:
        (unfinished / _IMAGES).mkdir(parents=True)
        rows = [_write_state(unfinished, task, index, state, image_format) for index, state in enumerate(states)]
        if not rows:
            raise UserError(f"{folder}: no states to write: expected at least one")
        pd.DataFrame(rows).astype(_COLUMN_TYPES).to_parquet(unfinished / TABLE, index=False)
    return load_states(folder)


def _write_state(folder: Path, task: Task, index: int, state: State, image_format: ImageFormat) -> dict[str, object]:
    clash = state.variables.keys() & _COLUMN_TYPES.keys()
    if clash:
        raise ValueError(f"state variables {sorted(clash)} clash with columns of every data set: rename them")
    encoded = io.BytesIO()
    Image.fromarray(state.frame).save(encoded, image_format, lossless=True)
    image = f"{_IMAGES}/{index:06d}.{image_format}"
    (folder / image).write_bytes(encoded.getvalue())
    checksum = hashlib.sha256(encoded.getvalue()).hexdigest()
    provenance = asdict(state.provenance)
    variables = {name: _plain(value) for name, value in state.variables.items()}
    # The index distinguishes states that look the same and have the same provenance.
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
    """Open a data set.

    Args:
        folder: As `write_states` wrote it.

    Returns:
        The data set; images are checked only when they are read.

    Raises:
        UserError: The folder is not a data set, its table is damaged, its task is unknown, or images are missing.
    """
    file = file_inside(folder, TABLE)
    if not file.is_file():
        raise UserError(f"{folder} is not a data set of states: it has no {TABLE}; make one with `vlm-rm states sample`")
    table = _read_table(file)
    known_task(str(table["task"].iloc[0]))
    _check_images(folder, [str(name) for name in table["image"]])
    return StateDataset(folder, table)


def _read_table(file: Path) -> pd.DataFrame:
    """Read a table of states, with the types of its columns."""
    content = io.BytesIO(read_whole(file, _REMEDY))
    try:
        table = pd.read_parquet(content)
    except Exception as error:  # pyarrow and pandas raise nearly anything for a damaged file
        raise DamagedFileError(f"{file} is damaged ({reason_of(error)}): {_REMEDY}") from error
    missing_columns = [column for column in _COLUMN_TYPES if column not in table]
    if missing_columns or table.empty:
        raise DamagedFileError(
            f"{file} is not a table of states: expected rows with the columns {', '.join(_COLUMN_TYPES)}"
            + (f"; missing: {', '.join(missing_columns)}" if missing_columns else "")
        )
    for column, kind in _COLUMN_TYPES.items():
        try:
            table[column] = table[column].astype(pandas_dtype(kind))
        except (TypeError, ValueError) as error:
            raise DamagedFileError(
                f"{file} is damaged: {column}: expected the type {kind} ({reason_of(error)}): {_REMEDY}"
            ) from error
    for column in _NEVER_EMPTY:
        if table[column].isna().any():
            raise DamagedFileError(
                f"{file} is damaged: {column} is missing in row {int(table[column].isna().argmax())}: {_REMEDY}"
            )
    for column in table.columns.difference(list(_COLUMN_TYPES)):
        _check_variable(file, str(column), table[column])
    if table["id"].duplicated().any() or table["task"].nunique() != 1:
        raise DamagedFileError(f"{file} is not a table of states: expected rows of one task with distinct ids")
    return table


def _check_variable(file: Path, name: str, values: pd.Series) -> None:
    """Refuse a state variable that is neither a number nor a vector in every row."""
    if pd.api.types.is_numeric_dtype(values):
        return
    for row, value in enumerate(values):
        if not (isinstance(value, np.ndarray) and value.dtype.kind in "fiu"):
            raise DamagedFileError(
                f"{file} is damaged: {name} = {str(value)[:40]!r} in row {row}: expected a number or a vector: {_REMEDY}"
            )


def _check_images(folder: Path, names: list[str]) -> None:
    for name in names:
        if not _IMAGE_NAME.fullmatch(name):
            raise UserError(f"{folder / TABLE}: image {name!r} is refused: expected a name such as '{_IMAGES}/000000.png'")
        file_inside(folder, name)
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        shown = ", ".join(missing[:_NAMED_AT_MOST]) + (", ..." if len(missing) > _NAMED_AT_MOST else "")
        raise UserError(
            f"{folder}: {len(missing)} of {len(names)} images are missing ({shown}): restore them, or collect the data set again"
        )
