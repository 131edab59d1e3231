"""Drift: which states are unlike those that a model was trained on."""

import numpy as np
import pytest

from vlm_rm_sweeps.rewards.known_states import KnownStates, drift_in_training, drift_remark

RNG = np.random.default_rng(0)
MIXING = RNG.normal(size=(6, 6))


def drawn(count: int, shift: float = 0.0) -> np.ndarray:
    return RNG.normal(size=(count, 6)) @ MIXING + 3.0 + shift


def test_distances_are_those_of_mahalanobis() -> None:
    training = drawn(20_000)
    states = drawn(50)
    centred = states - training.mean(axis=0)
    expected = np.sqrt(np.einsum("nd,de,ne->n", centred, np.linalg.inv(np.cov(training.T)), centred))
    # With so many states, hardly anything is left of the shrinkage.
    np.testing.assert_allclose(KnownStates.of(training).distances(states), expected, rtol=0.02)


def test_one_in_a_hundred_training_states_is_beyond_the_limit_and_so_it_is_for_others_like_them() -> None:
    training = drawn(5_000)
    known = KnownStates.of(training)
    assert known.drifted(training).mean() == pytest.approx(0.01, abs=0.0005)
    assert known.drifted(drawn(5_000)).mean() == pytest.approx(0.01, abs=0.005)
    assert known.drifted(drawn(200, shift=30.0)).mean() == 1


def test_fewer_states_than_features_give_statistics_too() -> None:
    known = KnownStates.of(RNG.normal(size=(20, 64)))
    assert np.isfinite(known.distances(RNG.normal(size=(5, 64)))).all()


def test_a_state_is_as_far_whatever_it_is_measured_with() -> None:
    known, states = KnownStates.of(drawn(500)), drawn(33)
    alone = np.concatenate([known.distances(state[None]) for state in states])
    np.testing.assert_array_equal(known.distances(states), alone)


def test_no_frames_have_no_distances() -> None:
    assert KnownStates.of(drawn(100)).drifted(np.zeros((0, 6))).shape == (0,)


def test_more_than_five_percent_are_remarked_on() -> None:
    assert drift_remark("distilled/s", {"drift": 0.05}) == []
    assert drift_remark("distilled/s", {}) == []
    (remark,) = drift_remark("distilled/s", {"drift": 0.31})
    assert remark.startswith(
        "distilled/s: 31 % of these states are unlike those that it was trained on (of such, 1 % would be)"
    )


def test_the_training_says_so_beyond_the_same_share() -> None:
    assert drift_in_training(0.05, 1_000) is None
    said = drift_in_training(0.31, 1_000)
    assert said is not None
    for part in (
        "drift at step 1,000: 31 % of its latest frames",
        "let its teacher judge",
        "vlm-rm states rollouts",
        "--states",
    ):
        assert part in said
