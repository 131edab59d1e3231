"""Reward heads: small functions of a frozen image embedding, learned from labels by `vlm-rm reward train`.

A head is a logistic regression, or a network with one hidden layer. Its file is a safetensors file, whose metadata says which
model's embeddings it was trained on, on which data, and how well it did on states that it had not seen.

Shape suffixes: n images, h hidden units, d embedding dimensions.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors.numpy import load, save

from vlm_rm_sweeps.errors import DamagedFileError, UserError, reason_of
from vlm_rm_sweeps.files import new_output, problems_in, read_whole
from vlm_rm_sweeps.frames import FrameFormat
from vlm_rm_sweeps.rewards.functions.base import EmbeddingModel, Range, dots

HEAD_SUFFIX = ".safetensors"
MAX_HIDDEN = 64
_METADATA = "__metadata__"
_ABOUT = "head"
_LENGTH_BYTES = 8
_LARGEST_FILE = 2**24
_REMEDY = "expected a file that `vlm-rm reward train` wrote; restore it, or train it again"

Count = Annotated[int, Field(ge=0)]


class HeadDescription(BaseModel):
    """What a head's file says of it besides its numbers.

    Attributes:
        format: Version of the file's format.
        model: Id of the reward model whose image embeddings the head was trained on.
        identity: Identity of that model's weights, the same on every machine, see `EmbeddingModel`.
        width: Number of embedding dimensions.
        frame_format: Size and resizing of the frames that were embedded.
        hidden: Hidden units; 0 for a logistic regression.
        task: Task whose states it was trained on.
        truth: What the states were labelled by, see `ground_truth.read_truth`.
        pairs: Whether it was trained on pairs (Bradley-Terry) instead of labelled states.
        data_sha256: Checksum of the training data: ids of the states or pairs, and their labels.
        counts: Number of labels by answer.
        measures: What cross-validation measured, by name; None where a measure is undefined.
        seed: Seed of the folds and of the first weights.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: Literal[1] = 1
    model: str
    identity: str
    width: Annotated[int, Field(ge=1)]
    frame_format: FrameFormat
    hidden: Annotated[int, Field(ge=0, le=MAX_HIDDEN)]
    task: str
    truth: str
    pairs: bool
    data_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    counts: dict[str, Count]
    measures: dict[str, float | None]
    seed: int

    @property
    def kind(self) -> str:
        """What people call this head."""
        return f"network with {self.hidden} hidden units" if self.hidden else "logistic regression"


@dataclass(frozen=True, eq=False)
class HeadWeights:
    """The numbers of a head, all of them float32.

    Attributes:
        output_h: Weight of each hidden unit; of each embedding dimension if there are none.
        bias: Added to the weighted sum.
        hidden_hd: Weights of the hidden units; None for a logistic regression.
        hidden_bias_h: Their biases; None for a logistic regression.
    """

    output_h: np.ndarray
    bias: float
    hidden_hd: np.ndarray | None = None
    hidden_bias_h: np.ndarray | None = None

    @property
    def parameters(self) -> int:
        """Number of parameters."""
        return sum(tensor.size for tensor in self.tensors().values())

    def tensors(self) -> dict[str, np.ndarray]:
        """Return the tensors of the head's file by name."""
        tensors = {"output": self.output_h, "bias": np.array([self.bias], np.float32)}
        if self.hidden_hd is not None and self.hidden_bias_h is not None:
            tensors |= {"hidden": self.hidden_hd, "hidden_bias": self.hidden_bias_h}
        return {name: np.ascontiguousarray(tensor, np.float32) for name, tensor in tensors.items()}

    def logits(self, images_nd: np.ndarray) -> np.ndarray:
        """Compute the reward of images: `w . f(x) + b`, the logarithm of the odds that an image is in the goal.

        f is the identity for a logistic regression, else `softsign(W x + c)`. The logit is the reward, not the probability:
        where a head is sure, as it is of most states that a new policy visits, the probability is flat at 0, and the agent
        would learn nothing from it. The logit goes on rising towards the goal. A head that was trained on pairs has no odds of
        its own; differences of its rewards are the log-odds that the one image is closer to the goal than the other.

        Softsign, `x / (1 + |x|)`, instead of tanh, and sums over the last axis instead of matrix products, because their
        rounding does not depend on the batch: a frame's reward is the same to the bit whatever it is scored with.

        Args:
            images_nd: Unit embeddings of the images, float32.

        Returns:
            float32 (n,).
        """
        features_nh = images_nd
        if self.hidden_hd is not None and self.hidden_bias_h is not None:
            units = zip(self.hidden_hd, self.hidden_bias_h, strict=True)
            sums_nh = np.stack([dots(images_nd, weights_d) + bias for weights_d, bias in units], axis=1)
            features_nh = sums_nh / (1 + np.abs(sums_nh))
        return dots(features_nh, self.output_h) + np.float32(self.bias)

    def range(self) -> Range:
        """Return the least and the largest reward of a unit embedding; a network's may be out of reach."""
        largest = float(np.abs(self.output_h).sum() if self.hidden_hd is not None else np.linalg.norm(self.output_h))
        return self.bias - largest, self.bias + largest


@dataclass(frozen=True, eq=False)
class Head:
    """A trained head.

    Attributes:
        about: Where it comes from.
        weights: Its numbers.
    """

    about: HeadDescription
    weights: HeadWeights

    def check_fits(self, model: EmbeddingModel, named: str) -> None:
        """Refuse a model whose embeddings are not those that the head was trained on.

        Args:
            model: The model; its weights need not be loaded.
            named: What a message calls the head, such as its file.

        Raises:
            UserError: It is another model, or the same one with other weights, or it sees frames of another size.
        """
        remedy = "use a head that was trained on this model (`vlm-rm reward train DATASET --model ...`), or name its model"
        if model.width != self.about.width:
            raise UserError(
                f"the head {named} was trained on embeddings of {self.about.model} with {self.about.width} numbers, and "
                f"{model.model_id} has {model.width}: {remedy}"
            )
        if model.weights_identity != self.about.identity:
            raise UserError(
                f"the head {named} was trained on {self.about.model} ({self.about.identity}), and this model is {model.model_id} "
                f"({model.weights_identity}): {remedy}"
            )
        if model.frame_format != self.about.frame_format:
            raise UserError(
                f"the head {named} was trained on frames of {_described(self.about.frame_format)}, and {model.model_id} has "
                f"{_described(model.frame_format)}: {remedy}"
            )


def _described(frame_format: FrameFormat) -> str:
    return f"{frame_format.size} pixels ({frame_format.interpolation}, {frame_format.resize_mode})"


def write_head(file: Path, head: Head) -> None:
    """Write a head's file as a whole.

    Args:
        file: Replaced if it exists.
        head: The head.

    Raises:
        UserError: It cannot be written.
    """
    with new_output(file) as unfinished:
        unfinished.write_bytes(head_content(head))


def head_content(head: Head) -> bytes:
    """Return the content of a head's file: equal heads have equal content."""
    return save(head.weights.tensors(), {_ABOUT: head.about.model_dump_json()})


def read_head(file: Path) -> Head:
    """Read a head.

    Args:
        file: As `write_head` wrote it.

    Returns:
        The head; all of its numbers are finite, and have the shapes that its description says.

    Raises:
        DamagedFileError: The file cannot be read, is damaged, or is something else.
    """
    if file.is_file() and file.stat().st_size > _LARGEST_FILE:
        raise DamagedFileError(f"{file} is larger than {_LARGEST_FILE // 2**20} MB, which no head is: {_REMEDY}")
    return parse_head(read_whole(file, _REMEDY), str(file))


def parse_head(content: bytes, named: str) -> Head:
    """Read a head from the content of its file.

    Args:
        content: As `head_content` returns it.
        named: What a message calls it.

    Returns:
        See `read_head`.

    Raises:
        DamagedFileError: The content is damaged, or something else.
    """
    about = _description(content, named)
    try:
        tensors = load(content)
    except Exception as error:  # safetensors has errors of its own
        raise DamagedFileError(f"{named} is damaged ({reason_of(error)}): {_REMEDY}") from error
    _check_tensors(tensors, about, named)
    hidden = {"hidden_hd": tensors["hidden"], "hidden_bias_h": tensors["hidden_bias"]} if about.hidden else {}
    return Head(about, HeadWeights(tensors["output"], float(tensors["bias"][0]), **hidden))


def _description(content: bytes, named: str) -> HeadDescription:
    """Read the metadata, which safetensors gives only of a file, never of its content."""
    length = int.from_bytes(content[:_LENGTH_BYTES], "little")
    try:
        header = json.loads(content[_LENGTH_BYTES : _LENGTH_BYTES + length])
        described = header.get(_METADATA, {}).get(_ABOUT)
    except (ValueError, AttributeError, RecursionError) as error:
        raise DamagedFileError(f"{named} is no safetensors file, or is cut off: {_REMEDY}") from error
    if described is None:
        raise DamagedFileError(f"{named} is a safetensors file without a reward head: {_REMEDY}")
    try:
        return HeadDescription.model_validate_json(described)
    except ValidationError as error:
        raise DamagedFileError(f"{named} is damaged: {problems_in(error)}: {_REMEDY}") from error


def _check_tensors(tensors: Mapping[str, np.ndarray], about: HeadDescription, named: str) -> None:
    expected: dict[str, tuple[int, ...]] = {"output": (about.hidden or about.width,), "bias": (1,)}
    if about.hidden:
        expected |= {"hidden": (about.hidden, about.width), "hidden_bias": (about.hidden,)}
    found = {name: tensor.shape for name, tensor in tensors.items()}
    if found != expected:
        raise DamagedFileError(f"{named} is damaged: its tensors are {found}, expected {expected}: {_REMEDY}")
    for name, tensor in tensors.items():
        if tensor.dtype != np.float32 or not np.isfinite(tensor).all():
            raise DamagedFileError(f"{named} is damaged: {name}: expected finite numbers in float32: {_REMEDY}")
