"""Registry of the reward functions that a sweep file can name, and their form as plain data: a kind with parameters."""

import difflib
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, SerializationInfo, ValidationError, ValidationInfo

from vlm_rm_sweeps.errors import UserError, causes, expectation, reason_of, shown
from vlm_rm_sweeps.registry import Registry, complete_class
from vlm_rm_sweeps.rewards.functions.base import RewardFunction, check_function

KIND = "kind"
_PACKAGE = "vlm_rm_sweeps.rewards.functions"
_BUILT_IN = {
    "goal_baseline": f"{_PACKAGE}.goal_baseline:GoalBaseline",
    "softmax": f"{_PACKAGE}.softmax:Softmax",
    "threshold": f"{_PACKAGE}.threshold:Threshold",
    "history": f"{_PACKAGE}.history:History",
    "mixed": f"{_PACKAGE}.mixed:Mixed",
    "learned": f"{_PACKAGE}.learned:Learned",
}
_REGISTRY: Registry[type[RewardFunction]] = Registry("reward")
_FROM_DATA = "from_data"
"""In the context of a validation: what is read was not written by the user."""


def register_reward(kind: str, function: type[RewardFunction] | str) -> None:
    """Register a reward function under a name.

    Args:
        kind: Its name in sweep files.
        function: The class, or a reference to it (`module:Class`), which is imported at first use.

    Raises:
        UserError: The name is empty, has a colon, or belongs to another reward function.
    """
    _REGISTRY.register(kind, function)


def reward_kinds() -> tuple[str, ...]:
    """Return the names of all registered reward functions, in the order of registration."""
    return tuple(_REGISTRY)


def find_reward(kind: str) -> type[RewardFunction]:
    """Find a reward function by its registered name or by a reference.

    Args:
        kind: A registered name, or a reference such as `my_module:Closeness`.

    Returns:
        The class, whose fields are its parameters.

    Raises:
        UserError: There is no such reward function, it cannot be imported, or it is not a complete subclass of `RewardFunction`.
    """
    return _complete(kind, _REGISTRY.find(kind))


def known_reward(kind: str) -> type[RewardFunction]:
    """Find a reward function by a name that was read from data, such as a checkpoint.

    It imports no module that only the data names.

    Args:
        kind: A registered name, or `module:Class` of a module that the user named in this process.

    Returns:
        The class.

    Raises:
        UserError: There is no such reward function, the user has not named its module, or it is not complete.
    """
    return _complete(kind, _REGISTRY.find_known(kind))


def _complete(kind: str, found: object) -> type[RewardFunction]:
    expected = f"FrameReward or RewardFunction of {_PACKAGE}.base"
    return complete_class("reward", kind, found, RewardFunction, expected)  # type: ignore[type-abstract]  # its subclasses


def kind_of(function: RewardFunction) -> str:
    """Return the name under which any process finds the class of a reward function.

    It is not a name that a user's program registered: the process that reads a checkpoint later would not know it.

    Args:
        function: The reward function.

    Returns:
        The name of a built-in kind; for any other, the reference `module:Class`.
    """
    reference = f"{type(function).__module__}:{type(function).__qualname__}"
    return next((kind for kind, built_in in _BUILT_IN.items() if built_in == reference), reference)


def describe_reward(function: RewardFunction) -> dict[str, Any]:
    """Describe a reward function as plain data.

    Args:
        function: Any reward function.

    Returns:
        Its kind and its parameters, from which `make_reward` makes an equal one.
    """
    return {KIND: kind_of(function), **function.model_dump(mode="json")}


def identity_of(function: RewardFunction) -> dict[str, Any]:
    """Return what tells a reward from all others, as plain data: its kind, and the parameters that are not defaults."""
    return {KIND: kind_of(function), **function.chosen()}


def _described(function: RewardFunction, info: SerializationInfo) -> dict[str, Any]:
    if info.exclude_defaults:  # by `chosen`
        return identity_of(function)
    return {KIND: kind_of(function), **function.model_dump(mode=info.mode)}


def readable_reward(function: RewardFunction) -> dict[str, Any]:
    """Describe a reward function for people: as `describe_reward`, without fields that are not for reading (`repr=False`)."""
    readable: dict[str, Any] = _readable(describe_reward(function))
    return readable


def _readable(described: Any) -> Any:
    if isinstance(described, list):
        return [_readable(each) for each in described]
    if not isinstance(described, dict):
        return described
    fields = find_reward(described[KIND]).model_fields if KIND in described else {}
    return {name: _readable(value) for name, value in described.items() if name not in fields or fields[name].repr}


def make_reward(described: Any, from_data: bool = False) -> RewardFunction:
    """Make a reward function from a sweep file's words, or from stored data.

    Args:
        described: A kind, or a mapping of `kind` and parameters.
        from_data: Whether it was read from data, which must not import a module.

    Returns:
        The reward function.

    Raises:
        UserError: One message for an unknown kind, for every bad parameter, or for anything else.
    """
    parameters = {KIND: described} if isinstance(described, str) else described
    if not isinstance(parameters, Mapping) or not isinstance(kind := parameters.get(KIND), str):
        raise UserError(
            f"expected a kind of reward ({', '.join(reward_kinds())}, or `module:Class`), or a mapping with `{KIND}` and its "
            f"parameters, found {shown(described)}"
        )
    function = known_reward(kind) if from_data else find_reward(kind)
    for name, value in parameters.items():
        if isinstance(value, bool) and name in function.model_fields and function.model_fields[name].annotation is not bool:
            raise UserError(f"{kind}: {name} = {value}: expected no true or false")  # pydantic would take it for 1
    try:
        given = {name: value for name, value in parameters.items() if name != KIND}
        made = function.model_validate(given, context={_FROM_DATA: from_data})
    except ValidationError as error:
        problems = [_explained(problem, function) for problem in causes(error.errors(include_url=False))]
        raise UserError(f"{kind}: {'; '.join(problems)}") from error
    except UserError:
        raise
    except Exception as error:  # a user's class may raise anything
        raise UserError(
            f"{kind} cannot be made: {reason_of(error)}: expected a class whose fields are its parameters"
        ) from error
    check_function(made)
    return made


def _explained(problem: Any, function: type[RewardFunction]) -> str:
    """Explain one bad parameter, with the nearest name that exists."""
    name = ".".join(map(str, problem["loc"]))
    if problem["type"] == "extra_forbidden":
        nearest = difflib.get_close_matches(name, function.model_fields, n=1)
        suggestion = f"did you mean {nearest[0]!r}? " if nearest else ""
        expected = f"expected one of {', '.join(function.model_fields)}" if function.model_fields else "expected none"
        return f"unknown parameter {name!r} (value {shown(problem['input'])}): {suggestion}{expected}"
    if problem["type"] == "missing":
        return f"parameter {name!r} is missing"
    return f"{name} = {shown(problem['input'])}: {expectation(problem)}" if name else expectation(problem)


def is_from_data(info: ValidationInfo) -> bool:
    """Whether a validator sees stored data, and not the user's own words."""
    return bool((info.context or {}).get(_FROM_DATA))


def _nested(value: Any, info: ValidationInfo) -> RewardFunction:
    function = value if isinstance(value, RewardFunction) else make_reward(value, is_from_data(info))
    if function.needs_states:
        raise UserError(
            f"{function.label} has to be measured on states, which only a reward by itself can be: write the value as `above`"
        )
    return function


NestedReward = Annotated[
    RewardFunction, BeforeValidator(_nested, json_schema_input_type=str | dict[str, Any]), PlainSerializer(_described)
]
"""A parameter that is any reward: a kind, or a mapping."""

for _kind, _reference in _BUILT_IN.items():
    register_reward(_kind, _reference)
