"""The reward server without Ray: what it does when the memory does not suffice."""

import asyncio
from typing import Any

import numpy as np
import pytest
import torch

from vlm_rm_sweeps.rewards.open_clip_models import load_reward_model
from vlm_rm_sweeps.rewards.reward_model import RewardSpec
from vlm_rm_sweeps.serving.server import RewardServer

SPEC = RewardSpec(("pole vertically upright on top of the cart",), ("pole and cart",), 0.5)
FRAMES = np.random.default_rng(0).integers(0, 256, (20, 64, 64, 3), np.uint8)


TOO_LARGE = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def server_with_room_for(frames: int, monkeypatch: pytest.MonkeyPatch, error: Exception = TOO_LARGE) -> RewardServer:
    """Its model's image tower runs out of memory with more frames in one forward pass."""
    server = RewardServer("embedded/tiny", "cpu", "fp32", micro_batch=16, threads=1)
    encode = server._model._model.encode_image

    def limited(images: torch.Tensor) -> torch.Tensor:
        if len(images) > frames:
            raise error
        return encode(images)

    monkeypatch.setattr(server._model._model, "encode_image", limited)
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


def test_a_single_frame_that_does_not_fit_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    server = server_with_room_for(0, monkeypatch)
    with pytest.raises(RuntimeError, match="embedded/tiny ran out of memory with a single frame: use a smaller model"):
        asyncio.run(server.score(FRAMES, [SPEC]))


def test_other_errors_are_not_mistaken_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    server = server_with_room_for(16, monkeypatch)

    def broken(images: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(server._model._model, "encode_image", broken)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        asyncio.run(server.score(FRAMES, [SPEC]))
    assert server._model.micro_batch == 16


def test_a_restarted_server_waits_for_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """That of the process before it may not be free yet. Ray gives a server up whose start fails."""
    tries = []

    def load(*arguments: Any) -> Any:
        tries.append(arguments)
        if len(tries) % 3:
            raise TOO_LARGE
        return load_reward_model(*arguments)

    monkeypatch.setattr("vlm_rm_sweeps.serving.server.load_reward_model", load)
    with pytest.raises(torch.OutOfMemoryError):
        RewardServer("embedded/tiny", "cpu", "fp32", 16, 1)
    tries.clear()
    monkeypatch.setattr("vlm_rm_sweeps.serving.server._was_restarted", lambda: True)
    monkeypatch.setattr("vlm_rm_sweeps.serving.server._RELOAD_AFTER_S", (0, 0, 0))
    assert asyncio.run(RewardServer("embedded/tiny", "cpu", "fp32", 16, 1).score(FRAMES, [SPEC])).micro_batch == 16
    assert len(tries) == 3
