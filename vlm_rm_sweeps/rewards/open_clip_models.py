"""Where CLIP models come from: open_clip's tags, checkpoint files, and the embedded family.

The id of a CLIP model is open_clip's pair `architecture/pretrained`, where `pretrained` is a tag that open_clip downloads
(`ViT-B-32/laion2b_s34b_b79k`) or the path of a checkpoint file (`ViT-B-32/path/to/file.safetensors`), or `embedded/<size>`
for the small models that ship in this package.
"""

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.transform import PreprocessCfg, merge_preprocess_dict
from pydantic import TypeAdapter
from typing_extensions import TypedDict

from vlm_rm_sweeps.errors import UserError, reason_of, unknown_name
from vlm_rm_sweeps.files import read_json, sha256_of
from vlm_rm_sweeps.rewards.preprocessing import Preprocessing
from vlm_rm_sweeps.rewards.registry import EMBEDDED, registered_reward_models
from vlm_rm_sweeps.rewards.reward_model import Precision
from vlm_rm_sweeps.rewards.weights_files import check_is_weights, why_not_loaded

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


class TrainedSize(TypedDict):
    """A size of an embedded family: how it was trained, the checksums of its weights and vocabulary, its parameters."""

    images: int
    samples: int
    seed: int
    sha256: str
    vocabulary_sha256: str
    parameters: int
    training_seconds: int


_FAMILY = TypeAdapter(dict[str, TrainedSize])


def embedded_sizes() -> list[str]:
    """Return the sizes of the embedded family, smallest first."""
    manifest = embedded_manifest(EMBEDDED_FOLDER)
    return sorted(manifest, key=lambda size: int(manifest[size]["parameters"]))


def embedded_models() -> list[str]:
    """Return the model ids of the embedded family, smallest first."""
    return [f"{EMBEDDED}/{size}" for size in embedded_sizes()]


def downloadable_models() -> list[str]:
    """Return the model ids of all checkpoints that open_clip can download."""
    return [f"{architecture}/{tag}" for architecture, tag in open_clip.list_pretrained()]


@dataclass(frozen=True)
class ModelSource:
    """Where one CLIP model comes from: an open_clip architecture, its weights, and its own preprocessing.

    Attributes:
        model_id: Its id in sweep files.
        architecture: Name of the open_clip architecture.
        pretrained: open_clip's tag, or the path of a checkpoint file.
        preprocessing: Resizing and normalisation of its frames.
        quick_gelu: Whether the weights were trained with the QuickGELU activation.
        embedded_folder: Folder with the weights and vocabulary of a model of the embedded family; None for all others.
        remark: What had to be guessed; None if nothing had.
    """

    model_id: str
    architecture: str
    pretrained: str
    preprocessing: Preprocessing
    quick_gelu: bool = False
    embedded_folder: Path | None = None
    remark: str | None = None

    @property
    def identity(self) -> str:
        """What two ids of the same model have in common: open_clip takes a tag in capitals, too, and a file has many paths."""
        file = self.pretrained if os.path.isfile(self.pretrained) else None
        weights = os.path.realpath(file) if file else self.pretrained.lower().replace("-", "_")
        return f"{self.architecture}/{weights}"

    @property
    def weights_identity(self) -> str:
        """The identity with a checkpoint file's checksum instead of its path, which differs between machines.

        It reads the whole file.
        """
        if not os.path.isfile(self.pretrained):
            return self.identity
        return f"{self.architecture}/sha256:{sha256_of(Path(self.pretrained))}"

    @property
    def width(self) -> int:
        """Number of embedding dimensions."""
        self._register()
        return int(open_clip.get_model_config(self.architecture)["embed_dim"])

    @property
    def parameters(self) -> int:
        """Number of parameters, counted without loading or allocating weights."""
        self._register()
        with self._naming_what_is_missing():
            return _count_parameters(self.architecture)

    @property
    def tokenizer(self) -> Any:
        """open_clip's tokenizer for this architecture."""
        self._register()
        if self.embedded_folder:
            return embedded_tokenizer(self.architecture, self.embedded_folder)
        with self._naming_what_is_missing():
            return open_clip.get_tokenizer(self.architecture)

    @contextmanager
    def _naming_what_is_missing(self) -> Iterator[None]:
        """Turn what open_clip raises where a package is not installed into one message."""
        try:
            yield
        except (ImportError, RuntimeError) as error:
            missing = getattr(error, "name", None) or ("transformers" if "transformers" in str(error) else None)
            if missing is None:
                raise
            raise UserError(
                f"model {self.model_id!r} needs {missing}, which is not installed: `pip install {missing}`, or choose another model"
            ) from error

    def load(self, device: str, precision: Precision) -> torch.nn.Module:
        """Load the model with its weights.

        Every tensor must be present: no weight is ever left random.

        Args:
            device: torch device that the model runs on.
            precision: Floating-point precision of the weights.

        Returns:
            open_clip's model, on the device.

        Raises:
            UserError: This machine has no such device, or the weights are missing, damaged or cannot be downloaded.
        """
        _check_device(device)
        self._register()
        if self.embedded_folder:
            check_embedded_files(self.model_id.removeprefix(f"{EMBEDDED}/"), self.embedded_folder)
        elif os.path.isfile(self.pretrained) and (wrong := check_is_weights(Path(self.pretrained))):
            raise UserError(f"the weights of model {self.model_id!r} could not be loaded: {self.pretrained} {wrong}")
        try:
            model: torch.nn.Module = open_clip.create_model(
                self.architecture,
                pretrained=self.pretrained,
                precision=precision,
                device=device,
                # open_clip only warns if a tag was trained with another activation than that of its architecture.
                force_quick_gelu=self.quick_gelu,
                require_pretrained=True,
                weights_only=True,
            )
        except Exception as error:
            reason = why_not_loaded(error, self.architecture)
            if Path(self.pretrained).is_file():
                raise UserError(f"the weights of model {self.model_id!r} could not be loaded: {reason}") from error
            raise UserError(
                f"the weights of model {self.model_id!r} could not be loaded: {reason}. A tag is downloaded once, by open_clip, and "
                f"needs the network; without it use a checkpoint file ('{self.architecture}/path/to/file.safetensors') or an "
                f"embedded model ({', '.join(embedded_models())})"
            ) from error
        return model

    def _register(self) -> None:
        # At each use: open_clip keeps one configuration for each name, and several folders may hold embedded models.
        if self.embedded_folder:
            register_architecture(self.embedded_folder / f"{self.architecture}.json")


def find_model(model_id: str) -> ModelSource:
    """Find where a CLIP model comes from, without loading its weights.

    Args:
        model_id: open_clip's `architecture/pretrained`, or `embedded/<size>`.

    Returns:
        The model's architecture, weights and preprocessing.

    Raises:
        UserError: The architecture, tag or file does not exist, or the configuration beside a checkpoint file is not JSON.
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
    # The embedded family's configurations are registered with open_clip, which has neither weights nor vocabulary for them.
    architectures = [name for name in open_clip.list_models() if not name.startswith(f"{EMBEDDED}-")]
    if architecture not in architectures:
        if same := _same_model(model_id):
            raise UserError(
                f"model {model_id!r}: models have the ids of open_clip here: expected {same!r}, which is the same model"
            )
        known = [*registered_reward_models(), *architectures]
        raise UserError(unknown_name("architecture", architecture, known, "; `vlm-rm models` lists all"))
    tag = open_clip.get_pretrained_cfg(architecture, pretrained)
    if tag:
        return ModelSource(
            model_id, architecture, pretrained, _preprocessing(architecture, tag), bool(tag.get("quick_gelu", False))
        )
    if os.path.isfile(pretrained):  # false, too, for a name that no file can have
        return _file_source(model_id, architecture, Path(pretrained))
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    raise UserError(unknown_name(f"weights for {architecture}", pretrained, tags, ", or the path of a checkpoint file"))


def _file_source(model_id: str, architecture: str, file: Path) -> ModelSource:
    """Describe a checkpoint file, beside which open_clip exports how the model was trained.

    Raises:
        UserError: The file beside it cannot be read or used.
    """
    config_file = file.parent / _OPEN_CLIP_CONFIG
    if not config_file.is_file():
        return ModelSource(
            model_id, architecture, str(file), _preprocessing(architecture, {}), remark=_guessed(model_id, architecture)
        )
    beside = f"{config_file}, beside the checkpoint,"
    try:
        config = json.loads(config_file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{beside} is not JSON: {error}") from error
    parts: list[Any] = [config.get(part, {}) if isinstance(config, dict) else None for part in ("model_cfg", "preprocess_cfg")]
    if not all(isinstance(part, dict) for part in parts):
        raise UserError(f"{beside} has other content: expected an object with the objects model_cfg and preprocess_cfg")
    model, preprocess = parts
    try:
        preprocessing = _preprocessing(architecture, preprocess)
        preprocessing.check()
    except (ArithmeticError, AssertionError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{beside} has a preprocess_cfg that cannot be used ({reason_of(error)}): export the checkpoint again"
        ) from error
    return ModelSource(model_id, architecture, str(file), preprocessing, bool(model.get("quick_gelu", False)))


def _guessed(model_id: str, architecture: str) -> str | None:
    """Say that the preprocessing of weights without a configuration is a guess, if the architecture's tags have several."""
    guess = _preprocessing(architecture, {})
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    others = [tag for tag in tags if _preprocessing(architecture, open_clip.get_pretrained_cfg(architecture, tag)) != guess]
    if not others:
        return None
    return (
        f"{model_id}: there is no {_OPEN_CLIP_CONFIG} beside the file, so its frames are normalised as OpenAI's were; if it was "
        f"trained as {others[0]} was, put one there with that preprocess_cfg"
    )


_OPENAI_REPOSITORIES = {
    "openai/clip-vit-base-patch32": "ViT-B-32/openai",
    "openai/clip-vit-base-patch16": "ViT-B-16/openai",
    "openai/clip-vit-large-patch14": "ViT-L-14/openai",
    "openai/clip-vit-large-patch14-336": "ViT-L-14-336/openai",
}


def _same_model(model_id: str) -> str | None:
    """Find the id of a model that is named by its repository on the Hugging Face Hub."""
    repository = model_id.removeprefix("hf-hub:").strip("/").lower()
    for architecture, tag in open_clip.list_pretrained():
        hub = str(open_clip.get_pretrained_cfg(architecture, tag).get("hf_hub", ""))
        if hub and hub.strip("/").lower() == repository:
            return f"{architecture}/{tag}"
    return _OPENAI_REPOSITORIES.get(repository)


def _check_device(device: str) -> None:
    """Refuse a device that torch does not know, or cannot use on this machine."""
    try:
        torch.empty(1, device=device)
    # AssertionError: this build of torch has no CUDA.
    except (RuntimeError, AssertionError) as error:
        usable = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
        none = "" if torch.cuda.is_available() else " (torch finds no CUDA device on this machine)"
        raise UserError(f"device {device!r} cannot be used here: expected one of {', '.join(usable)}{none}") from error


def register_architecture(config_file: Path) -> None:
    """Register a model configuration with open_clip, under the name of its file."""
    # open_clip keeps every path it was given and reads all of them again for each new one; the last one wins.
    if open_clip.get_model_config(config_file.stem) != json.loads(config_file.read_text()):
        open_clip.add_model_config(config_file)


def embedded_tokenizer(architecture: str, folder: Path) -> Any:
    """Build the tokenizer of an embedded model: CLIP's byte-pair encoding with the vocabulary in `folder`."""
    # open_clip resolves relative paths against its own folder.
    return open_clip.get_tokenizer(architecture, bpe_path=str((folder / VOCABULARY).resolve()))


def check_embedded_files(size: str, folder: Path) -> None:
    """Verify the checksums of an embedded model's weights and vocabulary.

    Args:
        size: Size of the model, such as `small`.
        folder: Folder of the embedded family.

    Raises:
        UserError: A file is missing or damaged. The message names the expected checksum.
    """
    entry = embedded_manifest(folder)[size]
    for name, expected in ((f"{EMBEDDED}-{size}.safetensors", entry["sha256"]), (VOCABULARY, entry["vocabulary_sha256"])):
        file = folder / name
        if not file.is_file():
            raise UserError(f"{name} (sha256 {expected}) is missing from {folder}: install the package again")
        found = sha256_of(file)
        if found != expected:
            raise UserError(f"{name} is damaged: its sha256 is {found}, expected {expected}; install the package again")


def embedded_manifest(folder: Path) -> dict[str, TrainedSize]:
    """Read the manifest of an embedded family.

    Args:
        folder: Folder of the family.

    Returns:
        What is known of each size.

    Raises:
        UserError: The manifest is missing or damaged.
    """
    return read_json(folder / _MANIFEST, _FAMILY, "install the package again, or train the family again in a new folder")


def embedded_source(size: str, folder: Path) -> ModelSource:
    """Describe the embedded model of a size, in the package's folder or in one that `vlm-rm pretrain` wrote."""
    return ModelSource(
        model_id=f"{EMBEDDED}/{size}",
        architecture=f"{EMBEDDED}-{size}",
        pretrained=str(folder / f"{EMBEDDED}-{size}.safetensors"),
        preprocessing=EMBEDDED_PREPROCESSING,
        embedded_folder=folder,
    )


def _preprocessing(architecture: str, own: dict[str, Any]) -> Preprocessing:
    """Build open_clip's preprocessing without its cropping.

    open_clip's `shortest` cuts the sides off a wide frame, and with them what the prompt describes: MountainCar's flag, or the
    cart at the ends of its track. Such frames are fitted whole, between bars of the checkpoint's mean colour. Square frames are
    processed exactly as in open_clip.
    """
    config = open_clip.get_model_config(architecture)
    merged = merge_preprocess_dict(PreprocessCfg(), own)
    crops = merged["resize_mode"] == "shortest"
    return Preprocessing(
        # The architecture decides, as in open_clip: a tag's own `size` may be that of another variant.
        size=int(config["vision_cfg"]["image_size"]),
        mean=tuple(merged["mean"]),
        std=tuple(merged["std"]),
        interpolation=merged["interpolation"],
        resize_mode="longest" if crops else merged["resize_mode"],
        fill_color=round(255 * sum(merged["mean"]) / 3) if crops else merged["fill_color"],
    )


@contextmanager
def without_missing_weights_warning() -> Iterator[None]:
    """Silence open_clip's warning of missing weights, for models that are built without weights on purpose."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(disabled)


@cache
def _count_parameters(architecture: str) -> int:
    # Context and argument both: open_clip builds on the default device and then moves the model to the named one.
    with without_missing_weights_warning(), torch.device("meta"):
        model = open_clip.create_model(architecture, load_weights=False, device="meta")
    return sum(parameter.numel() for parameter in model.parameters())
