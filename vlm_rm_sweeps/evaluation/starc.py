"""STARC distance between rewards and a ground truth (Skalse et al., 2024, arXiv 2309.15257).

A STARC distance takes from both rewards what no order of policies depends on (canonicalisation), brings them to norm 1, and
measures how far apart they are. Here:

- canonicalisation: value-adjusted, `R(s, a, s') - V(s) + gamma V(s')`, where V is the value of R itself under a policy. The
  paper averages it over the next state, for which the dynamics must be known; a data set of states has none. So V is that of
  the policy under which every next state is drawn from the data set, whatever the state before;
- norm and metric: L1 over the states of the data set, halved, so that opposite rewards are 1 apart.

For a reward of the state reached, V is then the same everywhere, and the canonical reward is the reward minus its mean. So
with the L2 norm this STARC distance *is* the EPIC distance, and would tell nothing new. With the L1 norm it differs: a few
extreme states count for less. With real dynamics V depends on the state, and both would differ from EPIC; that needs a model.

Array names end in their axes: `n` states, `r` rewards, `b` weightings of the states, such as bootstrap samples.
"""

import numpy as np

from vlm_rm_sweeps.evaluation.epic import standardized

_WEIGHTINGS_AT_ONCE = 125
"""Of 1 000 states, their arrays take 0.5 MB each and stay in a processor's cache, which halves the time."""
_LEAST_NORM = 1e-6
"""Of rewards with standard deviation 1; rounding leaves a constant with a norm of about 1e-8."""


def starc_distances(weights_bn: np.ndarray, rewards_nr: np.ndarray, truth_n: np.ndarray) -> np.ndarray:
    """Compute the STARC distance of each reward to a truth under each weighting of the states, see above.

    With `c(R) = R - E[R]` and `n(c) = E|c|`, it is `E|c(R) / n(c(R)) - c(T) / n(c(T))| / 2`.

    Args:
        weights_bn: float (B, N).
        rewards_nr: float (N, R).
        truth_n: float (N,).

    Returns:
        float (B, R), from 0 (equal up to scale and shift) to 1 (opposite); NaN where the truth or the reward is constant.
    """
    rewards_rn, truth_n = standardized(rewards_nr).T.astype(np.float32), standardized(truth_n).astype(np.float32)
    weights_bn = weights_bn / weights_bn.sum(axis=1, keepdims=True)
    parts = [
        _distances(weights_bn[start : start + _WEIGHTINGS_AT_ONCE], rewards_rn, truth_n)
        for start in range(0, len(weights_bn), _WEIGHTINGS_AT_ONCE)
    ]
    return np.concatenate(parts) if parts else np.empty((0, len(rewards_rn)))


def _distances(weights_bn: np.ndarray, rewards_rn: np.ndarray, truth_n: np.ndarray) -> np.ndarray:
    """Compute the distances under a few weightings, float (b, r)."""
    # States first, which makes the sums over them fast.
    weights_nb = np.ascontiguousarray(weights_bn.T, np.float32)
    canonical_truth_nb, apart_nb = np.empty((2, *weights_nb.shape), np.float32)
    _canonical(weights_nb, truth_n, canonical_truth_nb)
    distances_rb = np.empty((len(rewards_rn), len(weights_bn)))
    for distance_b, rewards_n in zip(distances_rb, rewards_rn, strict=True):
        _canonical(weights_nb, rewards_n, apart_nb)
        apart_nb -= canonical_truth_nb
        distance_b[:] = _norm(weights_nb, apart_nb) / 2
    return distances_rb.T


def _canonical(weights_nb: np.ndarray, rewards_n: np.ndarray, out_nb: np.ndarray) -> None:
    """Centre a reward and bring it to norm 1 under each weighting; NaN where it is constant."""
    np.subtract(rewards_n[:, None], rewards_n @ weights_nb, out=out_nb)
    norm_b = _norm(weights_nb, out_nb)
    out_nb *= 1 / np.where(norm_b > _LEAST_NORM, norm_b, np.float32(np.nan))


def _norm(weights_nb: np.ndarray, values_nb: np.ndarray) -> np.ndarray:
    norm: np.ndarray = np.einsum("nb,nb->b", weights_nb, np.abs(values_nb))
    return norm
