"""The humanoid's captions are true of the states that they describe, and its states are of all kinds that policies visit."""

import numpy as np
import pytest

from vlm_rm_sweeps.frames import FrameFormat
from vlm_rm_sweeps.pretraining.captions import HELD_OUT_CAPTIONS, caption_batch
from vlm_rm_sweeps.pretraining.humanoid import HumanoidState, View, pose_distances, render_states, sample_states
from vlm_rm_sweeps.tasks.humanoid.poses import POSES

WORDS = {
    "kneeling": ("knees", "kneeling"),
    "lotus": ("lotus", "meditat", "cross-legged", "crossed legs"),
    "standing": ("standing", "on its feet", "upright"),
    "arms raised": ("raised", "raising", "hands up", "above its head", "up in the air", "upwards", "reaching up"),
    "side splits": ("split", "legs stretched out", "straddle", "legs wide", "legs spread"),
    "hands on hips": ("hips", "waist", "akimbo"),
    "one leg": ("one leg", "one foot", "one knee"),
    "arms crossed": ("cross", "fold", "across its chest"),
}


def state_of(qpos: np.ndarray) -> HumanoidState:
    return HumanoidState(tuple(qpos.tolist()), pose_distances(qpos))


def share(qpos: np.ndarray, words: tuple[str, ...]) -> float:
    captions = caption_batch([state_of(qpos)] * 600, np.random.default_rng(0))
    return sum(any(word in caption for word in words) for caption in captions) / len(captions)


@pytest.mark.parametrize("name", WORDS)
def test_a_pose_is_called_by_its_name(name: str) -> None:
    assert share(POSES[name].qpos(), WORDS[name]) > 0.4
    assert share(POSES["lying on the back"].qpos(), WORDS[name]) < 0.02


def test_words_fade_with_the_distance_from_the_pose() -> None:
    shares = [share(POSES[name].qpos(), WORDS["arms raised"]) for name in ("arms raised", "arms out", "standing", "sitting")]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > 2 * shares[1] > 0


def test_distance_ignores_where_the_robot_stands_and_faces() -> None:
    np.testing.assert_allclose(
        pose_distances(POSES["kneeling"].qpos(yaw=130, position=(0.4, -0.3))),
        pose_distances(POSES["kneeling"].qpos()),
        atol=1e-6,
    )
    names = list(POSES)
    for name in names:
        distances = dict(zip(names, pose_distances(POSES[name].qpos()), strict=True))
        assert distances.pop(name) == pytest.approx(0, abs=1e-6)
        assert min(distances.values()) > 0.05


def test_a_state_like_no_pose_is_called_odd() -> None:
    qpos = POSES["standing"].qpos()
    qpos[2] += 3.0
    assert share(qpos, ("awkward", "balance", "stumbling", "disorder", "wobbling")) > 0.5


def test_states_are_of_every_kind_and_decided_by_the_generator() -> None:
    states, again = (sample_states(300, np.random.default_rng(7)) for _ in range(2))
    assert states == again
    assert len({int(np.argmin(state.distances)) for state in states}) > 12
    assert {state.textures for state in states} == {"modified", "original"}
    assert {state.view == View() for state in states} == {True, False}
    assert any(state.view.follows for state in states)
    # Some are poses all but exactly, some are far from every pose, as those that a falling robot passes through.
    nearest = np.array([min(state.distances) for state in states])
    assert (nearest < 0.06).mean() > 0.1
    assert (nearest > 0.2).mean() > 0.1
    assert not set(caption_batch(states, np.random.default_rng(0))) & HELD_OUT_CAPTIONS


@pytest.mark.usefixtures("opengl")
def test_each_state_is_drawn_as_its_view_and_textures_say() -> None:
    qpos = POSES["standing"].qpos()
    seen = [View(), View(azimuth=100.0), View(distance=6.0), View(follows=True), View()]
    states = [HumanoidState(tuple(qpos.tolist()), pose_distances(qpos), "modified", view) for view in seen]
    states.append(HumanoidState(tuple(qpos.tolist()), pose_distances(qpos), "original"))
    frames = render_states(states, FrameFormat(64))
    assert frames.shape == (6, 64, 64, 3)
    np.testing.assert_array_equal(frames[0], frames[4])
    assert len({frame.tobytes() for frame in frames}) == 5
