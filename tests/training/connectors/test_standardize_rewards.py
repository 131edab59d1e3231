"""The learner's scale of rewards."""

from typing import Any

import numpy as np
import pytest
import torch

from vlm_rm_sweeps.training.connectors.standardize_rewards import StandardizeRewards


def learned(piece: StandardizeRewards, rewards: list[float]) -> list[float]:
    batch = {"default_policy": {"rewards": torch.tensor(rewards)}}
    values: list[float] = piece(batch=batch)["default_policy"]["rewards"].tolist()
    return values


def test_the_first_batch_has_mean_0_and_standard_deviation_1() -> None:
    values = torch.tensor(learned(StandardizeRewards(), [0.4, 0.5, 0.9, 0.6]))
    assert values.mean().item() == pytest.approx(0, abs=1e-6)
    assert values.std().item() == pytest.approx(1, abs=1e-6)


def test_later_batches_are_transformed_as_the_first() -> None:
    """A transform that changed while it is learned with would make the rewards a moving target."""
    piece = StandardizeRewards()
    first = dict(zip([0.4, 0.5, 0.9, 0.6], learned(piece, [0.4, 0.5, 0.9, 0.6]), strict=True))
    assert learned(piece, [0.9, 0.9, 0.9]) == [first[0.9]] * 3


def test_equal_rewards_are_only_shifted() -> None:
    piece = StandardizeRewards()
    assert learned(piece, [0.0, 0.0]) == [0.0, 0.0]
    assert learned(piece, [1.0, 0.0]) == [1.0, 0.0]


def test_rows_that_the_loss_leaves_out_count_for_nothing() -> None:
    """RLlib's PPO adds one to each episode, with the reward 0."""
    piece = StandardizeRewards()
    mask = torch.tensor([True, True, False, True, False])
    batch = {"default_policy": {"rewards": torch.tensor([0.4, 0.5, 0.0, 0.9, 0.0]), "loss_mask": mask}}
    values: torch.Tensor = piece(batch=batch)["default_policy"]["rewards"]
    assert values[mask].tolist() == learned(StandardizeRewards(), [0.4, 0.5, 0.9])
    assert not values[~mask].any()


def test_running_values_are_those_of_all_batches_so_far() -> None:
    piece = StandardizeRewards(by="running")
    batches = [[0.0, 0.0, 0.0], [0.1, 0.4], [0.9, 0.5, 0.7, 0.7]]
    for end, batch in enumerate(batches, start=1):
        values = learned(piece, batch)
        seen = np.concatenate(batches[:end])
        assert piece.mean == pytest.approx(seen.mean())
        assert piece.deviation == pytest.approx(seen.std() or 1.0)
        assert values == pytest.approx(((np.array(batch) - seen.mean()) / (seen.std() or 1.0)).tolist(), abs=1e-6)


def test_running_values_are_those_of_rows_that_count() -> None:
    piece = StandardizeRewards(by="running")
    columns = {"rewards": torch.tensor([0.4, 9.0, 0.6]), "loss_mask": torch.tensor([True, False, True])}
    piece(batch={"default_policy": columns})
    assert piece.mean == pytest.approx(0.5)


def test_rewards_are_kept_where_nothing_standardizes_them() -> None:
    piece = StandardizeRewards(by="none")
    assert learned(piece, [0.25, 0.5]) == [0.25, 0.5]
    assert learned(piece, [0.75]) == [0.75]


def test_a_checkpoint_without_running_values_is_restored() -> None:
    piece = StandardizeRewards()
    piece.set_state({"mean": 0.5, "deviation": 0.25})
    assert learned(piece, [1.0]) == [2.0]


@pytest.mark.parametrize("by", ["first_batch", "running"])
def test_a_restored_learner_continues_with_the_same_transform(by: Any) -> None:
    piece, restored = StandardizeRewards(by=by), StandardizeRewards(by=by)
    learned(piece, [0.4, 0.5, 0.9, 0.6])
    restored.set_state(piece.get_state())
    assert learned(restored, [0.1, 0.8]) == learned(piece, [0.1, 0.8])
