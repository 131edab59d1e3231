"""Finds reward models by their id, without loading what any of them needs.

A model id is one of

- a registered name, which `register_reward_model` makes known, or `name/argument`;
- `module:Class`, a class of your own, or `module:Class/argument`;
- else open_clip's pair `architecture/pretrained`.

The class is called with the whole id and reads its argument out of it.
"""

from vlm_rm_sweeps.errors import UserError, reason_of
from vlm_rm_sweeps.frames import FrameFormat
from vlm_rm_sweeps.registry import Registry, import_object, is_reference
from vlm_rm_sweeps.rewards.reward_model import Precision, RewardModel

EMBEDDED = "embedded"
"""Name of the family of small models that ship in this package: `embedded/small`."""
_CLIP = "vlm_rm_sweeps.rewards.clip:ClipRewardModel"
_EXPECTED = "expected a subclass of RewardModel that is made by `Class(model_id)` and then has a `frame_format` (FrameFormat)"
_MODELS: Registry[type[RewardModel]] = Registry("reward model")


def register_reward_model(name: str, model: type[RewardModel] | str) -> None:
    """Make a reward model known by a name.

    Args:
        name: What a sweep file calls it, without a colon or a slash. A model of the name `name/argument` is of this class, too.
        model: The class, or a reference to it (`module:Class`), which is imported when it is first asked for.

    Raises:
        UserError: The name is empty, has a colon or a slash, or is taken.
    """
    if "/" in name:
        raise UserError(f"reward model {name!r}: expected a name without a slash, which stands before a model's argument")
    _MODELS.register(name, model)


def registered_reward_models() -> list[str]:
    """Return the registered names, in the order of their registration."""
    return list(_MODELS)


def find_reward_model(model_id: str) -> RewardModel:
    """Make the reward model of this id, without loading its weights.

    Args:
        model_id: As the docstring of this module says.

    Returns:
        The model, which describes itself and checks specs; `load` makes it score.

    Raises:
        UserError: There is no such model, with the nearest names, or what was found is no reward model.
    """
    name = model_id.partition("/")[0]
    found: object = _MODELS.find(name) if name in _MODELS or is_reference(name) else import_object(_CLIP)
    if not (isinstance(found, type) and issubclass(found, RewardModel)):
        raise UserError(f"reward model {model_id!r} is {found!r}: {_EXPECTED}")
    try:
        model = found(model_id)
    except UserError:
        raise
    except Exception as error:  # the class is anybody's
        raise UserError(f"reward model {model_id!r} cannot be made: {reason_of(error)}: {_EXPECTED}") from error
    for attribute, kind in (("model_id", str), ("frame_format", FrameFormat)):
        value = getattr(model, attribute, None)
        if not isinstance(value, kind):
            raise UserError(f"reward model {model_id!r} has {value!r} as its {attribute}: {_EXPECTED}")
    return model


def load_reward_model(model_id: str, device: str = "cpu", precision: Precision = "fp32", micro_batch: int = 64) -> RewardModel:
    """Make the reward model of this id and load its weights.

    Args:
        model_id: As the docstring of this module says.
        device: Where the model runs, in torch's terms: `cpu`, `cuda`, `cuda:1`.
        precision: Of the weights.
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
