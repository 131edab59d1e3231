"""The embedded models as reward models: a frame's reward depends on the frame and the spec, and on nothing else."""

import math
import pickle
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.frames import resize_frames
from vlm_rm_sweeps.pretraining.cart_pole import CartPoleState, render_states, sample_states
from vlm_rm_sweeps.rewards import clip
from vlm_rm_sweeps.rewards.clip import ClipRewardModel
from vlm_rm_sweeps.rewards.functions.goal_baseline import goal_baseline_reward
from vlm_rm_sweeps.rewards.open_clip_models import EMBEDDED_PREPROCESSING
from vlm_rm_sweeps.rewards.reward_model import Precision, RewardSpec
from vlm_rm_sweeps.tasks.cart_pole import UprightCartPole
from vlm_rm_sweeps.tasks.registry import find_task

TASK = find_task("cartpole-upright")
SPECS = [
    RewardSpec((TASK.goal_prompt,), (TASK.baseline_prompt,), 0.0),
    RewardSpec((TASK.goal_prompt,), (TASK.baseline_prompt,), 0.5),
    RewardSpec(("an upright pole", "a pole balanced straight up"), ("a pole on a cart",), 1.0),
    RewardSpec(("a pole hanging below a cart",), ("a cart", "a pole"), 0.25),
]


def loaded(model_id: str, precision: Precision = "fp32") -> ClipRewardModel:
    model = ClipRewardModel(model_id)
    model.load(precision=precision)
    return model


@pytest.fixture(scope="module", params=["tiny", "small"])
def model(request: pytest.FixtureRequest) -> ClipRewardModel:
    return loaded(f"embedded/{request.param}")


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    """130 frames of CartPole, all over the circle and the track."""
    return render_states(sample_states(130, np.random.default_rng(1)), EMBEDDED_PREPROCESSING.frame_format)


def test_score_has_a_column_for_each_spec(model: ClipRewardModel, frames: np.ndarray) -> None:
    rewards = model.score(frames[:5], SPECS)
    assert rewards.shape == (5, 4)
    assert rewards.dtype == np.float32
    assert np.isfinite(rewards).all()
    assert len(np.unique(rewards)) == 20


def test_reward_does_not_depend_on_the_batch_to_the_bit(model: ClipRewardModel, frames: np.ndarray) -> None:
    assert model.micro_batch == 64
    rewards = model.score(frames, SPECS)
    for size in (1, 3, 64, 65):
        np.testing.assert_array_equal(model.score(frames[:size], SPECS), rewards[:size])
    for index in (1, 63, 64, 129):
        np.testing.assert_array_equal(model.score(frames[index : index + 1], SPECS)[0], rewards[index])
    order = np.random.default_rng(0).permutation(len(frames))
    np.testing.assert_array_equal(model.score(frames[order], SPECS), rewards[order])
    repeated = model.score(np.repeat(frames[7:8], 65, axis=0), SPECS)
    np.testing.assert_array_equal(repeated, np.repeat(rewards[7:8], 65, axis=0))


def test_reward_does_not_depend_on_the_other_specs_to_the_bit(model: ClipRewardModel, frames: np.ndarray) -> None:
    rewards = model.score(frames[:65], SPECS)
    for column, spec in enumerate(SPECS):
        np.testing.assert_array_equal(model.score(frames[:65], [spec])[:, 0], rewards[:, column])
    np.testing.assert_array_equal(model.score(frames[:65], SPECS[::-1]), rewards[:, ::-1])


def test_many_specs_are_scored_in_parts_to_the_same_bits(
    model: ClipRewardModel, frames: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once = model.score(frames, SPECS)
    sizes: list[int] = []

    def counted(images: torch.Tensor, goals: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        sizes.append(len(goals))
        return goal_baseline_reward(images, goals, *rest)

    monkeypatch.setattr(clip, "goal_baseline_reward", counted)
    monkeypatch.setattr(clip, "_NUMBERS_AT_ONCE", 3 * model.encode_frames(frames).numel())
    np.testing.assert_array_equal(model.score(frames, SPECS), at_once)
    assert sizes == [3, 1]


def test_each_frame_is_encoded_once_for_all_specs(frames: np.ndarray) -> None:
    class Counting(ClipRewardModel):
        encoded = 0

        def _features(self, frames: np.ndarray) -> Iterator[torch.Tensor]:
            self.encoded += len(frames)
            return super()._features(frames)

    counting = Counting("embedded/tiny")
    counting.load()
    counting.score(frames, SPECS)
    assert counting.encoded == len(frames)


def test_two_loads_of_one_model_agree_to_the_bit(model: ClipRewardModel, frames: np.ndarray) -> None:
    other = loaded(model.model_id)
    np.testing.assert_array_equal(other.score(frames[:20], SPECS), model.score(frames[:20], SPECS))


def test_alpha_0_is_the_cosine_of_the_embeddings(model: ClipRewardModel, frames: np.ndarray) -> None:
    images, goal = model.encode_frames(frames), model.encode_prompt(TASK.goal_prompt)
    torch.testing.assert_close(images.norm(dim=-1), torch.ones(len(frames)))
    assert float(goal.norm()) == pytest.approx(1)
    np.testing.assert_allclose(model.score(frames, SPECS[:1])[:, 0], (images @ goal).numpy(), atol=2e-6)


@pytest.mark.parametrize("shape", [(400, 600), (37, 91), (64, 64), (480, 480)])
def test_frames_of_any_size_are_accepted(model: ClipRewardModel, shape: tuple[int, int]) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, *shape, 3), np.uint8)
    rewards = model.score(frames, SPECS)
    assert rewards.shape == (3, 4)
    np.testing.assert_array_equal(model.score(resize_frames(frames, model.frame_format), SPECS), rewards)


def test_rendered_frame_gets_its_reward_whatever_its_size(model: ClipRewardModel) -> None:
    env = UprightCartPole()
    env.reset(seed=0)
    full = env.render()[None]
    small = resize_frames(full, model.frame_format)
    assert small.shape == (1, 64, 64, 3)
    np.testing.assert_array_equal(model.score(full, SPECS), model.score(small, SPECS))


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_upright_pole_scores_higher_than_a_hanging_one(model: ClipRewardModel, alpha: float) -> None:
    positions = (-1.5, 0.0, 1.5)
    spec = RewardSpec((TASK.goal_prompt,), (TASK.baseline_prompt,), alpha)

    def rewards_at(angle: float) -> np.ndarray:
        states = [CartPoleState(position, angle) for position in positions]
        return model.score(render_states(states, model.frame_format), [spec])[:, 0]

    upright, hanging = rewards_at(0.0), rewards_at(math.pi)
    assert (upright > hanging).all()
    assert (upright > rewards_at(math.pi / 2)).all()
    assert (upright > rewards_at(-math.pi / 2)).all()


def test_too_long_a_prompt_is_refused(model: ClipRewardModel, frames: np.ndarray) -> None:
    prompt = "pole " * 31
    with pytest.raises(UserError) as caught:
        model.score(frames[:1], [RewardSpec((prompt,), ("pole and cart",), 0.5)])
    assert all(part in str(caught.value) for part in (repr(prompt), "32 tokens", model.model_id, "shorten it"))


def test_a_prompt_that_does_not_fit_is_refused_without_weights(model: ClipRewardModel) -> None:
    unloaded = ClipRewardModel(model.model_id)
    unloaded.check_spec(SPECS[2])
    prompt = "pole " * 31
    for goal, baseline in [((prompt,), ("pole and cart",)), (("an upright pole",), ("a cart", prompt))]:
        with pytest.raises(UserError) as caught:
            unloaded.check_spec(RewardSpec(goal, baseline, 0.5))
        assert all(part in str(caught.value) for part in (repr(prompt), "32 tokens", model.model_id, "shorten it"))
    with pytest.raises(UserError, match=r"are the same to .*, which does not tell capitals or spaces apart"):
        unloaded.check_spec(RewardSpec(("Pole  and Cart",), ("pole and cart",), 0.5))


def test_a_model_describes_itself_without_weights(model: ClipRewardModel) -> None:
    unloaded = ClipRewardModel(model.model_id)
    assert (unloaded.frame_format, unloaded.parameters) == (model.frame_format, model.parameters)
    assert model.parameters == sum(parameter.numel() for parameter in model.network.parameters())


def test_it_does_not_score_before_it_is_loaded(frames: np.ndarray) -> None:
    with pytest.raises(RuntimeError, match="embedded/tiny is not loaded: call `load` first"):
        ClipRewardModel("embedded/tiny").score(frames[:1], SPECS)


def test_it_is_pickled_without_its_weights(model: ClipRewardModel, frames: np.ndarray) -> None:
    for original in (ClipRewardModel(model.model_id), model):
        original.check_spec(SPECS[0])
        pickled = pickle.dumps(original)
        assert len(pickled) < 1_000
        copy: ClipRewardModel = pickle.loads(pickled)
        with pytest.raises(RuntimeError, match="not loaded"):
            copy.score(frames[:1], SPECS)
        copy.load()
        np.testing.assert_array_equal(copy.score(frames[:5], SPECS), model.score(frames[:5], SPECS))


def test_prompt_that_just_fits_is_read_to_its_end(model: ClipRewardModel) -> None:
    # 32 tokens: start, 30 words, end.
    upright, hanging = (model.encode_prompt("pole " * 29 + last) for last in ("upright", "hanging"))
    assert not torch.equal(upright, hanging)
    with pytest.raises(UserError, match="32 tokens"):
        model.encode_prompt("pole " * 30 + "upright")


def test_prompt_is_encoded_the_same_whatever_else_is_asked(model: ClipRewardModel, frames: np.ndarray) -> None:
    alone = loaded(model.model_id).encode_prompt(TASK.goal_prompt)
    crowded = loaded(model.model_id)
    for spec in reversed(SPECS):
        crowded.score(frames[:2], [spec])
    assert torch.equal(crowded.encode_prompt(TASK.goal_prompt), alone)
    assert torch.equal(model.encode_prompt(TASK.goal_prompt), alone)


def test_wordings_that_read_the_same_are_refused(model: ClipRewardModel, frames: np.ndarray) -> None:
    # They differ as text, but the tokenizer lowers case and joins spaces, so no direction leads from one to the other.
    with pytest.raises(UserError, match="same"):
        model.score(frames[:1], [RewardSpec(("Pole  and Cart",), ("pole and cart",), 0.5)])


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_orders_frames_like_full_precision(
    model: ClipRewardModel, frames: np.ndarray, precision: Precision
) -> None:
    half = loaded(model.model_id, precision=precision)
    rewards = half.score(frames, SPECS)
    assert rewards.dtype == np.float32
    full = model.score(frames, SPECS)
    for column in range(len(SPECS)):
        assert np.corrcoef(rewards[:, column], full[:, column])[0, 1] > 0.9
