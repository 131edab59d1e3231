"""Checkpoints on disk: one folder each, complete or not there.

A trial's folder holds `step-000004096/`, from which training goes on (the two newest are kept: the newest may turn out to be
damaged), and `best-000002048/`, the policy with the highest metric so far. In each,

- `checkpoint.json` says all that is needed to use it (task, algorithm, reward spec, model id, step), and size and SHA-256 of
  each other file: what was cut short is not mistaken for a checkpoint;
- `policy.safetensors` holds the policy's weights;
- `state.pkl`, not in `best-...`, holds the rest of the training, replay buffer included. It is a pickle: only resume sweeps from
  folders that you trust. Loading a policy does not read it.

`failure.json`, beside them, says at which step the trial last raised an error, and which.

A checkpoint is written beside its place, flushed to disk and renamed into it.
"""

import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray.rllib.core.rl_module.rl_module import RLModule
from safetensors.torch import load_file, save_file

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.files import file_inside

CHECKPOINT = "checkpoint.json"
POLICY = "policy.safetensors"
STATE = "state.pkl"
TRIALS = "trials"
"""The folder of trials in a sweep's folder; in it each trial has a folder named by its id."""
_FAILURE = "failure.json"
_BEST = "best-"
_STEP = "step-"
_UNFINISHED = ".unfinished-"
_KEPT = 2
_FORMAT = 1


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose files are all there, undamaged. `content` is its checkpoint.json."""

    folder: Path
    content: dict[str, Any]

    @property
    def env_steps(self) -> int:
        return int(self.content["env_steps"])

    def training_state(self) -> dict[str, Any]:
        """Unpickles: only for folders that the user named."""
        with file_inside(self.folder, STATE).open("rb") as file:
            state: dict[str, Any] = pickle.load(file)
        return state

    def load_policy(self, module: RLModule) -> None:
        """Load the policy's weights. UserError if they are those of another task or network."""
        weights = load_file(self.folder / POLICY)
        network: Any = module
        expected = {name: tuple(value.shape) for name, value in network.state_dict().items()}
        found = {name: tuple(value.shape) for name, value in weights.items()}
        if expected != found:
            differing = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
            name = differing[0]
            raise UserError(
                f"{self.folder} holds the policy of another task or network: its {name} has the shape {found.get(name)}, expected "
                f"{expected.get(name)}"
            )
        network.load_state_dict(weights)


class TrialFolder:
    """Where the checkpoints of one trial are."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, module: RLModule, state: Mapping[str, Any], content: Mapping[str, Any]) -> Checkpoint:
        """Write what training goes on from; then remove all but the two newest.

        Raises OSError, with everything that was there before still in place, if it cannot be written.
        """
        checkpoint = _write(self.folder / f"{_STEP}{content['env_steps']:09d}", module, content, state)
        for old in self._step_folders()[_KEPT:]:
            shutil.rmtree(old)
        return checkpoint

    def save_best(self, module: RLModule, content: Mapping[str, Any]) -> Checkpoint:
        """Replace the best policy. Raises OSError, as `save`."""
        best = _write(self.folder / f"{_BEST}{content['env_steps']:09d}", module, content, None)
        for other in self.folder.glob(f"{_BEST}*"):
            if other != best.folder:
                shutil.rmtree(other)
        return best

    def last(self) -> tuple[Checkpoint | None, list[str]]:
        """The newest checkpoint that is undamaged and can be gone on from, and what is wrong with any newer ones."""
        problems: list[str] = []
        for folder in self._step_folders():
            try:
                return read_checkpoint(file_inside(self.folder, folder.name)), problems
            except UserError as error:
                problems.append(str(error))
        return None, problems

    def best(self) -> Checkpoint | None:
        """The policy with the highest metric so far, if there is an undamaged one."""
        for folder in sorted(self.folder.glob(f"{_BEST}*"), reverse=True):
            with suppress(UserError):
                return read_checkpoint(file_inside(self.folder, folder.name))
        return None

    def fails_again(self, env_steps: int, error: str) -> bool:
        """Whether the last error that the trial raised was the same, at the same step; this one is kept for the next time."""
        file = self.folder / _FAILURE
        before = file.read_text(encoding="utf-8") if file.is_file() else ""
        now = json.dumps({"env_steps": env_steps, "error": error}) + "\n"
        with suppress(OSError):  # a full disk: then it is tried once more than it need be
            self.folder.mkdir(parents=True, exist_ok=True)
            file.write_text(now, encoding="utf-8")
        return now == before

    def _step_folders(self) -> list[Path]:
        """Newest first."""
        return sorted(self.folder.glob(f"{_STEP}*"), reverse=True)


def read_checkpoint(folder: Path) -> Checkpoint:
    """The checkpoint in a folder; UserError, saying what is wrong, if it is none or damaged."""
    try:
        content = json.loads((folder / CHECKPOINT).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"{folder} is not a checkpoint ({CHECKPOINT}: {error.strerror}): expected a folder such as "
            "results/quickstart-.../trials/<trial id>/best-000008192"
        ) from error
    except ValueError as error:
        raise UserError(f"{folder / CHECKPOINT} is damaged: {error}") from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise UserError(f"{folder / CHECKPOINT} is not the description of a checkpoint of this version (format {_FORMAT})")
    for name, expected in content["files"].items():
        file = file_inside(folder, name)
        size = file.stat().st_size if file.is_file() else 0
        if size != expected["bytes"]:
            raise UserError(f"{file} was cut short: it has {size:,} bytes, expected {expected['bytes']:,}")
        if _sha256(file) != expected["sha256"]:
            raise UserError(f"{file} is damaged: its SHA-256 is not the one in {CHECKPOINT}")
    return Checkpoint(folder, content)


def _write(folder: Path, module: RLModule, content: Mapping[str, Any], state: Mapping[str, Any] | None) -> Checkpoint:
    unfinished = folder.with_name(f"{_UNFINISHED}{folder.name}")
    _remove(unfinished)
    try:
        unfinished.mkdir(parents=True)
        network: Any = module
        save_file(
            {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}, unfinished / POLICY
        )
        files = [POLICY]
        if state is not None:
            with (unfinished / STATE).open("wb") as file:
                pickle.dump(state, file, protocol=pickle.HIGHEST_PROTOCOL)
            files.append(STATE)
        described = {
            name: {"bytes": (unfinished / name).stat().st_size, "sha256": _sha256(unfinished / name)} for name in files
        }
        whole = {"format": _FORMAT} | dict(content) | {"files": described}
        (unfinished / CHECKPOINT).write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
        for name in (*files, CHECKPOINT):
            _flush(unfinished / name)
        # A folder cannot be replaced in one step: whoever looks in between finds no checkpoint here, and takes the one before.
        _remove(folder)
        unfinished.rename(folder)
        _flush(folder.parent)
    except Exception as error:
        _remove(unfinished)
        # safetensors has an exception of its own for a full disk.
        if isinstance(error, OSError):
            raise
        raise OSError(f"{folder} could not be written: {error}") from error
    return Checkpoint(folder, whole)


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
