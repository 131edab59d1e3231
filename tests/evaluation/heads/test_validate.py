"""Cross-validation: no head is judged on an episode that it has seen; measures against literal ones."""

import numpy as np
import pytest

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.evaluation.heads.examples import ComparedStates, LabelledStates
from vlm_rm_sweeps.evaluation.heads.validate import (
    _folds,
    _splits,
    calibration_error,
    cross_validate,
    reliability,
)

RANDOM = np.random.default_rng(0)


def states(count: int = 120, per_episode: int = 6) -> LabelledStates:
    images = RANDOM.normal(size=(count, 4)).astype(np.float32)
    return LabelledStates(images, (images[:, 0] > 0.5).astype(float), np.arange(count) // per_episode)


def pairs(count: int = 150, episodes: int = 20) -> ComparedStates:
    left, right = RANDOM.normal(size=(2, count, 4)).astype(np.float32)
    targets = np.sign(left[:, 0] - right[:, 0]) / 2 + 0.5
    return ComparedStates(left, right, targets, RANDOM.integers(0, episodes, (count, 2)))


@pytest.mark.parametrize("examples", [states(), pairs(), pairs(episodes=3)])
def test_each_example_is_held_out_once_with_all_of_its_episodes(examples: LabelledStates | ComparedStates) -> None:
    held_out_times = np.zeros(len(examples), int)
    for trained, held_out in _splits(examples, _folds(examples, 0)):
        assert not set(examples.episodes[trained].ravel()) & set(examples.episodes[held_out].ravel())
        held_out_times += held_out
    assert (held_out_times == 1).all()


def test_every_fold_leaves_both_classes_to_train_on() -> None:
    for seed in range(20):
        random = np.random.default_rng(seed)
        episodes = random.integers(0, 12, 80)
        positive = random.choice(12, 2, replace=False)
        examples = LabelledStates(np.zeros((80, 2), np.float32), np.isin(episodes, positive).astype(float), episodes)
        if len(set(episodes[examples.targets_n == 1])) < 2:
            continue
        for trained, _ in _splits(examples, _folds(examples, seed)):
            assert set(examples.targets_n[trained]) == {0.0, 1.0}


def test_labels_of_a_class_from_one_episode_are_refused() -> None:
    examples = LabelledStates(np.zeros((30, 2), np.float32), np.repeat([1.0, 0.0], 15), np.arange(30) // 15)
    with pytest.raises(UserError, match="all labels of a class are of one episode"):
        cross_validate(examples, 0, 0)
    with pytest.raises(UserError, match="the pairs are of 2 episodes"):
        cross_validate(pairs(episodes=2), 0, 0)


def test_what_can_be_learned_is_found_and_noise_is_not() -> None:
    learned = cross_validate(states(), 0, 0).measures
    assert learned["roc_auc"].value > 0.95
    assert learned["roc_auc"].low <= learned["roc_auc"].value <= learned["roc_auc"].high
    images = np.random.default_rng(5).normal(size=(400, 4)).astype(np.float32)
    noise = LabelledStates(images, np.arange(400) % 2.0, np.arange(400) // 5)
    assert 0.4 < cross_validate(noise, 0, 0).measures["roc_auc"].value < 0.6
    assert cross_validate(pairs(), 0, 0).measures["accuracy"].value > 0.9


def test_the_same_data_give_the_same_measures() -> None:
    examples = states()
    assert cross_validate(examples, 0, 1) == cross_validate(examples, 0, 1)


def test_episodes_that_repeat_themselves_do_not_narrow_an_interval() -> None:
    """Ten copies of each state are still one independent observation."""
    once = states(80, per_episode=1)
    copied = LabelledStates(*(np.repeat(each, 10, axis=0) for each in (once.images_nd, once.targets_n, once.episodes_n)))
    first, second = (cross_validate(each, 0, 0).measures["brier"] for each in (once, copied))
    assert second.high - second.low > 0.5 * (first.high - first.low)


def test_calibration_against_the_reliability_table() -> None:
    probabilities = RANDOM.random(200)
    targets = (RANDOM.random(200) < probabilities**2).astype(float)
    bins = reliability(probabilities, targets)
    assert sum(each.count for each in bins) == 200
    expected = sum(each.count * abs(each.predicted - each.observed) for each in bins) / 200
    assert calibration_error(probabilities, targets, np.ones(200)) == pytest.approx(expected)
    assert calibration_error(np.array([1.0, 0.0]), np.array([1.0, 0.0]), np.ones(2)) == 0
