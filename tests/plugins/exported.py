"""Models as open_clip exports them, with random weights."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import save_file

from vlm_rm_sweeps.rewards.model_folder import CONFIG_FILE

TEXT: dict[str, Any] = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 1}
VIT: dict[str, Any] = {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16}


def clip(vision: Mapping[str, Any], text: Mapping[str, Any], **others: Any) -> dict[str, Any]:
    """Return a model's configuration."""
    return {"embed_dim": 64, "vision_cfg": dict(vision), "text_cfg": dict(text), **others}


SMALL_VIT = clip(VIT, TEXT)


def export(folder: Path, model: Mapping[str, Any], preprocess: Mapping[str, Any], seed: int = 0) -> Path:
    """Write configuration and weights into a folder that exists, and return it."""
    (folder / CONFIG_FILE).write_text(json.dumps({"model_cfg": model, "preprocess_cfg": preprocess}))
    torch.manual_seed(seed)
    state = open_clip.create_model(f"local-dir:{folder}", load_weights=False, pretrained_text=False).state_dict()
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / "open_clip_model.safetensors")
    return folder
