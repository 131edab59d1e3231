"""Values of thresholds that are quantiles of the rewards of labelled states that are not in the goal."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.evaluation.ground_truth import read_truth
from vlm_rm_sweeps.evaluation.score import score_states
from vlm_rm_sweeps.evaluation.states import load_states
from vlm_rm_sweeps.rewards.functions.threshold import Threshold
from vlm_rm_sweeps.rewards.reward_model import RewardModel, RewardSpec

Key = TypeVar("Key")


def threshold_values(model: RewardModel, specs: Sequence[RewardSpec]) -> list[float]:
    """Measure thresholds: quantiles of the other reward's values for the states that are not in the goal by its truth.

    Args:
        model: A loaded model, or a pool.
        specs: Specs of thresholds that need states. Each data set is scored once.

    Returns:
        The value of each.

    Raises:
        UserError: A data set cannot be read, its truth is not known or the same for all states, a reward is not finite, or a
            quantile is the largest reward that is possible.
    """
    values: dict[RewardSpec, float] = {}
    of_folders: dict[Path, list[RewardSpec]] = {}
    for spec in specs:
        of_folders.setdefault(_threshold(spec).states or Path(), []).append(spec)
    for folder, its_specs in of_folders.items():
        dataset = load_states(folder)
        truths = {name: read_truth(dataset, name).values for name in {_threshold(spec).truth for spec in its_specs}}
        others = [RewardSpec(spec.goal_prompts, spec.baseline_prompts, function=_threshold(spec).of) for spec in its_specs]
        rewards = score_states(model, dataset, others).astype(np.float64)
        for spec, column in zip(its_specs, rewards.T, strict=True):
            threshold = _threshold(spec)
            values[spec] = _quantile(threshold, column[truths[threshold.truth] == 0])
    return [values[spec] for spec in specs]


def with_values(model: RewardModel, specs: Mapping[Key, RewardSpec]) -> dict[Key, RewardSpec]:
    """Return specs with measured values in the place of quantiles.

    Args:
        model: A loaded model, or a pool.
        specs: Any specs by any key.

    Returns:
        The specs by the same keys, in their order.

    Raises:
        UserError: See `threshold_values`.
    """
    waiting = {key: spec for key, spec in specs.items() if spec.function is not None and spec.function.needs_states}
    measured = dict(zip(waiting, threshold_values(model, list(waiting.values())), strict=True))
    return {key: _at(spec, measured[key]) if key in measured else spec for key, spec in specs.items()}


def _at(spec: RewardSpec, value: float) -> RewardSpec:
    return RewardSpec(spec.goal_prompts, spec.baseline_prompts, function=_threshold(spec).at(value))


def _threshold(spec: RewardSpec) -> Threshold:
    if not isinstance(spec.function, Threshold) or spec.function.quantile is None:
        raise UserError(f"reward {spec.label} has no quantile to measure")
    return spec.function


def _quantile(threshold: Threshold, rewards: np.ndarray) -> float:
    value, (low, high) = float(np.quantile(rewards, threshold.quantile or 0.0)), threshold.of.range()
    if not low <= value < high:
        raise UserError(
            f"reward {threshold.label}: its quantile over {len(rewards)} states of {threshold.states} is {value:g}, and "
            f"{threshold.of.label} is between {low:g} and {high:g}, so the reward would be the same everywhere: expected a lower "
            "quantile, or `above`"
        )
    return value
