"""STARC distance: its closed form against the definition, term by term, over the transitions of a small MDP."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlm_rm_sweeps.evaluation.bootstrap import drawn_counts
from vlm_rm_sweeps.evaluation.epic import epic_distance
from vlm_rm_sweeps.evaluation.starc import starc_distances

RNG = np.random.default_rng(0)


def starc(rewards: np.ndarray, truth: np.ndarray) -> float:
    return float(starc_distances(np.ones((1, len(truth))), rewards[:, None], truth)[0, 0])


def literal_starc(
    first: np.ndarray, second: np.ndarray, chances: np.ndarray, coverage: np.ndarray, gamma: float, order: int
) -> float:
    """STARC as Skalse et al. (2024) write it, for rewards R[s, t] of a transition from s to t, without its expectation over t.

    `chances`: P[s, t] of the next state under the policy whose value is taken; `coverage`: weights of the states in the norm,
    in which states of a transition are independent; `order`: 1 or 2, of the norm.
    """
    states = range(len(coverage))

    def standardised(reward: np.ndarray) -> list[list[float]]:
        value = [0.0 for _ in states]
        for _ in range(2_000):
            value = [sum(chances[s, t] * (reward[s, t] + gamma * value[t]) for t in states) for s in states]
        canonical = [[reward[s, t] - value[s] + gamma * value[t] for t in states] for s in states]
        size = norm(canonical)
        return [[each / size for each in row] for row in canonical]

    def norm(values: list[list[float]]) -> float:
        return sum(coverage[s] * coverage[t] * abs(values[s][t]) ** order for s in states for t in states) ** (1 / order)

    one, other = standardised(first), standardised(second)
    return norm([[one[s][t] - other[s][t] for t in states] for s in states]) / 2


def of_next_state(values: np.ndarray) -> np.ndarray:
    return np.broadcast_to(values, (len(values), len(values)))


@pytest.mark.parametrize("gamma", [0.0, 0.9])
def test_closed_form_is_the_definition_if_next_states_are_drawn_from_the_data_set(gamma: float) -> None:
    first, second = RNG.normal(size=4), RNG.normal(size=4)
    counts = np.array([1, 4, 2, 3])
    coverage = counts / counts.sum()
    anywhere = np.tile(coverage, (4, 1))
    literal = literal_starc(of_next_state(first), of_next_state(second), anywhere, coverage, gamma, order=1)
    assert starc(np.repeat(first, counts), np.repeat(second, counts)) == pytest.approx(literal, abs=1e-5)
    weighted = starc_distances(coverage[None], first[:, None], second)[0, 0]
    assert weighted == pytest.approx(literal, abs=1e-5)


def test_with_the_l2_norm_it_would_be_epic_and_with_l1_it_is_not() -> None:
    first, second = RNG.normal(size=4), RNG.normal(size=4)
    coverage = np.full(4, 0.25)
    anywhere = np.tile(coverage, (4, 1))
    literal = literal_starc(of_next_state(first), of_next_state(second), anywhere, coverage, 0.9, order=2)
    assert epic_distance(first, second) == pytest.approx(literal, abs=1e-6)
    assert starc(first, second) != pytest.approx(literal, abs=1e-3)


def test_with_dynamics_it_would_differ_from_both() -> None:
    """What a data set of states cannot tell: here most states are left for one other state alone."""
    first, second = RNG.normal(size=4), RNG.normal(size=4)
    coverage = np.full(4, 0.25)
    round_trip = 0.9 * np.roll(np.eye(4), 1, axis=1) + 0.1 * coverage
    for order, closed_form in ((1, starc), (2, epic_distance)):
        literal = literal_starc(of_next_state(first), of_next_state(second), round_trip, coverage, 0.9, order)
        assert closed_form(first, second) != pytest.approx(literal, abs=0.01)


def test_the_definition_ignores_shaping() -> None:
    """A check of the reference itself: potential-based shaping leaves a reward where it is."""
    reward, potential = RNG.normal(size=(4, 4)), RNG.normal(size=4)
    shaped = 3 * reward + 0.9 * potential[None, :] - potential[:, None]
    chances = RNG.dirichlet(np.ones(4), size=4)
    assert literal_starc(reward, shaped, chances, np.full(4, 0.25), 0.9, order=1) == pytest.approx(0, abs=1e-6)


@settings(deadline=None, max_examples=20)
@given(st.floats(0.01, 100), st.floats(-100, 100))
def test_scale_and_shift_do_not_matter(scale: float, shift: float) -> None:
    truth = np.random.default_rng(1).normal(size=300)
    assert starc(scale * truth + shift, truth) == pytest.approx(0, abs=1e-4)
    assert starc(-scale * truth + shift, truth) == pytest.approx(1, abs=1e-4)


def test_every_bootstrap_sample_is_the_distance_of_its_states() -> None:
    rewards, truth = RNG.normal(size=(15, 3)), RNG.normal(size=15)
    counts = drawn_counts(np.arange(15))[:200]
    found = starc_distances(counts, rewards, truth)
    for sample, drawn in enumerate(counts.astype(int)):
        for column in range(3):
            alone = starc(np.repeat(rewards[:, column], drawn), np.repeat(truth, drawn))
            assert found[sample, column] == pytest.approx(alone, abs=1e-5)


def test_a_sample_without_variation_has_no_distance() -> None:
    truth = np.array([1.0, 0.0, 0.0, 0.0])
    weights = np.array([[0.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]])
    found = starc_distances(weights, RNG.normal(size=(4, 1)), truth)[:, 0]
    assert math.isnan(found[0])
    assert 0 <= found[1] <= 1
    assert starc_distances(np.empty((0, 4)), np.ones((4, 2)), truth).shape == (0, 2)
