"""Captions are never a task's own prompt, and depend on the random generator alone."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from vlm_rm_sweeps.pretraining import captions as captions_module
from vlm_rm_sweeps.pretraining import cart_pole, mountain_car
from vlm_rm_sweeps.pretraining.captions import HELD_OUT_CAPTIONS, CaptionedState, bucket, caption_batch
from vlm_rm_sweeps.pretraining.cart_pole import CartPoleState
from vlm_rm_sweeps.tasks.registry import BUILT_IN_TASKS, find_task

Sampler = Callable[[int, np.random.Generator], Sequence[CaptionedState]]
SAMPLERS = pytest.mark.parametrize("sample_states", [cart_pole.sample_states, mountain_car.sample_states])


@SAMPLERS
def test_no_caption_is_a_tasks_prompt(sample_states: Sampler) -> None:
    rng = np.random.default_rng(0)
    states = sample_states(4_000, rng)
    captions = {" ".join(caption.lower().split()) for _ in range(5) for caption in caption_batch(states, rng)}
    assert len(captions) > 300
    for task in map(find_task, BUILT_IN_TASKS):
        assert {task.goal_prompt, task.baseline_prompt} <= HELD_OUT_CAPTIONS
        assert task.goal_prompt.lower() not in captions
        assert task.baseline_prompt.lower() not in captions


def test_held_out_caption_is_drawn_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    common, states = "a cart pole", [CartPoleState(0.0, 0.0)] * 2_000
    assert common in caption_batch(states, np.random.default_rng(0))
    monkeypatch.setattr(captions_module, "HELD_OUT_CAPTIONS", frozenset({common}))
    captions = caption_batch(states, np.random.default_rng(0))
    assert common not in captions
    assert len(captions) == 2_000


@SAMPLERS
def test_captions_are_decided_by_the_generator(sample_states: Sampler) -> None:
    states = sample_states(200, np.random.default_rng(0))
    assert caption_batch(states, np.random.default_rng(1)) == caption_batch(states, np.random.default_rng(1))
    assert caption_batch(states, np.random.default_rng(1)) != caption_batch(states, np.random.default_rng(2))


def test_bucket_is_the_first_whose_limit_is_not_below_and_the_last_for_the_rest() -> None:
    buckets = ((1.0, ("one",)), (2.0, ("two",)))
    assert [bucket(buckets, value)[0] for value in (-5, 1.0, 1.01, 2.0, 7.0)] == ["one", "one", "two", "two", "two"]
