"""MountainCar's captions are true of the frames that they describe, and its states cover the track in both scenes."""

import numpy as np
import pytest

from vlm_rm_sweeps.frames import FrameFormat
from vlm_rm_sweeps.pretraining.captions import caption_batch
from vlm_rm_sweeps.pretraining.held_out import _MOUNTAIN_CAR_CASES
from vlm_rm_sweeps.pretraining.mountain_car import MountainCarState, render_states, sample_states


def captions_of(position: float, textures: str = "modified", count: int = 2_000) -> list[str]:
    return caption_batch([MountainCarState(position, textures)] * count, np.random.default_rng(0))


def share(captions: list[str], *words: str) -> float:
    return sum(any(word in caption for word in words) for caption in captions) / len(captions)


def affirmed(captions: list[str], *words: str) -> float:
    """Share of the captions that say so, without those that say what is not so."""
    denials = (" not ", "instead of", "rather than")
    return share([caption for caption in captions if not any(denial in caption for denial in denials)], *words)


def test_words_for_the_flag_fade_with_the_distance_from_it() -> None:
    words = ("next to the yellow flag", "beside the yellow flag", "right beside the flag", "has reached the")
    shares = [affirmed(captions_of(position, count=4_000), *words) for position in (0.45, 0.2, -0.1, -0.5)]
    assert shares == sorted(shares, reverse=True)
    assert len(set(shares)) == 4
    assert shares[-1] > 0


def test_places_are_those_of_the_picture() -> None:
    assert affirmed(captions_of(-0.52), "valley", "lowest", "bottom") > 0.25
    assert affirmed(captions_of(-1.15), "left", "opposite", "wrong") > 0.4
    assert affirmed(captions_of(0.45), "left slope", "left end") < 0.02


@pytest.mark.parametrize(("textures", "other"), [("modified", "original"), ("original", "modified")])
def test_the_style_is_that_of_the_drawing(textures: str, other: str) -> None:
    styles = {"modified": ("blue sky", "snowy", "sunny", "clouds"), "original": ("line drawing", "sketch", "white background")}
    captions = captions_of(0.0, textures)
    assert share(captions, *styles[textures]) > 0.05
    assert share(captions, *styles[other]) == 0
    assert (share(captions, "red car") > 0) == (textures == "modified")


def test_states_cover_the_track_in_both_scenes() -> None:
    states = sample_states(2_000, np.random.default_rng(0))
    positions = np.array([state.position for state in states])
    assert positions.min() >= -1.2
    assert positions.max() <= 0.52
    assert np.histogram(positions, bins=8, range=(-1.2, 0.52))[0].min() > 100
    assert 0.4 < np.mean([state.textures == "modified" for state in states]) < 0.6


def test_each_state_is_drawn_with_its_own_position_and_textures() -> None:
    states = [MountainCarState(x, textures) for x in (-0.5, 0.4) for textures in ("modified", "original")]
    frames = render_states(states, FrameFormat(64))
    assert frames.shape == (4, 64, 64, 3)
    assert len({frame.tobytes() for frame in frames}) == 4
    # Gymnasium's background is white.
    assert [bool((frame == 255).mean() > 0.8) for frame in frames] == [False, True, False, True]


def test_wordings_that_are_matched_with_clear_cases_are_in_no_caption() -> None:
    captions = captions_of(0.45, count=10_000)
    wordings = [wording for _, _, wordings in _MOUNTAIN_CAR_CASES.values() for wording in wordings]
    assert not [wording for wording in wordings if any(wording in caption for caption in captions)]
