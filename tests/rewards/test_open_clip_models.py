"""Model ids, each checkpoint's own preprocessing, and weights that are complete, undamaged and harmless, or not loaded."""

import hashlib
import io
import json
import pickle
import re
import shutil
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import numpy as np
import open_clip
import open_clip.factory
import pytest
import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from PIL import Image
from safetensors.torch import save_file
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.rewards.clip import ClipRewardModel
from vlm_rm_sweeps.rewards.open_clip_models import (
    EMBEDDED_FOLDER,
    VOCABULARY,
    check_embedded_files,
    embedded_manifest,
    embedded_sizes,
    find_model,
)
from vlm_rm_sweeps.rewards.preprocessing import Preprocessing
from vlm_rm_sweeps.rewards.registry import find_reward_model, known_reward_model, load_reward_model, with_version
from vlm_rm_sweeps.rewards.reward_model import Precision, RewardSpec
from vlm_rm_sweeps.sweeping.config.plan import plan_of
from vlm_rm_sweeps.tasks.cart_pole import UprightCartPole
from vlm_rm_sweeps.tasks.mountain_car import SummitMountainCar

HALF = (0.5, 0.5, 0.5)
TOY = "toy-clip"
TOY_CONFIG = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 1},
}


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A model of a small architecture that open_clip knows by the name `toy-clip`, with random weights."""
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIG_PATHS", list(open_clip.factory._MODEL_CONFIG_PATHS))
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", dict(open_clip.factory._MODEL_CONFIGS))
    (tmp_path / "configs").mkdir()
    config = tmp_path / "configs" / f"{TOY}.json"
    config.write_text(json.dumps(TOY_CONFIG))
    open_clip.add_model_config(config)
    torch.manual_seed(0)
    return open_clip.create_model(TOY).eval()


def loaded(model_id: str, precision: Precision = "fp32", micro_batch: int = 64) -> ClipRewardModel:
    model = load_reward_model(model_id, "cpu", precision, micro_batch)
    assert isinstance(model, ClipRewardModel)
    return model


def save_safetensors(state: dict[str, torch.Tensor], folder: Path) -> Path:
    file = folder / "toy.safetensors"
    save_file(state, file)
    return file


def save_pt(state: dict[str, torch.Tensor], folder: Path) -> Path:
    file = folder / "toy.pt"
    torch.save(state, file)
    return file


def save_training_checkpoint(state: dict[str, torch.Tensor], folder: Path) -> Path:
    """As open_clip's own distributed training writes it."""
    file = folder / "epoch_1.pt"
    torch.save({"epoch": 1, "state_dict": {f"module.{name}": value for name, value in state.items()}}, file)
    return file


def save_compiled(state: dict[str, torch.Tensor], folder: Path) -> Path:
    file = folder / "compiled.pt"
    torch.save({"state_dict": {f"module._orig_mod.{name}": value for name, value in state.items()}}, file)
    return file


def save_compiled_safetensors(state: dict[str, torch.Tensor], folder: Path) -> Path:
    return save_safetensors({f"_orig_mod.{name}": value for name, value in state.items()}, folder)


def save_averaged(state: dict[str, torch.Tensor], folder: Path) -> Path:
    """As torch's AveragedModel names them, beside the weights that were last trained."""
    file = folder / "averaged.pt"
    averaged = {"n_averaged": torch.tensor(3)} | {f"module.{name}": value for name, value in state.items()}
    torch.save({"state_dict": {name: value + 1 for name, value in state.items()}, "state_dict_ema": averaged}, file)
    return file


@pytest.mark.parametrize(
    ("model_id", "mean", "std"),
    [
        ("ViT-L-14/laion2b_s32b_b82k", HALF, HALF),
        ("ViT-B-32/laion2b_s34b_b79k", OPENAI_DATASET_MEAN, OPENAI_DATASET_STD),
        ("RN50/openai", OPENAI_DATASET_MEAN, OPENAI_DATASET_STD),
        ("embedded/small", HALF, HALF),
    ],
)
def test_each_tag_has_its_own_preprocessing(model_id: str, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    preprocessing = find_model(model_id).preprocessing
    assert preprocessing.mean == mean
    assert preprocessing.std == std


def test_resize_mode_and_size_come_from_tag_and_architecture() -> None:
    # A DFN tag that was trained on images squashed to a square, of another size than ViT-H-14 has by default.
    squashed = find_model("ViT-H-14-378-quickgelu/dfn5b").preprocessing
    assert squashed.resize_mode == "squash"
    assert squashed.size == 378
    assert find_model("ViT-L-14-336/openai").preprocessing.size == 336


@pytest.mark.parametrize(
    "model_id",
    [
        "RN50/openai",
        "ViT-B-32/laion2b_s34b_b79k",
        "ViT-L-14/laion2b_s32b_b82k",
        "ViT-bigG-14/laion2b_s39b_b160k",
        "ViT-H-14-378-quickgelu/dfn5b",
        "embedded/small",
    ],
)
def test_every_model_sees_the_flag_and_the_cart_at_the_ends_of_its_track(model_id: str) -> None:
    preprocessing = find_model(model_id).preprocessing
    car = SummitMountainCar("modified")
    car.reset(seed=0)
    red, green, blue = np.moveaxis(preprocessing.visible(car.render()[None])[0].astype(int), -1, 0)
    assert ((red > 180) & (green > 150) & (blue < 110)).mean() > 0.001
    cart = UprightCartPole()
    cart.reset(seed=0)
    for x in (-2.4, 2.4):
        cart.state = np.array([x, 0.0, 0.0, 0.0])
        shown = preprocessing.visible(cart.render()[None])[0].max(axis=-1)
        # Half of the cart is in the picture; without it no pixel is black.
        assert (shown < 60).mean() > 0.001


@pytest.mark.parametrize("model_id", ["RN50/openai", "ViT-L-14/laion2b_s32b_b82k"])
def test_square_frames_are_what_open_clip_makes_of_them(model_id: str) -> None:
    preprocessing = find_model(model_id).preprocessing
    frames = np.random.default_rng(0).integers(70, 186, (2, 480, 480, 3), np.uint8)
    own = open_clip.get_pretrained_cfg(*model_id.split("/"))
    assert own.get("resize_mode", "shortest") == "shortest"
    transform = open_clip.image_transform(
        preprocessing.size, is_train=False, mean=own.get("mean"), std=own.get("std"), interpolation=own.get("interpolation")
    )
    expected = torch.stack([transform(Image.fromarray(frame)) for frame in frames])
    torch.testing.assert_close(preprocessing(frames), expected, atol=2.01 / 255 / min(preprocessing.std), rtol=0)


def test_openai_weights_get_the_activation_they_were_trained_with() -> None:
    assert find_model("RN50/openai").quick_gelu
    assert find_model("ViT-B-32/openai").quick_gelu
    assert not find_model("ViT-B-32/laion2b_s34b_b79k").quick_gelu


def test_every_downloadable_model_is_found() -> None:
    for architecture, tag in open_clip.list_pretrained():
        source = find_model(f"{architecture}/{tag}")
        assert (source.architecture, source.pretrained) == (architecture, tag)
        assert source.preprocessing.interpolation in ("bicubic", "bilinear")
        assert source.preprocessing.resize_mode in ("longest", "squash")
        assert source.preprocessing.size == open_clip.get_model_config(architecture)["vision_cfg"]["image_size"]
        assert len(source.preprocessing.mean) == len(source.preprocessing.std) == 3


@pytest.mark.parametrize(
    ("model_id", "millions"),
    [
        ("RN50/openai", 102),
        ("ViT-L-14/laion2b_s32b_b82k", 428),
        ("ViT-H-14/laion2b_s32b_b79k", 986),
        ("ViT-bigG-14/laion2b_s39b_b160k", 2540),
    ],
)
def test_the_papers_models_have_their_sizes(model_id: str, millions: int) -> None:
    assert round(find_model(model_id).parameters / 1e6) == millions


def test_counting_parameters_allocates_no_weights() -> None:
    class LargestOnCpu(TorchDispatchMode):
        bytes = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            on_cpu = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor) and leaf.device.type == "cpu"]
            self.bytes = max([self.bytes, *(leaf.nbytes for leaf in on_cpu)])
            return result

    # An architecture that no other test counts: the count is kept.
    source = find_model("ViT-B-16-plus-240/laion400m_e32")
    with LargestOnCpu() as largest:
        assert source.parameters > 200e6
    assert largest.bytes < 1e6


def test_embedded_sizes_are_found_smallest_first() -> None:
    assert embedded_sizes() == ["tiny", "small", "base", "large"]
    manifest = embedded_manifest(EMBEDDED_FOLDER)
    for size in embedded_sizes():
        source, model = find_model(f"embedded/{size}"), loaded(f"embedded/{size}")
        in_memory = sum(parameter.numel() for parameter in model.network.parameters())
        assert source.parameters == model.parameters == in_memory == manifest[size]["parameters"]
        assert model.frame_format == source.preprocessing.frame_format


def test_versions_of_the_embedded_family_are_models_of_their_own() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    spec = RewardSpec(("a pole upright on a cart",), ("a cart",), 0.5)
    scores = {
        model_id: loaded(model_id).score(frames, [spec])
        for model_id in ("embedded/tiny", "embedded/v1/tiny", "embedded/v2/tiny")
    }
    np.testing.assert_array_equal(scores["embedded/tiny"], scores["embedded/v2/tiny"])
    assert (scores["embedded/tiny"] != scores["embedded/v1/tiny"]).any()
    newest, named, first = (find_model(model_id) for model_id in scores)
    assert newest.identity == first.identity != named.identity


def test_an_id_without_a_version_means_the_first_one_in_data_and_the_newest_elsewhere() -> None:
    assert find_reward_model("embedded/tiny").identity == find_reward_model("embedded/v2/tiny").identity
    assert known_reward_model("embedded/tiny").identity == find_reward_model("embedded/v1/tiny").identity
    assert known_reward_model("embedded/v2/tiny").identity == find_reward_model("embedded/tiny").identity
    assert with_version("ViT-B-32/openai", "v1") == "ViT-B-32/openai"


def test_words_that_no_caption_used_are_named() -> None:
    model = find_reward_model("embedded/tiny")
    spec = RewardSpec(("a flamboyant pole upright on the cart, flamboyant and zesty",), ("pole and cart",), 0.0)
    (remark,) = model.remarks_on(spec)
    assert remark.startswith("embedded/tiny: its captions never used 'flamboyant', 'zesty', so it knows nothing of them")
    assert model.remarks_on(RewardSpec(("a pole upright on the cart",), ("a pole and a cart",), 0.0)) == []
    assert find_reward_model("ViT-B-32/openai").remarks_on(spec) == []


def test_using_a_model_twice_registers_it_once() -> None:
    def used() -> None:
        source = find_model("embedded/tiny")
        assert source.parameters > 0
        assert source.tokenizer.context_length == 32

    used()
    known = len(open_clip.factory._MODEL_CONFIG_PATHS)
    # open_clip reads every registered folder again whenever one is added.
    for _ in range(3):
        used()
    assert len(open_clip.factory._MODEL_CONFIG_PATHS) == known


@pytest.mark.parametrize(
    ("model_id", "message"),
    [
        ("ViT-B-33/openai", "unknown architecture 'ViT-B-33': did you mean 'ViT-B-32'?"),
        ("ViT-B-32/laion2b_s34b_b79", "unknown weights for ViT-B-32 'laion2b_s34b_b79': did you mean 'laion2b_s34b_b79k'?"),
        ("ViT-B-32/no/such/file.safetensors", "unknown weights for ViT-B-32 'no/such/file.safetensors': "),
        ("ViT-B-32/no/such/file.safetensors", "or the path of a checkpoint file"),
        (
            "embedded/smal",
            "unknown model 'embedded/smal': did you mean 'embedded/small'? expected one of embedded/base, "
            "embedded/large, embedded/small, embedded/tiny, embedded/v1/base, ",
        ),
        ("embedded/v3/small", "unknown model 'embedded/v3/small': did you mean 'embedded/v"),
        ("embeded/small", "unknown architecture 'embeded': did you mean 'embedded'?"),
        ("embedded", "model 'embedded': expected `architecture/pretrained`"),
        ("/openai", "model '/openai': expected `architecture/pretrained`"),
        ("ViT-B-32/", "model 'ViT-B-32/': expected `architecture/pretrained`"),
        ("", "model '': expected `architecture/pretrained`"),
    ],
)
@pytest.mark.parametrize("look_up", [find_model, load_reward_model])
def test_unknown_names_name_the_nearest(look_up: Callable[[str], object], model_id: str, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        look_up(model_id)


@pytest.mark.parametrize(
    "save",
    [save_safetensors, save_pt, save_training_checkpoint, save_compiled, save_compiled_safetensors, save_averaged],
)
def test_checkpoint_file_gives_the_embeddings_of_the_saved_model(
    toy: Any, tmp_path: Path, save: Callable[[dict[str, torch.Tensor], Path], Path]
) -> None:
    model_id = f"{TOY}/{save(toy.state_dict(), tmp_path)}"
    # Another random state than the saved model's: what is not loaded would show.
    torch.manual_seed(1)
    model = loaded(model_id, micro_batch=4)
    assert model.model_id == model_id
    frames = np.random.default_rng(0).integers(0, 256, (4, 48, 48, 3), np.uint8)
    transform = open_clip.image_transform(32, is_train=False)
    with torch.inference_mode():
        images = toy.encode_image(torch.stack([transform(Image.fromarray(frame)) for frame in frames]), normalize=True)
        text = toy.encode_text(open_clip.tokenize(["a pole"]), normalize=True)
    torch.testing.assert_close(model.encode_frames(frames), images, atol=1e-5, rtol=0)
    torch.testing.assert_close(model.encode_prompt("a pole"), text[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_vision_transformer_works_in_half_precision(toy: Any, tmp_path: Path, precision: Precision) -> None:
    # open_clip keeps some tensors in full precision, other ones than in the embedded family's convolutional models.
    model_id = f"{TOY}/{save_safetensors(toy.state_dict(), tmp_path)}"
    full, half = loaded(model_id), loaded(model_id, precision=precision)
    frames = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    torch.testing.assert_close(half.encode_frames(frames), full.encode_frames(frames), atol=0.02, rtol=0)
    torch.testing.assert_close(half.encode_prompt("a pole"), full.encode_prompt("a pole"), atol=0.02, rtol=0)


def test_config_beside_a_checkpoint_file_is_its_preprocessing(toy: Any, tmp_path: Path) -> None:
    file = save_safetensors(toy.state_dict(), tmp_path)
    assert find_model(f"{TOY}/{file}").preprocessing == Preprocessing(
        32, OPENAI_DATASET_MEAN, OPENAI_DATASET_STD, "bicubic", "longest", 115
    )
    own = {
        "mean": [0.1, 0.2, 0.3],
        "std": [0.4, 0.5, 0.6],
        "interpolation": "bilinear",
        "resize_mode": "longest",
        "fill_color": 9,
    }
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": TOY_CONFIG, "preprocess_cfg": own}))
    expected = Preprocessing(32, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "bilinear", "longest", 9)
    assert find_model(f"{TOY}/{file}").preprocessing == expected
    model = loaded(f"{TOY}/{file}")
    assert model.source.preprocessing == expected
    assert model.frame_format == expected.frame_format


@pytest.mark.parametrize("missing", ["visual.proj", "ln_final.bias", "logit_scale"])
def test_checkpoint_with_a_missing_tensor_is_refused(toy: Any, tmp_path: Path, missing: str) -> None:
    state = toy.state_dict()
    del state[missing]
    model_id = f"{TOY}/{save_safetensors(state, tmp_path)}"
    with pytest.raises(UserError, match=re.escape(missing)) as caught:
        load_reward_model(model_id)
    assert model_id in str(caught.value)


def test_checkpoint_of_another_architecture_is_refused(toy: Any, tmp_path: Path) -> None:
    state = toy.state_dict()
    state["text_projection"] = torch.zeros(64, 16)
    with pytest.raises(UserError, match="text_projection"):
        load_reward_model(f"{TOY}/{save_safetensors(state, tmp_path)}")


def test_a_device_that_is_not_there_is_not_blamed_on_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    expected = r"device '.*' cannot be used here: expected one of cpu \(torch finds no CUDA device on this machine\)$"
    for device in ("cuda:99", "gpu"):
        with pytest.raises(UserError, match=expected):
            load_reward_model("embedded/tiny", device)


@pytest.mark.parametrize("name", ["toy.safetensors", "toy.pt"])
def test_file_that_is_no_checkpoint_is_refused(toy: Any, tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.write_bytes(b"this is not a checkpoint")
    with pytest.raises(UserError, match=r"is no safetensors file|is no checkpoint of PyTorch"):
        load_reward_model(f"{TOY}/{file}")


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def test_malicious_pickle_is_refused_and_does_not_run(toy: Any, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    zipped, plain = tmp_path / "zipped.pt", tmp_path / "plain.pt"
    torch.save(toy.state_dict() | {"payload": Payload(marker)}, zipped)
    plain.write_bytes(pickle.dumps({"state_dict": Payload(marker)}, protocol=2))
    torch.load(zipped, weights_only=False)
    assert marker.exists(), "the payload is harmless, so this test shows nothing"
    marker.unlink()
    for file in (zipped, plain):
        with pytest.raises(UserError, match="could not be loaded"):
            load_reward_model(f"{TOY}/{file}")
        assert not marker.exists()


def test_tag_that_cannot_be_downloaded_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError) as caught:
        load_reward_model("ViT-B-32/laion2b_s34b_b79k")
    message = str(caught.value)
    assert "the weights of model 'ViT-B-32/laion2b_s34b_b79k' could not be loaded" in message
    assert "needs the network" in message
    assert (
        "use a checkpoint file ('ViT-B-32/path/to/file.safetensors') or an embedded model "
        "(embedded/tiny, embedded/small, embedded/base, embedded/large)" in message
    )


@pytest.mark.parametrize("size", embedded_sizes())
@pytest.mark.parametrize("what", ["weights", "vocabulary"])
def test_damaged_or_missing_embedded_files_name_the_checksum(what: str, size: str, tmp_path: Path) -> None:
    folder = tmp_path / "embedded"
    shutil.copytree(EMBEDDED_FOLDER, folder)
    check_embedded_files(size, folder)
    entry = embedded_manifest(folder)[size]
    if what == "vocabulary":
        file, expected = folder / VOCABULARY, entry["vocabulary_sha256"]
    else:
        file, expected = folder / f"embedded-{size}.safetensors", entry["sha256"]
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    found = hashlib.sha256(content).hexdigest()
    with pytest.raises(UserError, match=f"{file.name} is damaged: its sha256 is {found}, expected {expected}; install"):
        check_embedded_files(size, folder)
    file.unlink()
    with pytest.raises(UserError, match=re.escape(f"{file.name} (sha256 {expected}) is missing from {folder}: install")):
        check_embedded_files(size, folder)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, r"cannot be read \(.*\)"),
        ("{", "is damaged: .*"),
        ("[]", "is damaged: .*"),
        ('{"tiny": {"sha256": 5}}', "is damaged: tiny.sha256 = 5: input should be a valid string; .*"),
    ],
)
def test_missing_or_damaged_manifest_is_one_message(content: str | None, problem: str, tmp_path: Path) -> None:
    if content:
        (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(UserError, match=f"manifest.json {problem}: install the package again"):
        embedded_manifest(tmp_path)


def test_own_weights_of_an_embedded_architecture_load_or_are_refused(tmp_path: Path) -> None:
    # What `vlm-rm pretrain` writes. open_clip knows the architecture once an embedded model was used.
    assert find_model("embedded/tiny").parameters > 0
    file = tmp_path / "own.safetensors"
    shutil.copy(EMBEDDED_FOLDER / "embedded-tiny.safetensors", file)
    frames = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    try:
        model = loaded(f"embedded-tiny/{file}")
    except UserError:
        return
    shipped = loaded("embedded/tiny")
    assert torch.equal(model.encode_frames(frames), shipped.encode_frames(frames))
    assert torch.equal(model.encode_prompt("an upright pole"), shipped.encode_prompt("an upright pole"))


def zip_of(files: Mapping[str, str]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return content.getvalue()


BAD_FILES: dict[str, tuple[bytes, str]] = {
    "empty.pt": (b"", "is empty"),
    "pointer.safetensors": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "is a pointer of Git LFS"),
    "page.pt": (b"\n<!DOCTYPE html><html>Not found</html>", "is a web page"),
    "text.pt": (b"this is not a checkpoint", "is no checkpoint of PyTorch"),
    "archive.pt": (zip_of({"word/document.xml": "<a/>"}), "is no checkpoint of PyTorch"),
    "number.pt": (pickle.dumps(7), "corrupt file"),
    "text.safetensors": (b"this is not a checkpoint", "is no safetensors file, or is cut off"),
    "list.safetensors": ((2).to_bytes(8, "little") + b"[]", "is no safetensors file"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_what_is_no_weights_is_named_in_one_sentence(toy: Any, tmp_path: Path, name: str) -> None:
    content, message = BAD_FILES[name]
    (tmp_path / name).write_bytes(content)
    assert message in refused_weights(tmp_path / name)


def refused_weights(file: Path) -> str:
    with warnings.catch_warnings(action="error"), pytest.raises(UserError) as refused:
        load_reward_model(f"{TOY}/{file}")
    assert len(str(refused.value)) < 600
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("save", [save_safetensors, save_pt])
def test_weights_that_are_cut_off_are_named(toy: Any, tmp_path: Path, save: Callable[..., Path]) -> None:
    file = save(toy.state_dict(), tmp_path)
    file.write_bytes(file.read_bytes()[:-1000])
    assert "is cut off" in refused_weights(file)


def test_what_does_not_fit_is_summarised(toy: Any, tmp_path: Path) -> None:
    state = toy.state_dict()
    renamed = {f"model.{name}": each for name, each in state.items()}
    message = refused_weights(save_pt(renamed, tmp_path))
    assert f"it lacks {len(state)} tensor(s) of {TOY}, such as positional_embedding" in message
    assert f"it has {len(state)} tensor(s) that {TOY} has not, such as model." in message
    message = refused_weights(save_pt(state | {"text_projection": torch.zeros(64, 16)}, tmp_path))
    assert f"its text_projection has the shape [64, 16], and that of {TOY} [64, 32]" in message
    assert "could not be loaded: " in refused_weights(save_pt({}, tmp_path))


def test_a_whole_pickled_model_is_refused_with_what_to_save(toy: Any, tmp_path: Path) -> None:
    file = tmp_path / "whole.pt"
    torch.save(toy, file)
    assert "a whole pickled model, which could run any code: save `model.state_dict()`" in refused_weights(file)


def test_the_activation_beside_a_checkpoint_is_used(toy: Any, tmp_path: Path) -> None:
    file = save_safetensors(toy.state_dict(), tmp_path)
    assert not find_model(f"{TOY}/{file}").quick_gelu
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": TOY_CONFIG | {"quick_gelu": True}}))
    assert find_model(f"{TOY}/{file}").quick_gelu


@pytest.mark.parametrize(
    "config",
    [
        "[",
        "[]",
        '{"model_cfg": 3}',
        '{"preprocess_cfg": []}',
        '{"preprocess_cfg": {"mean": "half"}}',
        '{"preprocess_cfg": {"std": [0, 0, 0]}}',
        '{"preprocess_cfg": {"interpolation": "fractal"}}',
    ],
)
def test_a_damaged_configuration_beside_a_checkpoint_is_one_message(toy: Any, tmp_path: Path, config: str) -> None:
    file = save_safetensors(toy.state_dict(), tmp_path)
    (tmp_path / "open_clip_config.json").write_text(config)
    with pytest.raises(UserError, match=r"open_clip_config\.json, beside the checkpoint,"):
        find_model(f"{TOY}/{file}")


def test_a_guess_of_the_preprocessing_is_said(tmp_path: Path) -> None:
    file = tmp_path / "weights.pt"
    file.write_bytes(b"\x80\x02")  # as a pickle begins
    assert "normalised as OpenAI's were; if it was trained as" in ClipRewardModel(f"ViT-L-14/{file}").remarks()[0]
    (remark,) = ClipRewardModel(f"RN50/{file}").remarks()
    assert "its network has GELU; if it was trained with QuickGELU, as openai was" in remark
    (tmp_path / "open_clip_config.json").write_text("{}")
    assert ClipRewardModel(f"ViT-L-14/{file}").remarks() == []


@pytest.mark.parametrize(
    ("repository", "same"),
    [("timm/ViT-B-16-SigLIP", "ViT-B-16-SigLIP/webli"), ("openai/clip-vit-base-patch32", "ViT-B-32/openai")],
)
def test_a_repository_is_answered_with_the_id_of_the_same_model(repository: str, same: str) -> None:
    with pytest.raises(UserError, match=f"expected '{same}', which is the same model"):
        find_model(repository)
    assert find_model(same)
    assert find_model("hf-hub:timm/ViT-B-16-SigLIP").identity == find_model("ViT-B-16-SigLIP/webli").identity


def test_two_ids_of_one_model_are_known_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_model("ViT-B-32/openai").identity == find_model("ViT-B-32/OpenAI").identity
    assert find_model("ViT-B-32/openai").identity != find_model("ViT-B-32/laion2b_s34b_b79k").identity
    (tmp_path / "weights.pt").write_bytes(b"\x80\x02")
    monkeypatch.chdir(tmp_path)
    assert find_model("ViT-B-32/weights.pt").identity == find_model(f"ViT-B-32/{tmp_path}/weights.pt").identity


def test_what_is_no_weights_is_refused_when_the_sweep_is_planned(tmp_path: Path) -> None:
    file = tmp_path / "weights.pt"
    for content, reason in ((b"", "is empty"), (b"version https://git-lfs.github.com/spec/v1\n", "is a pointer of Git LFS")):
        file.write_bytes(content)
        with pytest.raises(UserError, match=f"weights.pt {reason}"):
            find_model(f"ViT-B-32/{file}")


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("names", [["text_model.embeddings.weight"], ["base.lora_A.weight", "base.lora_B.weight"]])
def test_weights_of_something_else_are_refused_when_the_sweep_is_planned(
    toy: Any, tmp_path: Path, suffix: str, names: list[str]
) -> None:
    file = tmp_path / f"weights{suffix}"
    tensors = {name: torch.zeros(2) for name in names}
    (save_file if suffix == ".safetensors" else torch.save)(tensors, file)
    keys = {"name": "planned", "task": "cartpole-upright", "models": [f"{TOY}/{file}"], "alphas": [0], "steps": 100}
    with pytest.raises(UserError, match=rf"has no tensor of {TOY}, such as \S+, but others, such as {re.escape(min(names))}:"):
        plan_of(keys)


@pytest.mark.parametrize("content", [{"optimizer": {"state": 1}}, [torch.zeros(2)]])
def test_a_checkpoint_without_tensors_by_name_is_refused_when_the_sweep_is_planned(
    toy: Any, tmp_path: Path, content: object
) -> None:
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(UserError, match="and none of any other"):
        ClipRewardModel(f"{TOY}/{tmp_path}/weights.pt").check_weights()


@pytest.mark.parametrize("save", [save_safetensors, save_pt, save_training_checkpoint, save_compiled, save_averaged])
def test_weights_that_fit_are_taken_when_the_sweep_is_planned(toy: Any, tmp_path: Path, save: Callable[..., Path]) -> None:
    ClipRewardModel(f"{TOY}/{save(toy.state_dict(), tmp_path)}").check_weights()


def test_a_file_without_its_architecture_and_a_folder_without_its_configuration_are_named_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("checkpoints").mkdir()
    Path("checkpoints/my.pt").touch()
    with pytest.raises(UserError, match=r"'checkpoints/my.pt' is a file: expected the architecture of its weights before it"):
        find_model("checkpoints/my.pt")
    Path("checkpoints/run").mkdir()
    with pytest.raises(UserError, match=r"'checkpoints/run' is a folder without open_clip_config.json"):
        find_model("checkpoints/run")


def test_a_torchscript_archive_and_a_checkpoint_under_another_suffix_are_named_so(toy: Any, tmp_path: Path) -> None:
    scripted = tmp_path / "scripted.pt"
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(scripted))
    assert "it is a TorchScript archive" in refused_weights(scripted)
    renamed = save_pt(toy.state_dict(), tmp_path).rename(tmp_path / "toy.safetensors")
    with pytest.raises(UserError, match=r"is a checkpoint of torch.save with the name of another format: call it .pt"):
        find_model(f"{TOY}/{renamed}")
    assert "it holds no tensors by name" in refused_weights(save_pt({}, tmp_path))


def test_a_name_that_no_file_can_have_is_unknown() -> None:
    with pytest.raises(UserError, match="unknown weights for ViT-B-32"):
        find_model(f"ViT-B-32/{'x' * 300}")
