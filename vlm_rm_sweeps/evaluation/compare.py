"""Measurement of reward models against a ground truth, shared by `vlm-rm epic`, screenings and `epic_states`."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from vlm_rm_sweeps.evaluation.ground_truth import Truth
from vlm_rm_sweeps.evaluation.measures import measure
from vlm_rm_sweeps.evaluation.score import score_states
from vlm_rm_sweeps.evaluation.states import StateDataset
from vlm_rm_sweeps.evaluation.thresholds import with_values
from vlm_rm_sweeps.evaluation.trajectories import Trajectories
from vlm_rm_sweeps.metrics import PARAMETERS_MILLIONS, REWARD
from vlm_rm_sweeps.rewards.registry import find_reward_model, load_reward_model
from vlm_rm_sweeps.rewards.reward_model import Precision, RewardModel, RewardSpec

Specs = Mapping[tuple[Any, str], RewardSpec]
"""Reward specs by alpha (a number), or the label of another reward (a text), and prompt id."""


def reward_columns(specs: Specs) -> list[dict[str, float | str]]:
    """Return the columns of a table that tell rewards.

    Args:
        specs: All specs of the table.

    Returns:
        For each spec `alpha`, NaN for a reward without one, and, if any reward of the table has a label, `reward`.
    """
    labelled = any(isinstance(key, str) for key, _ in specs)
    columns = []
    for (key, _), spec in specs.items():
        alpha: dict[str, float | str] = {"alpha": spec.alpha if spec.function is None else float("nan")}
        columns.append(alpha | ({REWARD: key if isinstance(key, str) else f"alpha {key:g}"} if labelled else {}))
    return columns


@dataclass(frozen=True)
class ModelComparison:
    """Measurements of one model.

    Attributes:
        model_id: The model.
        table: A row for each reward and prompt, as `measure_rewards` returns it.
        images_encoded: Number of images that the model encoded.
    """

    model_id: str
    table: pd.DataFrame
    images_encoded: int


def check_models(model_ids: Sequence[str], specs: Specs) -> list[str]:
    """Refuse models that do not exist or cannot score a spec. Loads no weights.

    Args:
        model_ids: The models.
        specs: Reward specs that each of them must support.

    Returns:
        Remarks that may surprise the user, one sentence each.

    Raises:
        UserError: A model does not exist, or cannot score a spec.
    """
    remarks: list[str] = []
    for model_id in model_ids:
        model = find_reward_model(model_id)
        remarks += model.remarks()
        for spec in specs.values():
            model.check(spec)
            remarks += model.remarks_on(spec)
    return list(dict.fromkeys(remarks))


def load_for_measuring(model_id: str, precision: Precision = "fp32", micro_batch: int = 64) -> RewardModel:
    """Load a reward model, on the GPU if there is one.

    Args:
        model_id: See `find_reward_model`.
        precision: Precision of the weights.
        micro_batch: Frames in one forward pass.

    Returns:
        The loaded model.
    """
    return load_reward_model(model_id, "cuda" if torch.cuda.is_available() else "cpu", precision, micro_batch)


def measure_rewards(
    model: RewardModel,
    specs: Specs,
    rewards: np.ndarray,
    truth: Truth,
    groups: np.ndarray | None = None,
    trajectories: Trajectories | None = None,
) -> pd.DataFrame:
    """Measure how well a model's rewards agree with a ground truth.

    Args:
        model: The model, or pool, that gave the rewards.
        specs: Reward specs, in the order of the rewards' columns.
        rewards: float32 (N, number of specs).
        truth: The ground truth of the same N states.
        groups: int (N,): states with equal entries are drawn together in the bootstrap, see `measure`.
        trajectories: The episodes of the same N states, if any.

    Returns:
        A row for each spec: model, parameters_millions, alpha (and reward), prompt and the measures of `measures.Measures`.

    Raises:
        UserError: All rewards are constant over the states.
    """
    names = [f"{model.model_id} at {spec.label} with prompt {prompt!r}" for (_, prompt), spec in specs.items()]
    measured = measure(rewards, truth, names, groups=groups, trajectories=trajectories)
    rows = [
        {
            "model": model.model_id,
            PARAMETERS_MILLIONS: round(model.parameters / 1e6, 3),
            **reward,
            "prompt": prompt,
            **measures.to_dict(),
        }
        for (_, prompt), reward, measures in zip(specs, reward_columns(specs), measured, strict=True)
    ]
    return pd.DataFrame(rows)


def compare_models(
    dataset: StateDataset,
    truth: Truth,
    model_ids: Sequence[str],
    specs: Specs,
    load: Callable[[str], RewardModel] = load_for_measuring,
    say: Callable[[str], None] | None = None,
) -> Iterator[ModelComparison]:
    """Measure models on a data set one after the other, so that only one of them is in memory.

    Args:
        dataset: The states.
        truth: Their ground truth.
        model_ids: The models.
        specs: Reward specs to score with each model.
        load: Loads a model by its id.
        say: Is told what models remark on these states, see `score_frames`.

    Yields:
        Measurements of each model, in the order of `model_ids`.

    Raises:
        UserError: A model does not exist or cannot score a spec, a reward is not finite, or all rewards of a model are
            constant.
    """
    check_models(model_ids, specs)
    for model_id in model_ids:
        model = load(model_id)
        rewards = score_states(model, dataset, list(with_values(model, specs).values()), say)
        table = measure_rewards(model, specs, rewards, truth, dataset.episodes, dataset.trajectories)
        yield ModelComparison(model_id, table, len(dataset))
