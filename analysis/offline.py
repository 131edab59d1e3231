"""Shared by the scripts that measure a sweep's rewards without training: against the task's success test."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from vlm_rm_sweeps.evaluation.collect_states import sampled_states
from vlm_rm_sweeps.evaluation.compare import Specs, measure_rewards
from vlm_rm_sweeps.evaluation.drawing import StateDrawer
from vlm_rm_sweeps.evaluation.ground_truth import SUCCESS, Truth, read_truth
from vlm_rm_sweeps.evaluation.score import score_frames, score_states
from vlm_rm_sweeps.evaluation.states import StateDataset
from vlm_rm_sweeps.evaluation.thresholds import with_values
from vlm_rm_sweeps.rewards.reward_model import RewardModel
from vlm_rm_sweeps.sweeping.config.plan import Plan

_SEED = 0


def on_random_states(plan: Plan, model: RewardModel, specs: Specs, count: int) -> pd.DataFrame:
    """Measure rewards on random states of a plan's task, drawn as its trials draw them.

    Args:
        plan: Plan of a sweep.
        model: A loaded model.
        specs: The model's rewards.
        count: Number of states; the first ones are the same for each count.

    Returns:
        As `measure_rewards`.

    Raises:
        UserError: See `measure_rewards`.
    """
    rendering = plan.renderings[0]
    success: list[float] = []

    def frames(drawer: StateDrawer) -> Iterator[np.ndarray]:
        for state in sampled_states(plan.task, count, _SEED, rendering):
            success.append(float(bool(state.success)))
            yield drawer.draw(state.frame, state.variables)[model.frame_format]

    with StateDrawer(plan.task, rendering, [model.frame_format]) as drawer:
        rewards = score_frames(model, frames(drawer), list(with_values(model, specs).values()))
    return measure_rewards(model, specs, rewards, Truth(SUCCESS, np.array(success)))


def on_data_set(dataset: StateDataset, model: RewardModel, specs: Specs) -> pd.DataFrame:
    """Measure rewards on the states of a data set.

    Args:
        dataset: The states, with the results of the success test.
        model: A loaded model.
        specs: The model's rewards.

    Returns:
        As `measure_rewards`.

    Raises:
        UserError: The data set knows no success, or see `measure_rewards`.
    """
    rewards = score_states(model, dataset, list(with_values(model, specs).values()))
    return measure_rewards(model, specs, rewards, read_truth(dataset, SUCCESS), dataset.episodes, dataset.trajectories)
