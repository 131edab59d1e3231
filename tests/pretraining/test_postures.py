"""Postures are measured as they are, and captions are true of them."""

import numpy as np
import pytest

from vlm_rm_sweeps.pretraining.postures import Posture, arms_of, caption, foil, posture_of, support_of
from vlm_rm_sweeps.tasks.humanoid.poses import POSES, Pose

SUPPORTS = {
    "standing": "standing",
    "arms raised": "standing",
    "kneeling": "kneeling",
    "kneeling on the heels": "on the heels",
    "on one knee": "one knee",
    "one leg": "one leg",
    "side splits": "side splits",
    "front splits": "front splits",
    "sitting": "sitting",
    "lotus": "lotus",
    "squatting": "squatting",
    "bowing": "stooping",
    "lying on the back": "on the back",
    "lying on the front": "on the front",
    "walking": "walking",
}
ARMS = {
    "standing": "down",
    "arms raised": "raised",
    "arms out": "out",
    "hands on hips": "hips",
    "arms crossed": "crossed",
    "sitting": "lap",
}
WORDS = {
    "kneeling": ("on both knees", "kneeling", "on its knees"),
    "lotus": ("lotus", "meditat", "cross-legged", "crossed legs"),
    "standing": ("standing", "on its feet", "on both feet", "upright"),
    "arms raised": ("raised", "raising", "hands up", "above its head", "over its head"),
    "side splits": ("split", "straddle", "gymnastics", "spread", "stretched"),
    "hands on hips": ("on its hips", "on the hips", "at the hips", "waist", "akimbo"),
    "one leg": ("one leg", "one foot", "one knee", "single leg"),
    "arms crossed": ("cross", "fold"),
}


@pytest.mark.parametrize(("name", "support"), SUPPORTS.items())
def test_each_reference_pose_is_supported_as_its_name_says(name: str, support: str) -> None:
    assert support_of(posture_of(POSES[name].qpos())) == support


@pytest.mark.parametrize(("name", "arms"), ARMS.items())
def test_the_arms_are_where_the_name_says(name: str, arms: str) -> None:
    assert arms_of(posture_of(POSES[name].qpos())) == arms


def test_a_posture_does_not_depend_on_where_the_robot_is_and_faces() -> None:
    here, there = POSES["walking"].qpos(), POSES["walking"].qpos(yaw=130, position=(0.4, -0.3))
    np.testing.assert_allclose(posture_of(there), posture_of(here), atol=1e-6)


@pytest.mark.parametrize(("pitch", "leaning"), [(40.0, "forwards"), (-40.0, "backwards")])
def test_the_bend_of_the_trunk_is_named_with_its_direction(pitch: float, leaning: str) -> None:
    posture = posture_of(Pose(POSES["standing"].joints, pitch).qpos(yaw=20))
    assert posture.tilt == pytest.approx(40)
    captions = [caption(np.random.default_rng(seed), posture) for seed in range(600)]
    other = "backwards" if leaning == "forwards" else "forwards"
    assert sum(leaning in text for text in captions) > 100
    assert sum(leaning in text for text in captions) > 4 * sum(other in text for text in captions)


def affirmed_share(posture: Posture, words: tuple[str, ...]) -> float:
    captions = [caption(np.random.default_rng(seed), posture) for seed in range(600)]
    denials = (" not ", "instead of", "rather than")
    affirming = [text for text in captions if not any(denial in text for denial in denials)]
    return sum(any(word in text for word in words) for text in affirming) / len(affirming)


@pytest.mark.parametrize("name", WORDS)
def test_a_pose_is_called_by_its_name(name: str) -> None:
    lying = posture_of(POSES["lying on the back"].qpos())
    own = affirmed_share(posture_of(POSES[name].qpos()), WORDS[name])
    assert own > 0.15
    assert affirmed_share(lying, WORDS[name]) < own / 3


def test_upright_fades_as_the_trunk_bends() -> None:
    words = ("upright", "straight", "vertical", "tall")
    bent = [posture_of(Pose(POSES["kneeling"].joints, pitch).qpos()) for pitch in (0.0, 20.0, 45.0)]
    shares = [affirmed_share(posture, words) for posture in bent]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > 1.5 * shares[2]


def test_what_a_caption_denies_is_false() -> None:
    posture = posture_of(POSES["kneeling"].qpos())
    captions = [caption(np.random.default_rng(seed), posture) for seed in range(2_000)]
    denied = {what: sum(f"not {what}" in text for text in captions) for what in ("kneeling", "standing")}
    # The captions are of neighbours, a few of which do not kneel.
    assert denied["kneeling"] < denied["standing"] / 4


def test_noise_is_of_the_scale_of_each_attribute() -> None:
    posture = posture_of(POSES["kneeling"].qpos())
    drawn = np.array([posture.noisy(np.random.default_rng(seed)) for seed in range(2_000)])
    spread = dict(zip(Posture._fields, np.abs(drawn - np.array(posture)).mean(axis=0), strict=True))
    assert spread["hips"] == pytest.approx(0.06, rel=0.1)
    assert spread["left_knee"] == pytest.approx(0.04, rel=0.1)
    assert spread["right_bend"] == pytest.approx(12, rel=0.1)
    assert drawn[:, 0].min() >= 0


def test_a_foil_changes_trunk_legs_or_arms_alone() -> None:
    posture = posture_of(POSES["kneeling"].qpos())
    fields = Posture._fields
    changed = set()
    for seed in range(60):
        other = foil(np.random.default_rng(seed), posture)
        changed.add(
            frozenset(name for name in fields if getattr(other, name) != getattr(posture, name))
            & {"tilt", "hips", "left_hand_out"}
        )
    assert changed == {frozenset({"tilt"}), frozenset({"hips"}), frozenset({"left_hand_out"})}
