"""Measured thresholds: quantiles over the states that are not in the goal, by the success test or by people."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.evaluation.collect_states import sampled_states
from vlm_rm_sweeps.evaluation.score import score_states
from vlm_rm_sweeps.evaluation.states import StateDataset, write_states
from vlm_rm_sweeps.evaluation.thresholds import threshold_values
from vlm_rm_sweeps.labelling.scales import YES_NO
from vlm_rm_sweeps.labelling.store import LabelStore
from vlm_rm_sweeps.rewards.functions.registry import make_reward
from vlm_rm_sweeps.rewards.registry import load_reward_model
from vlm_rm_sweeps.rewards.reward_model import RewardModel, RewardSpec
from vlm_rm_sweeps.tasks.registry import find_task

TASK = find_task("cartpole-upright")


@pytest.fixture(scope="module")
def model() -> RewardModel:
    return load_reward_model("embedded/tiny")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> StateDataset:
    return write_states(tmp_path_factory.mktemp("states") / "data", TASK, sampled_states(TASK, 40, seed=0))


@pytest.fixture
def labelled(written: StateDataset, tmp_path: Path) -> StateDataset:
    """A copy whose first 20 states are labelled: every other one is in the goal to anna, and all but the first to bert."""
    shutil.copytree(written.folder, tmp_path / "data")
    dataset = StateDataset(tmp_path / "data", written.table)
    store = LabelStore(dataset.labels_file, YES_NO)
    for index, item in enumerate(dataset.ids[:20]):
        store.add("anna", item, float(index % 2))
        store.add("bert", item, float(index > 0))
    return dataset


def spec(dataset: StateDataset, **parameters: Any) -> RewardSpec:
    function = make_reward({"kind": "threshold", "quantile": 0.75, "states": str(dataset.folder)} | parameters)
    return RewardSpec((TASK.goal_prompt,), (TASK.baseline_prompt,), function=function)


def test_the_truth_says_which_states_count(model: RewardModel, labelled: StateDataset) -> None:
    cosines = score_states(model, labelled, [RewardSpec((TASK.goal_prompt,), (TASK.baseline_prompt,))])[:, 0].astype(np.float64)
    fails = (labelled.table["success"] == False).to_numpy(bool)  # noqa: E712 - a column of objects
    # All three at once, from one reading of the data set. The two raters are split on every other state, which then counts for neither.
    specs = [spec(labelled), spec(labelled, truth="rater:anna"), spec(labelled, truth="rater:bert", quantile=0.5)]
    expected = [np.quantile(cosines[fails], 0.75), np.quantile(cosines[:20:2], 0.75), cosines[0]]
    assert threshold_values(model, specs) == pytest.approx(expected, abs=1e-6)


def test_a_mixture_is_measured_as_a_whole(model: RewardModel, written: StateDataset) -> None:
    mixture = {"kind": "mixed", "of": [{"weight": 2, "reward": "goal_baseline"}]}
    (single,), (doubled,) = (threshold_values(model, [spec(written, of=of)]) for of in ("goal_baseline", mixture))
    assert doubled == pytest.approx(2 * single, abs=1e-6)


def test_labels_that_are_missing_are_one_message(model: RewardModel, written: StateDataset) -> None:
    with pytest.raises(UserError, match="has no labels by raters: add some with `vlm-rm label"):
        threshold_values(model, [spec(written, truth="raters")])


def test_a_quantile_that_is_the_largest_reward_possible_is_refused(model: RewardModel, written: StateDataset) -> None:
    """As of a softmax that is sure of all states."""
    sure = {"kind": "softmax", "negatives": ["a humanoid robot doing the splits"], "temperature": 1e-6, "baseline": False}
    message = (
        r"quantile over \d+ states of .* is 1, and softmax-\S+ is between 0 and 1, so .*: expected a lower quantile, or `above`"
    )
    with pytest.raises(UserError, match=message):
        threshold_values(model, [spec(written, of=sure)])
