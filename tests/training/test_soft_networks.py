"""The running normalization of observations, as a part of SAC's networks."""

from typing import Any

import numpy as np
import torch

from vlm_rm_sweeps.training.soft_networks import RunningNormalization


def normalized(parts: list[np.ndarray]) -> RunningNormalization:
    made = RunningNormalization(parts[0].shape[1])
    for part in parts:
        made.observe(torch.from_numpy(part))
    return made


def random_parts() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal([3.0, -200.0], [0.5, 40.0], (rows, 2)).astype(np.float32) for rows in (1, 40, 7, 500)]


def test_observations_have_mean_0_and_variance_1_over_all_that_were_seen() -> None:
    parts = random_parts()
    values = normalized(parts)(torch.from_numpy(np.concatenate(parts))).numpy()
    np.testing.assert_allclose(values.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(values.var(axis=0), 1, atol=1e-4)


def test_before_any_was_seen_they_stay_as_they_are() -> None:
    observations = torch.tensor([[0.5, -2.0], [3.0, 0.0]])
    np.testing.assert_allclose(RunningNormalization(2)(observations), observations, rtol=1e-6)


def test_a_feature_that_never_changed_is_bounded_when_it_does() -> None:
    made = normalized([np.array([[1.0, 0.0], [1.0, 2.0]], np.float32)])
    assert made(torch.tensor([[1.0, 1.0], [1.5, 1.0]])).tolist() == [[0.0, 0.0], [10.0, 0.0]]


def test_a_restored_one_counts_on_to_the_bit() -> None:
    parts = random_parts()
    expected: Any = normalized(parts).state_dict()
    restored = RunningNormalization(2)
    restored.load_state_dict(normalized(parts[:2]).state_dict())
    for part in parts[2:]:
        restored.observe(torch.from_numpy(part))
    for name, value in restored.state_dict().items():
        assert torch.equal(value, expected[name]), name
