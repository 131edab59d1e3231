"""The learner's scale of rewards."""

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


def test_a_restored_learner_continues_with_the_same_transform() -> None:
    piece, restored = StandardizeRewards(), StandardizeRewards()
    learned(piece, [0.4, 0.5, 0.9, 0.6])
    restored.set_state(piece.get_state())
    assert learned(restored, [0.1, 0.8]) == learned(piece, [0.1, 0.8])
