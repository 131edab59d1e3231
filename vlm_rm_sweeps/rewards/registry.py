"""Registry of reward models: finds a model by its id, without loading weights.

A model id is one of

- a name registered by `register_reward_model`, or `name/argument`;
- `module:Class`, a class of your own, or `module:Class/argument`;
- otherwise open_clip's pair `architecture/pretrained`.

The class is called with the whole id, and parses the argument itself.
"""

import inspect
import os
from pathlib import Path
from typing import Literal

from vlm_rm_sweeps.errors import UserError, reason_of, shown
from vlm_rm_sweeps.frames import FrameFormat
from vlm_rm_sweeps.registry import Registry, check_methods, check_sentences, import_object, is_reference
from vlm_rm_sweeps.rewards.model_folder import CONFIG_FILE, FOLDER_PREFIX
from vlm_rm_sweeps.rewards.reward_model import Precision, RewardModel

EMBEDDED = "embedded"
"""Name of the family of small models that ship in this package: `embedded/small`, or `embedded/v1/small` for an earlier version."""
EmbeddedVersion = Literal["v1", "v2"]
NEWEST_EMBEDDED: EmbeddedVersion = "v2"
"""The version that an id without one means, where a user gives it. In data it means the first: only that one had such ids."""
_CLIP = "vlm_rm_sweeps.rewards.clip:ClipRewardModel"
_EXPECTED = "expected a subclass of RewardModel that is made by `Class(model_id)` and then has a `frame_format` (FrameFormat)"
_MODELS: Registry[type[RewardModel]] = Registry("reward model")


def register_reward_model(name: str, model: type[RewardModel] | str) -> None:
    """Register a reward model under a name.

    Args:
        name: Its name in sweep files, without a colon or a slash. Ids of the form `name/argument` find the same class.
        model: The class, or a reference to it (`module:Class`), which is imported at first use.

    Raises:
        UserError: The name is empty, has a colon or a slash, or is taken.
    """
    if "/" in name:
        raise UserError(f"reward model {name!r}: expected a name without a slash, which stands before a model's argument")
    _MODELS.register(name, model)


def registered_reward_models() -> list[str]:
    """Return the registered names, in the order of their registration."""
    return list(_MODELS)


def find_reward_model(model_id: str, judging: bool = False) -> RewardModel:
    """Create the reward model of an id, without loading its weights.

    Args:
        model_id: In one of the forms that this module's docstring lists.
        judging: Whether it is only to judge what another model's policies do.

    Returns:
        The model, which can describe itself and check specs. It can score once `load` was called.

    Raises:
        UserError: The id is no text, there is no such model (the message suggests the nearest names), what was found is not a
            reward model, or it can do nothing but judge.
    """
    if not isinstance(model_id, str):
        raise UserError(f"model {shown(model_id)}: expected an id, such as {EMBEDDED + '/small'!r}; `vlm-rm models` lists them")
    name = model_id.partition("/")[0]
    found: object = _MODELS.find(name) if name in _MODELS or is_reference(name) else import_object(_CLIP)
    if not (isinstance(found, type) and issubclass(found, RewardModel)):
        raise UserError(f"reward model {model_id!r} is {found!r}: {_EXPECTED}")
    check_methods("reward model", model_id, found)
    try:
        model = found(model_id)
    except UserError:
        raise
    except Exception as error:  # a user's class may raise anything
        raise UserError(f"reward model {model_id!r} cannot be made: {reason_of(error)}: {_EXPECTED}") from error
    _check_promises(model, model_id)
    if model.judges_only and not judging:
        raise UserError(
            f"{model_id} only judges: expected it in `audit.models` of a sweep file, or after `--judge` of `vlm-rm evaluate`"
        )
    return model


def _check_promises(model: RewardModel, model_id: str) -> None:
    """Refuse a model of which an attribute is something else than the contract says."""
    size, columns = getattr(model, "parameters", None), getattr(model, "columns", None)
    if isinstance(inspect.getattr_static(type(model), "micro_batch"), property):  # which cannot be set
        raise UserError(
            f"reward model {model_id!r} makes a property of micro_batch, which is set when it is loaded: leave it out"
        )
    for attribute, is_kept, expected in (
        ("model_id", isinstance(getattr(model, "model_id", None), str), "the id that it is made with"),
        ("frame_format", isinstance(getattr(model, "frame_format", None), FrameFormat), "a FrameFormat"),
        ("parameters", isinstance(size, int | float) and 0 <= size < float("inf"), "a number of parameters"),
        ("columns", isinstance(columns, tuple) and all(isinstance(each, str) for each in columns), "a tuple of names"),
        ("identity", isinstance(getattr(model, "identity", None), str), "a text"),
        ("judges_only", isinstance(getattr(model, "judges_only", None), bool), "true or false"),
    ):
        if not is_kept:
            found = shown(getattr(model, attribute, None))
            raise UserError(f"reward model {model_id!r} has {found} as its {attribute}, not {expected}: {_EXPECTED}")
    check_sentences(f"{model_id}.remarks()", model.remarks())


def with_version(model_id: str, version: EmbeddedVersion) -> str:
    """Name a version of the embedded family where an id names none.

    Args:
        model_id: Any model id.
        version: The version that `embedded/<size>` means.

    Returns:
        For example `embedded/v1/small`; other ids as they are.
    """
    name, _, size = model_id.partition("/")
    return f"{EMBEDDED}/{version}/{size}" if name == EMBEDDED and "/" not in size else model_id


def known_reward_model(model_id: str) -> RewardModel:
    """Create the reward model of an id that was read from data, such as a checkpoint.

    It imports no module that only the data names, and connects to no repository that only the data name.

    Args:
        model_id: An id; `module:Class` only of a module that the user named in this process, `hf-hub:org/name` only of a
            repository that was fetched earlier. `embedded/<size>` was written by a version of this package that had only the
            first version of the family.

    Returns:
        The model, without its weights.

    Raises:
        UserError: There is no such model, the user has not named its module, or nothing of its repository is in the cache.
    """
    from vlm_rm_sweeps.rewards.hub import HUB_PREFIX, refuse_unfetched  # here: the Hub's client takes a while to import

    config = Path(model_id.removeprefix(FOLDER_PREFIX)) / CONFIG_FILE
    if os.path.isfile(config):  # false, too, for a name that no file can have
        from vlm_rm_sweeps.rewards.open_clip_config import named_repositories  # open_clip takes a while, too

        for repository in named_repositories(config):
            refuse_unfetched(HUB_PREFIX + repository)
    name = model_id.partition("/")[0]
    if name.startswith(HUB_PREFIX):
        refuse_unfetched(model_id)
    elif is_reference(name):
        _MODELS.find_known(name)
    return find_reward_model(with_version(model_id, "v1"))


def load_reward_model(model_id: str, device: str = "cpu", precision: Precision = "fp32", micro_batch: int = 64) -> RewardModel:
    """Create the reward model of an id and load its weights.

    Args:
        model_id: In one of the forms that this module's docstring lists.
        device: torch device that the model runs on: `cpu`, `cuda`, `cuda:1`.
        precision: Floating-point precision of the weights.
        micro_batch: Frames in one forward pass.

    Returns:
        The model, ready to score.

    Raises:
        UserError: There is no such model or device, or the weights are missing, damaged or cannot be downloaded.
    """
    model = find_reward_model(model_id)
    model.load(device, precision, micro_batch)
    return model


register_reward_model(EMBEDDED, _CLIP)
register_reward_model("distilled", "vlm_rm_sweeps.rewards.distilled:DistilledRewardModel")
register_reward_model("openai", "vlm_rm_sweeps.rewards.openai_model:OpenAiRewardModel")
