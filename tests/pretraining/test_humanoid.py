"""The humanoid's states are of all kinds that policies visit, and are drawn as they say."""

from typing import Any

import numpy as np
import pytest

from vlm_rm_sweeps.frames import FrameFormat
from vlm_rm_sweeps.pretraining.captions import caption_batch
from vlm_rm_sweeps.pretraining.humanoid import HumanoidState, View, render_states, sample_states
from vlm_rm_sweeps.pretraining.postures import arms_of, support_of
from vlm_rm_sweeps.tasks.humanoid.env import Humanoid, paper_camera
from vlm_rm_sweeps.tasks.humanoid.poses import POSES
from vlm_rm_sweeps.tasks.rendering import Rendering


def test_states_are_of_every_kind_and_decided_by_the_generator() -> None:
    states, again = (sample_states(300, np.random.default_rng(7)) for _ in range(2))
    assert states == again
    assert len({support_of(state.posture) for state in states}) > 15
    assert len({arms_of(state.posture) for state in states}) > 7
    assert {state.textures for state in states} == {"modified", "original"}
    assert {state.view == View() for state in states} == {True, False}
    assert any(state.view.follows for state in states)
    assert {state.profile for state in sample_states(1_500, np.random.default_rng(7))} == {"fast", "full"}
    # However the robot is supported, its trunk is upright in some states and bent in others.
    for support in ("standing", "kneeling", "squatting"):
        tilts = [state.posture.tilt for state in states if support in support_of(state.posture)]
        assert min(tilts) < 15
    tilts = [state.posture.tilt for state in states if state.posture.hips > 0.66 and min(state.posture.feet) < 0.1]
    assert np.histogram(tilts, bins=(0, 15, 30, 50, 80))[0].min() >= 3


@pytest.mark.usefixtures("opengl")
def test_each_state_is_drawn_as_its_view_and_textures_say() -> None:
    qpos = POSES["standing"].qpos()
    seen: list[dict[str, Any]] = [
        {},
        {"view": View(azimuth=100.0)},
        {"view": View(distance=6.0)},
        {"view": View(follows=True)},
        {},
    ]
    seen += [{"textures": "original"}, {"profile": "full"}]
    frames = render_states([HumanoidState.of(qpos, **drawn) for drawn in seen], FrameFormat(64))
    assert frames.shape == (7, 64, 64, 3)
    np.testing.assert_array_equal(frames[0], frames[4])
    assert len({frame.tobytes() for frame in frames}) == 6


@pytest.mark.usefixtures("opengl")
def test_views_beside_the_papers_show_the_whole_floor() -> None:
    view = View(azimuth=210.0, elevation=-25.0, distance=4.2)
    (frame,) = render_states([HumanoidState.of(POSES["standing"].qpos(), view=view)], FrameFormat(64))
    env = Humanoid(Rendering("modified", "default", "fast"), FrameFormat(64))
    env._camera = paper_camera()
    env._camera.azimuth, env._camera.elevation, env._camera.distance = view.azimuth, view.elevation, view.distance
    env.set_state(POSES["standing"].qpos(), np.zeros(env.model.nv))
    np.testing.assert_array_equal(frame, env.render())
    env.close()


def test_a_caption_is_of_the_posture_the_scenery_or_the_robot_alone() -> None:
    state = HumanoidState.of(POSES["kneeling"].qpos())
    captions = caption_batch([state] * 500, np.random.default_rng(0))
    outdoors = [caption for caption in captions if caption.endswith(("sky", "outdoors", "stone floor"))]
    assert 20 < len(outdoors) < 120
    assert any("kneeling" in caption for caption in outdoors)
    drawing = [caption for caption in captions if "checkered" in caption or "simulator" in caption]
    assert not drawing


def test_a_foil_is_seen_as_the_state_is() -> None:
    state = HumanoidState.of(POSES["kneeling"].qpos(), textures="original")
    foil = state.foil(np.random.default_rng(0))
    assert foil.posture != state.posture
    assert (foil.textures, foil.view) == (state.textures, state.view)
