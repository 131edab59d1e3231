"""The one engine that measures reward models against a truth: for `epic`, for screenings and for `epic_states`."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from vlm_rm_sweeps.evaluation.epic import measure
from vlm_rm_sweeps.evaluation.ground_truth import Truth
from vlm_rm_sweeps.evaluation.score import score_states
from vlm_rm_sweeps.evaluation.states import StateDataset
from vlm_rm_sweeps.metrics import PARAMETERS_MILLIONS
from vlm_rm_sweeps.rewards.registry import find_reward_model, load_reward_model
from vlm_rm_sweeps.rewards.reward_model import Precision, RewardModel, RewardSpec

Specs = Mapping[tuple[float, str], RewardSpec]
"""What to score for, by alpha and prompt id."""


@dataclass(frozen=True)
class ModelComparison:
    """What was measured of one model.

    Attributes:
        model_id: The model.
        table: A row for each alpha and prompt.
        images_encoded: Images that the model encoded for it.
    """

    model_id: str
    table: pd.DataFrame
    images_encoded: int


def check_models(model_ids: Sequence[str], specs: Specs) -> None:
    """Refuse models that do not exist or cannot score a spec. Loads no weights.

    Args:
        model_ids: The models.
        specs: What they are to score for.

    Raises:
        UserError: A model does not exist, or cannot score a spec.
    """
    for model_id in model_ids:
        model = find_reward_model(model_id)
        for spec in specs.values():
            model.check_spec(spec)


def load_for_measuring(model_id: str, precision: Precision = "fp32", micro_batch: int = 64) -> RewardModel:
    """Load a reward model, on the GPU if there is one.

    Args:
        model_id: The model.
        precision: Of its weights.
        micro_batch: Frames in one forward pass.

    Returns:
        The loaded model.
    """
    return load_reward_model(model_id, "cuda" if torch.cuda.is_available() else "cpu", precision, micro_batch)


def measure_rewards(
    model: RewardModel, specs: Specs, rewards: np.ndarray, truth: Truth, groups: np.ndarray | None = None
) -> pd.DataFrame:
    """Measure how far a model's rewards of many states agree with a truth.

    Args:
        model: The model, or pool, that gave the rewards.
        specs: What it scored for.
        rewards: float32 (states, number of specs).
        truth: The truth about the same states.
        groups: int (states,): states with equal entries depend on each other; None if none do.

    Returns:
        A row for each spec: model, parameters_millions, alpha, prompt and the measures of `epic.Measures`.

    Raises:
        UserError: Every reward is the same for all states.
    """
    names = [f"{model.model_id} at alpha {alpha:g} with prompt {prompt!r}" for alpha, prompt in specs]
    rows = [
        {
            "model": model.model_id,
            PARAMETERS_MILLIONS: round(model.parameters / 1e6, 3),
            "alpha": alpha,
            "prompt": prompt,
            **measures.to_dict(),
        }
        for (alpha, prompt), measures in zip(specs, measure(rewards, truth, names, groups=groups), strict=True)
    ]
    return pd.DataFrame(rows)


def compare_models(
    dataset: StateDataset,
    truth: Truth,
    model_ids: Sequence[str],
    specs: Specs,
    load: Callable[[str], RewardModel] = load_for_measuring,
) -> Iterator[ModelComparison]:
    """Measure each model on a data set in turn, so that only one of them is in memory.

    Args:
        dataset: The states.
        truth: The truth about them.
        model_ids: The models.
        specs: What each of them scores for.
        load: Loads a model.

    Yields:
        What was measured of each model.

    Raises:
        UserError: A model does not exist, cannot score a spec, gives rewards that are not finite, or the same for all states.
    """
    check_models(model_ids, specs)
    for model_id in model_ids:
        model = load(model_id)
        rewards = score_states(model, dataset, list(specs.values()))
        yield ModelComparison(model_id, measure_rewards(model, specs, rewards, truth, dataset.episodes), len(dataset))
