"""Measures models x alphas x prompts against a truth, with one encoding of each image for each model."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
import torch

from vlm_rm_sweeps.evaluation.epic import measure
from vlm_rm_sweeps.evaluation.ground_truth import Truth
from vlm_rm_sweeps.evaluation.score import score_states
from vlm_rm_sweeps.evaluation.states import StateDataset
from vlm_rm_sweeps.rewards.registry import find_reward_model, load_reward_model
from vlm_rm_sweeps.rewards.reward_model import Precision, RewardModel, RewardSpec

Specs = Mapping[tuple[float, str], RewardSpec]
"""What to score for, by alpha and prompt id."""


@dataclass(frozen=True)
class ModelComparison:
    """One model's part: `table` has a row for each alpha and prompt, `images_encoded` counts what the model encoded for it."""

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
    """A reward model on the GPU, if there is one."""
    return load_reward_model(model_id, "cuda" if torch.cuda.is_available() else "cpu", precision, micro_batch)


def compare_models(
    dataset: StateDataset,
    truth: Truth,
    model_ids: Sequence[str],
    specs: Specs,
    load: Callable[[str], RewardModel] = load_for_measuring,
) -> Iterator[ModelComparison]:
    """Measure each model in turn, so that only one of them is in memory. Raises UserError as `measure` and `score_states` do."""
    check_models(model_ids, specs)
    for model_id in model_ids:
        model = load(model_id)
        rewards = score_states(model, dataset, list(specs.values()))
        names = [f"{model_id} at alpha {alpha:g} with prompt {prompt!r}" for alpha, prompt in specs]
        measured = measure(rewards, truth, names, groups=dataset.episodes)
        rows = [
            {
                "model": model_id,
                "parameters_millions": round(model.parameters / 1e6, 3),
                "alpha": alpha,
                "prompt": prompt,
                **measures.to_dict(),
            }
            for (alpha, prompt), measures in zip(specs, measured, strict=True)
        ]
        yield ModelComparison(model_id, pd.DataFrame(rows), len(dataset))
