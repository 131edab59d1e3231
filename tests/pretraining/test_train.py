"""Training of the embedded family is deterministic, resumes to the bit, and never overwrites another training."""

import dataclasses
import hashlib
import json
import math
from pathlib import Path

import numpy as np
import open_clip
import pandas as pd
import pytest
import torch
from disk import full_disk
from open_clip.loss import ClipLoss
from open_clip.tokenizer import SimpleTokenizer
from safetensors.torch import load_file, save_file

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.files import folder_locked, write_whole
from vlm_rm_sweeps.pretraining import train as train_module
from vlm_rm_sweeps.pretraining.captions import CaptionedState, caption_batch, contrast_batch
from vlm_rm_sweeps.pretraining.dataset import CaptionedStates, build_dataset
from vlm_rm_sweeps.pretraining.train import (
    FoiledContrastiveLoss,
    TrainingSettings,
    _encode_texts,
    pretrain,
    train,
    write_config,
)
from vlm_rm_sweeps.pretraining.vocabulary import write_vocabulary
from vlm_rm_sweeps.rewards.clip import ClipRewardModel
from vlm_rm_sweeps.rewards.open_clip_models import (
    EMBEDDED_FOLDER,
    EMBEDDED_FOLDERS,
    EMBEDDED_PREPROCESSING,
    VOCABULARY,
    check_embedded_files,
    embedded_manifest,
    embedded_tokenizer,
    register_architecture,
    without_missing_weights_warning,
)

SETTINGS = TrainingSettings("tiny", images=64, samples=16 * 6, seed=0, batch=16, warmup_steps=3)

# The data set shows the humanoid.
pytestmark = pytest.mark.usefixtures("opengl")


class InterruptionError(Exception):
    """Stands for anything that ends a process."""


@pytest.fixture(scope="module")
def dataset() -> CaptionedStates:
    return build_dataset(64, seed=0, frame_format=EMBEDDED_PREPROCESSING.frame_format)


def prepared(folder: Path, dataset: CaptionedStates) -> Path:
    """A folder with config and vocabulary, as `pretrain` prepares it."""
    folder.mkdir()
    captions = [caption for _ in range(5) for caption in caption_batch(dataset.states, np.random.default_rng(0))]
    write_config("tiny", write_vocabulary(captions, folder / "bpe.txt.gz"), folder)
    return folder


def unit_features(count: int, seed: int) -> torch.Tensor:
    features = torch.randn(count, 8, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(features, dim=-1)


def test_same_seed_gives_the_same_weights(dataset: CaptionedStates, tmp_path: Path) -> None:
    first = train(SETTINGS, dataset, prepared(tmp_path / "first", dataset))
    second = train(SETTINGS, dataset, prepared(tmp_path / "second", dataset))
    other = train(dataclasses.replace(SETTINGS, seed=1), dataset, prepared(tmp_path / "other", dataset))
    assert first.read_bytes() == second.read_bytes()
    assert first.read_bytes() != other.read_bytes()
    weights = load_file(first)
    assert {value.dtype for value in weights.values() if value.is_floating_point()} == {torch.float16}
    assert all(bool(value.isfinite().all()) for value in weights.values())


@pytest.mark.parametrize("fails_at", [3, 4])
def test_resumed_training_gives_the_same_weights(
    fails_at: int, dataset: CaptionedStates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = train(SETTINGS, dataset, prepared(tmp_path / "undisturbed", dataset))
    folder = prepared(tmp_path / "resumed", dataset)
    monkeypatch.setattr(train_module, "_CHECKPOINT_EVERY", 2)
    steps: list[int] = []

    def failing(states: list[CaptionedState], rng: np.random.Generator) -> tuple[list[str], list[str]]:
        steps.append(len(steps))
        if len(steps) == fails_at + 1:
            raise InterruptionError
        return contrast_batch(states, rng)

    with monkeypatch.context() as patched:
        patched.setattr(train_module, "contrast_batch", failing)
        with pytest.raises(InterruptionError):
            train(SETTINGS, dataset, folder)
    checkpoint = folder / "embedded-tiny.checkpoint.pt"
    assert checkpoint.exists()
    assert len(torch.load(checkpoint, weights_only=True)["losses"]) == fails_at // 2 * 2
    assert not (folder / "embedded-tiny.safetensors").exists()

    # The resuming process has drawn other random numbers.
    torch.manual_seed(99)
    resumed = train(SETTINGS, dataset, folder)
    assert resumed.read_bytes() == undisturbed.read_bytes()
    curves = [pd.read_csv(folder / "embedded-tiny.losses.csv") for folder in (resumed.parent, undisturbed.parent)]
    pd.testing.assert_frame_equal(curves[0][["step", "loss"]], curves[1][["step", "loss"]])
    assert len(curves[0]) == SETTINGS.steps
    # Time continues from that of the interrupted training.
    assert curves[0]["seconds"].is_monotonic_increasing


def test_checkpoint_of_other_settings_is_refused(
    dataset: CaptionedStates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = prepared(tmp_path / "folder", dataset)

    def failing(checkpoint: dict, path: Path) -> None:
        torch.save(checkpoint, path)
        raise InterruptionError

    with monkeypatch.context() as patched:
        patched.setattr(train_module, "_save", failing)
        with pytest.raises(InterruptionError):
            train(SETTINGS, dataset, folder)
    with pytest.raises(ValueError, match=r"belongs to other settings.*remove it"):
        train(dataclasses.replace(SETTINGS, warmup_steps=1), dataset, folder)
    with pytest.raises(ValueError, match=r"belongs to other settings.*remove it"):
        train(dataclasses.replace(SETTINGS, images=63), dataset, folder)


def test_shipped_models_still_load_after_a_training(dataset: CaptionedStates, tmp_path: Path) -> None:
    # open_clip keeps one configuration for each name, and the shipped model has the same name with another vocabulary.
    found_before = ClipRewardModel("embedded/tiny")
    found_before.load()
    before = found_before.encode_prompt("an upright pole")
    train(SETTINGS, dataset, prepared(tmp_path / "folder", dataset))
    # Whether the shipped model was found before the training or after it.
    for after in (found_before, ClipRewardModel("embedded/tiny")):
        after.load()
        assert torch.equal(after.encode_prompt("an upright pole"), before)
        assert after.parameters == embedded_manifest(EMBEDDED_FOLDER)["tiny"]["parameters"]


def test_a_training_starts_from_the_weights_of_another_with_another_vocabulary(
    dataset: CaptionedStates, tmp_path: Path
) -> None:
    first = prepared(tmp_path / "first", dataset)
    weights = load_file(train(SETTINGS, dataset, first))
    second = tmp_path / "second"
    second.mkdir()
    size = write_vocabulary(["a flamboyant pole on a cart"], second / VOCABULARY)
    write_config("tiny", size, second)
    settings = dataclasses.replace(SETTINGS, samples=1, warmup_steps=10**6, start="the checksum")
    started = load_file(train(settings, dataset, second, first))
    name = "visual.conv1.weight"
    torch.testing.assert_close(started[name].float(), weights[name].float(), atol=1e-3, rtol=1e-2)
    tokens = [SimpleTokenizer(bpe_path=str(folder / VOCABULARY)).encoder for folder in (first, second)]
    rows = [each["token_embedding.weight"][of["pole</w>"]].float() for each, of in zip((weights, started), tokens, strict=True)]
    torch.testing.assert_close(*rows, atol=1e-3, rtol=1e-2)
    assert settings.learning_rate == SETTINGS.learning_rate / 2


def test_weights_of_another_architecture_are_no_start(dataset: CaptionedStates, tmp_path: Path) -> None:
    first = prepared(tmp_path / "first", dataset)
    weights = load_file(train(SETTINGS, dataset, first))
    weights.pop("logit_scale")
    save_file(weights, first / "embedded-tiny.safetensors")
    with pytest.raises(UserError, match=r"weights of another architecture of 'tiny': .*logit_scale"):
        train(SETTINGS, dataset, prepared(tmp_path / "second", dataset), first)


@pytest.mark.sweeps
def test_loss_falls(dataset: CaptionedStates, tmp_path: Path) -> None:
    settings = TrainingSettings("tiny", images=64, samples=32 * 60, seed=0, batch=32, warmup_steps=10)
    folder = prepared(tmp_path / "folder", dataset)
    train(settings, dataset, folder)
    losses = np.loadtxt(folder / "embedded-tiny.losses.csv", delimiter=",", skiprows=1)[:, 1]
    assert len(losses) == 60
    assert losses[-10:].mean() < losses[:10].mean() - 0.3


def test_loss_is_open_clips_when_all_captions_differ_and_no_foil_does() -> None:
    images, texts, scale = unit_features(7, 0), unit_features(7, 1), torch.tensor(14.0)
    captions = [f"caption {index}" for index in range(7)]
    loss = FoiledContrastiveLoss()(images, texts, texts[:0], scale, captions, [])
    torch.testing.assert_close(loss, ClipLoss()(images, texts, scale))


def test_equal_captions_are_not_negatives_of_each_other_and_a_foil_is_its_own_images_alone() -> None:
    captions, foiled = ["a", "b", "a", "c", "a"], [0, 2, 4]
    images, texts, foil_texts, scale = unit_features(5, 0), unit_features(5, 1), unit_features(3, 2), torch.tensor(14.0)
    texts[2] = texts[4] = texts[0]
    logits, foil_logits = (scale * images @ texts.T).tolist(), (scale * (images[foiled] * foil_texts).sum(dim=1)).tolist()

    def cross_entropy(own: int, row: list[float], more: list[float]) -> float:
        rivals = [value for other, value in enumerate(row) if other == own or captions[other] != captions[own]]
        return math.log(sum(math.exp(value) for value in [*rivals, *more])) - row[own]

    more = {image: [logit] for image, logit in zip(foiled, foil_logits, strict=True)}
    by_image = sum(cross_entropy(index, row, more.get(index, [])) for index, row in enumerate(logits)) / 5
    by_text = sum(cross_entropy(index, list(column), []) for index, column in enumerate(zip(*logits, strict=True))) / 5
    loss = FoiledContrastiveLoss()(images, texts, foil_texts, scale, captions, foiled)
    assert float(loss) == pytest.approx((by_image + by_text) / 2, rel=1e-5)


def test_batch_of_one_caption_without_a_foil_has_nothing_to_learn() -> None:
    images, texts = unit_features(4, 0), unit_features(4, 1)
    assert float(FoiledContrastiveLoss()(images, texts, texts[:0], torch.tensor(14.0), ["same"] * 4, [])) == 0


def test_texts_are_embedded_as_by_open_clip(dataset: CaptionedStates, tmp_path: Path) -> None:
    folder = prepared(tmp_path / "new", dataset)
    register_architecture(folder / "embedded-tiny.json")
    with without_missing_weights_warning():
        model = open_clip.create_model("embedded-tiny")
    texts = [*caption_batch(dataset.states, np.random.default_rng(0)), "", "a", "pole " * 50]
    tokens = embedded_tokenizer("embedded-tiny", folder)(texts)
    torch.testing.assert_close(_encode_texts(model, tokens), model.encode_text(tokens, normalize=True))


def test_pretrain_writes_what_the_manifest_says(tmp_path: Path) -> None:
    pretrain(["tiny"], samples=256, images=40, seed=5, folder=tmp_path / "new")
    folder = tmp_path / "new"
    assert {file.name for file in folder.iterdir()} == {
        "bpe.txt.gz",
        "embedded-tiny.json",
        "embedded-tiny.safetensors",
        "embedded-tiny.losses.csv",
        "manifest.json",
        "words.txt",
    }
    entry = json.loads((folder / "manifest.json").read_text())["tiny"]
    assert entry["sha256"] == hashlib.sha256((folder / "embedded-tiny.safetensors").read_bytes()).hexdigest()
    assert (entry["samples"], entry["images"], entry["seed"]) == (256, 40, 5)
    assert entry["parameters"] > 100_000


def test_pretrain_refuses_existing_weights_and_keeps_them(tmp_path: Path) -> None:
    weights = tmp_path / "embedded-tiny.safetensors"
    weights.write_bytes(b"somebody's")
    for sizes in (["tiny"], ["small", "tiny"]):
        with pytest.raises(UserError, match="holds weights of 'tiny' from another training: choose another folder"):
            pretrain(sizes, samples=256, images=8, seed=0, folder=tmp_path)
    assert weights.read_bytes() == b"somebody's"
    assert list(tmp_path.iterdir()) == [weights]


def test_a_full_disk_leaves_no_half_vocabulary(tmp_path: Path) -> None:
    with full_disk(room=10), pytest.raises(OSError, match="too large"):
        write_vocabulary(["a pole on a cart"], tmp_path / VOCABULARY)
    assert list(tmp_path.iterdir()) == []


def test_a_size_of_another_training_does_not_change_the_vocabulary_of_those_that_are_there(tmp_path: Path) -> None:
    pretrain(["tiny"], samples=256, images=40, seed=0, folder=tmp_path)
    before = (tmp_path / "bpe.txt.gz").read_bytes()
    with pytest.raises(UserError, match=r"bpe.txt.gz is the vocabulary of a training with other images.*choose another folder"):
        pretrain(["small"], samples=256, images=20, seed=1, folder=tmp_path)
    assert (tmp_path / "bpe.txt.gz").read_bytes() == before
    check_embedded_files("tiny", tmp_path)


def test_pretraining_ended_between_weights_and_manifest_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(file: Path, text: str) -> None:
        if file.name == "manifest.json":
            raise InterruptionError
        write_whole(file, text)

    with monkeypatch.context() as patched:
        patched.setattr(train_module, "write_whole", failing)
        with pytest.raises(InterruptionError):
            pretrain(["tiny"], samples=256, images=40, seed=0, folder=tmp_path)
    finished = (tmp_path / "embedded-tiny.safetensors").read_bytes()
    pretrain(["tiny"], samples=256, images=40, seed=0, folder=tmp_path)
    assert (tmp_path / "embedded-tiny.safetensors").read_bytes() == finished
    check_embedded_files("tiny", tmp_path)
    assert not (tmp_path / "embedded-tiny.checkpoint.pt").exists()


def test_another_start_is_another_training(tmp_path: Path) -> None:
    v1, folder = EMBEDDED_FOLDERS["v1"], tmp_path / "new"
    pretrain(["tiny"], samples=256, images=40, seed=0, folder=folder, start=v1)
    assert embedded_manifest(folder)["tiny"].get("start_sha256") == embedded_manifest(v1)["tiny"]["sha256"]
    pretrain(["tiny"], samples=256, images=40, seed=0, folder=folder, start=v1)
    with pytest.raises(UserError, match="holds weights of 'tiny' from another training"):
        pretrain(["tiny"], samples=256, images=40, seed=0, folder=folder)


def test_what_a_training_starts_from_is_checked_before_anything_is_rendered(tmp_path: Path) -> None:
    start, folder = tmp_path / "start", tmp_path / "new"
    start.mkdir()
    with pytest.raises(UserError, match=r"manifest.json cannot be read"):
        pretrain(["tiny"], samples=256, images=40, seed=0, folder=folder, start=start)
    (start / "manifest.json").write_text("{}")
    with pytest.raises(UserError, match="has no weights of 'tiny' to start from: expected one of none"):
        pretrain(["tiny"], samples=256, images=40, seed=0, folder=folder, start=start)
    assert not folder.exists()


def test_pretrain_refuses_an_unknown_size(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown size 'smal': did you mean 'small'"):
        pretrain(["tiny", "smal"], samples=256, images=8, seed=0, folder=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_interrupted_pretraining_of_two_sizes_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(settings: TrainingSettings, dataset: CaptionedStates, folder: Path, start: Path | None) -> Path:
        if settings.size == "small":
            raise InterruptionError
        return train(settings, dataset, folder, start)

    with monkeypatch.context() as patched:
        patched.setattr(train_module, "train", failing)
        with pytest.raises(InterruptionError):
            pretrain(["tiny", "small"], samples=256, images=40, seed=0, folder=tmp_path)
    finished = (tmp_path / "embedded-tiny.safetensors").read_bytes()

    pretrain(["tiny", "small"], samples=256, images=40, seed=0, folder=tmp_path)
    assert (tmp_path / "embedded-tiny.safetensors").read_bytes() == finished
    assert set(json.loads((tmp_path / "manifest.json").read_text())) == {"tiny", "small"}


def test_two_trainings_into_one_folder_are_not_mixed(tmp_path: Path) -> None:
    with folder_locked(tmp_path, wait=False), pytest.raises(UserError, match="is in use by another training"):
        pretrain(["tiny"], images=64, samples=32, seed=0, folder=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_that_is_cut_off_is_refused_with_what_to_do(dataset: CaptionedStates, tmp_path: Path) -> None:
    folder = prepared(tmp_path / "folder", dataset)
    (folder / "embedded-tiny.checkpoint.pt").write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(UserError, match=r"checkpoint.pt cannot be read .*: remove it to start afresh"):
        train(SETTINGS, dataset, folder)
