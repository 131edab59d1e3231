"""How trials go that share a machine, on paper."""

import pytest

from vlm_rm_sweeps.sweeping.execution.fit_schedule import Part, Places, Work, play

MODEL = "embedded/tiny"


def places(trials: int = 2, recorders: int = 1, servers: int = 1, cores: float = 100.0) -> Places:
    return Places(trials, recorders, servers, on_cpu=True, free_cores=lambda processes: min(processes, cores))


def part(units: float, seconds: float = 1.0) -> Part:
    return Part(units, Work(seconds, seconds))


def encoded(units: float, seconds: float, encoding: float) -> Part:
    return Part(units, Work(seconds, seconds), Work(encoding, encoding), MODEL)


def test_the_last_trial_runs_alone_at_its_own_speed() -> None:
    found = play([[part(10)], [part(10), part(20)]], None, places(cores=1.0))
    # Each has half a core until the first one ends after 20 s; the second has the core for itself for 20 s.
    assert found.trials_s == pytest.approx(40)
    assert found.seconds == found.trials_s
    found = play([[part(10)], [part(10), part(20)]], None, places(cores=2.0))
    assert found.trials_s == pytest.approx(30)


def test_trials_start_in_order_when_there_is_a_place() -> None:
    assert play([[part(4)], [part(1)], [part(2)]], None, places()).trials_s == pytest.approx(4)
    assert play([[part(2)], [part(1)], [part(4)]], None, places()).trials_s == pytest.approx(5)
    assert play([[part(1)]] * 6, None, places(trials=3)).trials_s == pytest.approx(2)


def test_several_processes_of_a_trial_work_side_by_side() -> None:
    assert play([[Part(10, Work(1, 1), processes=5)]], None, places()).trials_s == pytest.approx(2)


def test_videos_are_recorded_beside_the_trials_one_after_the_other() -> None:
    found = play([[part(1)]] * 4, part(1, 3.0), places())
    assert found.trials_s == pytest.approx(2)
    assert found.seconds == pytest.approx(1 + 4 * 3)
    assert play([[part(1)]] * 4, part(1, 3.0), places(recorders=4)).seconds == pytest.approx(2 + 3)


def test_a_video_takes_its_part_of_the_cores() -> None:
    alone, beside = (play([[part(4)]] * 2, video, places(trials=1, cores=1.0)) for video in (None, part(1, 2.0)))
    assert alone.trials_s == pytest.approx(8)
    assert beside.trials_s == pytest.approx(10)


def test_a_server_bounds_the_trials_that_it_scores_frames_for() -> None:
    trials = [[encoded(10, 1.0, 2.0)], [encoded(10, 1.0, 2.0)]]
    assert play(trials, None, places()).bound_by == "servers"
    assert play(trials, None, places()).trials_s == pytest.approx(40)
    assert play(trials, None, places(servers=4)).trials_s == pytest.approx(10)
    # The one that needs no server is as fast as ever.
    mixed = play([[encoded(10, 1.0, 2.0)], [part(10)], [part(5)]], None, places())
    assert mixed.trials_s == pytest.approx(20)


def test_all_share_the_cores_when_they_want_more_than_there_are() -> None:
    # Two trials that take 1 CPU s a step, and 1 more in their server, on one core.
    found = play([[encoded(10, 1.0, 1.0)], [encoded(10, 1.0, 1.0)]], None, places(servers=2, cores=1.0))
    assert found.bound_by == "cores"
    assert found.trials_s == pytest.approx(40)


def test_of_several_limits_the_one_that_held_longest_is_named() -> None:
    assert play([[part(1)], [part(100)]], None, places(cores=1.0)).bound_by == "trials"
    assert play([[part(100)], [part(101)]], None, places(cores=1.0)).bound_by == "cores"
