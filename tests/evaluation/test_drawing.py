"""What is measured is drawn as in training: each state at the model's own size."""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.evaluation.collect_states import sampled_states
from vlm_rm_sweeps.evaluation.drawing import drawn_states, redraws
from vlm_rm_sweeps.evaluation.landscape import make_axis, walk
from vlm_rm_sweeps.evaluation.states import Provenance, State, load_states, write_states
from vlm_rm_sweeps.frames import FrameFormat, resize_frames
from vlm_rm_sweeps.tasks.registry import find_task
from vlm_rm_sweeps.tasks.rendering import Rendering

KNEELING = find_task("humanoid-kneeling")
SMALL, LARGE = FrameFormat(64), FrameFormat(96)
FAST = Rendering("modified", "paper", "fast")


def trained_on(variables: dict, frame_format: FrameFormat, rendering: Rendering) -> np.ndarray:
    """Draw a state in the environment of training."""
    env = KNEELING.make_env(frame_format, rendering)
    env.reset(seed=0)
    robot = env.unwrapped
    robot.set_state(np.asarray(variables["qpos"]), np.asarray(variables["qvel"]))  # type: ignore[attr-defined]
    frame = np.asarray(robot.render())
    env.close()
    return frame


@pytest.mark.usefixtures("opengl")
def test_a_data_set_of_the_humanoid_is_drawn_at_each_models_size_and_in_each_states_rendering(tmp_path: Path) -> None:
    renderings = [FAST, Rendering("original", "default", "fast")]
    states = [state for each in renderings for state in sampled_states(KNEELING, 3, seed=0, rendering=each)]
    dataset = write_states(tmp_path / "data", KNEELING, states)
    frames = list(drawn_states(dataset, [SMALL, LARGE]))
    assert len(frames) == 6
    for index, of_state in enumerate(frames):
        rendering = renderings[index // 3]
        for frame_format, frame in of_state.items():
            np.testing.assert_array_equal(frame, trained_on(dict(states[index].variables), frame_format, rendering))
        shrunk = resize_frames(dataset.frame(index)[None], SMALL)[0]
        assert (of_state[SMALL] != shrunk).any()


@pytest.mark.usefixtures("opengl")
def test_a_landscape_of_the_humanoid_is_drawn_as_in_training() -> None:
    walked = walk(KNEELING, [make_axis(KNEELING, "share", 3)], [SMALL], FAST)
    env = KNEELING.make_native_env(FAST, None)
    env.reset(seed=0)
    space = KNEELING.require_states()
    for index, share in enumerate((0.0, 0.5, 1.0)):
        space.place(env, {"share": share})
        np.testing.assert_array_equal(walked.frames[SMALL][index], trained_on(space.read(env), SMALL, FAST))
    env.close()


def test_what_is_not_drawn_by_opengl_is_resized_as_in_training(tmp_path: Path) -> None:
    task = find_task("cartpole-upright")
    assert not redraws(task)
    # Where states cannot be restored, neither.
    assert not redraws(replace(KNEELING, states=task.states))
    dataset = write_states(tmp_path / "data", task, sampled_states(task, 3, seed=0))
    for index, of_state in enumerate(drawn_states(dataset, [SMALL])):
        np.testing.assert_array_equal(of_state[SMALL], resize_frames(dataset.frame(index)[None], SMALL)[0])


@pytest.mark.usefixtures("opengl")
def test_images_without_a_state_are_resized(tmp_path: Path) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (120, 90, 3), np.uint8)
    dataset = write_states(tmp_path / "data", KNEELING, [State(frame, Provenance("images", origin="a.png"))])
    (of_state,) = drawn_states(dataset, [SMALL])
    np.testing.assert_array_equal(of_state[SMALL], resize_frames(frame[None], SMALL)[0])


def test_an_unknown_rendering_in_a_table_is_one_message(tmp_path: Path) -> None:
    variables = {"qpos": [0.0] * 24, "qvel": [0.0] * 23}
    frame = np.zeros((64, 64, 3), np.uint8)
    drawn = asdict(FAST) | {"profile": "fastest"}
    write_states(tmp_path / "data", KNEELING, [State(frame, Provenance("uniform", seed=0, **drawn), variables)])
    with pytest.raises(UserError, match="unknown profile 'fastest': did you mean 'fast'"):
        list(drawn_states(load_states(tmp_path / "data"), [SMALL]))
