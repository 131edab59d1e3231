"""Fitting a head to examples: the same examples and settings give the same numbers.

Embeddings of one scene differ little from each other, so they are centred, and divided by one number, before they are fitted.
One, and not one for each dimension: dimensions in which they hardly differ would otherwise weigh as much as the others. Both are
then folded into the head's first weights.

Shape suffixes: n examples, h hidden units, d embedding dimensions.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from vlm_rm_sweeps.evaluation.heads.examples import ComparedStates, Examples
from vlm_rm_sweeps.rewards.heads import HeadWeights

PENALTIES = (0.001, 0.01, 0.1, 1.0)
"""Weights of half the squared length of a head's weights, beside the sum of the examples' losses, between which
cross-validation chooses."""
_LONGEST_FIT = 100
"""Iterations of L-BFGS."""


def fit_head(examples: Examples, hidden: int, penalty: float, seed: int) -> HeadWeights:
    """Fit a head by maximum likelihood, with a penalty on the length of its weights.

    The likelihood of a labelled state is that of a logistic regression. That of a pair is Bradley and Terry's: the left state is
    closer with the probability `sigmoid(r(left) - r(right))`, in which a bias cancels.

    Args:
        examples: At least one, with embeddings that differ.
        hidden: Hidden units; 0 for a logistic regression.
        penalty: See `PENALTIES`.
        seed: Seed of the first weights of a network.

    Returns:
        The fitted numbers.
    """
    images_nd = _all_images(examples)
    mean_d = images_nd.mean(axis=0)
    scale = float(np.sqrt(((images_nd - mean_d) ** 2).sum(axis=1).mean())) or 1.0
    scaled = _scaled(examples, mean_d, scale)
    if not hidden:
        output_d, bias = _logistic(scaled, penalty)
        output_d = output_d / scale
        return HeadWeights(output_d.astype(np.float32), float(bias - mean_d @ output_d))
    network = _network(scaled, hidden, penalty, seed)
    hidden_hd = network["hidden"] / scale
    hidden_bias_h = network["hidden_bias"] - hidden_hd @ mean_d
    return HeadWeights(
        network["output"].astype(np.float32),
        float(network["bias"][0]),
        hidden_hd.astype(np.float32),
        hidden_bias_h.astype(np.float32),
    )


def predicted(weights: HeadWeights, examples: Examples) -> np.ndarray:
    """Compute a head's log-odds of each example.

    Args:
        weights: The head.
        examples: N examples.

    Returns:
        Of a state: that it is in the goal. Of a pair: that the left one is closer. float64 (N,).
    """
    if isinstance(examples, ComparedStates):
        return weights.logits(examples.left_nd).astype(np.float64) - weights.logits(examples.right_nd)
    return weights.logits(examples.images_nd).astype(np.float64)


def losses(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Compute the negative log-likelihood of targets from 0 to 1, element by element."""
    return np.logaddexp(0, logits) - targets * logits


def _all_images(examples: Examples) -> np.ndarray:
    images = [examples.left_nd, examples.right_nd] if isinstance(examples, ComparedStates) else [examples.images_nd]
    return np.concatenate(images).astype(np.float64)


def _scaled(examples: Examples, mean_d: np.ndarray, scale: float) -> Sequence[np.ndarray]:
    """Scale the images: those of the states, or of the left and of the right ones; and the targets behind them."""
    if isinstance(examples, ComparedStates):
        return [(examples.left_nd - mean_d) / scale, (examples.right_nd - mean_d) / scale, examples.targets_n]
    return [(examples.images_nd - mean_d) / scale, examples.targets_n]


def _logistic(scaled: Sequence[np.ndarray], penalty: float) -> tuple[np.ndarray, float]:
    """Fit a logistic regression, to the differences of pairs or to states.

    scikit-learn takes classes only, so an example whose raters are split is one of each class, with their shares as weights. A
    pair also stands there with its sides exchanged, at half the weight, so that both classes exist: without a bias that is the
    same likelihood.
    """
    from sklearn.linear_model import LogisticRegression  # here: it takes a second to import

    *images, targets_n = scaled
    are_pairs = len(images) == 2
    inputs_nd = images[0] - images[1] if are_pairs else images[0]
    rows = [(inputs_nd, 1, targets_n), (inputs_nd, 0, 1 - targets_n)]
    if are_pairs:
        rows += [(-rows_nd, 1 - label, weights_n) for rows_nd, label, weights_n in rows]
    inputs = np.concatenate([rows_nd for rows_nd, _, _ in rows])
    labels = np.concatenate([np.full(len(rows_nd), label) for rows_nd, label, _ in rows])
    shares = np.concatenate([weights_n for _, _, weights_n in rows]) / (2 if are_pairs else 1)
    used = shares > 0
    fitted = LogisticRegression(C=1 / penalty, fit_intercept=not are_pairs, solver="newton-cholesky")
    fitted.fit(inputs[used], labels[used], shares[used])
    return fitted.coef_[0].astype(np.float64), 0.0 if are_pairs else float(fitted.intercept_[0])


def _network(scaled: Sequence[np.ndarray], hidden: int, penalty: float, seed: int) -> dict[str, np.ndarray]:
    """Fit a network with one hidden layer by L-BFGS over all examples at once, in float64."""
    *images, targets = (torch.from_numpy(np.asarray(each, np.float64)) for each in scaled)
    width = images[0].shape[1]
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    # The scaled images have about unit length, and softsign is nearly linear below 1.
    parameters = {"hidden": normal(hidden, width), "hidden_bias": normal(hidden) / 2, "output": normal(hidden) / hidden**0.5}
    parameters["bias"] = torch.zeros(1, dtype=torch.float64)
    for parameter in parameters.values():
        parameter.requires_grad_()

    def reward(images_nd: torch.Tensor) -> torch.Tensor:
        features_nh = functional.softsign(functional.linear(images_nd, parameters["hidden"], parameters["hidden_bias"]))
        return features_nh @ parameters["output"] + parameters["bias"]

    optimizer = torch.optim.LBFGS(list(parameters.values()), max_iter=_LONGEST_FIT, line_search_fn="strong_wolfe")

    def loss() -> Any:
        optimizer.zero_grad()
        logits_n = reward(images[0]) - reward(images[1]) if len(images) == 2 else reward(images[0])
        likelihood = functional.binary_cross_entropy_with_logits(logits_n, targets, reduction="sum")
        length = parameters["hidden"].square().sum() + parameters["output"].square().sum()
        total = likelihood + penalty * length / 2
        total.backward()
        return total

    optimizer.step(loss)
    return {name: parameter.detach().numpy() for name, parameter in parameters.items()}
