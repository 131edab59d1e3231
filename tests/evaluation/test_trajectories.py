"""Value-order correlation and Kendall's tau of policies, against SciPy in loops; and when they are undefined."""

import math

import numpy as np
import pytest
from scipy.stats import kendalltau, spearmanr

from vlm_rm_sweeps.evaluation.bootstrap import drawn_counts
from vlm_rm_sweeps.evaluation.trajectories import (
    NO_EPISODE,
    Trajectories,
    kendall_tau,
    tau_b,
    value_order_correlation,
    why_no_ranking,
    why_no_value_order,
)

EPISODES, STEPS = 12, 8


def trajectories(successful: float = 0.5, policies: int = 4) -> Trajectories:
    """Episodes of several policies, whose states are in no order, beside two states of no episode."""
    episode, step = np.repeat(np.arange(EPISODES), STEPS), np.tile(np.arange(STEPS), EPISODES)
    in_goal = (episode < successful * EPISODES).astype(float)
    mixed = np.random.default_rng(1).permutation(len(episode))
    alone = np.full(2, NO_EPISODE)
    return Trajectories(
        episodes=np.concatenate([episode[mixed], alone]),
        steps=np.concatenate([step[mixed], [0, 0]]),
        policies=np.concatenate([(episode % policies)[mixed], alone]),
        in_goal=np.concatenate([in_goal[mixed], [1, 1]]),
    )


def rewards_of(visited: Trajectories, noise: float = 3) -> np.ndarray:
    return visited.steps + np.random.default_rng(2).normal(scale=noise, size=len(visited.steps))


def test_runs_are_the_consecutive_steps_of_an_episode() -> None:
    found = Trajectories(
        episodes=np.array([1, 0, 1, 1, 0, 1, NO_EPISODE, NO_EPISODE]),
        steps=np.array([3, 20, 2, 6, 10, 7, 1, 2]),
        policies=np.zeros(8, int),
        in_goal=np.zeros(8),
    ).runs()
    assert [run.tolist() for run in found] == [[2, 0], [3, 5]]


def test_value_order_is_the_mean_of_spearmans_over_successful_episodes() -> None:
    visited = trajectories()
    rewards = np.stack([rewards_of(visited), -rewards_of(visited, 1)], axis=1)
    found = value_order_correlation(rewards, visited)
    for column in range(2):
        each = [
            spearmanr(rewards[visited.episodes == episode, column], visited.steps[visited.episodes == episode]).statistic
            for episode in range(EPISODES // 2)
        ]
        assert found.value[column] == pytest.approx(np.mean(each))
        drawn = [np.mean(np.repeat(each, counts)) for counts in drawn_counts(np.arange(len(each))).astype(int)]
        assert (found.low[column], found.high[column]) == pytest.approx(tuple(np.quantile(drawn, (0.025, 0.975))))
    assert found.value[0] > 0 > found.value[1]


def test_an_episode_along_which_the_reward_is_constant_is_left_out() -> None:
    visited = trajectories()
    rewards = np.where(visited.episodes == 0, 0.5, rewards_of(visited, 0))
    assert value_order_correlation(rewards[:, None], visited).value[0] == pytest.approx(1)
    constant = value_order_correlation(visited.episodes[:, None] + 0.0, visited)
    assert math.isnan(constant.value[0])


def test_one_successful_episode_has_a_value_and_no_interval() -> None:
    visited = trajectories(successful=1 / EPISODES)
    found = value_order_correlation(rewards_of(visited)[:, None], visited)
    assert -1 <= found.value[0] <= 1
    assert math.isnan(found.low[0])
    assert math.isnan(found.high[0])


def test_reasons_name_what_is_missing() -> None:
    visited = trajectories()
    truth = rewards_of(visited)
    assert why_no_value_order(visited) is None
    assert why_no_ranking(truth, visited) is None
    alone = visited.among(visited.episodes == NO_EPISODE)
    for none in (None, alone):
        assert why_no_value_order(none) == why_no_ranking(truth[-2:], none) == "the states are of no episodes"
    assert why_no_value_order(trajectories(successful=0)) == "none of the 12 episodes succeeded"
    unknown = Trajectories(visited.episodes, visited.steps, visited.policies, np.full(len(truth), np.nan))
    assert why_no_value_order(unknown) == "whether the episodes succeeded is unknown"
    assert why_no_value_order(visited.among(visited.steps == 3)) == "no successful episode has two states"
    assert why_no_ranking(truth, trajectories(policies=1)) == "the states are of a single policy"
    assert why_no_ranking(np.full(len(truth), 0.1), visited) == "the truth puts all policies at one rank"


def literal_tau(rewards: np.ndarray, truth: np.ndarray, visited: Trajectories, counts: np.ndarray) -> float:
    """SciPy's tau of the policies' means over episodes, each as often as it was drawn."""
    means = []
    for policy in range(visited.policies.max() + 1):
        drawn = [
            (rewards[visited.episodes == episode].mean(), truth[visited.episodes == episode].mean())
            for episode in range(EPISODES)
            for _ in range(counts[episode])
            if episode % (visited.policies.max() + 1) == policy
        ]
        if drawn:
            means.append(np.round(np.mean(drawn, axis=0), 9))
    return float(kendalltau(*np.transpose(means)).statistic) if len(means) > 1 else math.nan


def test_tau_is_scipys_over_the_policies_and_in_every_bootstrap_sample() -> None:
    visited = trajectories(policies=5)
    rng = np.random.default_rng(3)
    merit = np.append([0.3, 0.1, 0.3, 0.9, 0.5], 0)  # the first and the third are equally good
    truth = merit[visited.policies]
    rewards = truth + rng.normal(scale=0.4, size=len(truth)) + 0.3 * np.append(rng.normal(size=EPISODES), 0)[visited.episodes]
    found = kendall_tau(rewards[:, None], truth, visited)
    assert found.value[0] == pytest.approx(literal_tau(rewards, truth, visited, np.ones(EPISODES, int)))
    taus = [literal_tau(rewards, truth, visited, counts) for counts in drawn_counts(np.arange(EPISODES)).astype(int)]
    assert (found.low[0], found.high[0]) == pytest.approx(tuple(np.nanquantile(taus, (0.025, 0.975))))
    assert kendall_tau(-truth[:, None], truth, visited).value[0] == pytest.approx(-1)
    assert math.isnan(kendall_tau(np.where(visited.steps > 3, 1.0, 0.1)[:, None], truth, visited).value[0])


def test_many_taus_at_once_are_scipys_with_ties_and_missing_values() -> None:
    rng = np.random.default_rng(4)
    first, second = rng.integers(0, 4, (2, 50, 6)) / 4.0
    missing = rng.random((50, 6)) < 0.2
    first[missing] = second[missing] = np.nan
    for found, one, other, known in zip(tau_b(first, second), first, second, ~missing, strict=True):
        expected = kendalltau(one[known], other[known]).statistic if known.sum() > 1 else math.nan
        assert found == pytest.approx(expected, nan_ok=True)
