"""Reward models are found by registered name, by `module:Class` and by open_clip's names; what is none gets one message."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from own_rewards import Brightness, Shade

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.frames import FrameFormat
from vlm_rm_sweeps.registry import Registry
from vlm_rm_sweeps.rewards import registry
from vlm_rm_sweeps.rewards.clip import ClipRewardModel
from vlm_rm_sweeps.rewards.registry import (
    find_reward_model,
    known_reward_model,
    load_reward_model,
    register_reward_model,
    registered_reward_models,
)
from vlm_rm_sweeps.rewards.reward_model import RewardModel, RewardSpec

SPECS = [RewardSpec(("bright",), ("dark",), alpha) for alpha in (0.0, 0.5)]
FRAMES = np.full((2, 8, 8, 3), 100, np.uint8)


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is forgotten after it."""
    models: Registry[type[RewardModel]] = Registry("reward model")
    models.register("embedded", "vlm_rm_sweeps.rewards.clip:ClipRewardModel")
    monkeypatch.setattr(registry, "_MODELS", models)


def test_a_class_of_ones_own_is_found_by_its_module() -> None:
    model = load_reward_model("own_rewards:Brightness", micro_batch=4)
    assert type(model) is Brightness
    assert (model.model_id, model.parameters, model.micro_batch) == ("own_rewards:Brightness", 0, 4)
    assert model.score(FRAMES, SPECS).tolist() == [[100, 99.5], [100, 99.5]]


@pytest.mark.parametrize("entry", [Shade, "own_rewards:Shade"])
def test_a_registered_name_may_be_followed_by_an_argument(entry: type[RewardModel] | str) -> None:
    register_reward_model("shade", entry)
    assert registered_reward_models() == ["embedded", "shade"]
    for model_id in ("shade/70", "own_rewards:Shade/70"):
        model = find_reward_model(model_id)
        assert type(model) is Shade
        assert model.model_id == model_id
        assert model.score(FRAMES, SPECS[:1]).tolist() == [[-30], [-30]]


@pytest.mark.parametrize("model_id", ["embedded/tiny", "ViT-B-32/laion2b_s34b_b79k"])
def test_all_other_ids_are_those_of_clip_models(model_id: str) -> None:
    assert isinstance(find_reward_model(model_id), ClipRewardModel)


@pytest.mark.parametrize(
    ("model_id", "message"),
    [
        ("own_rewards:NoRewardModel", "is <class 'own_rewards.NoRewardModel'>"),
        ("own_rewards:FrameFormat", "is <class 'vlm_rm_sweeps.frames.FrameFormat'>"),
        ("own_rewards:np", "is <module 'numpy'"),
        ("own_rewards:OfTwoArguments", "cannot be made: TypeError: "),
        ("own_rewards:WithoutScore", "cannot be made: TypeError: Can't instantiate abstract class WithoutScore"),
        ("own_rewards:Shade/bright", "cannot be made: ValueError: invalid literal"),
        ("own_rewards:WithoutFormat", "has None as its frame_format"),
    ],
)
def test_what_is_no_reward_model_is_told_what_is_expected(model_id: str, message: str) -> None:
    expected = r".*expected a subclass of RewardModel that is made by `Class\(model_id\)` and then has a `frame_format`"
    with pytest.raises(UserError, match=f"^reward model '{model_id}' {re.escape(message)}{expected}"):
        find_reward_model(model_id)


@pytest.mark.parametrize(
    ("model_id", "message"),
    [
        ("no_such_module:Brightness", "there is no module 'no_such_module'"),
        ("own_rewards:Brightnes", "did you mean 'Brightness'"),
        ("brightnes/1", "unknown architecture 'brightnes': did you mean 'brightness'?"),
        ("brightnes", "a registered one (embedded, brightness)"),
    ],
)
def test_unknown_names_name_the_nearest(model_id: str, message: str) -> None:
    register_reward_model("brightness", Brightness)
    with pytest.raises(UserError, match=re.escape(message)):
        find_reward_model(model_id)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("embedded", "is registered already"),
        ("my/model", "expected a name without a slash"),
        ("my:model", "expected a name without a colon"),
        ("", "expected a name"),
    ],
)
def test_names_that_cannot_be_registered(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        register_reward_model(name, Brightness)


@pytest.mark.parametrize("use", [lambda model: model.check_spec(SPECS[0]), lambda model: model.visible(FRAMES)])
def test_what_a_model_does_not_say_has_a_default(use: Callable[[RewardModel], np.ndarray | None]) -> None:
    shown = use(Brightness("own"))
    assert shown is None or shown.shape == (2, 16, 16, 3)
    assert Brightness.frame_format == FrameFormat(16)


def test_data_lead_to_no_repository_that_was_not_fetched_before(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("socket.create_connection", lambda *args, **kwargs: pytest.fail("connects"))
    with pytest.raises(UserError, match=r"'hf-hub:org/clip' is named by data.*if you trust org/clip.*`hf download org/clip`"):
        known_reward_model("hf-hub:org/clip")
    with pytest.raises(UserError, match=r"expected a repository of the Hugging Face Hub, as in 'hf-hub:org/name'"):
        known_reward_model("hf-hub:../../etc")
    (tmp_path / "models--org--clip").mkdir()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"its open_clip_config\.json could not be had"):  # as for an id of the user's
        known_reward_model("hf-hub:org/clip")


@pytest.mark.parametrize(
    "parts",
    [
        {"vision_cfg": {"timm_model_name": "hf-hub:evil/tower"}, "text_cfg": {}},
        {"vision_cfg": {}, "text_cfg": {"hf_model_name": "evil/text"}},
        {"vision_cfg": {}, "text_cfg": {"hf_tokenizer_name": "evil/words"}},
    ],
)
@pytest.mark.parametrize("prefix", ["", "local-dir:"])
def test_the_configuration_of_a_folder_that_data_name_leads_to_no_repository_either(
    parts: dict[str, Any], prefix: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("socket.create_connection", lambda *args, **kwargs: pytest.fail("connects"))
    folder = tmp_path / "clip"
    folder.mkdir()
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": {"embed_dim": 8} | parts}))
    with pytest.raises(UserError, match=r"'hf-hub:evil/\w+' is named by data.*`hf download evil/"):
        known_reward_model(f"{prefix}{folder}")


def test_the_registry_loads_nothing_heavy() -> None:
    code = (
        "import sys, vlm_rm_sweeps.rewards.registry; "
        "print({'torch', 'torchvision', 'open_clip', 'ray', 'mlflow'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "set()"
