"""The matrix of prompts and tasks: its cells are those of the one engine, and a reward of its own task lies on the diagonal."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from own_rewards import Brightness, Counting

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.evaluation.collect_states import sampled_states
from vlm_rm_sweeps.evaluation.compare import Specs, load_for_measuring
from vlm_rm_sweeps.evaluation.confusion import Matrix, confusion, matrices, save_confusion
from vlm_rm_sweeps.evaluation.ground_truth import read_truth
from vlm_rm_sweeps.evaluation.measures import measure
from vlm_rm_sweeps.evaluation.score import score_states
from vlm_rm_sweeps.evaluation.states import StateDataset, write_states
from vlm_rm_sweeps.rewards.reward_model import RewardSpec
from vlm_rm_sweeps.tasks.registry import find_task

TASKS = ["cartpole-upright", "mountaincar-summit"]


def specs_at(*alphas: float) -> Specs:
    """The tasks' own sentences."""
    tasks = [find_task(name) for name in TASKS]
    return {
        (alpha, task.name): RewardSpec((task.goal_prompt,), (task.baseline_prompt,), alpha)
        for alpha in alphas
        for task in tasks
    }


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> list[StateDataset]:
    folder = tmp_path_factory.mktemp("states")
    return [write_states(folder / name, find_task(name), sampled_states(find_task(name), 60, seed=0)) for name in TASKS]


def test_each_cell_is_the_auc_of_a_prompt_for_a_task(datasets: list[StateDataset], tmp_path: Path) -> None:
    counting = Counting("embedded/tiny", load_for_measuring("embedded/tiny"))
    table = confusion(datasets, ["embedded/tiny"], specs_at(0.0, 0.5), lambda _: counting)
    assert counting.frames == 120  # each image once, for all prompts and alphas
    assert len(table) == 2 * 2 * 2
    _, found = matrices(table)
    assert (found.model_id, found.reward) == ("embedded/tiny", "alpha 0.5")
    cells = found.areas
    assert cells.index.tolist() == cells.columns.tolist() == TASKS
    for dataset in datasets:
        for prompt in TASKS:
            task = find_task(prompt)
            spec = RewardSpec((task.goal_prompt,), (task.baseline_prompt,), 0.5)
            rewards = score_states(counting, dataset, [spec])
            (expected,) = measure(rewards, read_truth(dataset, "success"), ["a"])
            cell = (prompt, dataset.task.name)
            assert cells.loc[cell] == pytest.approx(expected.roc_auc)
            ends = (found.low.loc[cell], found.high.loc[cell])
            assert ends == pytest.approx((expected.roc_auc_low, expected.roc_auc_high))
    save_confusion(tmp_path / "out", table)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "out" / "confusion.csv", keep_default_na=False), table)
    assert (tmp_path / "out" / "confusion.png").read_bytes().startswith(b"\x89PNG")


def test_own_sentences_that_are_best_are_counted() -> None:
    names = list("abc")
    cells = pd.DataFrame([[0.9, 0.4, 0.7], [0.6, 0.8, 0.7], [0.9, 0.9, np.nan], [1, 1, 1]], [*names, "further"], names)
    assert Matrix("m", "r", cells, cells, cells).tasks_told_apart == 1
    cells.loc["c", "c"] = 0.71
    assert Matrix("m", "r", cells, cells, cells).tasks_told_apart == 2


def test_one_task_or_the_same_twice_is_refused_before_a_model_is_loaded(datasets: list[StateDataset]) -> None:
    for given in (datasets[:1], [*datasets, datasets[0]]):
        with pytest.raises(UserError, match="expected at least two, each of another task"):
            confusion(given, ["embedded/tiny"], specs_at(0.0), lambda _: pytest.fail("loaded"))
    with pytest.raises(UserError, match="unknown model 'embedded/tinny'"):
        confusion(datasets, ["embedded/tinny"], specs_at(0.0), lambda _: pytest.fail("loaded"))


class OneTask(Brightness):
    """It gives every frame the same reward, but for one sentence."""

    def score(self, frames: np.ndarray, specs: Sequence[RewardSpec]) -> np.ndarray:
        varies = [spec.goal_prompts == (find_task(TASKS[0]).goal_prompt,) for spec in specs]
        return np.where(varies, super().score(frames, specs), np.float32(0.5))


def test_a_cell_without_a_value_is_empty_and_says_why(datasets: list[StateDataset], tmp_path: Path) -> None:
    table = confusion(datasets, ["own_rewards:Brightness"], specs_at(0.0), lambda _: OneTask("own_rewards:Brightness"))
    empty = table[table["prompt"] == TASKS[1]]
    assert empty["roc_auc"].isna().all()
    assert (empty["undefined"] == "all: the reward is the same for all states").all()
    save_confusion(tmp_path / "out", table)
