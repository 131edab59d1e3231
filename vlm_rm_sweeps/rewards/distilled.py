"""Distilled models: a small image tower that has learned a teacher's embeddings of one task, and the teacher's text tower.

Any sentence, alpha and reward function goes on working, because texts are still embedded by the teacher. The text tower is not
copied: text towers are of many kinds, with tokenizers of their own, and most of a large one's weights would be stored once more for
each student. The file names the teacher by its id, and by a checksum of its weights.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from open_clip.model import convert_weights_to_lp, get_input_dtype
from open_clip.modified_resnet import ModifiedResNet
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from safetensors import safe_open
from safetensors.torch import load_file
from torch.nn import functional

from vlm_rm_sweeps.errors import DamagedFileError, UserError, reason_of
from vlm_rm_sweeps.files import problems_in, read_whole, sha256_of
from vlm_rm_sweeps.rewards.clip import ClipRewardModel
from vlm_rm_sweeps.rewards.known_states import DRIFT, KnownStates, drift_remark
from vlm_rm_sweeps.rewards.local_files import local_path
from vlm_rm_sweeps.rewards.open_clip_models import ModelSource
from vlm_rm_sweeps.rewards.preprocessing import Preprocessing
from vlm_rm_sweeps.rewards.registry import known_reward_model
from vlm_rm_sweeps.rewards.reward_model import Precision

DISTILLED = "distilled"
"""Of ids, and of the description in a student's file."""
STUDENT_FILE = "student.safetensors"
_MEAN, _WHITENING = f"{DRIFT}.mean", f"{DRIFT}.whitening"
_REMEDY = "expected a file that `vlm-rm distill` wrote; distil again"
_Blocks = Annotated[int, Field(ge=1, le=64)]


class TowerShape(BaseModel):
    """The shape of a student's image tower, open_clip's ModifiedResNet, and of the map behind it.

    Attributes:
        layers: Blocks of each stage.
        width: Channels of the first stage.
        head_width: Channels of an attention head.
        features: Dimensions of the tower's output.
        embedding: Dimensions of the teacher's embeddings.
        preprocessing: Resizing and normalisation of its frames.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    layers: tuple[_Blocks, _Blocks, _Blocks, _Blocks]
    width: int = Field(ge=2, le=256)
    head_width: int = Field(ge=1, le=256)
    features: int = Field(ge=1, le=4_096)
    embedding: int = Field(ge=1, le=16_384)
    preprocessing: Preprocessing

    def build(self) -> torch.nn.Sequential:
        """Return the tower with random weights."""
        tower = ModifiedResNet(
            layers=list(self.layers),
            output_dim=self.features,
            heads=self.width * 32 // self.head_width,
            image_size=self.preprocessing.size,
            width=self.width,
        )
        return torch.nn.Sequential(tower, torch.nn.Linear(self.features, self.embedding))


class _TowerWithFeatures(torch.nn.Sequential):
    """A student's tower that returns its features, too, behind the embedding: (n, embedding + features)."""

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        features = self[0](frames)
        return torch.cat([self[1](features), features], dim=-1)


class StudentDescription(BaseModel):
    """What a student's file says of it.

    Attributes:
        teacher: Model id of the teacher.
        teacher_identity: What tells the teacher's weights, see `ModelSource.weights_identity`.
        student: Model id whose image tower the training started from.
        task: The task whose states it has seen.
        images: Number of images that it was trained on.
        seed: Seed of states and batches.
        parameters: Parameters of the student's tower with the map, and of what is left of the teacher.
        tower: The tower's shape.
        limit: Distance beyond which a frame is unlike the training images, see `KnownStates`.
        scenes: Textures and camera of the drawings that it has seen; none if the file is of before they were written down.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    teacher: str
    teacher_identity: str
    student: str
    task: str
    images: int
    seed: int
    parameters: int
    tower: TowerShape
    limit: float
    scenes: tuple[tuple[str, str], ...] = ()


_DESCRIPTION = TypeAdapter(StudentDescription)


def read_description(file: Path) -> StudentDescription:
    """Read what a student's file says of it, without its weights.

    Args:
        file: As `vlm-rm distill` wrote it.

    Returns:
        The description.

    Raises:
        DamagedFileError: The file is missing, damaged, or something else.
    """
    try:
        with safe_open(file, "pt") as opened:
            metadata: Mapping[str, str] = opened.metadata() or {}
    except Exception as error:  # safetensors has errors of its own
        read_whole(file, _REMEDY)  # has a message of its own for a file that cannot be read at all
        raise DamagedFileError(f"{file} is damaged ({reason_of(error)}): {_REMEDY}") from error
    try:
        described = _DESCRIPTION.validate_json(metadata.get(DISTILLED, ""))
        described.tower.preprocessing.check()
    except ValueError as error:  # of pydantic, or of a setting that cannot be used
        problems = problems_in(error) if isinstance(error, ValidationError) else str(error)
        raise DamagedFileError(f"{file} is damaged or no student ({problems}): {_REMEDY}") from error
    return described


def student_tensors(tower: torch.nn.Module, known: KnownStates) -> dict[str, torch.Tensor]:
    """Return what a student's file holds beside its description.

    Args:
        tower: The tower.
        known: Statistics of its features of the training images.

    Returns:
        Tensors by name.
    """
    statistics = {_MEAN: torch.from_numpy(known.mean_d), _WHITENING: torch.from_numpy(known.whitening_dd)}
    return {name: tensor.contiguous() for name, tensor in (tower.state_dict() | statistics).items()}


def _read_tensors(file: Path, about: StudentDescription) -> tuple[torch.nn.Sequential, KnownStates]:
    """Read a student's tower, and the statistics of its training images.

    Raises:
        DamagedFileError: The file is damaged.
    """
    tower = about.tower.build()
    try:
        tensors = load_file(file)
        known = KnownStates(tensors.pop(_MEAN).numpy(), tensors.pop(_WHITENING).numpy(), about.limit)
        known.check(about.tower.features)
        tower.load_state_dict(tensors, strict=True)
    except Exception as error:  # of safetensors, or of torch
        raise DamagedFileError(f"{file} is damaged ({reason_of(error)}): {_REMEDY}") from error
    return tower, known


@dataclass(frozen=True, kw_only=True)
class StudentSource(ModelSource):
    """Where a student comes from: its file, and the teacher's source.

    Attributes:
        teacher: The teacher's source, for its text tower.
        about: What the file says.
    """

    teacher: ModelSource
    about: StudentDescription

    @property
    def identity(self) -> str:
        """The same for two paths of one file."""
        return str(Path(self.pretrained).resolve())

    @property
    def weights_identity(self) -> str:
        """The checksum of the file, which names the teacher, too."""
        return f"{DISTILLED}/sha256:{sha256_of(Path(self.pretrained))}"

    @property
    def files(self) -> list[Path]:
        """Its own file, and the teacher's."""
        return [Path(self.pretrained), *self.teacher.files]

    @property
    def width(self) -> int:
        """Number of embedding dimensions: the teacher's."""
        return self.about.tower.embedding

    @property
    def parameters(self) -> int:
        """Number of parameters, without the teacher's image tower."""
        return self.about.parameters

    @property
    def tokenizer(self) -> Any:
        """The teacher's tokenizer."""
        return self.teacher.tokenizer

    def unknown_words(self, prompts: Iterable[str]) -> list[str]:
        """Return the words that the teacher does not know, see `ModelSource.unknown_words`."""
        return self.teacher.unknown_words(prompts)

    def check_weights(self) -> None:
        """Refuse a file that is damaged, or a teacher whose weights are of something else.

        Raises:
            UserError: Either is so.
        """
        _read_tensors(Path(self.pretrained), self.about)
        self.teacher.check_weights()

    def check_precision(self, precision: Precision) -> None:
        """Refuse a precision that the teacher cannot be used in.

        Args:
            precision: Floating-point precision of the weights.

        Raises:
            UserError: See `ModelSource.check_precision`.
        """
        self.teacher.check_precision(precision)

    def load(self, device: str, precision: Precision) -> torch.nn.Module:
        """Load the teacher, and put the student's tower in the place of its image tower.

        Args:
            device: torch device that the model runs on.
            precision: Floating-point precision of the weights.

        Returns:
            open_clip's model, on the device.

        Raises:
            UserError: The teacher cannot be loaded or has other weights than it had, or the file is damaged.
        """
        teacher, about = self.teacher, self.about
        if teacher.weights_identity != about.teacher_identity:
            raise UserError(
                f"{self.model_id} has learned from {about.teacher} with the weights {about.teacher_identity}, and that model now has "
                f"{teacher.weights_identity}: distil again"
            )
        tower, known = _read_tensors(Path(self.pretrained), about)
        network: Any = teacher.load("cpu", precision)
        visual = _TowerWithFeatures(*tower)
        if (dtype := get_input_dtype(precision)) is not None:
            # As open_clip does for the same tower: which parts of the teacher stay in full precision depends on its kind.
            convert_weights_to_lp(visual, dtype)
        network.visual = visual
        network.known_states = known  # beside the tower, which a backend may replace
        return network.to(device)


class DistilledRewardModel(ClipRewardModel):
    """A student as a reward model: `distilled/path/to/student.safetensors`.

    Args:
        model_id: With the path of the file that `vlm-rm distill` wrote.
        source: As of `ClipRewardModel`.

    Raises:
        UserError: There is no such file, it is damaged, or its teacher cannot be found.
    """

    columns = (DRIFT,)

    def __init__(self, model_id: str, source: ModelSource | None = None) -> None:
        super().__init__(model_id, source or student_source(model_id))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.model_id,), {"backend": self.backend}

    def _embed_and_tell(self, frames: np.ndarray, columns: Collection[str]) -> tuple[torch.Tensor, Mapping[str, np.ndarray]]:
        outputs = torch.cat([each.cpu() for each in self._features(frames)])
        # A sum over the last axis may be rounded differently where rows are not packed.
        embeddings, features = outputs[:, : self.width].contiguous(), outputs[:, self.width :]
        told = {DRIFT: self.network.known_states.drifted(features.numpy())} if DRIFT in columns else {}
        return functional.normalize(embeddings, dim=-1), told

    def check_scene(self, task: str, textures: str, camera: str) -> None:
        """Refuse another task, textures or camera than it has seen.

        Args:
            task: Name of the task.
            textures: Textures of its drawings.
            camera: Camera of its drawings.

        Raises:
            UserError: It has not seen these.
        """
        assert isinstance(self.source, StudentSource)
        about = self.source.about
        if task != about.task or (about.scenes and (textures, camera) not in about.scenes):
            scenes = " or ".join(f"{each[0]} textures and {each[1]} camera" for each in about.scenes)
            seen = f", drawn with {scenes}," if scenes else ""
            raise UserError(
                f"{self.model_id} has seen states of {about.task}{seen} alone, and these would be of {task}, drawn with {textures} "
                f"textures and {camera} camera: its rewards would mean nothing; distil another for them (`vlm-rm distill "
                f"{about.teacher} --task {task} --textures {textures} --camera {camera}`)"
            )

    def remarks(self) -> list[str]:
        """Say which states it knows."""
        assert isinstance(self.source, StudentSource)
        return [
            f"{self.model_id} has seen states of {self.source.about.task} alone: on others its rewards mean nothing; audits, "
            "`vlm-rm epic` and `vlm-rm landscape` tell the share of such states (drift)"
        ]

    def remarks_on_states(self, means: Mapping[str, float]) -> list[str]:
        """Say that many states are unlike those that it has seen.

        Args:
            means: Means of its columns over the states.

        Returns:
            One sentence, or none.

        Raises:
            UserError: Most are.
        """
        return drift_remark(self.model_id, means)


def student_source(model_id: str) -> StudentSource:
    """Find a student and its teacher.

    Args:
        model_id: `distilled/` and the path of the file.

    Returns:
        The source.

    Raises:
        UserError: There is no such file, it is damaged, or its teacher cannot be found, or is none of CLIP's kind.
    """
    named = model_id.partition("/")[2]
    file = local_path(Path(named))
    if not named or not file.is_file():
        raise UserError(
            f"model {model_id!r}: there is no such file: expected `{DISTILLED}/FOLDER/{STUDENT_FILE}`, which `vlm-rm distill` writes"
        )
    about = read_description(file)
    teacher = known_reward_model(about.teacher)
    if not isinstance(teacher, ClipRewardModel) or teacher.width != about.tower.embedding:
        raise UserError(f"model {model_id!r}: its teacher {about.teacher!r} is another model now: distil again")
    return StudentSource(
        model_id,
        teacher.source.architecture,
        str(file),
        about.tower.preprocessing,
        uses_transformers=teacher.source.uses_transformers,
        teacher=teacher.source,
        about=about,
    )
