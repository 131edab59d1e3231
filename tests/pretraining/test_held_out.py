"""The held-out sets are fixed, their truths are correct, and they share nothing with the training data."""

import numpy as np
import pytest

from vlm_rm_sweeps.frames import FrameFormat
from vlm_rm_sweeps.pretraining import cart_pole, held_out, humanoid, mountain_car
from vlm_rm_sweeps.pretraining.captions import caption_batch
from vlm_rm_sweeps.tasks.humanoid.poses import POSES

FORMAT = FrameFormat(64)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer states, to be quick."""
    for name, count in (
        ("STATES", 40),
        ("STATES_OF_A_POSE", 2),
        ("STATES_BETWEEN_POSES", 5),
        ("STATES_VISITED", 5),
        ("_CASES", 2),
    ):
        monkeypatch.setattr(held_out, name, count)


@pytest.mark.usefixtures("few", "opengl")
def test_sets_are_the_same_every_time_and_their_truth_varies() -> None:
    for make in (held_out.held_out_cart_pole, held_out.held_out_mountain_car, held_out.held_out_humanoid):
        first, again = make(FORMAT), make(FORMAT)
        np.testing.assert_array_equal(first.frames, again.frames)
        for task, truth in first.truths.items():
            np.testing.assert_array_equal(truth, again.truths[task])
            assert len(truth) == len(first.frames)
            assert np.ptp(truth) > 0, task


@pytest.mark.usefixtures("few", "opengl")
def test_unseen_cameras_show_the_same_states() -> None:
    seen, unseen = held_out.held_out_humanoid(FORMAT), held_out.held_out_humanoid(FORMAT, unseen_cameras=True)
    for task, truth in seen.truths.items():
        np.testing.assert_array_equal(truth, unseen.truths[task])
    assert (seen.frames != unseen.frames).any(axis=(1, 2, 3)).all()


@pytest.mark.usefixtures("few", "opengl")
def test_every_pose_of_a_task_passes_its_test() -> None:
    truths = held_out.held_out_humanoid(FORMAT).truths
    poses = [name for name in POSES for _ in range(2)]
    for task, pose in (("humanoid-kneeling", "kneeling"), ("humanoid-lotus", "lotus"), ("humanoid-splits", "side splits")):
        in_goal = {name for name, success in zip(poses, truths[task], strict=False) if success}
        assert pose in in_goal
        assert "lying on the back" not in in_goal


@pytest.mark.usefixtures("few", "opengl")
@pytest.mark.parametrize(
    ("make", "subject"),
    [
        (held_out.retrieval_cart_pole, cart_pole),
        (held_out.retrieval_mountain_car, mountain_car),
        (held_out.retrieval_humanoid, humanoid),
    ],
)
def test_wordings_are_not_those_of_training(make, subject) -> None:  # type: ignore[no-untyped-def]
    retrieval = make(FORMAT)
    assert set(retrieval.kinds) == set(retrieval.wordings)
    assert len(retrieval.frames) == len(retrieval.kinds)
    rng = np.random.default_rng(0)
    states = subject.sample_states(300, rng)
    captions = {caption for _ in range(10) for caption in caption_batch(states, rng)}
    for wordings in retrieval.wordings.values():
        assert not set(wordings) & captions
