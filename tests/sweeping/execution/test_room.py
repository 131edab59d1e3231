"""Trials that wait for room that others use are said once."""

import pytest
import ray

from vlm_rm_sweeps.sweeping.execution import room
from vlm_rm_sweeps.sweeping.execution.room import RoomCallback


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(ray, "available_resources", lambda: {"CPU": 1.0})
    monkeypatch.setattr(room, "trials_that_fit", lambda at_most, *demand: min(at_most, 4))
    return []


@pytest.fixture
def callback(said: list[str]) -> RoomCallback:
    return RoomCallback([], 2.0, 0.0, 3, lambda: 6, said.append)


def test_it_is_said_after_a_while_and_again_when_it_changes(callback: RoomCallback, said: list[str]) -> None:
    for now in range(0, 100, 5):
        callback.look(0, 6, now)
    needs = "each needs 2 CPUs and 0 GPUs, and 1 CPU for each of 3 env runners; free on the cluster: 1 CPUs and 0 GPUs"
    assert said == [f"6 trials wait for room: {needs}"]
    for now in range(100, 200, 5):
        callback.look(1, 5, now)
    assert said[1:] == [f"5 trials wait for room while 1 runs: {needs}"]
    for now in range(200, 300, 5):
        callback.look(1, 5, now)
    assert len(said) == 2


def test_trials_that_wait_for_their_turn_are_not_said(callback: RoomCallback, said: list[str]) -> None:
    for now in range(0, 100, 5):
        callback.look(4, 16, now)
        callback.look(2, 0, now)
    assert said == []


def test_a_new_wait_is_said_anew(callback: RoomCallback, said: list[str]) -> None:
    for start in (0, 100):
        callback.look(0, 6, start)
        callback.look(0, 6, start + 40)
        callback.look(4, 2, start + 45)
    assert len(said) == 2
