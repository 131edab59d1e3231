"""EPIC distance: its closed forms and its general definition."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlm_rm_sweeps.evaluation.bootstrap import drawn_counts
from vlm_rm_sweeps.evaluation.epic import epic_distance, epic_distances

TRUTH = np.random.default_rng(0).normal(size=500)


@settings(deadline=None)
@given(st.floats(0.01, 100), st.floats(-100, 100))
def test_scale_and_shift_do_not_matter(scale: float, shift: float) -> None:
    assert epic_distance(scale * TRUTH + shift, TRUTH) == pytest.approx(0, abs=1e-6)
    assert epic_distance(TRUTH, scale * TRUTH + shift) == pytest.approx(0, abs=1e-6)
    other = np.random.default_rng(1).normal(size=500) + TRUTH
    assert epic_distance(scale * other + shift, TRUTH) == pytest.approx(epic_distance(other, TRUTH), abs=1e-6)


@settings(deadline=None)
@given(st.floats(0.01, 100), st.floats(-100, 100))
def test_opposite_rewards_are_1_apart(scale: float, shift: float) -> None:
    assert epic_distance(-scale * TRUTH + shift, TRUTH) == pytest.approx(1)


def test_uncorrelated_rewards_are_0_707_apart() -> None:
    assert epic_distance(np.array([1.0, -1.0, 1.0, -1.0]), np.array([1.0, 1.0, -1.0, -1.0])) == pytest.approx(math.sqrt(0.5))
    noise = np.random.default_rng(1).normal(size=100_000)
    truth = np.random.default_rng(2).normal(size=100_000)
    assert epic_distance(noise, truth) == pytest.approx(0.7071, abs=0.005)


def test_distance_by_hand() -> None:
    # Correlation of (0, 1, 2) and (0, 2, 1) is 1/2, so the distance is sqrt((1 - 1/2) / 2).
    assert epic_distance(np.array([0, 1, 2]), np.array([0, 2, 1])) == pytest.approx(0.5)


def test_distance_is_symmetric_and_takes_float32() -> None:
    other = TRUTH + np.random.default_rng(1).normal(size=500)
    assert epic_distance(other, TRUTH) == pytest.approx(epic_distance(TRUTH, other))
    assert epic_distance(other.astype(np.float32), TRUTH) == pytest.approx(epic_distance(other, TRUTH), abs=1e-5)
    assert 0 < epic_distance(other, TRUTH) < 0.7


@pytest.mark.parametrize(("rewards", "truth"), [(np.ones(5), np.arange(5)), (np.arange(5), np.zeros(5))])
def test_constant_rewards_are_refused(rewards: np.ndarray, truth: np.ndarray) -> None:
    with pytest.raises(ValueError, match="vary over the states"):
        epic_distance(rewards, truth)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_rewards_that_are_not_finite_are_refused(bad: float) -> None:
    broken = np.array([0.0, 1.0, bad])
    for pair in ((broken, np.arange(3.0)), (np.arange(3.0), broken)):
        with pytest.raises(ValueError, match="must be finite"):
            epic_distance(*pair)


def literal_epic(first: np.ndarray, second: np.ndarray, transitions: np.ndarray, sampled: np.ndarray, gamma: float) -> float:
    """EPIC as Gleave et al. (2021, definitions 4.1 and 4.7) write it, for rewards R[s, a, s'], term by term.

    `transitions`: (T, 3) rows s, a, s' at which the canonical rewards are compared; `sampled`: (K, 3) rows S, A, S' of their
    expectations.
    """

    def canonical(reward: np.ndarray, s: int, a: int, t: int) -> float:
        total = 0.0
        for sampled_s, sampled_a, sampled_t in sampled:
            total += (
                gamma * reward[t, sampled_a, sampled_t]
                - reward[s, sampled_a, sampled_t]
                - gamma * reward[sampled_s, sampled_a, sampled_t]
            )
        return float(reward[s, a, t] + total / len(sampled))

    shaped = [[canonical(reward, *row) for row in transitions] for reward in (first, second)]
    deviations = [[value - sum(values) / len(values) for value in values] for values in shaped]
    covariance = sum(a * b for a, b in zip(*deviations, strict=True))
    norms = [math.sqrt(sum(value**2 for value in values)) for values in deviations]
    return math.sqrt(max(0.0, 1 - covariance / (norms[0] * norms[1]))) / math.sqrt(2)


def of_next_state(values: np.ndarray, actions: int) -> np.ndarray:
    """R(s, a, s') that depends on the state reached alone, as the reward of a frame does."""
    return np.broadcast_to(values, (len(values), actions, len(values)))


def every_transition(states: int, actions: int) -> np.ndarray:
    return np.array([(s, a, t) for s in range(states) for a in range(actions) for t in range(states)])


@pytest.mark.parametrize("gamma", [0.0, 0.5, 0.99])
def test_distance_is_that_of_the_general_definition_over_all_transitions(gamma: float) -> None:
    rng = np.random.default_rng(4)
    first, second = rng.normal(size=7), rng.normal(size=7)
    everything = every_transition(7, 2)
    literal = literal_epic(of_next_state(first, 2), of_next_state(second, 2), everything, everything, gamma)
    assert epic_distance(first, second) == pytest.approx(literal, abs=1e-9)


def test_distance_is_that_of_the_general_definition_over_sampled_transitions() -> None:
    rng = np.random.default_rng(5)
    first = rng.normal(size=40)
    second = first + rng.normal(size=40)
    transitions = np.stack([rng.integers(40, size=4_000), rng.integers(2, size=4_000), rng.integers(40, size=4_000)], axis=1)
    literal = literal_epic(of_next_state(first, 2), of_next_state(second, 2), transitions[:1_500], transitions[-200:], 0.9)
    assert epic_distance(first, second) == pytest.approx(literal, abs=0.03)
    reached = transitions[:1_500, 2]
    assert epic_distance(first[reached], second[reached]) == pytest.approx(literal, abs=1e-9)


def test_every_bootstrap_sample_is_the_general_definition_over_its_states() -> None:
    rng = np.random.default_rng(7)
    rewards, truth = rng.normal(size=(6, 2)), rng.normal(size=6)
    counts = drawn_counts(np.arange(6))[:20]
    found = epic_distances(counts, rewards, truth)
    everything = every_transition(6, 1)
    for sample, drawn in enumerate(counts.astype(int)):
        for column in range(2):
            first, second = (of_next_state(np.repeat(values, drawn), 1) for values in (rewards[:, column], truth))
            literal = literal_epic(first, second, everything, everything, 0.9)
            assert found[sample, column] == pytest.approx(literal, abs=1e-9)


def test_a_sample_without_variation_has_no_distance() -> None:
    truth = np.array([1.0, 0.0, 0.0, 0.0])
    found = epic_distances(np.array([[0.0, 1, 1, 1], [1, 1, 1, 1]]), np.arange(4.0)[:, None], truth)[:, 0]
    assert math.isnan(found[0])
    assert found[1] == pytest.approx(epic_distance(np.arange(4.0), truth))


def test_the_general_definition_ignores_shaping() -> None:
    """A check of the reference itself: potential-based shaping leaves a reward where it is."""
    rng = np.random.default_rng(6)
    reward, potential = rng.normal(size=(5, 2, 5)), rng.normal(size=5)
    shaped = 3 * reward + 0.9 * potential[None, None, :] - potential[:, None, None]
    everything = every_transition(5, 2)
    assert literal_epic(reward, shaped, everything, everything, 0.9) == pytest.approx(0, abs=1e-6)
