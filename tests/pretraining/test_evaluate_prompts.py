"""Prompts and single attributes as rewards, checked with rewards of known agreement."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest

from vlm_rm_sweeps.frames import FrameFormat
from vlm_rm_sweeps.pretraining.evaluate_prompts import ATTRIBUTE_WALKS, measure_prompts, monotonicity, walk_attributes
from vlm_rm_sweeps.pretraining.held_out import HeldOut
from vlm_rm_sweeps.pretraining.held_out_prompts import DEVELOPMENT, TEST, HeldOutPrompts
from vlm_rm_sweeps.rewards.reward_model import RewardModel, RewardSpec
from vlm_rm_sweeps.tasks.registry import BUILT_IN_TASKS, find_task


class Literal(RewardModel):
    """Brightness of the frame, or darkness if the prompt says `not`."""

    def __init__(self) -> None:
        super().__init__("literal")
        self.frame_format = FrameFormat(16)

    def score(self, frames: np.ndarray, specs: Sequence[RewardSpec]) -> np.ndarray:
        brightness = frames.mean(axis=(1, 2, 3))
        return np.stack([-brightness if " not " in spec.goal_prompts[0] else brightness for spec in specs], axis=1)


def test_a_prompt_agrees_by_rank_with_a_graded_truth_and_by_auc_with_a_test() -> None:
    values = np.arange(100)
    frames = np.broadcast_to(values[:, None, None, None], (100, 4, 4, 3)).astype(np.uint8)
    truths = {"cartpole-upright": values.astype(float), "humanoid-kneeling": (values > 89).astype(float)}
    prompts = {
        task: HeldOutPrompts(paraphrases=("the pole is up", "the rod is up"), opposites=("the pole is not up",))
        for task in truths
    }
    table = measure_prompts(Literal(), [HeldOut(frames, truths)], prompts, frozenset(["the", "pole", "is", "up"]))
    assert table["group"].tolist() == ["paper", "known words", "unknown words", "opposites"] * 2
    assert table["prompt"].iloc[0] == find_task("cartpole-upright").goal_prompt
    assert table["agreement"].tolist() == pytest.approx([1, 1, 1, -1, 1, 1, 1, 0])


@pytest.mark.usefixtures("opengl")
def test_a_walk_scores_each_value_and_knows_the_rewards_range_over_the_held_out_states() -> None:
    frames = np.stack([np.full((16, 16, 3), value, np.uint8) for value in (10, 60)])
    walks = walk_attributes(Literal(), frames)
    assert len(walks) == sum(len(walk.values) for walk in ATTRIBUTE_WALKS)
    assert walks["range"].tolist() == pytest.approx([50] * len(walks))
    # A bent robot is drawn at other pixels, the same one turned, too.
    assert (walks.groupby(["task", "attribute"])["reward"].nunique() > 1).all()


def test_a_steady_fall_is_told_from_a_reward_that_does_not_move() -> None:
    walks = pd.DataFrame(
        [("standing", "trunk", 10 * i, reward, 2.0) for i, reward in enumerate((0.9, 0.7, 0.6, 0.1))]
        + [("standing", "turn", 10 * i, 0.5, 2.0) for i in range(4)],
        columns=["task", "attribute", "value", "reward", "range"],
    )
    table = monotonicity(walks).set_index("attribute")
    assert table.loc["trunk", "spearman"] == pytest.approx(-1)
    assert table.loc["trunk", "fall"] == pytest.approx(0.4)
    assert table["spearman"].isna().tolist() == [False, True]
    assert table.loc["turn", "fall"] == 0


def test_each_task_has_prompts_in_both_sets_and_none_is_in_both() -> None:
    for prompts in (DEVELOPMENT, TEST):
        assert set(prompts) == set(BUILT_IN_TASKS)
        assert all(len(of_task.paraphrases) >= 10 and len(of_task.opposites) >= 4 for of_task in prompts.values())
    texts = [{*each.paraphrases, *each.opposites} for each in (*DEVELOPMENT.values(), *TEST.values())]
    assert len(set.union(*texts)) == sum(map(len, texts))
