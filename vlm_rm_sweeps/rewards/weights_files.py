"""Checkpoint files: which of a folder's is meant, what their tensors are called, and why one cannot be loaded."""

import json
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import load_file

from vlm_rm_sweeps.errors import UserError, reason_of

_SAFETENSORS = ".safetensors"
_SUFFIXES = (_SAFETENSORS, ".bin", ".pth", ".pt")
_EXPORTED = ("open_clip_model", "open_clip_pytorch_model", "model", "pytorch_model")
"""Names under which open_clip and the Hub keep a model's weights, the first found first."""
_AVERAGED = ("state_dict_ema", "ema_state_dict", "model_ema", "ema")
_TRAINED = ("state_dict", "model_state_dict", "model")
_WRAPPERS = ("module.", "_orig_mod.")
"""What torch puts before every name of a model that was distributed, averaged or compiled."""
_COUNT_OF_AVERAGED = "n_averaged"
_NO_CHECKPOINT = "is no checkpoint of PyTorch: expected what torch.save writes, or a file that ends in .safetensors"
_LONGEST_REASON = 300
_MISSING = re.compile(r"Missing key\(s\) in state_dict: (.*?)\. *$", re.MULTILINE)
_UNEXPECTED = re.compile(r"Unexpected key\(s\) in state_dict: (.*?)\. *$", re.MULTILINE)
_OTHER_SHAPE = re.compile(r"size mismatch for (\S+): .*? shape torch\.Size\((.*?)\) .*? is torch\.Size\((.*?)\)")


def is_weights(file: Path) -> bool:
    """Tell whether a file's name is that of a checkpoint."""
    return file.suffix in _SUFFIXES


def weights_in(folder: Path) -> Path:
    """Find the weights in a folder that open_clip exported.

    Args:
        folder: Any folder.

    Returns:
        Its only checkpoint file, or the one with the name that exports have.

    Raises:
        UserError: There is none, or there are several, none of them with such a name.
    """
    found = sorted((file for file in folder.iterdir() if is_weights(file) and file.is_file()), key=_rank)
    if not found:
        raise UserError(f"there are no weights in {folder}: expected a file that ends in {', '.join(_SUFFIXES)}")
    if len(found) > 1 and found[0].stem not in _EXPORTED:
        raise UserError(
            f"{folder} has several checkpoints ({', '.join(file.name for file in found)}): call the one that is meant "
            f"{_EXPORTED[0]}{found[0].suffix}"
        )
    return found[0]


def _rank(file: Path) -> tuple[int, int, str]:
    name = _EXPORTED.index(file.stem) if file.stem in _EXPORTED else len(_EXPORTED)
    return name, _SUFFIXES.index(file.suffix), file.name


def load_weights(model: torch.nn.Module, file: Path) -> None:
    """Load a checkpoint file into a model, all of it.

    open_clip loads what it exports, and what its trainer saves (`state_dict`, names after `module.`). Beyond that, names may start
    with what torch puts before those of a compiled or an averaged model. Of a checkpoint with averaged weights (EMA), those are
    taken.

    Args:
        model: open_clip's model.
        file: The checkpoint, of which only tensors are read: no code in it runs.

    Raises:
        Exception: Whatever open_clip and torch raise for what is damaged or does not fit; see `why_not_loaded`.
    """
    # torch warns of other versions of pickle; either they can be read, or it raises an error, too.
    with warnings.catch_warnings(action="ignore", category=UserWarning):
        renamed = _renamed_tensors(file)
        if renamed is None:
            open_clip.load_checkpoint(model, str(file), strict=True, weights_only=True, device="cpu")
        else:
            model.load_state_dict(renamed, strict=True)


def tensor_names(file: Path) -> set[str] | None:
    """List the names of a checkpoint's tensors as a model has them, without reading the tensors.

    Args:
        file: A file that `check_is_weights` takes for weights.

    Returns:
        The names; None where only loading can tell, as of older formats.
    """
    if file.suffix == _SAFETENSORS:
        return {_without_wrappers(name) for name in _header(file)[0]}
    content = _content(file)
    if content is None:
        return None
    if not isinstance(content, dict):
        return set()
    part = _part_with_tensors(content)
    tensors = content if part is None else content[part]
    return {_without_wrappers(str(name)) for name, tensor in tensors.items() if isinstance(tensor, torch.Tensor)}


def _renamed_tensors(file: Path) -> dict[str, Any] | None:
    """Return the tensors of a checkpoint in whose names or layout open_clip would be lost; None for all others."""
    content = _content(file)
    if not isinstance(content, dict):
        return None
    part = _part_with_tensors(content)
    tensors = content if part is None else content[part]
    renamed = {_without_wrappers(name): tensor for name, tensor in tensors.items() if name != _COUNT_OF_AVERAGED}
    as_open_clip_reads = {name.removeprefix(_WRAPPERS[0]) for name in tensors}
    return None if part in (None, _TRAINED[0]) and as_open_clip_reads == renamed.keys() else renamed


def _part_with_tensors(content: Mapping[str, Any]) -> str | None:
    """Return the key of the weights in what a trainer saved; None if they are not below a key."""
    return next((key for key in (*_AVERAGED, *_TRAINED) if _has_tensors(content.get(key))), None)


def _content(file: Path) -> Any:
    """Return what a file holds, without reading its tensors before they are needed; None if it must be read as a whole."""
    if file.suffix == _SAFETENSORS:
        return load_file(file) if _is_wrapped(_header(file)[0]) else None
    try:
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # of other versions of pickle
            return torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except Exception:  # open_clip raises it again, or reads an older format that cannot be mapped
        return None


def _has_tensors(part: Any) -> bool:
    return isinstance(part, Mapping) and any(isinstance(each, torch.Tensor) for each in part.values())


def _is_wrapped(names: Iterable[str]) -> bool:
    return any(name.startswith((*_WRAPPERS, _COUNT_OF_AVERAGED)) for name in names)


def _without_wrappers(name: str) -> str:
    while name.startswith(_WRAPPERS):
        name = name.removeprefix(next(wrapper for wrapper in _WRAPPERS if name.startswith(wrapper)))
    return name


def check_is_weights(file: Path) -> str | None:
    """Look at a checkpoint file without loading it.

    Args:
        file: Any file.

    Returns:
        What it is instead of weights, to follow its name; None if it looks like weights.
    """
    size = file.stat().st_size
    with file.open("rb") as opened:
        start = opened.read(1024)
    if not size:
        return "is empty: download it again"
    if start.startswith(b"version https://git-lfs"):
        return "is a pointer of Git LFS, not the weights themselves: `git lfs pull` fetches them"
    if start.lstrip().startswith(b"<"):
        return "is a web page, not weights: download the file itself"
    if file.suffix == _SAFETENSORS:
        return _wrong_with_safetensors(file, size)
    if start.startswith(b"PK"):
        return _wrong_with_archive(file)
    return None if start.startswith(b"\x80") else _NO_CHECKPOINT


def _wrong_with_archive(file: Path) -> str | None:
    if not zipfile.is_zipfile(file):
        return "is cut off: download it again"
    with zipfile.ZipFile(file) as archive:
        inside = {Path(name).name for name in archive.namelist()}
    return None if "data.pkl" in inside else _NO_CHECKPOINT


def _header(file: Path) -> tuple[dict[str, Any], int]:
    """Read the header of a safetensors file: what it says of each tensor, and where the tensors begin."""
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        text = opened.read(length) if length < file.stat().st_size else b""
    return {name: tensor for name, tensor in json.loads(text).items() if name != "__metadata__"}, 8 + length


def _wrong_with_safetensors(file: Path, size: int) -> str | None:
    with file.open("rb") as opened:
        if opened.read(2) == b"PK":
            return "is a checkpoint of torch.save with the name of another format: call it .pt"
    try:
        header, start = _header(file)
        end = start + max(tensor["data_offsets"][1] for tensor in header.values())
    except (ValueError, AttributeError, KeyError, IndexError, TypeError):
        return "is no safetensors file, or is cut off: download it again"
    return f"is cut off, at {size:,} of {end:,} bytes: download it again" if size < end else None


def why_not_loaded(error: Exception, architecture: str) -> str:
    """Summarise what open_clip raised for weights, whose own message may have a line for each tensor.

    Args:
        error: The exception.
        architecture: The architecture that the weights were loaded into.

    Returns:
        One sentence.
    """
    text = str(error)
    if isinstance(error, pickle.UnpicklingError) or "Weights only load failed" in text:
        return (
            "it holds Python objects besides tensors, perhaps a whole pickled model, which could run any code: save "
            "`model.state_dict()` instead"
        )
    if "TorchScript" in text:
        return (
            "it is a TorchScript archive, as OpenAI publishes its models, which could run any code: name OpenAI's weights by their "
            "tag, such as 'ViT-B-32/openai', or save `model.state_dict()` of the loaded model"
        )
    if isinstance(error, StopIteration | AttributeError):  # open_clip looks for the first tensor's name
        return "it holds no tensors by name: save `model.state_dict()`"
    missing, unexpected = (_names(found) for found in (_MISSING.search(text), _UNEXPECTED.search(text)))
    parts = []
    if missing:
        parts.append(f"it lacks {len(missing)} tensor(s) of {architecture}, such as {missing[0]}")
    if unexpected:
        parts.append(f"it has {len(unexpected)} tensor(s) that {architecture} has not, such as {unexpected[0]}")
    if other := _OTHER_SHAPE.search(text):
        parts.append(f"its {other[1]} has the shape {other[2]}, and that of {architecture} {other[3]}")
    if parts:
        return f"{'; '.join(parts)}: name the architecture that it was trained with"
    return reason_of(error)[:_LONGEST_REASON]


def _names(found: re.Match[str] | None) -> list[str]:
    return re.findall(r'"([^"]+)"', found[1]) if found else []
