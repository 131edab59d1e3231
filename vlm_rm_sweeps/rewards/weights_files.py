"""Why a checkpoint file cannot be loaded, in one sentence: what it is instead, or what its tensors do not fit."""

import json
import pickle
import re
import zipfile
from pathlib import Path

from vlm_rm_sweeps.errors import reason_of

_SAFETENSORS = ".safetensors"
_LONGEST_REASON = 300
_MISSING = re.compile(r"Missing key\(s\) in state_dict: (.*?)\. *$", re.MULTILINE)
_UNEXPECTED = re.compile(r"Unexpected key\(s\) in state_dict: (.*?)\. *$", re.MULTILINE)
_OTHER_SHAPE = re.compile(r"size mismatch for (\S+): .*? shape torch\.Size\((.*?)\) .*? is torch\.Size\((.*?)\)")


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
    if start.startswith(b"PK") and not zipfile.is_zipfile(file):
        return "is cut off: download it again"
    if not start.startswith((b"PK", b"\x80")):
        return "is no checkpoint of PyTorch: expected what torch.save writes, or a file that ends in .safetensors"
    return None


def _wrong_with_safetensors(file: Path, size: int) -> str | None:
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        text = opened.read(length) if length < size else b""
    try:
        header = json.loads(text)
        end = 8 + length + max(tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__")
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
    missing, unexpected = (_names(found) for found in (_MISSING.search(text), _UNEXPECTED.search(text)))
    if unexpected and all("_orig_mod." in name for name in unexpected):
        return (
            "it was saved from a compiled model, its names start with `_orig_mod.`: save `model._orig_mod.state_dict()` instead"
        )
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
