"""Actions before learning starts: random, held, and only then."""

from typing import Any

import numpy as np
import pytest
from ray.rllib.core.columns import Columns

from vlm_rm_sweeps.training.connectors.random_actions import HeldRandomActions


def acted(piece: HeldRandomActions, episodes: list[str], explore: bool = True) -> dict[str, float]:
    """What is done in each episode where the policy would do 9."""
    batch: dict[str, Any] = {Columns.ACTIONS: {(episode,): [np.array([9.0], np.float32)] for episode in episodes}}
    piece(rl_module=None, batch=batch, episodes=[], explore=explore)
    return {episode: float(batch[Columns.ACTIONS][episode,][0][0]) for episode in episodes}


def test_actions_are_held_for_each_episode_and_then_drawn_anew() -> None:
    piece = HeldRandomActions(steps=100, hold=3, seed=0)
    done = [acted(piece, ["a", "b"]) for _ in range(6)]
    for episode in "ab":
        actions = [step[episode] for step in done]
        assert actions[0] == actions[1] == actions[2] != actions[3]
        assert actions[3] == actions[4] == actions[5]
    assert done[0]["a"] != done[0]["b"]
    assert all(-1 <= step[episode] <= 1 for step in done for episode in "ab")


def test_a_new_episode_starts_with_an_action_of_its_own() -> None:
    piece = HeldRandomActions(steps=100, hold=10, seed=0)
    first = acted(piece, ["a"])["a"]
    assert acted(piece, ["next"])["next"] != first


@pytest.mark.parametrize(("explore", "steps"), [(True, 0), (False, 100)])
def test_the_policy_acts_after_the_warm_up_and_in_evaluations(explore: bool, steps: int) -> None:
    assert acted(HeldRandomActions(steps=steps, hold=1, seed=0), ["a"], explore) == {"a": 9.0}


def test_the_warm_up_counts_the_steps_of_all_sub_environments() -> None:
    piece = HeldRandomActions(steps=4, hold=1, seed=0)
    warm = [acted(piece, ["a", "b"])["a"] != 9.0 for _ in range(4)]
    assert warm == [True, True, False, False]


def test_continues_from_its_state_as_if_never_stopped() -> None:
    piece = HeldRandomActions(steps=100, hold=3, seed=0)
    for _ in range(4):
        acted(piece, ["a", "b"])
    other = HeldRandomActions(steps=100, hold=3, seed=1)
    other.set_state(piece.get_state())
    assert [acted(piece, ["a", "b"]) for _ in range(5)] == [acted(other, ["a", "b"]) for _ in range(5)]
