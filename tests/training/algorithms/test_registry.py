"""Algorithms by name, by reference, and the one that fits a task."""

import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import pytest
from pydantic import ValidationError

import vlm_rm_sweeps
from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.tasks.gym_task import GymEnv
from vlm_rm_sweeps.tasks.registry import find_task
from vlm_rm_sweeps.training.algorithms import registry
from vlm_rm_sweeps.training.algorithms.dqn import Dqn
from vlm_rm_sweeps.training.algorithms.registry import (
    algorithm_name,
    algorithm_names,
    algorithms_for,
    choose_algorithm,
    find_algorithm,
    known_algorithm,
    register_algorithm,
)
from vlm_rm_sweeps.training.algorithms.sac import Sac

CART_POLE, PENDULUM = find_task("cartpole-upright"), GymEnv(id="Pendulum-v1", episode_steps=20).task()


class Mine(Dqn):
    """An algorithm of a user's own."""

    action_spaces: ClassVar[tuple[type[gym.Space], ...]] = (gym.spaces.MultiDiscrete,)


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry._REGISTRY, "_entries", dict(registry._REGISTRY._entries))
    register_algorithm("mine", Mine)


def test_the_default_is_the_first_that_can_learn_the_actions() -> None:
    assert (choose_algorithm(None, CART_POLE), choose_algorithm(None, PENDULUM)) == ("dqn", "sac")
    assert (choose_algorithm("ppo", CART_POLE), choose_algorithm("ppo", PENDULUM)) == ("ppo", "ppo")


@pytest.mark.parametrize(
    ("name", "message"), [("dqn", "cannot learn Pendulum-v1.*expected sac or tqc or ppo"), ("td3", "unknown algorithm 'td3'")]
)
def test_an_algorithm_that_cannot_learn_the_task_is_refused(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        choose_algorithm(name, PENDULUM)


@pytest.mark.usefixtures("registered")
def test_a_class_of_ones_own_is_found_by_its_name_and_chosen_where_it_fits() -> None:
    assert find_algorithm("mine") is Mine
    assert algorithm_names() == ("dqn", "sac", "tqc", "ppo", "mine")
    assert algorithms_for(gym.spaces.MultiDiscrete([2, 2])) == ["mine"]
    with pytest.raises(UserError, match="registered already"):
        register_algorithm("mine", Sac)


def test_a_reference_is_found_without_registration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_algorithms.py").write_text(
        "from vlm_rm_sweeps.training.algorithms.dqn import Dqn\nclass Mine(Dqn):\n    mine: int = 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    found: Any = find_algorithm("my_algorithms:Mine")
    assert (found().mine, found(batch=5).batch) == (3, 5)
    assert choose_algorithm("my_algorithms:Mine", CART_POLE) == "my_algorithms:Mine"
    assert find_algorithm(algorithm_name(found)) is found


def test_a_name_in_data_imports_no_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "planted.py").write_text("raise SystemExit('the module was run')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r"'planted:Mine' is named by data, which imports no modules.*--module planted\.py"):
        known_algorithm("planted:Mine")
    assert known_algorithm("dqn") is Dqn


@pytest.mark.usefixtures("registered")
def test_a_registered_algorithm_that_is_broken_affects_no_other() -> None:
    register_algorithm("broken", "not_installed_here:Broken")
    assert choose_algorithm("dqn", CART_POLE) == "dqn"
    with pytest.raises(UserError, match="there is no module 'not_installed_here'"):
        find_algorithm("broken")


@pytest.mark.parametrize("reference", ["pathlib:Path", "math:pi"])
def test_a_reference_to_something_else_is_refused(reference: str) -> None:
    with pytest.raises(UserError, match="expected a subclass of"):
        find_algorithm(reference)


def test_a_class_that_is_not_complete_is_told_what_it_lacks() -> None:
    for name, missing in (
        ("base:Algorithm", "rllib_config, update_size, action_spaces"),
        ("off_policy:OffPolicyAlgorithm", "rllib"),
    ):
        with pytest.raises(UserError, match=f"is not complete: its class must define {missing}"):
            find_algorithm(f"vlm_rm_sweeps.training.algorithms.{name}")


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("spaces", [gym.spaces.Discrete, (), ("Discrete",), [gym.spaces.Discrete], (gym.spaces.Discrete(2),)])
def test_action_spaces_are_a_tuple_of_classes(spaces: Any) -> None:
    """Checked before it is asked what it can learn, where `isinstance` would raise an error of its own."""
    register_algorithm("odd", type("Odd", (Dqn,), {"__module__": __name__, "action_spaces": spaces}))
    with pytest.raises(UserError, match=r"algorithm 'odd': action_spaces is .*: expected a tuple of classes of spaces"):
        find_algorithm("odd")


@pytest.mark.usefixtures("registered")
def test_a_checkpoint_names_an_algorithm_so_that_any_process_finds_it() -> None:
    """A name that this process registered is not known to the one that reads the checkpoint."""
    assert (algorithm_name(Dqn), algorithm_name(Sac)) == ("dqn", "sac")
    assert algorithm_name(Mine) == f"{__name__}:Mine"


def test_checking_settings_loads_neither_rllib_nor_torch() -> None:
    code = """
import sys
from vlm_rm_sweeps.training.algorithms.registry import algorithm_names, find_algorithm
for name in algorithm_names():
    find_algorithm(name)(hidden=(3,), envs=4).remarks(100)
print(sorted(module for module in ("ray.rllib", "torch") if module in sys.modules))
"""
    root = Path(vlm_rm_sweeps.__file__).parents[1]
    ran = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def bounded_settings() -> list[tuple[str, str]]:
    """Name the settings of all algorithms that are numbers with a fraction."""
    fields = [
        (name, field, find_algorithm(name).model_fields[field])
        for name in algorithm_names()
        for field in find_algorithm(name).model_fields
    ]
    return [(name, field) for name, field, about in fields if "float" in str(about.annotation)]


@pytest.mark.parametrize(("name", "setting"), bounded_settings())
@pytest.mark.parametrize("value", [-1e-320, 1e300])
def test_a_slip_in_the_exponent_of_a_setting_is_refused(name: str, setting: str, value: float) -> None:
    with pytest.raises(ValidationError, match=r"(greater|less) than"):
        find_algorithm(name).model_validate({setting: value})


@pytest.mark.parametrize("setting", ["learning_rate", "updates_per_step", "tau", "entropy", "initial_entropy"])
def test_a_setting_that_is_as_good_as_zero_is_refused(setting: str) -> None:
    with pytest.raises(ValidationError, match="greater than or equal to"):
        Sac.model_validate({setting: 1e-320})
