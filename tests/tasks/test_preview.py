"""Frames to look at: those of the steps that were asked for, the same for the same seed."""

import numpy as np

from vlm_rm_sweeps.frames import FrameFormat
from vlm_rm_sweeps.tasks.gym_task import GymEnv
from vlm_rm_sweeps.tasks.preview import frames_of_episode
from vlm_rm_sweeps.tasks.registry import find_task
from vlm_rm_sweeps.tasks.rendering import Rendering

FORMAT = FrameFormat(32)


def test_one_frame_for_each_step_past_the_end_of_an_episode_too() -> None:
    task = GymEnv(id="Pendulum-v1", episode_steps=5).task()
    frames = frames_of_episode(task, Rendering(), FORMAT, steps=7, seed=0, random=True)
    assert frames.dtype == np.uint8
    assert frames.shape == (7, 32, 32, 3)


def test_the_seed_decides_and_no_action_is_no_random_action() -> None:
    task = find_task("mountaincar-summit")
    drawn = [
        frames_of_episode(task, task.rendering(), FORMAT, 30, seed, random)
        for seed, random in [(0, True), (0, True), (1, True), (0, False)]
    ]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert all((drawn[0] != other).any() for other in drawn[2:])


def test_textures_are_those_asked_for() -> None:
    task = find_task("mountaincar-summit")
    modified, original = (
        frames_of_episode(task, task.rendering(textures), FORMAT, 1, 0, True) for textures in ("modified", "original")
    )
    assert np.abs(modified.astype(int) - original).mean() > 20
