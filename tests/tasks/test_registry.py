"""Tasks are found by name or by `module:attribute`; names that were read from data import and call nothing on their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vlm_rm_sweeps import registry as registries
from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.tasks import cart_pole, registry
from vlm_rm_sweeps.tasks.registry import BUILT_IN_TASKS, find_task, known_task, register_task, task_names
from vlm_rm_sweeps.tasks.task import Task

PLUGINS = Path(__file__).parents[1] / "plugins"


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has not imported a user's module yet, and finds it."""
    monkeypatch.syspath_prepend(PLUGINS)
    monkeypatch.delitem(sys.modules, "pendulum_tasks", raising=False)
    monkeypatch.setattr(registry, "_found", {})
    monkeypatch.setattr(registry, "_REGISTRY", registries.Registry("task"))
    monkeypatch.setattr(registries, "_trusted_modules", set())


def test_built_in_tasks_have_the_names_that_they_are_registered_by() -> None:
    assert task_names()[:2] == ("cartpole-upright", "mountaincar-summit")
    for name, reference in BUILT_IN_TASKS.items():
        assert find_task(name) is registries.import_object(reference)
    assert find_task("cartpole-upright") is cart_pole.CARTPOLE_UPRIGHT


def test_neither_listing_names_nor_checking_a_cart_pole_sweep_imports_mujoco(tmp_path: Path) -> None:
    sweep = tmp_path / "sweep.yaml"
    sweep.write_text("{name: x, task: cartpole-upright, models: [embedded/tiny], alphas: [0], steps: 10}")
    code = (
        "import sys; from pathlib import Path; from vlm_rm_sweeps.sweeping.config.sweep import load_sweep; "
        "from vlm_rm_sweeps.tasks.registry import task_names; assert 'humanoid-lotus' in task_names(); "
        f"load_sweep(Path({str(sweep)!r})); print(*sorted({{'mujoco', 'ray'}} & sys.modules.keys()))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, env=dict(os.environ))
    assert (shown.returncode, shown.stdout.strip()) == (0, ""), shown.stderr


@pytest.mark.usefixtures("plugins")
@pytest.mark.parametrize("attribute", ["PENDULUM_UP", "pendulum_up", "PendulumUp"])
def test_a_task_of_the_users_own_is_an_object_a_function_or_a_class(attribute: str) -> None:
    reference = f"pendulum_tasks:{attribute}"
    task = find_task(reference)
    assert (task.name, task.goal_prompt) == (reference, "a red rod pointing up")
    assert find_task(reference) is known_task(reference) is task


@pytest.mark.usefixtures("plugins")
def test_a_registered_task_has_its_registered_name_and_is_imported_when_it_is_asked_for() -> None:
    register_task("up", "pendulum_tasks:pendulum_up")
    assert task_names() == ("up",)
    assert "pendulum_tasks" not in sys.modules
    assert find_task("up").name == "up"
    assert known_task("up") is find_task("up")
    with pytest.raises(UserError, match="task 'up' is registered already"):
        register_task("up", "pendulum_tasks:PENDULUM_UP")


@pytest.mark.usefixtures("plugins")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pendulum_tasks:NO_TASK", "is int: expected a Task, or a function or class that returns one"),
        ("pendulum_tasks:needs_an_argument", "cannot be made: TypeError.*without required arguments"),
        ("pendulum_tasks:PENDULUM_UPP", "did you mean 'PENDULUM_UP'"),
        ("no_such_module:TASK", "there is no module 'no_such_module'"),
        ("builtins:dict", "is dict: expected a Task"),
    ],
)
def test_a_reference_that_is_no_task_gets_one_message(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        find_task(name)


@pytest.mark.usefixtures("plugins")
def test_names_in_data_import_no_module() -> None:
    with pytest.raises(UserError, match=r"'pendulum_tasks:PENDULUM_UP' is named by data.*--module pendulum_tasks\.py"):
        known_task("pendulum_tasks:PENDULUM_UP")
    assert "pendulum_tasks" not in sys.modules
    with pytest.raises(UserError, match=r"unknown task 'pendulum-up'.*--module FILE"):
        known_task("pendulum-up")


@pytest.mark.usefixtures("plugins")
def test_names_in_data_find_what_the_user_has_imported_and_call_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    import_user_module = registries.import_object("pendulum_tasks:PENDULUM_UP")
    assert isinstance(import_user_module, Task)
    for attribute in ("PENDULUM_UP", "pendulum_up", "PendulumUp"):
        assert known_task(f"pendulum_tasks:{attribute}").goal_prompt == "a red rod pointing up"
    # A module that is imported, but not because the user named it; and a function that a user's module only uses.
    called: list[str] = []
    monkeypatch.setattr(os, "abort", lambda: called.append("abort"))
    with pytest.raises(UserError, match="is named by data"):
        known_task("os:abort")
    monkeypatch.setattr(sys.modules["pendulum_tasks"], "os", os, raising=False)
    with pytest.raises(UserError, match="is refused, as data names it"):
        known_task("pendulum_tasks:os.abort")
    assert not called
