"""Registry of the algorithms that a sweep file can name."""

from typing import Any

import gymnasium as gym

from vlm_rm_sweeps.errors import UserError, shown
from vlm_rm_sweeps.registry import Registry, complete_class
from vlm_rm_sweeps.tasks.task import Task
from vlm_rm_sweeps.training.algorithms.base import Algorithm

_BUILT_IN = {
    # The default of a task is the first one that supports its action space.
    "dqn": "vlm_rm_sweeps.training.algorithms.dqn:Dqn",
    "sac": "vlm_rm_sweeps.training.algorithms.sac:Sac",
    "tqc": "vlm_rm_sweeps.training.algorithms.tqc:Tqc",
    "ppo": "vlm_rm_sweeps.training.algorithms.ppo:Ppo",
}
_REGISTRY: Registry[type[Algorithm]] = Registry("algorithm")


def register_algorithm(name: str, algorithm: type[Algorithm] | str) -> None:
    """Register an algorithm under a name.

    Args:
        name: Its name in sweep files.
        algorithm: The class, or a reference to it (`module:Class`), which is imported at first use.

    Raises:
        UserError: The name is empty, has a colon, or belongs to another algorithm.
    """
    _REGISTRY.register(name, algorithm)


def find_algorithm(name: str) -> type[Algorithm]:
    """Find an algorithm by its registered name or by a reference.

    Args:
        name: A registered name, or a reference such as `my_module:MyAlgorithm`.

    Returns:
        The algorithm's class, whose fields are its settings.

    Raises:
        UserError: There is no such algorithm, it cannot be imported, or it is not a complete subclass of `Algorithm`.
    """
    return _complete(name, _REGISTRY.find(name))


def known_algorithm(name: str) -> type[Algorithm]:
    """Find an algorithm by a name that was read from data, such as a checkpoint.

    It imports no module that only the data names.

    Args:
        name: A registered name, or `module:Class` of a module that the user named in this process.

    Returns:
        The algorithm's class.

    Raises:
        UserError: There is no such algorithm, the user has not named its module, or it is not a complete subclass of
            `Algorithm`.
    """
    return _complete(name, _REGISTRY.find_known(name))


def _complete(name: str, found: object) -> type[Algorithm]:
    expected = "vlm_rm_sweeps.training.algorithms.base.Algorithm"
    attributes = ["action_spaces"]
    algorithm = complete_class("algorithm", name, found, Algorithm, expected, attributes)  # type: ignore[type-abstract]
    spaces: Any = algorithm.action_spaces
    if (
        not isinstance(spaces, tuple)
        or not spaces
        or not all(isinstance(each, type) and issubclass(each, gym.Space) for each in spaces)
    ):
        raise UserError(
            f"algorithm {name!r}: action_spaces is {spaces!r}: expected a tuple of classes of spaces, such as (gym.spaces.Discrete,)"
        )
    return algorithm


def algorithm_names() -> tuple[str, ...]:
    """Return the names of all registered algorithms, in the order of registration."""
    return tuple(_REGISTRY)


def algorithms_for(action_space: gym.Space) -> list[str]:
    """Return the names of the registered algorithms that support an action space, the default one first."""
    return [name for name in _REGISTRY if _can_learn(name, action_space)]


def choose_algorithm(name: str | None, task: Task) -> str:
    """Choose the algorithm for a task.

    Args:
        name: A registered name or a reference; None for the default: the first registered one that supports the task's actions.
        task: The task to learn.

    Returns:
        The algorithm's name or reference.

    Raises:
        UserError: There is no such algorithm, or it does not support the task's action space.
    """
    if name is not None and _can_learn(name, task.action_space):
        return name
    fitting = algorithms_for(task.action_space)
    if name is None and fitting:
        return fitting[0]
    expected = f"{' or '.join(fitting)}, or no `algorithm`" if fitting else "one of your own, as `module:Class`"
    raise UserError(f"it cannot learn {task.name}, whose actions are {task.action_space}: expected {expected}")


def algorithm_name(algorithm: type[Algorithm]) -> str:
    """Return the name under which any process finds an algorithm.

    It is not a name that a user's program registered: the process that reads a checkpoint later would not know it.

    Args:
        algorithm: The algorithm's class.

    Returns:
        The name of a built-in algorithm; for any other, the reference `module:Class`.
    """
    reference = f"{algorithm.__module__}:{algorithm.__qualname__}"
    return next((name for name, built_in in _BUILT_IN.items() if built_in == reference), reference)


for _name, _reference in _BUILT_IN.items():
    register_algorithm(_name, _reference)


def _can_learn(name: str, action_space: gym.Space) -> bool:
    learns: object = find_algorithm(name).can_learn(action_space)
    if not isinstance(learns, bool):  # of a user's class
        raise UserError(f"algorithm {name!r}: can_learn returned {shown(learns)}: expected true or false")
    return learns
