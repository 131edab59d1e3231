"""What open_clip's configurations say of a model: its preprocessing, and which packages it needs."""

import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from open_clip.transform import PreprocessCfg, merge_preprocess_dict

from vlm_rm_sweeps.errors import UserError, reason_of, shown
from vlm_rm_sweeps.rewards.preprocessing import Preprocessing

HF_EXTRA = "hf"
"""The extra of this package for text towers and tokenizers that come from transformers."""
HF_COMMAND = "pip install transformers sentencepiece"
_HF_PACKAGES = ("transformers", "sentencepiece")
_TIMM_HUB = ("hf-hub:", "hf_hub:")
_DEFAULT_SIZE = 224


def uses_transformers(model: Mapping[str, Any]) -> bool:
    """Whether a model's configuration has a text tower or a tokenizer of transformers."""
    text = model.get("text_cfg") or {}
    return bool(text.get("hf_model_name") or text.get("hf_tokenizer_name"))


def named_repositories(file: Path) -> list[str]:
    """List the repositories of the Hub from which parts of an exported model would come.

    Args:
        file: An open_clip_config.json, of anybody.

    Returns:
        Such as `org/name`; none if the file cannot be read, which is refused elsewhere.
    """
    try:
        model, _ = read_config(file, str(file))
    except UserError:
        return []
    parts: list[Any] = [model.get(part) for part in ("vision_cfg", "text_cfg")]
    vision, text = (part if isinstance(part, dict) else {} for part in parts)
    image = str(vision.get("timm_model_name") or "")
    named = [image.partition(":")[2] if image.startswith(_TIMM_HUB) else ""]
    named += [str(text.get(key) or "") for key in ("hf_model_name", "hf_tokenizer_name")]
    return [each for each in named if each]


def missing_packages() -> list[str]:
    """List the packages of the extra `hf` that are not installed."""
    return [package for package in _HF_PACKAGES if find_spec(package) is None]


def refuse_missing_packages(model_id: str) -> None:
    """Refuse a model that uses transformers where that is not installed.

    Args:
        model_id: Its id, for the message.

    Raises:
        UserError: A package is missing; the message has the command that installs it.
    """
    if missing := missing_packages():
        raise UserError(
            f"model {model_id!r} needs {' and '.join(missing)}, not installed here: `{HF_COMMAND}`, or choose another model"
        )


def read_config(file: Path, where: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read what open_clip exported with a model.

    Args:
        file: Its open_clip_config.json.
        where: How messages name the file.

    Returns:
        The configurations of the model and of its preprocessing, each empty if the file has none.

    Raises:
        UserError: It cannot be read, or is no such file.
    """
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{where} is not JSON: {reason_of(error)}") from error
    parts: list[Any] = [config.get(part, {}) if isinstance(config, dict) else None for part in ("model_cfg", "preprocess_cfg")]
    if not all(isinstance(part, dict) for part in parts):
        raise UserError(f"{where} has other content: expected an object with the objects model_cfg and preprocess_cfg")
    model, preprocess = parts
    return model, preprocess


_MOST_LAYERS, _LARGEST = 1_000, 10_000_000
"""No network has more of anything: to build one would take for ever."""


def check_model_config(model: Mapping[str, Any], where: str) -> None:
    """Refuse a configuration that does not describe a model, where no other says which model it is.

    Args:
        model: Anything that was read from a file.
        where: How messages name the file.

    Raises:
        UserError: It has not the parts that every model has.
    """
    missing = [part for part in ("vision_cfg", "text_cfg") if not isinstance(model.get(part), dict)]
    if missing or not isinstance(model.get("embed_dim"), int):
        raise UserError(
            f"{where} has a model_cfg without {' or '.join(missing or ['embed_dim'])}: expected what open_clip exports, with "
            "embed_dim, vision_cfg and text_cfg"
        )
    for part, config in (("model_cfg", model), ("vision_cfg", model["vision_cfg"]), ("text_cfg", model["text_cfg"])):
        for name, value in config.items():
            numbers = [each for each in (value if isinstance(value, list) else [value]) if isinstance(each, int | float)]
            most = _MOST_LAYERS if name == "layers" else _LARGEST
            if numbers and max(numbers) > most:
                raise UserError(f"{where} has {part}.{name} = {shown(value)}: expected at most {most:,}")


def preprocessing_of(model: Mapping[str, Any], own: Mapping[str, Any], where: str) -> Preprocessing:
    """Build open_clip's preprocessing without its cropping.

    open_clip's `shortest` cuts the sides off a wide frame, and with them what the prompt describes: MountainCar's flag, or the
    cart at the ends of its track. Such frames are fitted whole, between bars of the checkpoint's mean colour. Square frames are
    processed as in open_clip.

    Args:
        model: open_clip's configuration of the model. It decides the size, as in open_clip: a tag's own may be another variant's.
        own: What is known of the checkpoint's preprocessing.
        where: How messages name what was read.

    Returns:
        The preprocessing.

    Raises:
        UserError: It has values that cannot be used.
    """
    try:
        preprocessing = _preprocessing(model, own)
        preprocessing.check()
    except (ArithmeticError, AssertionError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{where} has a preprocess_cfg that cannot be used ({reason_of(error)}): export the checkpoint again"
        ) from error
    return preprocessing


def _preprocessing(model: Mapping[str, Any], own: Mapping[str, Any]) -> Preprocessing:
    merged = merge_preprocess_dict(PreprocessCfg(), {key: value for key, value in own.items() if value is not None})
    mean = _of_each_channel(merged["mean"])
    crops = merged["resize_mode"] == "shortest"
    return Preprocessing(
        size=_edge(model["vision_cfg"].get("image_size", _DEFAULT_SIZE)),
        mean=mean,
        std=_of_each_channel(merged["std"]),
        # open_clip trains with any interpolation where it says `random`, and then evaluates with bicubic.
        interpolation="bicubic" if merged["interpolation"] == "random" else merged["interpolation"],
        resize_mode="longest" if crops else merged["resize_mode"],
        fill_color=round(255 * sum(mean) / 3) if crops else merged["fill_color"],
    )


def _of_each_channel(value: Any) -> Any:
    return (value,) * 3 if isinstance(value, int | float) else tuple(value)


def _edge(size: Any) -> int:
    edges = set(size) if isinstance(size, list | tuple) else {size}
    if len(edges) != 1 or not all(isinstance(edge, int) and edge > 0 for edge in edges):
        raise ValueError(f"image_size is {size!r}, expected the edge of a square in pixels")
    return edges.pop()
