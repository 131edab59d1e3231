"""The matrix of prompts and tasks: its cells are those of the one engine, and a reward of its own task lies on the diagonal."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from own_rewards import Brightness, Counting

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.evaluation.collect_states import sampled_states
from vlm_rm_sweeps.evaluation.compare import load_for_measuring
from vlm_rm_sweeps.evaluation.confusion import confusion, matrix, save_confusion, tasks_told_apart
from vlm_rm_sweeps.evaluation.ground_truth import read_truth
from vlm_rm_sweeps.evaluation.measures import measure
from vlm_rm_sweeps.evaluation.score import score_states
from vlm_rm_sweeps.evaluation.states import StateDataset, write_states
from vlm_rm_sweeps.rewards.reward_model import RewardSpec
from vlm_rm_sweeps.tasks.registry import find_task

TASKS = ["cartpole-upright", "mountaincar-summit"]


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> list[StateDataset]:
    folder = tmp_path_factory.mktemp("states")
    return [write_states(folder / name, find_task(name), sampled_states(find_task(name), 60, seed=0)) for name in TASKS]


def test_each_cell_is_the_auc_of_a_prompt_for_a_task(datasets: list[StateDataset], tmp_path: Path) -> None:
    counting = Counting("embedded/tiny", load_for_measuring("embedded/tiny"))
    table = confusion(datasets, ["embedded/tiny"], [0.0, 0.5], lambda _: counting)
    assert counting.frames == 120  # each image once, for all prompts and alphas
    assert len(table) == 2 * 2 * 2
    cells = matrix(table, "embedded/tiny", 0.5)
    assert cells.index.tolist() == cells.columns.tolist() == TASKS
    for dataset in datasets:
        for prompt in TASKS:
            task = find_task(prompt)
            spec = RewardSpec((task.goal_prompt,), (task.baseline_prompt,), 0.5)
            rewards = score_states(counting, dataset, [spec])
            (expected,) = measure(rewards, read_truth(dataset, "success"), ["a"])
            assert cells.loc[prompt, dataset.task.name] == pytest.approx(expected.roc_auc)
    save_confusion(tmp_path / "out", table)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "out" / "confusion.csv", keep_default_na=False), table)
    assert (tmp_path / "out" / "confusion.png").read_bytes().startswith(b"\x89PNG")


def test_own_sentences_that_are_best_are_counted() -> None:
    cells = pd.DataFrame([[0.9, 0.4, 0.7], [0.6, 0.8, 0.7], [0.9, 0.9, np.nan]])
    assert tasks_told_apart(cells) == 1
    cells.iat[2, 2] = 0.71
    assert tasks_told_apart(cells) == 2


def test_one_task_or_the_same_twice_is_refused_before_a_model_is_loaded(datasets: list[StateDataset]) -> None:
    for given in (datasets[:1], [*datasets, datasets[0]]):
        with pytest.raises(UserError, match="expected at least two, each of another task"):
            confusion(given, ["embedded/tiny"], [0.0], lambda _: pytest.fail("loaded"))
    with pytest.raises(UserError, match="unknown model 'embedded/tinny'"):
        confusion(datasets, ["embedded/tinny"], [0.0], lambda _: pytest.fail("loaded"))


class OneTask(Brightness):
    """It gives every frame the same reward, but for one sentence."""

    def score(self, frames: np.ndarray, specs: Sequence[RewardSpec]) -> np.ndarray:
        varies = [spec.goal_prompts == (find_task(TASKS[0]).goal_prompt,) for spec in specs]
        return np.where(varies, super().score(frames, specs), np.float32(0.5))


def test_a_cell_without_a_value_is_empty_and_says_why(datasets: list[StateDataset], tmp_path: Path) -> None:
    table = confusion(datasets, ["own_rewards:Brightness"], [0.0], lambda _: OneTask("own_rewards:Brightness"))
    empty = table[table["prompt"] == TASKS[1]]
    assert empty["roc_auc"].isna().all()
    assert (empty["undefined"] == "all: the reward is the same for all states").all()
    save_confusion(tmp_path / "out", table)
