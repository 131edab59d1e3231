"""A reward model on its way to another machine, with the files that it is made from."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ray import cloudpickle

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.rewards.local_files import first_path, keep_copies, local_path
from vlm_rm_sweeps.rewards.reward_model import RewardModel

LARGEST_FILES_MB = 100
"""Larger ones would be in Ray's memory once for each server: they have to be on all nodes."""


@dataclass(frozen=True)
class PackedModel:
    """A reward model, not loaded, that can be unpacked where its files are missing.

    Attributes:
        pickled: The model.
        files: The contents of its files by the path that they have on the machine that it came from.
        left_out: Where the files are, if they are too large to travel.
    """

    pickled: bytes
    files: Mapping[Path, bytes]
    left_out: tuple[Path, ...] = ()

    @classmethod
    def of(cls, model: RewardModel) -> "PackedModel":
        """Pack a model, with its files if they are small enough.

        Args:
            model: The model, not loaded.

        Returns:
            The packed model.

        Raises:
            UserError: A file cannot be read any more.
        """
        files = {first_path(file): local_path(file) for file in model.files}
        try:
            if sum(file.stat().st_size for file in files.values()) > LARGEST_FILES_MB * 1e6:
                return cls(cloudpickle.dumps(model), {}, tuple(files))
            return cls(cloudpickle.dumps(model), {first: file.read_bytes() for first, file in files.items()})
        except OSError as error:
            raise UserError(f"a file of model {model.model_id!r} cannot be read: {error}") from error

    def unpack(self) -> RewardModel:
        """Return the model; files that this machine lacks are written to the user's cache.

        Returns:
            The model, not loaded.

        Raises:
            UserError: A file that was too large to travel is not here, or the user's cache cannot be written.
        """
        if missing := [file for file in self.left_out if not file.is_file()]:
            raise UserError(
                f"this node has no {missing[0]}: a model's files of more than {LARGEST_FILES_MB} MB do not travel with it: put them "
                "under the same path on all nodes"
            )
        keep_copies(self.files)
        model: RewardModel = cloudpickle.loads(self.pickled)
        return model
