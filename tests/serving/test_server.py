"""The reward server without Ray: what it does when the memory does not suffice."""

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from own_rewards import Brightness

from vlm_rm_sweeps.rewards.clip import ClipRewardModel
from vlm_rm_sweeps.rewards.registry import load_reward_model
from vlm_rm_sweeps.rewards.reward_model import Precision, RewardModel, RewardSpec
from vlm_rm_sweeps.serving.packed_model import PackedModel
from vlm_rm_sweeps.serving.server import RewardServer

SPEC = RewardSpec(("pole vertically upright on top of the cart",), ("pole and cart",), 0.5)
FRAMES = np.random.default_rng(0).integers(0, 256, (20, 64, 64, 3), np.uint8)


TOO_LARGE = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


class Glutton(Brightness):
    """It runs out of memory with more frames than there is room for in one micro-batch."""

    def __init__(self, room: int, error: Exception = TOO_LARGE) -> None:
        super().__init__("own/glutton")
        self._room, self._error = room, error

    def score(self, frames: np.ndarray, specs: Sequence[RewardSpec]) -> np.ndarray:
        if min(self.micro_batch, len(frames)) > self._room:
            raise self._error
        return super().score(frames, specs)


def server_of(model: RewardModel) -> RewardServer:
    return RewardServer(PackedModel.of(model), "cpu", "fp32", micro_batch=16, threads=1)


def server_with_room_for(frames: int, monkeypatch: pytest.MonkeyPatch, error: Exception = TOO_LARGE) -> RewardServer:
    """Its CLIP model's image tower runs out of memory with more frames in one forward pass."""
    server = server_of(ClipRewardModel("embedded/tiny"))
    model: Any = server._model
    encode = model.network.encode_image

    def limited(images: torch.Tensor) -> torch.Tensor:
        if len(images) > frames:
            raise error
        return encode(images)

    monkeypatch.setattr(model.network, "encode_image", limited)
    return server


@pytest.mark.parametrize(
    "error",
    [
        TOO_LARGE,
        MemoryError(),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
    ids=["torch", "python", "driver", "cublas"],
)
def test_smaller_micro_batches_when_memory_runs_out(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    server = server_with_room_for(5, monkeypatch, error)
    scored = asyncio.run(server.score(FRAMES, [SPEC]))
    assert scored.micro_batch == 4
    # To the bit those of that micro-batch, and all but the last bits those of the configured one.
    np.testing.assert_array_equal(scored.rewards, load_reward_model("embedded/tiny", micro_batch=4).score(FRAMES, [SPEC]))
    usual = load_reward_model("embedded/tiny", micro_batch=16).score(FRAMES, [SPEC])
    np.testing.assert_allclose(scored.rewards, usual, atol=1e-5)


def test_any_model_is_given_smaller_micro_batches() -> None:
    scored = asyncio.run(server_of(Glutton(room=3)).score(FRAMES, [SPEC]))
    assert scored.micro_batch == 2
    np.testing.assert_array_equal(scored.rewards, Brightness("own").score(FRAMES, [SPEC]))


def test_a_single_frame_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="own/glutton ran out of memory with a single frame: use a smaller model"):
        asyncio.run(server_of(Glutton(room=0)).score(FRAMES, [SPEC]))


def test_other_errors_are_not_mistaken_for_it() -> None:
    server = server_of(Glutton(room=0, error=RuntimeError("mat1 and mat2 shapes cannot be multiplied")))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        asyncio.run(server.score(FRAMES, [SPEC]))
    assert server._model.micro_batch == 16


def test_a_restarted_server_waits_for_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """That of the process before it may not be free yet. Ray gives a server up whose start fails."""
    with pytest.raises(torch.OutOfMemoryError):
        server_of(Impatient("own/impatient"))
    monkeypatch.setattr("vlm_rm_sweeps.serving.server._was_restarted", lambda: True)
    monkeypatch.setattr("vlm_rm_sweeps.serving.server._RELOAD_AFTER_S", (0, 0, 0))
    server: Any = server_of(Impatient("own/impatient"))
    assert asyncio.run(server.score(FRAMES, [SPEC])).micro_batch == 16
    assert server._model.tries == 3


class Impatient(Brightness):
    """It has the memory for its weights at each third try."""

    tries = 0

    def load(self, device: str = "cpu", precision: Precision = "fp32", micro_batch: int = 64) -> None:
        self.tries += 1
        if self.tries % 3:
            raise TOO_LARGE
        super().load(device, precision, micro_batch)
