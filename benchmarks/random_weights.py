"""open_clip's architectures with random weights: as fast and as large as trained ones, and nothing is downloaded."""

from dataclasses import dataclass
from typing import Any

import open_clip
import torch
from open_clip.transform import PreprocessCfg
from torch.utils.flop_counter import FlopCounterMode

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.rewards.clip import ClipRewardModel
from vlm_rm_sweeps.rewards.open_clip_models import ModelSource, find_model, without_missing_weights_warning
from vlm_rm_sweeps.rewards.preprocessing import Preprocessing
from vlm_rm_sweeps.rewards.reward_model import Precision


@dataclass(frozen=True)
class RandomWeights(ModelSource):
    """An architecture of open_clip whose weights are random."""

    def load(self, device: str, precision: Precision) -> torch.nn.Module:
        """Make the model, the same each time, on a device."""
        torch.manual_seed(0)
        with without_missing_weights_warning():
            model: torch.nn.Module = open_clip.create_model(
                self.architecture, precision=precision, device=device, load_weights=False
            )
        return model


def clip_model(name: str) -> ClipRewardModel:
    """Make a CLIP model, not loaded.

    Args:
        name: An architecture of open_clip, which gets random weights, or `embedded/<size>`, which has its own.

    Returns:
        The reward model.
    """
    return ClipRewardModel(name, source_of(name))


def source_of(name: str) -> ModelSource:
    """Return where the model of `clip_model` comes from.

    Args:
        name: As of `clip_model`.

    Returns:
        The source of its weights.

    Raises:
        UserError: There is no such model.
    """
    if "/" in name:
        return find_model(name)
    config: Any = open_clip.get_model_config(name)
    if config is None:
        raise UserError(f"model {name!r}: expected an architecture of open_clip, such as ViT-B-32, or embedded/<size>")
    usual = PreprocessCfg()
    preprocessing = Preprocessing(int(config["vision_cfg"]["image_size"]), usual.mean, usual.std, "bicubic", "squash")
    return RandomWeights(name, name, "random", preprocessing)


def image_gflops(name: str) -> float:
    """Count the operations of encoding one image, in GFLOPs: 2 for a multiplication with its addition."""
    source = source_of(name)
    source._register()
    with without_missing_weights_warning(), torch.device("meta"):
        model: Any = open_clip.create_model(source.architecture, device="meta", load_weights=False).eval()
    image = torch.empty(1, 3, source.preprocessing.size, source.preprocessing.size, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.encode_image(image)
    return float(counter.get_total_flops()) / 1e9
