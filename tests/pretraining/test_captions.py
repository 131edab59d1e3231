"""Captions never contain a task's own prompt, depend on the random generator alone, and have foils of the same form."""

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from vlm_rm_sweeps.pretraining import captions as captions_module
from vlm_rm_sweeps.pretraining import cart_pole, humanoid, mountain_car
from vlm_rm_sweeps.pretraining.captions import (
    HELD_OUT_TEXTS,
    CaptionedState,
    bucket_of,
    caption_batch,
    contrast_batch,
    denied,
    expand,
    far_bucket,
    in_present_tense,
    is_held_out,
)
from vlm_rm_sweeps.pretraining.cart_pole import CartPoleState
from vlm_rm_sweeps.pretraining.held_out_prompts import TEST
from vlm_rm_sweeps.tasks.registry import BUILT_IN_TASKS, find_task

Sampler = Callable[[int, np.random.Generator], Sequence[CaptionedState]]
SAMPLERS = pytest.mark.parametrize(
    "sample_states", [cart_pole.sample_states, mountain_car.sample_states, humanoid.sample_states]
)


@SAMPLERS
def test_no_caption_and_no_foil_contains_a_tasks_goal(sample_states: Sampler) -> None:
    rng = np.random.default_rng(0)
    states = sample_states(1_000, rng)
    captions, foils = contrast_batch(states, rng)
    texts = {*captions, *foils, *(caption for _ in range(5) for caption in caption_batch(states, rng))}
    assert len(texts) > 1_000
    tested = [prompt for prompts in TEST.values() for prompt in (*prompts.paraphrases, *prompts.opposites)]
    assert not [prompt for prompt in tested if any(prompt in text for text in texts)]
    for task in map(find_task, BUILT_IN_TASKS):
        assert task.baseline_prompt not in texts
        assert not [text for text in texts if task.goal_prompt.removeprefix("a ") in text]


def test_a_goal_is_held_out_without_its_subject_unless_it_is_short() -> None:
    assert {"standing up on one leg", "at the peak of the mountain, next to the yellow flag"} <= HELD_OUT_TEXTS
    assert {"humanoid robot kneeling", "humanoid robot standing up"} <= HELD_OUT_TEXTS
    assert is_held_out("one car at the peak of the mountain, next to the yellow flag, on a sunny day")
    assert is_held_out("a humanoid robot")
    assert not is_held_out("a robot kneeling on both knees")


def test_held_out_caption_is_drawn_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    common, states = "a cart pole", [CartPoleState(0.0, 0.0)] * 2_000
    assert common in caption_batch(states, np.random.default_rng(0))
    monkeypatch.setattr(captions_module, "HELD_OUT_TEXTS", frozenset({common}))
    captions = caption_batch(states, np.random.default_rng(0))
    assert common not in captions
    assert len(captions) == 2_000
    assert not any(common in text for texts in contrast_batch(states, np.random.default_rng(0)) for text in texts)


@SAMPLERS
def test_captions_are_decided_by_the_generator(sample_states: Sampler) -> None:
    states = sample_states(200, np.random.default_rng(0))
    for batch in (caption_batch, contrast_batch):
        assert batch(states, np.random.default_rng(1)) == batch(states, np.random.default_rng(1))
        assert batch(states, np.random.default_rng(1)) != batch(states, np.random.default_rng(2))


@SAMPLERS
def test_foils_have_the_form_of_their_captions(sample_states: Sampler) -> None:
    states = sample_states(400, np.random.default_rng(0))
    captions, foils = contrast_batch(states, np.random.default_rng(0))
    pairs = [(caption, foil) for caption, foil in zip(captions, foils, strict=True) if caption != foil]
    assert 0.35 < len(pairs) / len(states) < 0.55
    shared = [set(caption.split()) & set(foil.split()) for caption, foil in pairs]
    strangers = [set(caption.split()) & set(foil.split()) for (caption, _), (_, foil) in itertools.pairwise(pairs)]
    assert np.mean([len(words) for words in shared]) > 1.5 * np.mean([len(words) for words in strangers])


@SAMPLERS
def test_no_common_word_belongs_to_one_state_alone(sample_states: Sampler) -> None:
    """The directions and degrees, of which a bag of words would be made, occur with states of every kind."""
    rng = np.random.default_rng(0)
    states = sample_states(600, rng)
    everywhere = {"not", "up", "down", "far", "top" if sample_states is not humanoid.sample_states else "straight"}
    thirds = np.array_split(np.argsort([_height(state) for state in states]), 3)
    for third in thirds:
        said = {word for index in third for word in " ".join(caption_batch([states[index]] * 4, rng)).replace(",", "").split()}
        assert everywhere <= said


@pytest.mark.parametrize(
    ("caption", "present"),
    [
        ("a humanoid robot standing on one leg", "a humanoid robot stands on one leg"),
        ("the robot is kneeling, its hips low", "the robot kneels, its hips low"),
        ("one robot is not sitting", "one robot does not sit"),
        ("the thin pole dangling down", "the thin pole dangles down"),
        ("a cart with a pole pointing up", "a cart with a pole points up"),
        ("a robot with its arms hanging down", "a robot with its arms hanging down"),
        ("the car has climbed a little", "the car has climbed a little"),
    ],
)
def test_the_simple_present_says_what_the_participle_says(caption: str, present: str) -> None:
    assert in_present_tense(caption) == present


@pytest.mark.parametrize(
    ("caption", "foil"),
    [
        ("a pole is upright on the cart", "a pole is not upright on the cart"),
        ("a pole upright", "a pole not upright"),
        ("the robot is not kneeling but standing", "the robot is kneeling but standing"),
        ("the car has reached the flag", "the car has not reached the flag"),
        ("the robot with its legs together", None),
    ],
)
def test_what_denies_a_caption_has_its_words(caption: str, foil: str | None) -> None:
    assert denied(caption) == foil


@SAMPLERS
def test_the_foil_of_a_denial_affirms_and_no_other_foil_denies(sample_states: Sampler) -> None:
    """A denial that is drawn for another state may be true of this one, too."""
    states = sample_states(600, np.random.default_rng(0))
    denials = 0
    for caption, foil in zip(*contrast_batch(states, np.random.default_rng(0)), strict=True):
        if caption == foil:
            continue
        words, other = caption.split(), foil.split()
        if "not" in other and "not" not in words:
            denials += 1
            assert len(other) - len(words) in (1, 2)
            assert len(set(other) - set(words)) <= 3
    assert denials > 20


def _height(state: CaptionedState) -> float:
    """Order states from far below to close to the goal of their environment."""
    match state:
        case CartPoleState():
            return float(np.cos(state.angle))
        case humanoid.HumanoidState():
            return state.posture.hips
        case _:
            return state.position  # type: ignore[attr-defined]


def test_expands_options_names_and_nests() -> None:
    rng = np.random.default_rng(0)
    words = {"who": "{a|the} pole", "side": "left"}
    texts = {expand(rng, "{who} {|is }{{almost |}up|down, {side}}", words) for _ in range(300)}
    assert texts == {
        f"{who}{verb} {where}"
        for who in ("a pole", "the pole")
        for verb in ("", " is")
        for where in ("up", "almost up", "down, left")
    }


BUCKETS = ((1.0, ("one",)), (2.0, ("two",)), (3.0, ("three",)), (4.0, ("four",)))


def test_bucket_is_the_first_whose_limit_is_not_below_and_the_last_for_the_rest() -> None:
    assert [bucket_of(BUCKETS, value) for value in (-5, 1.0, 1.01, 2.0, 7.0)] == [0, 0, 1, 1, 3]


def test_a_far_bucket_is_neither_the_own_nor_a_neighbour() -> None:
    rng = np.random.default_rng(0)
    assert {far_bucket(rng, BUCKETS, 0.5) for _ in range(50)} == {("three",), ("four",)}
    assert {far_bucket(rng, BUCKETS, 2.5) for _ in range(50)} == {("one",)}
