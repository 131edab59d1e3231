"""A small instance of each kind of architecture, with random weights, does what open_clip's own model, transform and tokenizer do."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from exported import SMALL_VIT, TEXT, VIT, clip, export
from huggingface_hub import constants
from PIL import Image
from safetensors.torch import save_file

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.rewards.clip import ClipRewardModel
from vlm_rm_sweeps.rewards.model_folder import CONFIG_FILE
from vlm_rm_sweeps.rewards.open_clip_config import missing_packages
from vlm_rm_sweeps.rewards.open_clip_models import _what_fails
from vlm_rm_sweeps.rewards.reward_model import RewardSpec

HALF = {"mean": [0.5] * 3, "std": [0.5] * 3}
OPENAI: dict[str, Any] = {}
SIGLIP = HALF | {"interpolation": "bicubic", "resize_mode": "squash"}
MOBILE = {"mean": [0, 0, 0], "std": [1, 1, 1], "interpolation": "bilinear", "resize_mode": "shortest"}
PERCEPTION = HALF | {"interpolation": "bilinear", "resize_mode": "squash"}
TRANSFORMERS_TEXT = TEXT | {"context_length": 16, "vocab_size": 64, "hf_tokenizer_name": "in-the-folder"}


def timm(name: str, size: int, pool: str, proj: str | None, **others: Any) -> dict[str, Any]:
    return {
        "timm_model_name": name,
        "timm_model_pretrained": False,
        "image_size": size,
        "timm_pool": pool,
        "timm_proj": proj,
        **others,
    }


KINDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "vit": (SMALL_VIT, OPENAI),
    "resnet": (clip({"image_size": 64, "layers": [1, 1, 1, 1], "width": 16}, TEXT, quick_gelu=True), OPENAI),
    "convnext": (clip(timm("convnext_atto", 64, "", "linear"), TEXT), OPENAI),
    "eva": (clip(timm("eva02_tiny_patch14_224", 224, "token", None), TEXT, custom_text=True), OPENAI),
    "vitamin": (clip(timm("vitamin_small_224", 224, "", "linear"), TEXT, custom_text=True), OPENAI),
    "mobileclip2": (
        clip(timm("fastvit_mci0", 64, "avg", None), TEXT | {"no_causal_mask": True}, custom_text=True),
        MOBILE,
    ),
    "pe-core": (
        clip(timm("vit_pe_core_tiny_patch16_384", 384, "map", None), TEXT | {"context_length": 32}, custom_text=True),
        PERCEPTION,
    ),
    "coca": (
        clip(
            VIT | {"attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True},
            TEXT | {"context_length": 76, "embed_cls": True, "output_tokens": True},
            multimodal_cfg=TEXT | {"context_length": 76, "attn_pooler_heads": 2},
            custom_text=True,
        ),
        OPENAI,
    ),
    "siglip": (
        clip(
            timm("vit_tiny_patch16_224", 224, "map", "none"),
            TRANSFORMERS_TEXT
            | {
                "tokenizer_kwargs": {"clean": "canonicalize"},
                "no_causal_mask": True,
                "proj_bias": True,
                "pool_type": "last",
                "norm_kwargs": {"eps": 1e-6},
            },
            init_logit_bias=-10,
            custom_text=True,
        )
        | {"embed_dim": 192},
        SIGLIP,
    ),
    "clipa": (
        clip(
            VIT | {"no_ln_pre": True, "pool_type": "avg", "final_ln_after_pool": True},
            TRANSFORMERS_TEXT | {"tokenizer_kwargs": {"strip_sep_token": True}, "no_causal_mask": True, "pool_type": "last"},
        ),
        OPENAI | {"interpolation": "bilinear", "resize_mode": "squash"},
    ),
    "worldwide": (clip(VIT, TRANSFORMERS_TEXT | {"eos_id": 1, "pool_type": "eos"}), OPENAI),
    "roberta": (clip(VIT, {}), OPENAI),
    "nllb": (clip(VIT, {}), OPENAI),
    "coca-roberta": (
        clip(
            VIT | {"output_tokens": True},
            {},
            multimodal_cfg=TEXT | {"context_length": 16, "attn_pooler_heads": 2},
            custom_text=True,
        ),
        OPENAI,
    ),
}
ROBERTA = {
    "model_type": "roberta",
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 20,
}
TOWERS: dict[str, dict[str, Any]] = {
    "roberta": ROBERTA,
    "coca-roberta": ROBERTA,
    "nllb": {
        "model_type": "m2m_100",
        "vocab_size": 64,
        "d_model": 32,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 64,
        "decoder_ffn_dim": 64,
        "max_position_embeddings": 20,
    },
}
OF_TRANSFORMERS = ("siglip", "clipa", "worldwide", *TOWERS)
PROMPTS = ("an upright pole", "A pole, and a cart!")
needs_transformers = (
    pytest.mark.hf,
    pytest.mark.skipif(bool(missing_packages()), reason="the extra [hf] is not installed: `make test-hf`"),
)


def exported(kind: str, folder: Path) -> Path:
    """Write a folder as open_clip exports it, with random weights, and return it."""
    model_config, preprocess = KINDS[kind]
    folder.mkdir()
    if kind in OF_TRANSFORMERS:
        (write_siglip_tokenizer if kind == "siglip" else write_word_tokenizer)(folder)
    if kind in TOWERS:
        tower = folder / "tower"
        tower.mkdir()
        (tower / "config.json").write_text(json.dumps(TOWERS[kind] | {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 1}))
        pooler = {"hf_proj_type": "linear", "hf_pooler_type": "mean_pooler" if "roberta" in kind else "cls_pooler"}
        text = {"hf_model_name": str(tower), "hf_tokenizer_name": "in-the-folder", "context_length": 16, **pooler}
        text |= {"output_tokens": True} if "multimodal_cfg" in model_config else {}
        model_config = model_config | {"text_cfg": text}
    return export(folder, model_config, preprocess)


def write_siglip_tokenizer(folder: Path) -> None:
    """Train a vocabulary as SigLIP's, which pads with the token that ends a prompt."""
    import sentencepiece
    from transformers import AutoTokenizer

    training, lines = folder / "training", ["an upright pole", "a pole and a cart", "a car on a hill", "one two three four"]
    training.mkdir()
    (training / "lines.txt").write_text("\n".join(lines * 20))
    sentencepiece.SentencePieceTrainer.train(
        input=str(training / "lines.txt"),
        model_prefix=str(training / "spiece"),
        vocab_size=30,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    words = {"eos_token": "</s>", "pad_token": "</s>", "unk_token": "<unk>", "extra_ids": 0}
    (training / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "T5Tokenizer", **words}))
    AutoTokenizer.from_pretrained(training).save_pretrained(folder)


def write_word_tokenizer(folder: Path) -> None:
    """Make a vocabulary of words between a start and an end."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors  # type: ignore[import-not-found,unused-ignore]
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "</s>", "<s>", "<unk>", "an", "a", "A", "upright", "pole", "and", "cart", ",", "!", "one", "two", "three"]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 2), ("</s>", 1)])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", sep_token="</s>", pad_token="<pad>", unk_token="<unk>"
    ).save_pretrained(folder)


KINDS_TO_TEST = [pytest.param(kind, marks=needs_transformers if kind in OF_TRANSFORMERS else ()) for kind in KINDS]


@pytest.mark.parametrize("kind", KINDS_TO_TEST)
def test_a_folder_encodes_as_open_clip_does(kind: str, tmp_path: Path) -> None:
    folder = exported(kind, tmp_path / kind)
    check_it_encodes_as_open_clip_does(str(folder), f"local-dir:{folder}")


def check_it_encodes_as_open_clip_does(model_id: str, name: str) -> None:
    torch.manual_seed(1)  # what is not loaded would show
    model = ClipRewardModel(model_id)
    model.check_spec(RewardSpec((PROMPTS[0],), (PROMPTS[1],)))
    model.load(micro_batch=2)
    own, _, transform = open_clip.create_model_and_transforms(name)
    tokenizer = open_clip.get_tokenizer(name)
    for edge in (model.frame_format.size, 480):
        frames = np.random.default_rng(0).integers(0, 256, (2, edge, edge, 3), np.uint8)
        with torch.inference_mode():
            images = own.eval().encode_image(
                torch.stack([transform(Image.fromarray(frame)) for frame in frames]), normalize=True
            )
        torch.testing.assert_close(model.encode_frames(frames), images, atol=1e-5, rtol=0)
    with torch.inference_mode():
        texts = own.encode_text(tokenizer(list(PROMPTS)), normalize=True)
    for prompt, expected in zip(PROMPTS, texts, strict=True):
        torch.testing.assert_close(model.encode_prompt(prompt), expected, atol=1e-5, rtol=0)
    assert model.source.parameters == sum(parameter.numel() for parameter in own.parameters())


REPOSITORY = "hf-hub:org/name"
COMMITS = ("a" * 40, "b" * 40)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The empty place of one repository in a cache of the Hub, of which nothing else can be had."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models--org--name"


def fetched(hub: Path, commit: str, folder: Path) -> None:
    """Lay a folder into the cache, as the Hub's client does with a commit of the branch main."""
    shutil.copytree(folder, hub / "snapshots" / commit)
    absent = hub / ".no_exist" / commit / "config.json"  # which transformers asks for
    absent.parent.mkdir(parents=True)
    absent.touch()
    (hub / "refs").mkdir(exist_ok=True)
    (hub / "refs" / "main").write_text(commit)


@pytest.mark.parametrize("kind", [each for each in KINDS_TO_TEST if each.values[0] in ("vit", "coca", "siglip")])
def test_a_repository_encodes_as_open_clip_does(kind: str, hub: Path, tmp_path: Path) -> None:
    folder = exported(kind, tmp_path / kind)
    # In a repository, the tokenizer is named by the repository that has it: here, by itself.
    config = (folder / CONFIG_FILE).read_text()
    (folder / CONFIG_FILE).write_text(config.replace("in-the-folder", REPOSITORY.removeprefix("hf-hub:")))
    fetched(hub, COMMITS[0], folder)
    check_it_encodes_as_open_clip_does(REPOSITORY, REPOSITORY)


def test_another_commit_of_a_repository_has_other_weights(hub: Path, tmp_path: Path) -> None:
    loaded = []
    for seed, commit in enumerate(COMMITS):
        (tmp_path / commit).mkdir()
        fetched(hub, commit, export(tmp_path / commit, SMALL_VIT, {}, seed))
        loaded.append(ClipRewardModel(REPOSITORY))
    assert loaded[0].identity == loaded[1].identity
    assert [model.weights_identity for model in loaded] == [f"{REPOSITORY}@{commit}" for commit in COMMITS]
    # The branch has moved on, and the first model is still of the commit that it was found at.
    for model in loaded:
        model.load()
    embedded = [model.encode_prompt("a pole") for model in loaded]
    again = ClipRewardModel(str(tmp_path / COMMITS[0]))
    again.load()
    assert torch.equal(embedded[0], again.encode_prompt("a pole"))
    assert not torch.equal(*embedded)


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=needs_transformers) for kind in ("siglip", "worldwide")])
def test_a_prompt_one_token_too_long_is_refused(kind: str, tmp_path: Path) -> None:
    model = ClipRewardModel(f"local-dir:{exported(kind, tmp_path / kind)}")
    tokens = model.source.tokenizer
    baseline = ("a cart",)
    fits = next("one " * count for count in range(20, 0, -1) if len(tokens.tokenizer("one " * count).input_ids) <= 16)
    exact = len(tokens.tokenizer(fits).input_ids)
    model.check_spec(RewardSpec((fits,), baseline))
    with pytest.raises(UserError, match="is longer than the 16 tokens"):
        model.check_spec(RewardSpec((fits + "a " * (17 - exact),), baseline))
    # The same word for longer than any padding.
    with pytest.raises(UserError, match="is longer than the 16 tokens"):
        model.check_spec(RewardSpec(("one " * 100,), baseline))


def test_a_precision_that_fails_at_the_first_request_is_refused_without_weights(tmp_path: Path) -> None:
    coca, vit = (ClipRewardModel(str(exported(kind, tmp_path / kind))) for kind in ("coca", "vit"))
    coca.use_backend("torch")
    vit.use_backend("torch", precision="bf16")
    with pytest.raises(UserError, match=r"cannot be used in bf16 \(.*\): expected fp32"):
        coca.use_backend("torch", precision="bf16")


def test_what_is_wrong_with_a_folder_is_one_message(tmp_path: Path) -> None:
    def refused(model_id: str) -> str:
        with pytest.raises(UserError) as caught:
            ClipRewardModel(model_id)
        return str(caught.value)

    folder = exported("vit", tmp_path / "vit")
    weights = folder / "open_clip_model.safetensors"
    assert "there is no file" in refused(f"local-dir:{tmp_path / 'nowhere'}")
    for name in ("one.pt", "two.pt"):
        (folder / name).touch()
    assert ClipRewardModel(str(folder)).source.pretrained == str(weights)
    weights.unlink()
    assert "has several checkpoints (one.pt, two.pt)" in refused(str(folder))
    for name in ("one.pt", "two.pt"):
        (folder / name).unlink()
    assert "there are no weights in" in refused(str(folder))
    weights.touch()
    (folder / CONFIG_FILE).write_text('{"model_cfg": {"embed_dim": 1}}')
    assert "has a model_cfg without vision_cfg or text_cfg" in refused(str(folder))
    oblong = clip(VIT | {"image_size": [32, 64]}, TEXT)
    (folder / CONFIG_FILE).write_text(json.dumps({"model_cfg": oblong}))
    assert "image_size is [32, 64], expected the edge of a square" in refused(str(folder))
    deep = clip(VIT | {"layers": 10**9}, TEXT)
    (folder / CONFIG_FILE).write_text(json.dumps({"model_cfg": deep}))
    assert "has vision_cfg.layers = 1000000000: expected at most 1,000" in refused(str(folder))


def test_a_repository_that_cannot_be_had_is_one_message_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # where nothing listens
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=r"hf-hub:org/name.*127\.0\.0\.1:9 does not answer.*the network"):
        ClipRewardModel("hf-hub:org/name")
    assert constants.HF_HUB_OFFLINE is False


@needs_transformers[0]
@needs_transformers[1]
@pytest.mark.parametrize("architecture", ["coca_roberta-ViT-B-32", "roberta-ViT-B-32"])
def test_a_text_tower_of_a_repository_that_cannot_be_had_is_one_message(
    architecture: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Their vocabulary and the shape of their text tower are the repository roberta-base's, whoever trained the weights."""
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # where nothing listens
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    weights = tmp_path / "weights.safetensors"
    save_file({"logit_scale": torch.zeros(())}, weights)
    model = ClipRewardModel(f"{architecture}/{weights}")
    with pytest.raises(UserError, match=r"the network of model .* cannot be made .*downloaded once, and need the network"):
        model.check_weights()
    with pytest.raises(UserError, match=r"the tokenizer of model .* cannot be made .*downloaded once, and need the network"):
        model.check_spec(RewardSpec((PROMPTS[0],), (PROMPTS[1],)))


@pytest.mark.slow
def test_every_pair_resolves_or_names_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlm_rm_sweeps.rewards.open_clip_config.find_spec", lambda name: None)
    needing = {}
    for architecture, tag in open_clip.list_pretrained():
        source = ClipRewardModel(f"{architecture}/{tag}").source
        try:
            context = source.tokenizer.context_length
        except UserError as error:
            needing[source.model_id] = str(error)
        else:
            assert context == open_clip.get_model_config(architecture)["text_cfg"]["context_length"]
    assert len(needing) == 47
    command = "needs transformers and sentencepiece, not installed here: `pip install transformers sentencepiece`"
    assert all(command in message for message in needing.values())
    assert {"ViT-B-16-SigLIP/webli", "roberta-ViT-B-32/laion2b_s12b_b32k", "nllb-clip-base/v1"} < needing.keys()


ARCHITECTURES = sorted({architecture for architecture, _ in open_clip.list_pretrained()})


def fetches(architecture: str) -> bool:
    """Whether its text tower is described by a repository of somebody else, which has to be there."""
    return bool(open_clip.get_model_config(architecture)["text_cfg"].get("hf_model_name"))


@pytest.mark.slow
@pytest.mark.parametrize("architecture", [each for each in ARCHITECTURES if not fetches(each)])
def test_each_architecture_encodes_a_frame_and_a_prompt(architecture: str) -> None:
    """By shapes and types alone, without weights."""
    assert _what_fails(architecture, "fp32") is None
