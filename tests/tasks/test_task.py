"""The registry of tasks: the paper's prompts, and names that are not there."""

import pytest

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.tasks.cart_pole import UprightCartPole
from vlm_rm_sweeps.tasks.rendering import Rendering, machine_profile
from vlm_rm_sweeps.tasks.task import TASKS, get_task


def test_cart_pole_is_the_papers() -> None:
    task = get_task("cartpole-upright")
    assert task.goal_prompt == "pole vertically upright on top of the cart"
    assert task.baseline_prompt == "pole and cart"
    assert task.episode_steps == 200
    assert "12 degrees" in str(task.success_criterion)
    assert isinstance(task.make_native_env(task.rendering(), None), UprightCartPole)


def test_mountain_car_is_the_papers() -> None:
    task = get_task("mountaincar-summit")
    assert task.goal_prompt == "a car at the peak of the mountain, next to the yellow flag"
    assert task.baseline_prompt == "a car in the mountain"


def test_tasks_are_registered_by_their_names() -> None:
    assert all(get_task(name).name == name for name in TASKS)


@pytest.mark.parametrize("wrong", ["cartpole-uprigth", "CartPole-Upright", "cartpole"])
def test_unknown_name_names_the_nearest(wrong: str) -> None:
    with pytest.raises(UserError, match=f"unknown task '{wrong}': did you mean 'cartpole-upright'\\?"):
        get_task(wrong)


def test_name_like_no_other_lists_what_there_is() -> None:
    with pytest.raises(UserError) as caught:
        get_task("zzz")
    message = str(caught.value)
    assert "did you mean" not in message
    assert all(name in message for name in TASKS)


def test_a_rendering_is_the_tasks_own_or_refused() -> None:
    task = get_task("cartpole-upright")
    assert task.rendering() == Rendering("original", "default", machine_profile())
    assert task.rendering("original", "default", "full").profile == "full"
    with pytest.raises(UserError, match=r"unknown textures 'modified'.*original"):
        task.rendering(textures="modified")
    with pytest.raises(UserError, match=r"unknown camera 'side'.*default"):
        task.rendering(camera="side")
