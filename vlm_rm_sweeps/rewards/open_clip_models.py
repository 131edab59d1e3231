"""Where CLIP models come from: open_clip's tags, checkpoint files, and the embedded family.

The id of a CLIP model is open_clip's pair `architecture/pretrained`, where `pretrained` is a tag that open_clip downloads
(`ViT-B-32/laion2b_s34b_b79k`) or the path of a checkpoint file (`ViT-B-32/path/to/file.safetensors`), or `embedded/<size>`
for the small models that ship in this package.
"""

import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.transform import PreprocessCfg, merge_preprocess_dict

from vlm_rm_sweeps.errors import UserError, unknown_name
from vlm_rm_sweeps.rewards.preprocessing import Preprocessing
from vlm_rm_sweeps.rewards.registry import EMBEDDED, registered_reward_models
from vlm_rm_sweeps.rewards.reward_model import Precision

EMBEDDED_FOLDER = Path(__file__).parent / EMBEDDED
VOCABULARY = "bpe.txt.gz"
_MANIFEST = "manifest.json"
EMBEDDED_PREPROCESSING = Preprocessing(
    # `squash`, because bars would leave the small input fewer pixels of the scene.
    size=64,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    interpolation="bicubic",
    resize_mode="squash",
)
_OPEN_CLIP_CONFIG = "open_clip_config.json"


def embedded_sizes() -> list[str]:
    """Return the sizes of the embedded family, smallest first."""
    manifest = embedded_manifest(EMBEDDED_FOLDER)
    return sorted(manifest, key=lambda size: int(manifest[size]["parameters"]))


def embedded_models() -> list[str]:
    """Ids of the embedded family, smallest first."""
    return [f"{EMBEDDED}/{size}" for size in embedded_sizes()]


def downloadable_models() -> list[str]:
    """Ids of all models that open_clip can download."""
    return [f"{architecture}/{tag}" for architecture, tag in open_clip.list_pretrained()]


@dataclass(frozen=True)
class ModelSource:
    """Where one CLIP model comes from: an open_clip architecture, its weights, and its own preprocessing.

    Attributes:
        model_id: The id by which a sweep file names it.
        architecture: Name of the open_clip architecture.
        pretrained: open_clip's tag, or the path of a checkpoint file.
        preprocessing: How frames become the model's input.
        quick_gelu: Whether the weights were trained with the activation QuickGELU.
        embedded_folder: Folder with the weights and vocabulary of a model of the embedded family; None for all others.
    """

    model_id: str
    architecture: str
    pretrained: str
    preprocessing: Preprocessing
    quick_gelu: bool = False
    embedded_folder: Path | None = None

    @property
    def parameters(self) -> int:
        """Number of parameters, counted without loading or allocating weights."""
        self._register()
        return _count_parameters(self.architecture)

    @property
    def tokenizer(self) -> Any:
        """open_clip's tokenizer for this architecture."""
        self._register()
        if self.embedded_folder:
            return embedded_tokenizer(self.architecture, self.embedded_folder)
        return open_clip.get_tokenizer(self.architecture)

    def load(self, device: str, precision: Precision) -> torch.nn.Module:
        """Load the model with its weights. Every tensor must be there: weights are never random.

        Args:
            device: Where the model runs, in torch's terms.
            precision: Of the weights.

        Returns:
            open_clip's model.

        Raises:
            UserError: There is no such device here, or the weights are missing, damaged or cannot be downloaded.
        """
        _check_device(device)
        self._register()
        if self.embedded_folder:
            check_embedded_files(self.model_id.removeprefix(f"{EMBEDDED}/"), self.embedded_folder)
        try:
            model: torch.nn.Module = open_clip.create_model(
                self.architecture,
                pretrained=self.pretrained,
                precision=precision,
                device=device,
                # open_clip only warns when a tag was trained with another activation than its architecture names.
                force_quick_gelu=self.quick_gelu,
                require_pretrained=True,
                weights_only=True,
            )
        except Exception as error:
            raise UserError(
                f"the weights of model {self.model_id!r} could not be loaded: {error}. A tag is downloaded once, by open_clip, and "
                f"needs the network; without it use a checkpoint file ('{self.architecture}/path/to/file.safetensors') or an "
                f"embedded model ({', '.join(embedded_models())})"
            ) from error
        return model

    def _register(self) -> None:
        # Whenever it is used: open_clip keeps one configuration for each name, and other folders have embedded models, too.
        if self.embedded_folder:
            register_architecture(self.embedded_folder / f"{self.architecture}.json")


def find_model(model_id: str) -> ModelSource:
    """Find where the CLIP model of this id comes from. Loads no weights.

    Args:
        model_id: open_clip's `architecture/pretrained`, or `embedded/<size>`.

    Raises:
        UserError: The architecture, tag or file does not exist.
    """
    architecture, separator, pretrained = model_id.partition("/")
    if not separator or not architecture or not pretrained:
        raise UserError(
            f"model {model_id!r}: expected `architecture/pretrained`, such as 'ViT-B-32/laion2b_s34b_b79k', a checkpoint file as in "
            "'ViT-B-32/path/to/file.safetensors', a reward model of your own as 'module:Class', or a registered one "
            f"({', '.join(registered_reward_models())}), as in 'embedded/small'"
        )
    if architecture == EMBEDDED:
        if pretrained not in embedded_sizes():
            raise UserError(unknown_name("model", model_id, embedded_models()))
        return embedded_source(pretrained, EMBEDDED_FOLDER)
    # The embedded family's configs are registered with open_clip, but have no weights and no vocabulary of its.
    architectures = [name for name in open_clip.list_models() if not name.startswith(f"{EMBEDDED}-")]
    if architecture not in architectures:
        known = [*registered_reward_models(), *architectures]
        raise UserError(unknown_name("architecture", architecture, known, "; `vlm-rm models` lists all"))
    tag = open_clip.get_pretrained_cfg(architecture, pretrained)
    if tag:
        return ModelSource(
            model_id, architecture, pretrained, _preprocessing(architecture, tag), bool(tag.get("quick_gelu", False))
        )
    file = Path(pretrained)
    if file.is_file():
        # A checkpoint exported by open_clip has its preprocessing beside it.
        config_file = file.parent / _OPEN_CLIP_CONFIG
        try:
            own = json.loads(config_file.read_text()).get("preprocess_cfg", {}) if config_file.is_file() else {}
        except ValueError as error:
            raise UserError(f"{config_file}, beside the checkpoint, is not JSON: {error}") from error
        return ModelSource(model_id, architecture, pretrained, _preprocessing(architecture, own))
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    raise UserError(unknown_name(f"weights for {architecture}", pretrained, tags, ", or the path of a checkpoint file"))


def _check_device(device: str) -> None:
    """UserError if torch does not know the device, or cannot use it on this machine."""
    try:
        torch.empty(1, device=device)
    # AssertionError: this build of torch has no CUDA.
    except (RuntimeError, AssertionError) as error:
        usable = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
        none = "" if torch.cuda.is_available() else " (torch finds no CUDA device on this machine)"
        raise UserError(f"device {device!r} cannot be used here: expected one of {', '.join(usable)}{none}") from error


def register_architecture(config_file: Path) -> None:
    """Make a model config known to open_clip, under the name of its file."""
    # open_clip keeps every path it was ever given and reads them all again at each new one; the last one wins.
    if open_clip.get_model_config(config_file.stem) != json.loads(config_file.read_text()):
        open_clip.add_model_config(config_file)


def embedded_tokenizer(architecture: str, folder: Path) -> Any:
    """Return the tokenizer of the embedded family: CLIP's byte-pair encoding with the merges in `folder`."""
    # open_clip resolves relative paths against its own folder.
    return open_clip.get_tokenizer(architecture, bpe_path=str((folder / VOCABULARY).resolve()))


def check_embedded_files(size: str, folder: Path) -> None:
    """UserError, naming the checksum, if the weights or the vocabulary of an embedded size are missing or damaged."""
    entry = embedded_manifest(folder)[size]
    for name, expected in ((f"{EMBEDDED}-{size}.safetensors", entry["sha256"]), (VOCABULARY, entry["vocabulary_sha256"])):
        file = folder / name
        if not file.is_file():
            raise UserError(f"{name} (sha256 {expected}) is missing from {folder}: install the package again")
        found = sha256_of(file)
        if found != expected:
            raise UserError(f"{name} is damaged: its sha256 is {found}, expected {expected}; install the package again")


def sha256_of(file: Path) -> str:
    """Return the file's checksum, as the manifest has it."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def embedded_manifest(folder: Path) -> dict[str, dict[str, Any]]:
    """By size: `sha256` of the weights, `vocabulary_sha256`, the number of `parameters`, and how it was trained.

    Raises UserError if it is missing or damaged.
    """
    try:
        manifest: dict[str, dict[str, Any]] = json.loads((folder / _MANIFEST).read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / _MANIFEST} cannot be read ({error}): install the package again") from error
    return manifest


def embedded_source(size: str, folder: Path) -> ModelSource:
    """Return an embedded model in any folder that `vlm-rm pretrain` wrote."""
    return ModelSource(
        model_id=f"{EMBEDDED}/{size}",
        architecture=f"{EMBEDDED}-{size}",
        pretrained=str(folder / f"{EMBEDDED}-{size}.safetensors"),
        preprocessing=EMBEDDED_PREPROCESSING,
        embedded_folder=folder,
    )


def _preprocessing(architecture: str, own: dict[str, Any]) -> Preprocessing:
    """As open_clip's, but for one thing: nothing is cropped.

    open_clip's `shortest` cuts the sides off a frame that is wider than high, and with them MountainCar's flag, or the cart at the
    ends of its track: what the prompt names. Such frames are fitted whole, between bars of the checkpoint's mean colour. Square
    frames are exactly open_clip's.
    """
    config = open_clip.get_model_config(architecture)
    merged = merge_preprocess_dict(PreprocessCfg(), own)
    crops = merged["resize_mode"] == "shortest"
    return Preprocessing(
        # The model's input decides, as in open_clip: a tag's own `size` may be that of another variant.
        size=int(config["vision_cfg"]["image_size"]),
        mean=tuple(merged["mean"]),
        std=tuple(merged["std"]),
        interpolation=merged["interpolation"],
        resize_mode="longest" if crops else merged["resize_mode"],
        fill_color=round(255 * sum(merged["mean"]) / 3) if crops else merged["fill_color"],
    )


@contextmanager
def without_missing_weights_warning() -> Iterator[None]:
    """For models that are built without weights on purpose: open_clip would warn that they are missing."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(disabled)


@cache
def _count_parameters(architecture: str) -> int:
    # Both: it builds on the default device and only then moves to the named one.
    with without_missing_weights_warning(), torch.device("meta"):
        model = open_clip.create_model(architecture, load_weights=False, device="meta")
    return sum(parameter.numel() for parameter in model.parameters())
