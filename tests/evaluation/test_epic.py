"""EPIC distance: its closed forms, its general definition, and the measures beside it."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import bootstrap, pearsonr, spearmanr
from sklearn.metrics import roc_auc_score

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.evaluation import epic
from vlm_rm_sweeps.evaluation.epic import epic_distance, measure
from vlm_rm_sweeps.evaluation.ground_truth import Truth

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


def test_the_general_definition_ignores_shaping() -> None:
    """A check of the reference itself: potential-based shaping leaves a reward where it is."""
    rng = np.random.default_rng(6)
    reward, potential = rng.normal(size=(5, 2, 5)), rng.normal(size=5)
    shaped = 3 * reward + 0.9 * potential[None, None, :] - potential[:, None, None]
    everything = every_transition(5, 2)
    assert literal_epic(reward, shaped, everything, everything, 0.9) == pytest.approx(0, abs=1e-6)


def yes_no(count: int = 400, seed: int = 0) -> tuple[np.ndarray, Truth]:
    rng = np.random.default_rng(seed)
    labels = (rng.random(count) < 0.3).astype(float)
    return np.stack([labels + rng.normal(scale=scale, size=count) for scale in (0.3, 1.0)], axis=1), Truth("labels", labels)


def test_measures_are_those_of_the_libraries() -> None:
    rewards, truth = yes_no()
    for column, found in enumerate(measure(rewards, truth, ["a", "b"])):
        assert found.epic_distance == pytest.approx(epic_distance(rewards[:, column], truth.values))
        assert found.pearson == pytest.approx(pearsonr(rewards[:, column], truth.values).statistic)
        assert found.spearman == pytest.approx(spearmanr(rewards[:, column], truth.values).statistic)
        assert found.roc_auc == pytest.approx(roc_auc_score(truth.values, rewards[:, column]))
        assert found.states == 400


def test_many_rewards_are_measured_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    rewards, truth = yes_no()
    whole = measure(rewards, truth, ["a", "b"])
    monkeypatch.setattr(epic, "_REWARDS_AT_ONCE", 1)
    for found, expected in zip(measure(rewards, truth, ["a", "b"]), whole, strict=True):
        assert found.to_dict() == pytest.approx(expected.to_dict())


def test_false_positives_by_hand() -> None:
    # 20 positives at 1 .. 20; the highest threshold that keeps 19 of them is 2. Of the 5 negatives, 3 lie at or above 2.
    rewards = np.array([*range(1, 21), 0.5, 1.5, 2.0, 7.0, 30.0])
    truth = Truth("labels", np.array([1.0] * 20 + [0.0] * 5))
    assert measure(rewards[:, None], truth, ["a"])[0].false_positive_rate == pytest.approx(0.6)


def test_bootstrap_interval_is_scipys() -> None:
    rewards, truth = yes_no()
    ours = measure(rewards, truth, ["a", "b"])[0]
    theirs = bootstrap(
        (rewards[:, 0], truth.values),
        lambda first, second: epic_distance(first, second),
        paired=True,
        vectorized=False,
        n_resamples=1_000,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert ours.epic_low < ours.epic_distance < ours.epic_high
    assert (ours.epic_low, ours.epic_high) == pytest.approx((theirs.low, theirs.high), abs=0.01)


def test_more_states_narrow_the_interval() -> None:
    widths = [found.epic_high - found.epic_low for count in (50, 5_000) for found in measure(*yes_no(count), ["a", "b"])[:1]]
    assert widths[1] < widths[0] / 5


def test_a_single_positive_state_still_has_an_interval() -> None:
    """A third of the bootstrap samples lack it, and have no correlation."""
    truth = Truth("labels", np.array([1.0] + [0.0] * 19))
    found = measure(np.random.default_rng(0).normal(size=(20, 1)), truth, ["a"])[0]
    assert 0 <= found.epic_low <= found.epic_high <= 1


def test_states_of_unknown_truth_do_not_count() -> None:
    rewards, truth = yes_no()
    half = Truth("labels", np.where(np.arange(400) < 200, truth.values, np.nan))
    first_half = measure(rewards[:200], Truth("labels", truth.values[:200]), ["a", "b"])
    assert measure(rewards, half, ["a", "b"]) == first_half


def test_a_truth_of_numbers_has_no_false_positives() -> None:
    rewards, _ = yes_no()
    found = measure(rewards, Truth("angle", np.random.default_rng(0).normal(size=400)), ["a", "b"])[0]
    assert math.isnan(found.roc_auc)
    assert math.isnan(found.false_positive_rate)


def test_a_constant_reward_has_no_measures_and_is_named_if_there_is_no_other() -> None:
    rewards, truth = yes_no()
    rewards[:, 1] = 0.25
    varying, constant = measure(rewards, truth, ["tiny at alpha 0", "tiny at alpha 1"])
    assert varying == measure(rewards[:, :1], truth, ["tiny at alpha 0"])[0]
    assert constant.states == 400
    assert math.isnan(constant.epic_distance)
    assert math.isnan(constant.roc_auc)
    with pytest.raises(UserError, match="tiny at alpha 1 gives all 400 states the same reward"):
        measure(rewards[:, 1:], truth, ["tiny at alpha 1"])


def test_states_of_an_episode_are_drawn_together() -> None:
    """20 episodes of 50 states each that are the same are no more than 20 states."""
    rewards, truth = yes_no(20, seed=3)
    alone = measure(rewards, truth, ["a", "b"])[0]
    repeated, episodes = np.repeat(rewards, 50, axis=0), np.repeat(np.arange(20), 50)
    together = measure(repeated, Truth("labels", np.repeat(truth.values, 50)), ["a", "b"], groups=episodes)[0]
    assert (together.epic_low, together.epic_high) == pytest.approx((alone.epic_low, alone.epic_high))
    as_if_alone = measure(repeated, Truth("labels", np.repeat(truth.values, 50)), ["a", "b"])[0]
    assert as_if_alone.epic_high - as_if_alone.epic_low < (alone.epic_high - alone.epic_low) / 3
    one = measure(rewards, truth, ["a", "b"], groups=np.zeros(20))[0]
    assert one.epic_distance == alone.epic_distance
    assert math.isnan(one.epic_low)
    assert math.isnan(one.epic_high)
