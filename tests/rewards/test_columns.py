"""From specs to columns and back."""

import numpy as np

from vlm_rm_sweeps.rewards.columns import Columns
from vlm_rm_sweeps.rewards.functions.history import History
from vlm_rm_sweeps.rewards.functions.mixed import Mixed
from vlm_rm_sweeps.rewards.reward_model import RewardSpec

PLAIN = [RewardSpec(("up",), ("cart",), 0.5), RewardSpec(("up",), ("cart",))]
HISTORY = RewardSpec(("up",), ("cart",), function=History(frames=2))


def test_rewards_of_single_frames_are_the_answer_itself() -> None:
    columns, answer = Columns(PLAIN), np.ones((3, 2), np.float32)
    assert list(columns.asked) == PLAIN
    assert columns.alone(answer) is answer


def test_each_part_is_asked_for_once() -> None:
    mixed = Mixed.model_validate({"of": [{"weight": 2, "reward": {"kind": "history"}}], "true_reward": 5})
    columns = Columns([HISTORY, *PLAIN, RewardSpec(("up",), ("cart",), function=mixed)])
    assert len(columns.asked) == 4
    answer = np.arange(8, dtype=np.float32).reshape(2, 4)
    np.testing.assert_array_equal(columns.of(0, answer), answer[:, :2])
    np.testing.assert_array_equal(columns.of(2, answer)[:, 0], answer[:, 3])
    expected = np.stack([answer[:, 0], answer[:, 2], answer[:, 3], 2 * answer[:, 0]], axis=1)
    np.testing.assert_array_equal(columns.alone(answer), expected)


def test_a_history_sees_the_steps_of_its_run_and_no_other() -> None:
    columns = Columns([HISTORY, *PLAIN])
    answer = np.random.default_rng(0).normal(size=(5, len(columns.asked))).astype(np.float32)
    run = np.array([3, 1, 4])
    rewards = columns.along(answer, [run])
    assert HISTORY.function is not None
    np.testing.assert_array_equal(rewards[run, 0], HISTORY.function.combine(answer[run][:, :2], np.zeros(3, np.float32)))
    assert not np.array_equal(rewards, columns.alone(answer))
    np.testing.assert_array_equal(rewards[[0, 2]], columns.alone(answer)[[0, 2]])
    np.testing.assert_array_equal(rewards[:, 1:], columns.alone(answer)[:, 1:])
