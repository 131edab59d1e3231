"""Gymnasium's wrappers, and a user's own, by name: the `wrappers` of a sweep file's `env:`."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Annotated, Any

import gymnasium as gym
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator
from pydantic_core import from_json, to_json

from vlm_rm_sweeps.errors import PASSED_ON, UserError, shown
from vlm_rm_sweeps.registry import Registry
from vlm_rm_sweeps.tasks.uniform_env import in_one_line

_STATISTICS = (
    "its running statistics belong to one environment: evaluations and videos would start without them; expected a wrapper "
    "with fixed numbers, such as RescaleObservation"
)
_OF_THE_TASK = "episodes begin and end by the task: leave it out"
_OF_THE_FRAMES = "it takes the frames away from the reward model: leave it out"
_REFUSED = {
    "NormalizeObservation": _STATISTICS,
    "NormalizeReward": _STATISTICS,
    "Autoreset": _OF_THE_TASK,
    "TimeLimit": f"{_OF_THE_TASK} and set episode_steps",
    "TimeAwareObservation": _OF_THE_TASK,
    "RenderCollection": _OF_THE_FRAMES,
    "HumanRendering": _OF_THE_FRAMES,
    "RecordVideo": f"{_OF_THE_FRAMES}; `videos: true` records each trial's best policy",
}
"""Wrappers of Gymnasium that cannot work here, and why."""

_REGISTRY: Registry[type[gym.Wrapper]] = Registry("wrapper", trusts=False)
for _name in gym.wrappers.__all__:
    if _name != "vector":  # a module of other wrappers
        _REGISTRY.register(_name, f"gymnasium.wrappers:{_name}")  # some need packages that are imported on first use


def _stored_as_it_is(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Refuse what JSON changes: a checkpoint, which tells its environment as JSON, would have another one."""
    for odd in _changed_by_json(kwargs):
        raise UserError(
            f"{odd} cannot be stored as it is: expected texts, finite numbers such as 1.0e+30, "
            "true, false, null, and lists and mappings of them whose keys are texts; or leave it out"
        )
    return kwargs


def _changed_by_json(value: Any, place: str = "") -> Iterator[str]:
    """Describe each key and value, however deep, that is another one after it was stored as JSON, and the keys that lead to it."""
    inside = f" in {place}" if place else ""
    match value:
        case dict():
            odd_keys = (key for key in value if not isinstance(key, str) or _is_changed_by_json(key))
            yield from (f"the key {shown(key)}{inside}" for key in odd_keys)
            parts: Iterable[tuple[Any, Any]] = value.items()
        case list() | tuple():
            parts = enumerate(value)
        case _:
            if _is_changed_by_json(value):
                yield f"{shown(value)}{inside}"
            return
    for key, part in parts:
        yield from _changed_by_json(part, f"{place}.{key}" if place else str(key))


def _is_changed_by_json(value: Any) -> bool:
    try:
        return bool(from_json(to_json(value, inf_nan_mode="null")) != value)
    except Exception:  # an object that JSON has not at all
        return True


def _names_no_pipe(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Refuse arguments that name a pipe or a device: who opens one may wait for ever, or read without end."""
    for text in _texts_in(kwargs):
        if os.path.exists(text) and not os.path.isfile(text) and not os.path.isdir(text):
            raise UserError(f"{shown(text)} is neither a file nor a folder: name one of these")
    return kwargs


def _texts_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts_in(part)


Kwargs = Annotated[dict[str, Any], AfterValidator(_stored_as_it_is), AfterValidator(_names_no_pipe)]
"""Arguments by name, as a sweep file has them."""


class WrapperSettings(BaseModel):
    """A wrapper of the environment: one of `gymnasium.wrappers`, or a class of your own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, description="Such as `FlattenObservation`; or `module:Class`, a gymnasium.Wrapper.")
    kwargs: Kwargs = Field({}, description="Further arguments of the wrapper.")

    @field_validator("name")
    @classmethod
    def _can_work(cls, name: str) -> str:
        if name in _REFUSED:
            raise UserError(f"{name} cannot be used: {_REFUSED[name]}")
        return name


FindWrapper = Callable[[str], object]
"""Finds a wrapper's class by its name in a sweep file or in data, or raises a UserError."""


def named_wrapper(name: str) -> object:
    """Find a wrapper that the user named in a sweep file; its module is imported."""
    return _REGISTRY.find(name)


def known_wrapper(name: str) -> object:
    """Find a wrapper by a name that was read from data, such as a checkpoint, which imports no module of its own choice."""
    return _REGISTRY.find_known(name)


def wrapped(env: gym.Env, wrappers: Sequence[WrapperSettings], find: FindWrapper) -> gym.Env:
    """Wrap an environment.

    Args:
        env: The environment.
        wrappers: The wrappers, the innermost first.
        find: `named_wrapper` or `known_wrapper`.

    Returns:
        The environment in all of them.

    Raises:
        UserError: There is no such wrapper, or it does not accept its arguments or the environment.
    """
    for each in wrappers:
        found = find(each.name)
        if not (isinstance(found, type) and issubclass(found, gym.Wrapper)):
            raise UserError(f"wrappers: {each.name!r} is {found!r}: expected a subclass of gymnasium.Wrapper")
        if found.__module__.startswith(f"{gym.wrappers.__name__}.") and found.__name__ in _REFUSED:
            raise UserError(f"wrappers: {each.name} cannot be used: {_REFUSED[found.__name__]}")
        make: Any = found
        try:
            # YAML has no tuples, and Gymnasium insists on them.
            env = make(env, **{key: tuple(value) if isinstance(value, list) else value for key, value in each.kwargs.items()})
        except PASSED_ON:
            raise
        except gym.error.DependencyNotInstalled as error:
            raise UserError(f"wrappers: {each.name} needs a package that is not installed: {error}") from error
        except BaseException as error:  # for an environment that it does not fit
            raise UserError(
                f"wrappers: {each.name} with kwargs {each.kwargs!r} does not fit observations {env.observation_space} and actions "
                f"{env.action_space}: {in_one_line(error)}"
            ) from error
    return env
