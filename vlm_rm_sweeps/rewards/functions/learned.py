"""A reward that was learned from labels: a small head on the image's embedding."""

import base64
import binascii
import hashlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import Field, ValidationInfo, field_validator, model_validator

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.rewards.functions.base import EmbeddingModel, FrameReward, Range, Texts
from vlm_rm_sweeps.rewards.functions.registry import is_from_data
from vlm_rm_sweeps.rewards.heads import Head, head_content, parse_head, read_head


class Learned(FrameReward):
    """The log-odds that an image is in the goal, by a head that `vlm-rm reward train` trained on labels.

    With s the image's unit embedding,

        R(s) = w . s + b                     for a logistic regression
        R(s) = w . softsign(W s + c) + b     for a network, softsign(x) = x / (1 + |x|)

    It is a logit and no probability, which would be flat wherever the head is sure, see `HeadWeights.logits`. The prompts have no
    influence on it: the goal is that of the labels. The head goes with the model on whose embeddings it was trained, and is
    refused for any other.

    The file is read once, where the sweep file is read. Its content then travels with every request, and is stored in
    checkpoints, so that no other machine and no later process needs the file.

    Source: labels, by `vlm-rm reward train`.
    Shapes: images s (n, d); with h hidden units W (h, d), c and w (h,), else w (d,); b a number; R(s) (n,), any number.
    """

    formula: ClassVar[str] = "w . f(s) + b: log-odds of the goal, with f(s) = s, or softsign(W s + c) with hidden units"
    source: ClassVar[str] = "labels, by `vlm-rm reward train`"

    head: Path = Field(description="File that `vlm-rm reward train` wrote, relative to the sweep file.")
    content: str = Field(
        "", repr=False, description="Content of that file, in base64; read from the file, and not to be written by hand."
    )

    @model_validator(mode="before")
    @classmethod
    def _with_content(cls, given: Any, info: ValidationInfo) -> Any:
        """Read the file, unless its content is there already."""
        if not isinstance(given, Mapping) or given.get("content") or not isinstance(given.get("head"), str | Path):
            return given
        if is_from_data(info):
            raise UserError(f"the head {str(given['head'])!r} is named, and its content is missing: the data are damaged")
        content = head_content(read_head(Path(given["head"])))
        return {**given, "content": base64.b64encode(content).decode()}

    @field_validator("content")
    @classmethod
    def _is_a_head(cls, content: str) -> str:
        _head_in(content)
        return content

    def range(self) -> Range:
        """Return what the head gives unit embeddings at least and at most."""
        return _head_in(self.content).weights.range()

    def chosen(self) -> dict[str, Any]:
        """Return the checksum of the head: heads of one name may differ, and one head may have several names."""
        return {"head": hashlib.sha256(self.content.encode()).hexdigest()}

    def check_model(self, model: EmbeddingModel) -> None:
        """Refuse any other model than the one that the head was trained on."""
        _head_in(self.content).check_fits(model, str(self.head))

    def reward(self, images: np.ndarray, texts: Texts) -> np.ndarray:
        """Compute the log-odds of each image."""
        return _head_in(self.content).weights.logits(images)


@lru_cache(maxsize=64)
def _head_in(content: str) -> Head:
    """Read a head once in each process, and not for every batch of frames."""
    try:
        decoded = base64.b64decode(content, validate=True)
    except binascii.Error as error:
        raise UserError(
            f"the content of the head is not in base64 ({error}): leave it out, so that the file is read"
        ) from error
    return parse_head(decoded, "the head")
