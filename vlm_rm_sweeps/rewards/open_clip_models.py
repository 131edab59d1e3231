"""Where CLIP models come from: open_clip's tags, checkpoint files, and the embedded family.

The id of a CLIP model is one of

- open_clip's pair `architecture/pretrained`, where `pretrained` is a tag that open_clip downloads (`ViT-B-32/laion2b_s34b_b79k`) or
  the path of a checkpoint file (`ViT-B-32/path/to/file.safetensors`);
- the path of a folder with open_clip_config.json and weights, with or without `local-dir:` before it;
- `hf-hub:org/name`, a repository of the Hugging Face Hub with the same files;
- `embedded/<size>`, for the small models that ship in this package, or `embedded/v1/<size>` for their first version.
"""

import json
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, NotRequired, ParamSpec, TypeVar, get_args

import open_clip
import torch
from open_clip.model import get_input_dtype
from open_clip.pretrained import download_pretrained_from_hf
from pydantic import TypeAdapter
from typing_extensions import TypedDict

from vlm_rm_sweeps.errors import UserError, reason_of, unknown_name
from vlm_rm_sweeps.files import read_json, read_whole, sha256_of
from vlm_rm_sweeps.rewards.hub import HUB_PREFIX, NotFetchedError, fetch, repository_of
from vlm_rm_sweeps.rewards.local_files import local_path
from vlm_rm_sweeps.rewards.model_folder import CONFIG_FILE, FOLDER_PREFIX
from vlm_rm_sweeps.rewards.open_clip_config import (
    check_model_config,
    preprocessing_of,
    read_config,
    refuse_missing_packages,
    uses_transformers,
)
from vlm_rm_sweeps.rewards.preprocessing import Preprocessing
from vlm_rm_sweeps.rewards.registry import EMBEDDED, NEWEST_EMBEDDED, EmbeddedVersion, registered_reward_models, with_version
from vlm_rm_sweeps.rewards.reward_model import Precision
from vlm_rm_sweeps.rewards.weights_files import (
    check_is_weights,
    is_weights,
    load_weights,
    tensor_names,
    weights_in,
    why_not_loaded,
)

EMBEDDED_FOLDERS = {version: Path(__file__).parent / EMBEDDED / version for version in get_args(EmbeddedVersion)}
EMBEDDED_FOLDER = EMBEDDED_FOLDERS[NEWEST_EMBEDDED]
VOCABULARY = "bpe.txt.gz"
WORDS = "words.txt"
_WORD = re.compile(r"[a-z]+|[0-9]+")
_MANIFEST = "manifest.json"
_REMEDY = "install the package again, or train the family again in a new folder"
EMBEDDED_PREPROCESSING = Preprocessing(
    # `squash`, because bars would leave the small input fewer pixels of the scene.
    size=64,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    interpolation="bicubic",
    resize_mode="squash",
)


class TrainedSize(TypedDict):
    """A size of an embedded family: how it was trained, the checksums of its weights and vocabulary, its parameters.

    `start_sha256` is the checksum of the weights that its training started from; null, or missing in the first version, if they were
    random.
    """

    images: int
    samples: int
    seed: int
    start_sha256: NotRequired[str | None]
    sha256: str
    vocabulary_sha256: str
    parameters: int
    training_seconds: int


Arguments = ParamSpec("Arguments")
Made = TypeVar("Made")
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


def models_of_transformers() -> set[str]:
    """Return those of `downloadable_models` whose text tower or tokenizer comes from transformers."""
    return {
        f"{architecture}/{tag}"
        for architecture, tag in open_clip.list_pretrained()
        if uses_transformers(open_clip.get_model_config(architecture))
    }


@dataclass(frozen=True)
class ModelSource:
    """Where one CLIP model comes from: an open_clip architecture, its weights, and its own preprocessing.

    Attributes:
        model_id: Its id in sweep files.
        architecture: Name of the open_clip architecture; for a folder or a repository, open_clip's name of that.
        pretrained: open_clip's tag, or the path of a checkpoint file; empty for a repository, which has one checkpoint.
        config_folder: Folder whose open_clip_config.json describes the architecture; None if open_clip knows it by name.
        uses_transformers: Whether its text tower or its tokenizer comes from transformers.
        preprocessing: Resizing and normalisation of its frames.
        quick_gelu: Whether the weights were trained with the QuickGELU activation.
        embedded_folder: Folder with the weights and vocabulary of a model of the embedded family; None for all others.
        remark: What had to be guessed; None if nothing had.
    """

    model_id: str
    architecture: str
    pretrained: str
    preprocessing: Preprocessing
    config_folder: Path | None = None
    uses_transformers: bool = False
    quick_gelu: bool = False
    embedded_folder: Path | None = None
    remark: str | None = None

    @property
    def identity(self) -> str:
        """What two ids of the same model have in common: open_clip takes a tag in capitals, too, and a file has many paths."""
        if self._tag is None and os.path.isfile(self.pretrained):
            weights = os.path.realpath(self.pretrained)
            return weights if self.architecture.startswith(FOLDER_PREFIX) else f"{self.architecture}/{weights}"
        return f"{self.architecture}/{self.pretrained.lower().replace('-', '_')}"

    @property
    def weights_identity(self) -> str:
        """The identity with a checkpoint file's checksum instead of its path, which differs between machines.

        It reads the whole file. A repository's is its commit.
        """
        if commit := self._commit:
            return f"{self.architecture}@{commit}"
        if self._tag is not None or not os.path.isfile(self.pretrained):
            return self.identity
        checksum = f"sha256:{sha256_of(Path(self.pretrained))}"
        return checksum if self.architecture.startswith(FOLDER_PREFIX) else f"{self.architecture}/{checksum}"

    @property
    def files(self) -> list[Path]:
        """The checkpoint file and what belongs to it, if they are on this machine and not in this package."""
        if self.embedded_folder or self._tag is not None or not os.path.isfile(self.pretrained):
            return []
        weights = Path(self.pretrained)
        beside = weights.parent / CONFIG_FILE
        if self.config_folder is None:
            return [weights, beside] if beside.is_file() else [weights]
        return [weights, *(file for file in sorted(weights.parent.iterdir()) if file.is_file() and not is_weights(file))]

    @property
    def width(self) -> int:
        """Number of embedding dimensions."""
        if self.config_folder:
            model, _ = read_config(self.config_folder / CONFIG_FILE, f"model {self.model_id!r}")
            return int(model["embed_dim"])
        self._register()
        return int(open_clip.get_model_config(self.architecture)["embed_dim"])

    @property
    def parameters(self) -> int:
        """Number of parameters, counted without loading or allocating weights."""
        return sum(self._tensors.values())

    @property
    def _tensors(self) -> dict[str, int]:
        """Number of elements of each parameter by name."""
        return self._made("network", _parameters_of, self._network_name, self.embedded_folder)

    def check_weights(self) -> None:
        """Refuse a checkpoint file without any tensor of the architecture, without loading it.

        Raises:
            UserError: It is of another model, or of something else.
        """
        if self.embedded_folder or self._tag is not None or not os.path.isfile(self.pretrained):
            return
        names = tensor_names(Path(self.pretrained))
        if names is not None and not names & self._tensors.keys():
            other = f"such as {min(names)}" if names else "and none of any other"
            raise UserError(
                f"the weights of model {self.model_id!r} are of something else: {self.pretrained} has no tensor of "
                f"{self.architecture}, such as {min(self._tensors)}, {'but others, ' if names else ''}{other}: name a checkpoint that "
                "open_clip can read, and the architecture that it was trained with"
            )

    @property
    def tokenizer(self) -> Any:
        """open_clip's tokenizer for this architecture."""
        if self.embedded_folder:
            self._register()
            return embedded_tokenizer(self.architecture, self.embedded_folder)
        # A folder or a repository could name code of its own for its tokenizer: it is never run.
        options = {"trust_remote_code": False} if self.uses_transformers else {}
        return self._made("tokenizer", open_clip.get_tokenizer, self.architecture, **options)

    def unknown_words(self, prompts: Iterable[str]) -> list[str]:
        """Return the words of prompts, in their order, that the captions of an embedded model never used; none of other models."""
        if self.embedded_folder is None:
            return []
        known = known_words(self.embedded_folder)
        return list(dict.fromkeys(word for prompt in prompts for word in words_of(prompt) if word not in known))

    def check_precision(self, precision: Precision) -> None:
        """Refuse a precision that the architecture cannot be used in, without loading or allocating weights.

        Some load in it, and fail when they encode.

        Args:
            precision: Floating-point precision of the weights.

        Raises:
            UserError: A frame or a prompt cannot be encoded in it, though both can in fp32.
        """
        if precision != "fp32" and (reason := self._made("network", _why_not_in, self._network_name, precision)):
            raise UserError(f"{self.model_id} cannot be used in {precision} ({reason}): expected fp32")

    def load(self, device: str, precision: Precision) -> torch.nn.Module:
        """Load the model with its weights.

        Every tensor must be present: no weight is ever left random.

        Args:
            device: torch device that the model runs on.
            precision: Floating-point precision of the weights.

        Returns:
            open_clip's model, on the device.

        Raises:
            UserError: This machine has no such device, a package is missing, or the weights are missing, damaged or cannot be
                downloaded.
        """
        _check_device(device)
        if self.embedded_folder:
            check_embedded_files(self.architecture.removeprefix(f"{EMBEDDED}-"), self.embedded_folder)
        file = self._weights_file()
        model = self._made("network", _untrained, self._network_name, device, precision, self.quick_gelu)
        try:
            load_weights(model, file)
        except Exception as error:
            reason = why_not_loaded(error, self.architecture)
            raise UserError(f"the weights of model {self.model_id!r} could not be loaded: {reason}") from error
        return model

    def _weights_file(self) -> Path:
        """Return the file of the weights, downloaded if they are a tag or a repository.

        Raises:
            UserError: It cannot be downloaded, or is something else than weights.
        """
        try:
            file = Path(self._download() or self.pretrained)
        except NotFetchedError as error:
            raise UserError(
                f"the weights of model {self.model_id!r} could not be loaded: {error}. A model is downloaded once, by open_clip, "
                "and needs the network; without it use a checkpoint file ('ViT-B-32/path/to/file.safetensors') or an embedded "
                f"model ({', '.join(embedded_models())})"
            ) from error
        if file.is_file() and (wrong := check_is_weights(file)):
            raise UserError(f"the weights of model {self.model_id!r} could not be loaded: {file} {wrong}")
        return file

    def _download(self) -> str | None:
        if commit := self._commit:
            return fetch(download_pretrained_from_hf, self.architecture.removeprefix(HUB_PREFIX), revision=commit)
        return None if self._tag is None else fetch(open_clip.download_pretrained, self._tag)

    @property
    def _commit(self) -> str | None:
        """The commit of a repository's configuration, and of the weights that belong to it; None for all else."""
        if self.config_folder is None or not self.architecture.startswith(HUB_PREFIX):
            return None
        return self.config_folder.name  # the cache has a folder for each commit

    @property
    def _tag(self) -> dict[str, Any] | None:
        """What open_clip knows of the weights, if they are one of its tags."""
        return open_clip.get_pretrained_cfg(self.architecture, self.pretrained) or None

    @property
    def _network_name(self) -> str:
        # By the name of a repository, open_clip would download the weights even to count parameters.
        return f"{FOLDER_PREFIX}{self.config_folder}" if self.config_folder else self.architecture

    def _made(self, what: str, make: Callable[Arguments, Made], *args: Arguments.args, **kwargs: Arguments.kwargs) -> Made:
        """Make something of the model's, which may need a package, or files from the Hub.

        Args:
            what: Its name in messages.
            make: Makes it.
            *args: Arguments of `make`.
            **kwargs: Arguments of `make`, by name.

        Returns:
            What it makes.

        Raises:
            UserError: A package is missing, a file cannot be had, or open_clip cannot make it.
        """
        self._register()
        if self.uses_transformers:
            refuse_missing_packages(self.model_id)
        elif not self.architecture.startswith(HUB_PREFIX):
            try:
                return make(*args, **kwargs)
            except (ArithmeticError, AssertionError, LookupError, OSError, RuntimeError, TypeError, ValueError) as error:
                raise UserError(f"the {what} of model {self.model_id!r} cannot be made ({reason_of(error)})") from error
        try:
            return fetch(make, *args, **kwargs)
        except NotFetchedError as error:
            raise UserError(
                f"the {what} of model {self.model_id!r} cannot be made ({error}); files of repositories, such as vocabularies and "
                "configurations of transformers, are downloaded once, and need the network"
            ) from error

    def _register(self) -> None:
        # At each use: open_clip keeps one configuration for each name, and several folders may hold embedded models.
        if self.embedded_folder:
            register_architecture(self.embedded_folder / f"{self.architecture}.json")


def words_of(text: str) -> list[str]:
    """Split a text into its words and numbers, in lower case."""
    return _WORD.findall(text.lower())


def find_model(model_id: str) -> ModelSource:
    """Find where a CLIP model comes from, without loading its weights.

    Args:
        model_id: In one of the forms that this module's docstring lists.

    Returns:
        The model's architecture, weights and preprocessing.

    Raises:
        UserError: The architecture, tag, file, folder or repository does not exist, or a configuration cannot be used.
    """
    if model_id.startswith(HUB_PREFIX):
        return _hub_source(model_id)
    folder = local_path(Path(model_id.removeprefix(FOLDER_PREFIX)))
    if model_id.startswith(FOLDER_PREFIX) or (model_id and os.path.isfile(folder / CONFIG_FILE)):
        return _folder_source(model_id, folder)
    architecture, separator, pretrained = model_id.partition("/")
    if not separator or not architecture or not pretrained:
        raise UserError(
            f"model {model_id!r}: expected `architecture/pretrained`, such as 'ViT-B-32/laion2b_s34b_b79k', a checkpoint file as in "
            f"'ViT-B-32/path/to/file.safetensors', a folder with {CONFIG_FILE}, a repository as in 'hf-hub:org/name', a reward "
            f"model of your own as 'module:Class', or a registered one ({', '.join(registered_reward_models())}), as in "
            "'embedded/small'"
        )
    if architecture == EMBEDDED:
        return _embedded_model(model_id)
    # The embedded family's configurations are registered with open_clip, which has neither weights nor vocabulary for them.
    architectures = [name for name in open_clip.list_models() if not name.startswith(f"{EMBEDDED}-")]
    if architecture not in architectures:
        if same := _same_model(model_id):
            raise UserError(
                f"model {model_id!r}: models have the ids of open_clip here: expected {same!r}, which is the same model"
            )
        if os.path.isfile(model_id):
            raise UserError(
                f"model {model_id!r} is a file: expected the architecture of its weights before it, as in 'ViT-B-32/{model_id}'"
            )
        if os.path.isdir(model_id):
            raise UserError(f"model {model_id!r} is a folder without {CONFIG_FILE}: expected one as open_clip exports it")
        known = [*registered_reward_models(), *architectures]
        raise UserError(unknown_name("architecture", architecture, known, "; `vlm-rm models` lists all"))
    model = open_clip.get_model_config(architecture)
    tag = open_clip.get_pretrained_cfg(architecture, pretrained)
    if tag:
        return ModelSource(
            model_id,
            architecture,
            pretrained,
            preprocessing_of(model, tag, model_id),
            uses_transformers=uses_transformers(model),
            quick_gelu=bool(tag.get("quick_gelu", False)),
        )
    file = local_path(Path(pretrained))
    if os.path.isfile(file):  # false, too, for a name that no file can have
        return _file_source(model_id, architecture, file)
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    raise UserError(unknown_name(f"weights for {architecture}", pretrained, tags, ", or the path of a checkpoint file"))


def _embedded_model(model_id: str) -> ModelSource:
    _, version, size = with_version(model_id, NEWEST_EMBEDDED).split("/", 2)
    if version not in EMBEDDED_FOLDERS or size not in embedded_sizes():
        earlier = [with_version(each, other) for other in EMBEDDED_FOLDERS for each in embedded_models()]
        raise UserError(unknown_name("model", model_id, [*embedded_models(), *earlier]))
    return replace(embedded_source(size, EMBEDDED_FOLDERS[version]), model_id=model_id)


def _file_source(model_id: str, architecture: str, file: Path) -> ModelSource:
    """Describe a checkpoint file, beside which open_clip exports how the model was trained.

    Raises:
        UserError: The file beside it cannot be read or used.
    """
    if wrong := check_is_weights(file):
        raise UserError(f"model {model_id!r}: {file} {wrong}")
    model = open_clip.get_model_config(architecture)
    config_file = file.parent / CONFIG_FILE
    where = f"{config_file}, beside the checkpoint,"
    beside, preprocess = read_config(config_file, where) if config_file.is_file() else ({}, {})
    return ModelSource(
        model_id,
        architecture,
        str(file),
        preprocessing_of(model, preprocess, where),
        uses_transformers=uses_transformers(model),
        quick_gelu=bool(beside.get("quick_gelu", False)),
        remark=None if config_file.is_file() else _guessed(model_id, architecture),
    )


def _folder_source(model_id: str, folder: Path) -> ModelSource:
    """Describe a folder as open_clip exports it: configuration, weights and, if it is one of transformers, tokenizer.

    Raises:
        UserError: There is no such folder, or its configuration or its weights cannot be used.
    """
    if not os.path.isfile(folder / CONFIG_FILE):
        raise UserError(
            f"model {model_id!r}: there is no file {folder / CONFIG_FILE}: expected a folder as open_clip exports it"
        )
    weights = weights_in(folder)
    source = _described_source(model_id, f"{FOLDER_PREFIX}{folder}", str(weights), folder)
    if wrong := check_is_weights(weights):
        raise UserError(f"model {model_id!r}: {weights} {wrong}")
    return source


def _hub_source(model_id: str) -> ModelSource:
    """Describe a repository of the Hugging Face Hub, whose configuration is downloaded unless open_clip has a tag for it.

    Raises:
        UserError: There is no such repository, it cannot be reached, or its configuration cannot be used.
    """
    if same := _same_model(model_id):
        return replace(find_model(same), model_id=model_id)
    repository = repository_of(model_id)
    try:
        config_file = Path(fetch(download_pretrained_from_hf, repository, filename=CONFIG_FILE))
    except NotFetchedError as error:
        raise UserError(
            f"model {model_id!r}: its {CONFIG_FILE} could not be had ({error}): expected a repository of open_clip's kind, and the "
            "network; without it, name a folder that holds a copy"
        ) from error
    return _described_source(model_id, model_id, "", config_file.parent)


def _described_source(model_id: str, architecture: str, pretrained: str, folder: Path) -> ModelSource:
    """Describe a model whose architecture is in a folder's open_clip_config.json.

    Raises:
        UserError: The file cannot be read or used.
    """
    where = f"model {model_id!r}: {folder / CONFIG_FILE}"
    model, preprocess = read_config(folder / CONFIG_FILE, where)
    check_model_config(model, where)
    preprocessing = preprocessing_of(model, preprocess, where)
    return ModelSource(model_id, architecture, pretrained, preprocessing, folder, uses_transformers(model))


def _guessed(model_id: str, architecture: str) -> str | None:
    """Say what is a guess of weights without a configuration, if the architecture's tags differ in it."""
    model = open_clip.get_model_config(architecture)
    guess = preprocessing_of(model, {}, model_id)
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    known = {tag: open_clip.get_pretrained_cfg(architecture, tag) for tag in tags}
    preprocessing = {tag: preprocessing_of(model, config, model_id) for tag, config in known.items()}
    others = [tag for tag in tags if preprocessing[tag] != guess]
    quick = [tag for tag in tags if known[tag].get("quick_gelu")]
    parts = []
    if others:
        parts.append(
            f"its frames are resized and normalised as OpenAI's were; if it was trained as {others[0]} was "
            f"({_shown_preprocessing(preprocessing[others[0]])}), put one there with that preprocess_cfg"
        )
    if quick:
        parts.append(
            f'its network has GELU; if it was trained with QuickGELU, as {quick[0]} was, put one there with `"quick_gelu": true` in '
            "its model_cfg"
        )
    return f"{model_id}: there is no {CONFIG_FILE} beside the file, so {'. And '.join(parts)}" if parts else None


def _shown_preprocessing(preprocessing: Preprocessing) -> str:
    mean, std = (", ".join(f"{value:.3g}" for value in values) for values in (preprocessing.mean, preprocessing.std))
    resize_mode = "shortest" if preprocessing.resize_mode == "longest" else preprocessing.resize_mode
    return f"mean {mean}, std {std}, {preprocessing.interpolation}, {resize_mode}"


_OPENAI_REPOSITORIES = {
    "openai/clip-vit-base-patch32": "ViT-B-32/openai",
    "openai/clip-vit-base-patch16": "ViT-B-16/openai",
    "openai/clip-vit-large-patch14": "ViT-L-14/openai",
    "openai/clip-vit-large-patch14-336": "ViT-L-14-336/openai",
}


def _same_model(model_id: str) -> str | None:
    """Find the id of a model that is named by its repository on the Hugging Face Hub."""
    repository = model_id.removeprefix(HUB_PREFIX).strip("/").lower()
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
    return read_json(folder / _MANIFEST, _FAMILY, _REMEDY)


def known_words(folder: Path) -> frozenset[str]:
    """Read which words the training captions of an embedded family used, as `words_of` splits them.

    Args:
        folder: Folder of the family.

    Returns:
        Words and numbers, in lower case.

    Raises:
        UserError: The list of words is missing or damaged.
    """
    return frozenset(read_whole(folder / WORDS, _REMEDY).decode(errors="replace").split())


def embedded_source(size: str, folder: Path) -> ModelSource:
    """Describe the embedded model of a size, in the package's folder or in one that `vlm-rm pretrain` wrote."""
    return ModelSource(
        model_id=f"{EMBEDDED}/{size}",
        architecture=f"{EMBEDDED}-{size}",
        pretrained=str(folder / f"{EMBEDDED}-{size}.safetensors"),
        preprocessing=EMBEDDED_PREPROCESSING,
        embedded_folder=folder,
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


def _untrained(architecture: str, device: str, precision: Precision, quick_gelu: bool = False) -> torch.nn.Module:
    """Make a model with random weights, for others to be loaded into; on the device `meta`, without allocating any."""
    # Context and argument both: open_clip builds on the default device and then moves the model to the named one.
    building = torch.device("meta" if device == "meta" else "cpu")
    with without_missing_weights_warning(), building:
        model: torch.nn.Module = open_clip.create_model(
            architecture,
            precision=precision,
            device=device,
            # open_clip's own configuration has the activation of most tags, not of all.
            force_quick_gelu=quick_gelu,
            load_weights=False,
            pretrained_text=False,
        )
    return model


@cache
def _parameters_of(architecture: str, embedded_folder: Path | None) -> dict[str, int]:  # one for each embedded folder
    return {name: each.numel() for name, each in _untrained(architecture, "meta", "fp32").named_parameters()}


@cache
def _why_not_in(architecture: str, precision: Precision) -> str | None:
    """Say why an architecture cannot be used in a precision, though it can in fp32; None if it can, or if none can be tried."""
    if _what_fails(architecture, "fp32"):
        return None
    return _what_fails(architecture, precision)


@torch.inference_mode()
def _what_fails(architecture: str, precision: Precision) -> str | None:
    """Encode a frame and a prompt with a model that has shapes and types, and no weights."""
    model: Any = _untrained(architecture, "meta", precision).eval()
    size, context = model.visual.image_size, getattr(model, "context_length", None) or model.text.context_length
    edges = size if isinstance(size, tuple | list) else (size, size)
    try:
        model.encode_image(torch.empty(1, 3, *edges, device="meta", dtype=get_input_dtype(precision)))
        model.encode_text(torch.zeros(1, context, device="meta", dtype=torch.long))
    except (RuntimeError, NotImplementedError, TypeError) as error:
        return reason_of(error)
    return None
