"""All measures of rewards together: their values, intervals and groups, and why they may be undefined."""

import math

import numpy as np
import pytest
from scipy.stats import bootstrap, pearsonr, spearmanr
from sklearn.metrics import roc_auc_score

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.evaluation import measures
from vlm_rm_sweeps.evaluation.bootstrap import drawn_counts
from vlm_rm_sweeps.evaluation.epic import epic_distance
from vlm_rm_sweeps.evaluation.ground_truth import Truth
from vlm_rm_sweeps.evaluation.measures import MEASURED, Measures, measure, why_undefined
from vlm_rm_sweeps.evaluation.trajectories import Trajectories
from vlm_rm_sweeps.metrics import HEADINGS, INTERVALS, METRICS


def assert_same(found: Measures, expected: Measures) -> None:
    for name in ("states", *MEASURED):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), nan_ok=True, abs=1e-6), name
    assert found.undefined == expected.undefined


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
    monkeypatch.setattr(measures, "_REWARDS_AT_ONCE", 1)
    for found, expected in zip(measure(rewards, truth, ["a", "b"]), whole, strict=True):
        assert_same(found, expected)


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


def test_the_interval_of_epic_is_that_of_its_samples_one_by_one() -> None:
    rewards, truth = yes_no(60)
    episodes = np.arange(60) // 4
    (found, _) = measure(rewards, truth, ["a", "b"], seed=3, groups=episodes)
    samples = []
    for counts in drawn_counts(episodes, seed=3).astype(int):
        drawn = np.repeat(np.arange(60), counts)
        samples.append(epic_distance(rewards[drawn, 0], truth.values[drawn]))
    assert (found.epic_low, found.epic_high) == pytest.approx(tuple(np.quantile(samples, (0.025, 0.975))), abs=1e-9)


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
    for found, expected in zip(measure(rewards, half, ["a", "b"]), first_half, strict=True):
        assert_same(found, expected)


def test_a_truth_of_numbers_has_no_false_positives() -> None:
    rewards, _ = yes_no()
    found = measure(rewards, Truth("angle", np.random.default_rng(0).normal(size=400)), ["a", "b"])[0]
    for name in ("roc_auc", "roc_auc_low", "roc_auc_high", "false_positive_rate", "false_positive_rate_low"):
        assert math.isnan(getattr(found, name))
    assert found.undefined.startswith("roc_auc, false_positive_rate: the truth is not yes or no; ")


def test_a_constant_reward_has_no_measures_and_is_named_if_there_is_no_other() -> None:
    rewards, truth = yes_no()
    rewards[:, 1] = 0.25
    varying, constant = measure(rewards, truth, ["tiny at alpha 0", "tiny at alpha 1"])
    assert_same(varying, measure(rewards[:, :1], truth, ["tiny at alpha 0"])[0])
    assert constant.states == 400
    assert math.isnan(constant.epic_distance)
    assert math.isnan(constant.roc_auc)
    assert constant.undefined == "all: the reward is the same for all states"
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


def test_every_measure_is_a_metric_with_its_interval() -> None:
    named = {*HEADINGS, *(end for ends in INTERVALS.values() for end in ends)}
    assert set(MEASURED) == named
    assert named <= METRICS.keys()


def test_along_episodes_of_policies_every_measure_has_a_value_and_an_interval() -> None:
    rng = np.random.default_rng(0)
    episodes, steps = np.repeat(np.arange(12), 10), np.tile(np.arange(10), 12)
    in_goal = (steps >= 4).astype(float) * (episodes % 3 > 0)
    trajectories = Trajectories(episodes, steps, policies=episodes // 3, in_goal=in_goal)
    truth = Truth("labels", ((steps + 3 * (episodes // 3)) > 9).astype(float))
    rewards = truth.values + steps / 10 + rng.normal(scale=0.3, size=120)
    (found,) = measure(rewards[:, None], truth, ["a"], groups=episodes, trajectories=trajectories)
    assert found.undefined == ""
    for name, (low, high) in INTERVALS.items():
        assert getattr(found, low) <= getattr(found, name) <= getattr(found, high), name
    assert found.kendall_tau > 0.5
    assert found.value_order_correlation > 0.7


def test_a_truth_of_one_class_leaves_what_needs_no_truth() -> None:
    """Reasons are known before anything is scored."""
    episodes, steps = np.repeat([0, 1], 10), np.tile(np.arange(10), 2)
    trajectories = Trajectories(episodes, steps, policies=episodes, in_goal=np.ones(20))
    truth = Truth("labels", np.ones(20))
    reasons = why_undefined(truth, trajectories)
    assert set(reasons) == set(HEADINGS) - {"value_order_correlation"}
    assert set(reasons.values()) == {"the truth is the same for all states"}
    (found,) = measure(steps[:, None] + 0.0, truth, ["a"], groups=episodes, trajectories=trajectories)
    assert found.value_order_correlation == pytest.approx(1)
    assert all(math.isnan(getattr(found, name)) for name in reasons)
    assert found.undefined.endswith(", kendall_tau: the truth is the same for all states")


def test_a_reward_without_an_order_says_so() -> None:
    """It is constant along every episode, and differs between them."""
    episodes, steps = np.repeat([0, 1], 10), np.tile(np.arange(10), 2)
    trajectories = Trajectories(episodes, steps, policies=episodes, in_goal=np.ones(20))
    truth = Truth("labels", (episodes + steps > 4).astype(float))
    along, across = measure(np.stack([steps, episodes], axis=1), truth, ["a", "b"], groups=episodes, trajectories=trajectories)
    assert along.undefined == "kendall_tau: the reward puts all policies at one rank"
    assert across.undefined == "value_order_correlation: the reward is constant along every successful episode"
    assert across.kendall_tau == pytest.approx(1)
