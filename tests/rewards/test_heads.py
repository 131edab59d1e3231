"""Heads: their formula, the same reward in any batch, and files that are read whole or refused in one message."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from small_heads import TINY, a_head, unit_embeddings

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.frames import FrameFormat
from vlm_rm_sweeps.rewards.clip import ClipRewardModel
from vlm_rm_sweeps.rewards.heads import Head, head_content, parse_head, read_head, write_head


@pytest.mark.parametrize("hidden", [0, 5])
def test_the_reward_is_the_formula_written_out(hidden: int) -> None:
    weights, images = a_head(hidden).weights, unit_embeddings(7)
    for image, reward in zip(images, weights.logits(images), strict=True):
        features = list(image)
        if weights.hidden_hd is not None and weights.hidden_bias_h is not None:
            sums = [sum(row * image) + bias for row, bias in zip(weights.hidden_hd, weights.hidden_bias_h, strict=True)]
            features = [each / (1 + abs(each)) for each in sums]
        expected = sum(weight * feature for weight, feature in zip(weights.output_h, features, strict=True)) + 0.25
        assert reward == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("hidden", [0, 5])
def test_an_images_reward_does_not_depend_on_its_batch(hidden: int) -> None:
    weights, images = a_head(hidden).weights, unit_embeddings(65)
    together = weights.logits(images)
    for size in (1, 2, 7, 64):
        parts = [weights.logits(images[start : start + size]) for start in range(0, len(images), size)]
        np.testing.assert_array_equal(np.concatenate(parts), together)


@pytest.mark.parametrize("hidden", [0, 5])
def test_a_file_holds_the_head(tmp_path: Path, hidden: int) -> None:
    head = a_head(hidden)
    write_head(tmp_path / "a.safetensors", head)
    read = read_head(tmp_path / "a.safetensors")
    assert read.about == head.about
    np.testing.assert_array_equal(read.weights.logits(unit_embeddings(5)), head.weights.logits(unit_embeddings(5)))
    assert head_content(read) == (tmp_path / "a.safetensors").read_bytes()


def test_every_place_at_which_a_file_can_be_cut_is_one_message() -> None:
    content = head_content(a_head(3))
    for length in range(0, len(content), 13):
        with pytest.raises(UserError, match=r"^a (is|cannot).*train it again"):
            parse_head(content[:length], "a")


def test_other_files_are_refused(tmp_path: Path) -> None:
    weights = tmp_path / "weights.safetensors"
    save_file({"output": np.zeros(3, np.float32)}, weights)
    with pytest.raises(UserError, match="a safetensors file without a reward head"):
        read_head(weights)
    with pytest.raises(UserError, match="cannot be read"):
        read_head(tmp_path / "none.safetensors")
    with pytest.raises(UserError, match="no safetensors file"):
        parse_head(b"my notes" * 100, "notes")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"hidden": 4}, "its tensors are"),
        ({"width": 7}, "its tensors are"),
    ],
)
def test_a_description_that_does_not_fit_the_numbers_is_refused(changed: dict[str, Any], message: str) -> None:
    head = a_head()
    wrong = Head(head.about.model_copy(update=changed), head.weights)
    with pytest.raises(UserError, match=message):
        parse_head(head_content(wrong), "a")


def test_numbers_that_are_not_finite_are_refused() -> None:
    head = a_head()
    head.weights.output_h[3] = np.nan
    with pytest.raises(UserError, match="output: expected finite numbers"):
        parse_head(head_content(head), "a")


def test_another_version_of_the_format_is_refused() -> None:
    head = a_head()
    with pytest.raises(UserError, match="format = 2: input should be 1"):
        parse_head(head_content(Head(head.about.model_copy(update={"format": 2}), head.weights)), "a")


def test_a_head_fits_its_own_model_alone() -> None:
    a_head().check_fits(TINY, "a")
    small = ClipRewardModel("embedded/small")
    with pytest.raises(UserError, match="trained on embeddings of embedded/tiny with 32 numbers, and embedded/small has 64"):
        a_head().check_fits(small, "a")
    with pytest.raises(UserError, match=r"trained on embedded/small \(embedded-small/sha256:.*this model is embedded/tiny"):
        a_head(model="embedded/small", identity=small.weights_identity).check_fits(TINY, "a")
    with pytest.raises(UserError, match=r"trained on frames of 32 pixels .* and embedded/tiny has 64 pixels"):
        a_head(frame_format=FrameFormat(32)).check_fits(TINY, "a")


def test_the_identity_of_weights_is_no_path() -> None:
    assert TINY.weights_identity.startswith("embedded-tiny/sha256:")
    named = ClipRewardModel("ViT-B-32/laion2b_s34b_b79k")
    assert (named.weights_identity, named.width) == (named.identity, 512)


@pytest.mark.parametrize("hidden", [0, 5])
def test_no_reward_is_out_of_range(hidden: int) -> None:
    weights = a_head(hidden).weights
    low, high = weights.range()
    rewards = weights.logits(unit_embeddings(500))
    assert low < rewards.min() < rewards.max() < high
    if not hidden:
        best = (weights.output_h / np.linalg.norm(weights.output_h))[None]
        assert weights.logits(best)[0] == pytest.approx(high, rel=1e-5)
