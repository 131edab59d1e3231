"""Measures of rewards along the episodes of policies: the order of states in time, and the ranking of the policies.

Array names end in their axes: `n` states, `r` rewards, `b` bootstrap samples, `e` episodes, `p` policies.
"""

from dataclasses import dataclass

import numpy as np

from vlm_rm_sweeps.evaluation.bootstrap import Estimates, drawn_counts
from vlm_rm_sweeps.evaluation.epic import correlations
from vlm_rm_sweeps.metrics import is_success

NO_EPISODE = -1
_DIGITS = 9
"""Values of about 1 that agree in these are equal but for rounding."""


@dataclass(frozen=True)
class Trajectories:
    """Where N states lie along the episodes of policies.

    Attributes:
        episodes: Number of each state's episode, int (N,); `NO_EPISODE` for a state that is not of an episode.
        steps: Environment steps since the start of the episode, int (N,).
        policies: Number of the policy that acted in the episode, int (N,).
        in_goal: 1 where the state passes the task's success test, else 0, float (N,); NaN where it is unknown.
    """

    episodes: np.ndarray
    steps: np.ndarray
    policies: np.ndarray
    in_goal: np.ndarray

    def among(self, chosen: np.ndarray) -> "Trajectories":
        """Return those of some of the states.

        Args:
            chosen: bool (N,).

        Returns:
            Trajectories of the chosen states.
        """
        return Trajectories(self.episodes[chosen], self.steps[chosen], self.policies[chosen], self.in_goal[chosen])

    def states_by_episode(self) -> list[np.ndarray]:
        """List the positions of each episode's states, in the order of the steps."""
        numbers = np.unique(self.episodes[self.episodes != NO_EPISODE])
        found = [np.flatnonzero(self.episodes == number) for number in numbers]
        return [states[np.argsort(self.steps[states], kind="stable")] for states in found]

    def runs(self) -> list[np.ndarray]:
        """List the positions of states of consecutive steps of an episode, where there are at least two."""
        found = []
        for states in self.states_by_episode():
            gaps = np.flatnonzero(np.diff(self.steps[states]) != 1) + 1
            found += [run for run in np.split(states, gaps) if len(run) > 1]
        return found

    def successful(self) -> list[np.ndarray]:
        """List the positions of each successful episode's states: at least half of them are in the goal, see `is_success`."""
        return [states for states in self.states_by_episode() if is_success(float(self.in_goal[states].mean()))]


def why_no_value_order(trajectories: Trajectories | None) -> str | None:
    """Say why no reward has a value-order correlation on these states; None: it may have one."""
    episodes = trajectories.states_by_episode() if trajectories else []
    if not trajectories or not episodes:
        return "the states are of no episodes"
    if np.isnan([trajectories.in_goal[states].mean() for states in episodes]).all():
        return "whether the episodes succeeded is unknown"
    successful = trajectories.successful()
    if not successful:
        return f"none of the {len(episodes)} episodes succeeded"
    if max(map(len, successful)) < 2:
        return "no successful episode has two states"
    return None


def value_order_correlation(rewards_nr: np.ndarray, trajectories: Trajectories, seed: int = 0) -> Estimates:
    """Measure how steadily rewards rise in time along successful episodes.

    VOC (Ma et al., 2025, arXiv 2411.04549): the rank correlation of an episode's rewards with time, here the mean over the
    episodes that succeeded. Along an episode in which the reward is constant it is undefined, and such an episode is left out.

    Args:
        rewards_nr: float (N, R).
        trajectories: The episodes of the same N states; at least one succeeded, see `why_no_value_order`.
        seed: Seed of the bootstrap over these episodes.

    Returns:
        From -1 (rewards fall in time) to 1 (they rise); NaN for a reward that is constant along every successful episode.
    """
    from scipy.stats import rankdata  # here: it takes a second to import, which sweeps that measure nothing would wait for

    found = []
    for states in trajectories.successful():
        ranks_tr, time_t = rankdata(rewards_nr[states], axis=0), rankdata(trajectories.steps[states])
        found.append(correlations(np.ones((1, len(states))), ranks_tr, time_t)[0])
    correlation_er = np.array(found)
    counts_be = drawn_counts(np.arange(len(found)), seed)
    return Estimates.of(_means(np.ones((1, len(found))), correlation_er)[0], _means(counts_be, correlation_er))


def _means(weights_be: np.ndarray, values_er: np.ndarray) -> np.ndarray:
    """Compute weighted means of what is known, float (b, r); NaN where nothing is."""
    known_er = np.isfinite(values_er)
    weight_br = weights_be @ known_er.astype(np.float64)
    return weights_be @ np.where(known_er, values_er, 0) / np.where(weight_br > 0, weight_br, np.nan)


def why_no_ranking(truth_n: np.ndarray, trajectories: Trajectories | None) -> str | None:
    """Say why there is no true ranking of policies on these states; None: there is one."""
    episodes = trajectories.states_by_episode() if trajectories else []
    if not trajectories or not episodes:
        return "the states are of no episodes"
    policy_e = _policies(trajectories, episodes)
    if policy_e.max() == 0:
        return "the states are of a single policy"
    once = np.ones((1, len(episodes)))
    true_p = _by_policy(once, _means_of_episodes(truth_n, episodes), policy_e)[0]
    return "the truth puts all policies at one rank" if np.ptp(np.round(true_p, _DIGITS)) == 0 else None


def kendall_tau(rewards_nr: np.ndarray, truth_n: np.ndarray, trajectories: Trajectories, seed: int = 0) -> Estimates:
    """Measure how well rewards rank policies: Kendall's tau-b (Kendall, 1945) between their ranking and the true one.

    A policy's rank is by its mean reward over the states of its episodes; as all episodes of a task are equally long, that is
    the rank by CLIP return. The true rank is by the mean of the truth over the same states.

    Args:
        rewards_nr: float (N, R).
        truth_n: float (N,).
        trajectories: The episodes of the same N states, of policies with different truths, see `why_no_ranking`.
        seed: Seed of the bootstrap over episodes. Of a sample in which a policy has no episode, its pairs are left out.

    Returns:
        From -1 (opposite rankings) to 1 (the same); NaN for a reward that puts all policies at one rank.
    """
    episodes = trajectories.states_by_episode()
    reward_er, truth_e = _means_of_episodes(rewards_nr, episodes), _means_of_episodes(truth_n, episodes)
    policy_e = _policies(trajectories, episodes)
    counts_be = drawn_counts(np.arange(len(episodes)), seed)

    def taus(counts: np.ndarray) -> np.ndarray:
        true_bp = _by_policy(counts, truth_e, policy_e)
        return np.column_stack([tau_b(_by_policy(counts, reward_e, policy_e), true_bp) for reward_e in reward_er.T])

    return Estimates.of(taus(np.ones((1, len(episodes))))[0], taus(counts_be))


def _means_of_episodes(values_n: np.ndarray, episodes: list[np.ndarray]) -> np.ndarray:
    return np.array([values_n[states].mean(axis=0) for states in episodes])


def _policies(trajectories: Trajectories, episodes: list[np.ndarray]) -> np.ndarray:
    """Count the policies from 0, and return the number of each episode's policy, int (e,)."""
    return np.unique([trajectories.policies[states[0]] for states in episodes], return_inverse=True)[1]


def _by_policy(counts_be: np.ndarray, values_e: np.ndarray, policy_e: np.ndarray) -> np.ndarray:
    """Compute each policy's mean over its episodes, float (b, p); NaN where none of them was drawn."""
    of_policy_ep = (policy_e[:, None] == np.arange(policy_e.max() + 1)).astype(np.float64)
    drawn_bp = counts_be @ of_policy_ep
    # Centred and scaled, so that means which are equal but for rounding become equal in `tau_b`.
    centred_e = (values_e - values_e.mean()) / (np.ptp(values_e) or 1)
    return (counts_be * centred_e) @ of_policy_ep / np.where(drawn_bp > 0, drawn_bp, np.nan)


def tau_b(first_bp: np.ndarray, second_bp: np.ndarray) -> np.ndarray:
    """Compute Kendall's tau-b of many pairs of rankings at once; SciPy's `kendalltau` does one.

    Args:
        first_bp: float (B, P), with values of about 1, equal if they are closer than 1e-9; NaN where a value is missing.
        second_bp: The same, missing at the same places.

    Returns:
        float (B,); NaN where all values of one of them are equal.
    """
    first_bp, second_bp = np.round(first_bp, _DIGITS), np.round(second_bp, _DIGITS)
    agreeing, differing_first, differing_second = np.zeros((3, len(first_bp)))
    for place in range(first_bp.shape[1] - 1):
        first, second = (np.nan_to_num(np.sign(each[:, place + 1 :] - each[:, [place]])) for each in (first_bp, second_bp))
        agreeing += (first * second).sum(axis=1)
        differing_first += np.abs(first).sum(axis=1)
        differing_second += np.abs(second).sum(axis=1)
    pairs = np.sqrt(differing_first * differing_second)
    return agreeing / np.where(pairs > 0, pairs, np.nan)
