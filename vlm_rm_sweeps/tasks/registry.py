"""The registry of tasks: the tasks of the paper, and those that users add.

A user's task is a `Task`, or a function or class that returns one when it is called without arguments. It is found by
`module:attribute`, or by a name after `register_task`:

    register_task("pendulum-up", PENDULUM_UP)
"""

import copy
from collections.abc import Callable

from vlm_rm_sweeps.errors import PASSED_ON, UserError, reason_of, shown
from vlm_rm_sweeps.registry import Registry, is_reference
from vlm_rm_sweeps.tasks.env_check import check_env, closed_after, waiting_told
from vlm_rm_sweeps.tasks.task import Task

TaskSource = Task | Callable[[], Task]

BUILT_IN_TASKS = {
    "cartpole-upright": "vlm_rm_sweeps.tasks.cart_pole:CARTPOLE_UPRIGHT",
    "mountaincar-summit": "vlm_rm_sweeps.tasks.mountain_car:MOUNTAINCAR_SUMMIT",
    "humanoid-kneeling": "vlm_rm_sweeps.tasks.humanoid.tasks:KNEELING",
    "humanoid-lotus": "vlm_rm_sweeps.tasks.humanoid.tasks:LOTUS",
    "humanoid-standing": "vlm_rm_sweeps.tasks.humanoid.tasks:STANDING",
    "humanoid-arms-raised": "vlm_rm_sweeps.tasks.humanoid.tasks:ARMS_RAISED",
    "humanoid-splits": "vlm_rm_sweeps.tasks.humanoid.tasks:SPLITS",
    "humanoid-hands-on-hips": "vlm_rm_sweeps.tasks.humanoid.tasks:HANDS_ON_HIPS",
    "humanoid-one-leg": "vlm_rm_sweeps.tasks.humanoid.tasks:ONE_LEG",
    "humanoid-arms-crossed": "vlm_rm_sweeps.tasks.humanoid.tasks:ARMS_CROSSED",
}
"""References to the tasks of this package, so that listing names or using CartPole does not import MuJoCo."""

_REGISTRY: Registry[TaskSource] = Registry("task")
for _name, _reference in BUILT_IN_TASKS.items():
    _REGISTRY.register(_name, _reference)

_found: dict[str, Task] = {}
"""Tasks that were found, by name: each name refers to one object."""


def register_task(name: str, task: TaskSource | str) -> None:
    """Register a task under a name, for sweep files, the command line, data sets and checkpoints.

    Args:
        name: The name, which replaces the task's own `name` if they differ.
        task: The task; a function or class that returns it when it is called without arguments; or a reference to one of these
            (`module:attribute`), which is imported on first use.

    Raises:
        UserError: Another task has the name, or the name is empty or has a colon.
    """
    _REGISTRY.register(name, task)


def task_names() -> tuple[str, ...]:
    """Return the names of all registered tasks, in order of registration, without importing any task."""
    return tuple(_REGISTRY)


def find_task(name: str) -> Task:
    """Find a task by a name that the user gave.

    Args:
        name: A registered name, or `module:attribute`, which is imported.

    Returns:
        The task, whose `name` is the given one. The same name returns the same object.

    Raises:
        UserError: There is no such task, with the nearest names, or it cannot be imported or made.
    """
    if name not in _found:
        _found[name] = _made(name, _REGISTRY.find(name))
    return _found[name]


def known_task(name: str) -> Task:
    """Find a task by a name that was read from data, such as a data set or a checkpoint.

    Whoever wrote the data must not decide what this process imports or calls, so `module:attribute` is found only in a module
    that the user named, and called only if that module defines it.

    Args:
        name: A registered name, or `module:attribute`.

    Returns:
        The task, as `find_task` returns it.

    Raises:
        UserError: There is no such task, or the user has not named its module.
    """
    if name not in _found:
        source = _REGISTRY.find_known(name)
        if (
            is_reference(name)
            and not isinstance(source, Task)
            and getattr(source, "__module__", None) != name.partition(":")[0]
        ):
            raise UserError(f"task {name!r} is refused, as data names it: expected a Task, or what the module itself defines")
        _found[name] = _made(name, source)
    return _found[name]


def check_task(task: Task) -> None:
    """Refuse a user's task whose environment does not do what it declares, by some steps and a frame.

    A frame that needs OpenGL is not drawn: the trials may run on another machine, which has it.

    Args:
        task: The task.

    Raises:
        UserError: The environment cannot be made, or see `check_env`.
    """
    with waiting_told(task.name, "making it"):
        env = task.native_env()
    with closed_after(env, task.name):
        check_env(env, task.name, draws=not task.draws_with_opengl)


def _made(name: str, source: object) -> Task:
    made = source
    if not isinstance(made, Task) and callable(made):
        try:
            made = made()
        except PASSED_ON:
            raise
        except BaseException as error:  # it is a user's function
            raise UserError(
                f"task {name!r} cannot be made: {reason_of(error)}: expected a function or class without required arguments"
            ) from error
    if not isinstance(made, Task):
        raise UserError(
            f"task {name!r} is {type(made).__name__}: expected a Task, or a function or class that returns one without arguments"
        )
    if not isinstance(made.name, str):
        raise UserError(f"task {name!r} has {shown(made.name)} as its name: expected a text")
    return made if made.name == name else _renamed(made, name)


def _renamed(task: Task, name: str) -> Task:
    renamed = copy.copy(task)
    object.__setattr__(renamed, "name", name)  # `dataclasses.replace` would call a user's class, which takes no arguments
    return renamed
