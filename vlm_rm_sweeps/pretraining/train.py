"""Contrastive training of the embedded models, with open_clip's architecture and loss, on rendered states and captions.

Training is deterministic: each batch is drawn from (seed, step), so a training that resumes from its checkpoint sees the same
batches as an uninterrupted one.
"""

import json
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pandas as pd
import torch
from open_clip.loss import ClipLoss
from open_clip.tokenizer import SimpleTokenizer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.nn import functional

from vlm_rm_sweeps.errors import UserError, reason_of, unknown_name
from vlm_rm_sweeps.files import folder_locked, sha256_of, write_whole, written_whole
from vlm_rm_sweeps.pretraining.captions import caption_batch, contrast_batch
from vlm_rm_sweeps.pretraining.dataset import CaptionedStates, build_dataset
from vlm_rm_sweeps.pretraining.vocabulary import write_vocabulary
from vlm_rm_sweeps.rewards.open_clip_models import (
    EMBEDDED_PREPROCESSING,
    VOCABULARY,
    WORDS,
    TrainedSize,
    check_embedded_files,
    embedded_manifest,
    embedded_tokenizer,
    register_architecture,
    without_missing_weights_warning,
    words_of,
)

_MANIFEST = "manifest.json"
_CHECKPOINT_EVERY = 100
"""In steps."""


@dataclass(frozen=True)
class Architecture:
    """One size of the family.

    The image tower is open_clip's ModifiedResNet, which is two to three times as fast as a small ViT on a CPU.

    Attributes:
        vision_width: Channels of the image tower's first layer.
        embedding: Dimension of the shared embedding.
        text_width: Channels of the text tower.
        text_layers: Layers of the text tower.
        learning_rate: Peak of the schedule.
    """

    vision_width: int
    embedding: int
    text_width: int
    text_layers: int
    learning_rate: float = 2e-3


SIZES = {
    "tiny": Architecture(vision_width=4, embedding=32, text_width=32, text_layers=1),
    "small": Architecture(vision_width=8, embedding=64, text_width=64, text_layers=2),
    "base": Architecture(vision_width=16, embedding=96, text_width=128, text_layers=2),
    # With twice this learning rate, its final training loss is above that of `base`.
    "large": Architecture(vision_width=32, embedding=128, text_width=128, text_layers=2, learning_rate=1e-3),
}
_CONTEXT_LENGTH = 32
_HEAD_WIDTH = 32


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of one training.

    Attributes:
        size: One of `SIZES`.
        images: Distinct images in the data set.
        samples: Images seen in training, with repetition.
        seed: Seed of the initial weights and of the batches.
        batch: Images in each step.
        weight_decay: Applies to matrices; biases and gains have none.
        warmup_steps: Steps until the learning rate reaches its peak.
        start: What the training starts from: the checksum of another training's weights; None for random weights.
    """

    size: str
    images: int
    samples: int
    seed: int = 0
    batch: int = 256
    weight_decay: float = 0.05
    warmup_steps: int = 100
    start: str | None = None

    @property
    def steps(self) -> int:
        """Number of gradient steps."""
        return math.ceil(self.samples / self.batch)

    @property
    def learning_rate(self) -> float:
        """Peak of the learning rate: half as high if the weights have been trained before."""
        return SIZES[self.size].learning_rate * (0.5 if self.start else 1)


class FoiledContrastiveLoss(ClipLoss):
    """The contrastive loss of open_clip with one more negative for some images: a foil, which is nobody else's negative.

    Equal captions in a batch are not each other's negatives.
    """

    def forward(
        self,
        image_features: torch.Tensor,
        text_features: torch.Tensor,
        foil_features: torch.Tensor,
        logit_scale: torch.Tensor,
        captions: list[str],
        foiled: list[int],
    ) -> torch.Tensor:
        """Compute the loss of a batch.

        Args:
            image_features: Normalised embeddings, float (N, D).
            text_features: Normalised embeddings of the captions, float (N, D).
            foil_features: Normalised embeddings of the foils, float (F, D).
            logit_scale: Factor of the cosine similarities, float ().
            captions: The N true texts.
            foiled: Index of the image that each foil is false of, F numbers.

        Returns:
            Mean loss, float ().
        """
        logits_per_image, logits_per_text = self.get_logits(image_features, text_features, logit_scale)
        identity = {caption: index for index, caption in enumerate(captions)}
        ids = torch.tensor([identity[caption] for caption in captions], device=image_features.device)
        same = (ids[:, None] == ids[None]) & ~torch.eye(len(ids), dtype=torch.bool, device=ids.device)
        foil_logits = torch.full_like(logits_per_image[:, 0], -torch.inf)
        foil_logits[foiled] = logit_scale * (image_features[foiled] * foil_features).sum(dim=-1)
        labels = self.get_ground_truth(image_features.device, len(ids))
        texts_of_image = torch.cat([logits_per_image.masked_fill(same, -torch.inf), foil_logits[:, None]], dim=1)
        return (
            functional.cross_entropy(texts_of_image, labels)
            + functional.cross_entropy(logits_per_text.masked_fill(same, -torch.inf), labels)
        ) / 2


_LENGTH_GROUPS = 4


def _encode_texts(model: open_clip.CLIP, tokens: torch.Tensor) -> torch.Tensor:
    """Embed texts as `encode_text` does, without the padding: in groups of similar length, which takes half the time.

    Attention is causal and the embedding is that of the last token, so what follows it changes nothing.

    Args:
        model: The model.
        tokens: int (N, context length), 0 behind the end of each text.

    Returns:
        Normalised embeddings, float (N, D).
    """
    lengths = (tokens != 0).sum(dim=1)
    order = lengths.argsort()
    embedded = []
    for group in order.tensor_split(_LENGTH_GROUPS):
        length = int(lengths[group].max()) if len(group) else 1
        texts = tokens[group, :length]
        hidden = model.token_embedding(texts) + model.positional_embedding[:length]
        hidden = model.ln_final(model.transformer(hidden, attn_mask=model.attn_mask[:length, :length]))
        embedded.append(hidden[torch.arange(len(group)), texts.argmax(dim=-1)] @ model.text_projection)
    return functional.normalize(torch.cat(embedded), dim=-1)[order.argsort()]


def write_config(size: str, vocab_size: int, folder: Path) -> Path:
    """Write the open_clip model config of one size.

    Args:
        size: One of `SIZES`.
        vocab_size: Size of the vocabulary, in tokens.
        folder: Where to write it.

    Returns:
        Path of `embedded-<size>.json`.
    """
    architecture = SIZES[size]
    config = {
        "embed_dim": architecture.embedding,
        "vision_cfg": {
            "image_size": EMBEDDED_PREPROCESSING.size,
            "layers": [1, 1, 1, 1],
            "width": architecture.vision_width,
            "head_width": _HEAD_WIDTH,
        },
        "text_cfg": {
            "context_length": _CONTEXT_LENGTH,
            "vocab_size": vocab_size,
            "width": architecture.text_width,
            "heads": architecture.text_width // _HEAD_WIDTH,
            "layers": architecture.text_layers,
        },
    }
    path = folder / f"embedded-{size}.json"
    path.write_text(json.dumps(config, indent=2) + "\n")
    return path


def _optimizer(model: torch.nn.Module, settings: TrainingSettings) -> torch.optim.Optimizer:
    decayed = [parameter for parameter in model.parameters() if parameter.ndim >= 2]
    plain = [parameter for parameter in model.parameters() if parameter.ndim < 2]
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.98))


def _learning_rate(settings: TrainingSettings, step: int) -> float:
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    done = (step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def _copy_weights(model: open_clip.CLIP, size: str, folder: Path, source: Path) -> None:
    """Start from another training's weights: all of the same shape, and the embedding of each token that both vocabularies have."""
    weights = load_file(source / f"embedded-{size}.safetensors")
    token_embedding = weights.pop("token_embedding.weight").float()
    own, theirs = (SimpleTokenizer(bpe_path=str((at / VOCABULARY).resolve())).encoder for at in (folder, source))
    shared = [(index, theirs[token]) for token, index in own.items() if token in theirs]
    with torch.no_grad():
        to, of = (torch.tensor(indices) for indices in zip(*shared, strict=True))
        model.token_embedding.weight[to] = token_embedding[of].to(model.token_embedding.weight.device)
    missing, unexpected = model.load_state_dict(weights, strict=False)
    if missing != ["token_embedding.weight"] or unexpected:
        raise UserError(f"{source} holds weights of another architecture of {size!r}: {[*missing, *unexpected]}")


def train(settings: TrainingSettings, dataset: CaptionedStates, folder: Path, start: Path | None = None) -> Path:
    """Train one size.

    Besides the weights, `embedded-<size>.losses.csv` is written, and every 100 steps a checkpoint, from which another call with
    the same settings resumes.

    Args:
        settings: Settings of the training.
        dataset: Training images and states.
        folder: Holds the config and the vocabulary; the weights are written there.
        start: A folder of another training, whose weights this one starts from.

    Returns:
        Path of the fp16 weights, `embedded-<size>.safetensors`.

    Raises:
        UserError: The folder has a checkpoint of other settings, or `start` has weights of another architecture.
    """
    torch.manual_seed(settings.seed)
    name = f"embedded-{settings.size}"
    device = "cuda" if torch.cuda.is_available() else "cpu"
    register_architecture(folder / f"{name}.json")
    with without_missing_weights_warning():
        model = open_clip.create_model(name, device=device)
    tokenizer = embedded_tokenizer(name, folder)
    if start:
        _copy_weights(model, settings.size, folder, start)
    model.visual.to(memory_format=torch.channels_last)
    optimizer = _optimizer(model, settings)
    loss_of = FoiledContrastiveLoss()
    losses: list[float] = []
    seconds: list[float] = []

    checkpoint_file = _checkpoint_file(size=settings.size, folder=folder)
    if checkpoint_file.exists():
        try:
            checkpoint = torch.load(checkpoint_file, weights_only=True)
        except Exception as error:  # whatever torch makes of damaged bytes
            raise UserError(f"{checkpoint_file} cannot be read ({reason_of(error)}): remove it to start afresh") from error
        if checkpoint["settings"] != asdict(settings):
            raise UserError(
                f"{checkpoint_file} belongs to other settings ({checkpoint['settings']}): remove it to start afresh"
            )
        model.load_state_dict(checkpoint["model"])
        optimizer.load_state_dict(checkpoint["optimizer"])
        losses, seconds = checkpoint["losses"], checkpoint["seconds"]

    started, first_step = time.monotonic(), len(losses)
    seconds_before = seconds[-1] if seconds else 0.0
    model.train()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task(f"embedded/{settings.size}", total=settings.steps, completed=first_step)
        for step in range(first_step, settings.steps):
            rng = np.random.default_rng((settings.seed, step))
            chosen = rng.integers(len(dataset.states), size=settings.batch)
            captions, foils = contrast_batch([dataset.states[index] for index in chosen], rng)
            pixels = EMBEDDED_PREPROCESSING(dataset.frames[chosen]).to(device).contiguous(memory_format=torch.channels_last)
            for group in optimizer.param_groups:
                group["lr"] = _learning_rate(settings, step)
            foiled = [index for index, (caption, foil) in enumerate(zip(captions, foils, strict=True)) if caption != foil]
            # Not on a CPU: without instructions for bf16 it takes ten times as long.
            with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
                image_features = model.encode_image(pixels)
            tokens = tokenizer(captions + [foils[index] for index in foiled]).to(device)
            texts = _encode_texts(model, tokens)
            loss = loss_of(
                functional.normalize(image_features.float(), dim=-1),
                texts[: len(captions)],
                texts[len(captions) :],
                model.logit_scale.exp(),
                captions,
                foiled,
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                model.logit_scale.clamp_(0, math.log(100))  # as in the training of CLIP
            losses.append(loss.item())
            seconds.append(seconds_before + time.monotonic() - started)
            progress.update(bar, advance=1)
            if (step + 1) % _CHECKPOINT_EVERY == 0 or step + 1 == settings.steps:
                state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "losses": losses, "seconds": seconds}
                _save(state | {"settings": asdict(settings)}, checkpoint_file)
                rate = (step + 1 - first_step) * settings.batch / (time.monotonic() - started)
                description = f"embedded/{settings.size}  loss {np.mean(losses[-100:]):.3f}  {rate:.0f} images/s"
                progress.update(bar, description=description)
                if not progress.console.is_terminal:  # a progress bar is not updated there
                    print(f"{description}  step {step + 1} of {settings.steps}", flush=True)

    curve = pd.DataFrame({"step": range(len(losses)), "loss": losses, "seconds": seconds})
    curve.to_csv(folder / f"{name}.losses.csv", index=False, float_format="%.5f")
    weights_file = folder / f"{name}.safetensors"
    tensors = {key: value.cpu() for key, value in model.state_dict().items()}
    save_file(
        {key: value.half().contiguous() if value.is_floating_point() else value for key, value in tensors.items()}, weights_file
    )
    return weights_file


def pretrain(sizes: list[str], samples: int, images: int, seed: int, folder: Path, start: Path | None = None) -> None:
    """Train several sizes, one after the other, and write configs, vocabulary, weights and manifest.

    After an interruption, the same call resumes.

    Args:
        sizes: Names in `SIZES`.
        samples: Images seen in the training of each size, with repetition.
        images: Distinct images to render.
        seed: Seed of images, captions, initial weights and batches.
        folder: Made if it does not exist.
        start: A folder of another training, whose weights this one starts from; None for random weights.

    Raises:
        UserError: A size does not exist, or not in the folder to start from; or the folder holds weights, a checkpoint or a
            vocabulary of another training, or a damaged manifest.
    """
    for size in sizes:
        if size not in SIZES:
            raise UserError(unknown_name("size", size, SIZES))
    _refuse_foreign(folder)
    manifest = embedded_manifest(folder) if (folder / _MANIFEST).exists() else {}
    starts = {size: _start_of(size, start) for size in sizes}
    asked = {size: {"images": images, "samples": samples, "seed": seed, "start_sha256": starts[size]} for size in sizes}
    finished = [
        size for size in sizes if size in manifest and asked[size].items() <= {"start_sha256": None, **manifest[size]}.items()
    ]
    sizes = [size for size in sizes if size not in finished]
    for size in sizes:
        interrupted = size not in manifest and _checkpoint_file(size, folder).exists()
        if (folder / f"embedded-{size}.safetensors").exists() and not interrupted:
            raise UserError(
                f"{folder} holds weights of {size!r} from another training: choose another folder, or move them away"
            )
    if finished:
        print(f"already trained: {', '.join(finished)}", flush=True)
    if not sizes:
        return
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as locked:
        try:
            locked.enter_context(folder_locked(folder, wait=False))
        except BlockingIOError as error:  # each would write over the other's manifest and checkpoints
            raise UserError(
                f"{folder} is in use by another training: wait until that has ended, or choose another folder"
            ) from error
        _train_sizes(sizes, asked, starts, folder, start)


def _train_sizes(
    sizes: Sequence[str],
    asked: Mapping[str, Mapping[str, Any]],
    starts: Mapping[str, str | None],
    folder: Path,
    start: Path | None,
) -> None:
    """Train what is not in the manifest yet, one size after the other."""
    images, samples, seed = (asked[sizes[0]][key] for key in ("images", "samples", "seed"))
    manifest_file = folder / _MANIFEST
    # Another process may have trained one of them until now.
    manifest = embedded_manifest(folder) if manifest_file.exists() else {}
    sizes = [size for size in sizes if size not in manifest]
    print(f"rendering {images} images", flush=True)
    dataset = build_dataset(images, seed, EMBEDDED_PREPROCESSING.frame_format)
    rng = np.random.default_rng(seed)
    captions = [caption for _ in range(3) for caption in caption_batch(dataset.states, rng)]
    vocabulary_file = folder / VOCABULARY
    vocab_size = write_vocabulary(captions, vocabulary_file)
    words = sorted({word for caption in captions for word in words_of(caption)})
    write_whole(folder / WORDS, "\n".join(words) + "\n")
    for size in sizes:
        write_config(size, vocab_size, folder)
        weights_file = train(TrainingSettings(size, images, samples, seed, start=starts[size]), dataset, folder, start)
        with safe_open(weights_file, "pt") as weights:
            buffers = ("running_mean", "running_var", "num_batches_tracked", "attn_mask")
            parameters = sum(
                weights.get_tensor(key).numel()
                for key in weights.keys()  # noqa: SIM118 - not a dict
                if not key.endswith(buffers)
            )
        manifest[size] = TrainedSize(
            images=images,
            samples=samples,
            seed=seed,
            start_sha256=starts[size],
            sha256=sha256_of(weights_file),
            vocabulary_sha256=sha256_of(vocabulary_file),
            parameters=parameters,
            training_seconds=round(pd.read_csv(folder / f"embedded-{size}.losses.csv")["seconds"].iloc[-1]),
        )
        write_whole(manifest_file, json.dumps(manifest, indent=2) + "\n")
        _checkpoint_file(size, folder).unlink()


def _refuse_foreign(folder: Path) -> None:
    """Refuse a folder with files that no training wrote: a model card would replace their README.md."""
    own = (_MANIFEST, VOCABULARY, "embedded-*.safetensors")
    if folder.is_dir() and any(folder.iterdir()) and not any(any(folder.glob(name)) for name in own):
        raise UserError(f"{folder} holds files of something else: expected a new folder, or that of an earlier training")


def _start_of(size: str, start: Path | None) -> str | None:
    """Return the checksum of the weights that a training starts from; None for random ones."""
    if start is None:
        return None
    manifest = embedded_manifest(start)
    if size not in manifest:
        raise UserError(f"{start} has no weights of {size!r} to start from: expected one of {', '.join(manifest) or 'none'}")
    check_embedded_files(size, start)
    return manifest[size]["sha256"]


def _checkpoint_file(size: str, folder: Path) -> Path:
    return folder / f"embedded-{size}.checkpoint.pt"


def _save(checkpoint: dict, path: Path) -> None:
    """Replace a checkpoint atomically, so that an interruption leaves the last complete one."""
    with written_whole(path) as partial:
        torch.save(checkpoint, partial)
