"""The registry of tasks: the paper's prompts, and names that are not there."""

import dataclasses

import pytest

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.tasks.cart_pole import UprightCartPole
from vlm_rm_sweeps.tasks.registry import find_task, task_names
from vlm_rm_sweeps.tasks.rendering import Rendering, machine_profile
from vlm_rm_sweeps.tasks.task import Task


def test_cart_pole_is_the_papers() -> None:
    task = find_task("cartpole-upright")
    assert task.goal_prompt == "pole vertically upright on top of the cart"
    assert task.baseline_prompt == "pole and cart"
    assert task.episode_steps == 200
    assert "12 degrees" in str(task.success_criterion)
    assert isinstance(task.make_native_env(task.rendering(), None), UprightCartPole)


def test_mountain_car_is_the_papers() -> None:
    task = find_task("mountaincar-summit")
    assert task.goal_prompt == "a car at the peak of the mountain, next to the yellow flag"
    assert task.baseline_prompt == "a car in the mountain"


@pytest.mark.parametrize("wrong", ["cartpole-uprigth", "CartPole-Upright", "cartpole"])
def test_unknown_name_names_the_nearest(wrong: str) -> None:
    with pytest.raises(UserError, match=f"unknown task '{wrong}': did you mean 'cartpole-upright'\\?"):
        find_task(wrong)


def test_name_like_no_other_lists_what_there_is() -> None:
    with pytest.raises(UserError) as caught:
        find_task("zzz")
    message = str(caught.value)
    assert "did you mean" not in message
    assert all(name in message for name in task_names())


def test_a_rendering_is_the_tasks_own_or_refused() -> None:
    task = find_task("cartpole-upright")
    assert task.rendering() == Rendering("original", "default", machine_profile())
    assert task.rendering("original", "default", "full").profile == "full"
    with pytest.raises(UserError, match=r"unknown textures 'modified'.*original"):
        task.rendering(textures="modified")
    with pytest.raises(UserError, match=r"unknown camera 'side'.*default"):
        task.rendering(camera="side")


def test_a_task_says_what_it_lacks() -> None:
    alone = Task(name="x", goal_prompt="", baseline_prompt="", episode_steps=1, make_native_env=lambda *_: UprightCartPole())
    assert (alone.success_criterion, alone.rendering("original", "default").camera) == (None, "default")
    with pytest.raises(UserError, match="task 'x' has no described state variables, so its states cannot be sampled"):
        alone.require_states()
    with pytest.raises(UserError, match=r"task 'x': cameras is 'front': expected a tuple of names"):
        dataclasses.replace(alone, cameras="front")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="task 'x': episode_steps is 0"):
        dataclasses.replace(alone, episode_steps=0)
