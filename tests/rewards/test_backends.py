"""Each backend gives torch's rewards, but for the last digits, and the same bits whatever a frame is batched with."""

import pickle
from typing import Any

import numpy as np
import open_clip.model
import pytest
import torch
from scipy.stats import spearmanr

from vlm_rm_sweeps.errors import UserError
from vlm_rm_sweeps.pretraining.cart_pole import render_states, sample_states
from vlm_rm_sweeps.rewards import backends
from vlm_rm_sweeps.rewards.backends import BACKENDS, check_backend, image_encoder
from vlm_rm_sweeps.rewards.clip import ClipRewardModel
from vlm_rm_sweeps.rewards.open_clip_models import EMBEDDED_PREPROCESSING
from vlm_rm_sweeps.rewards.reward_model import BackendName, Precision, RewardSpec
from vlm_rm_sweeps.tasks.registry import find_task

TASK = find_task("cartpole-upright")
SPECS = [RewardSpec((TASK.goal_prompt,), (TASK.baseline_prompt,), alpha) for alpha in (0.0, 0.5, 1.0)]
TOLERANCE = 1e-5
"""Of rewards, whose spread is about 0.1."""


def installed(name: BackendName) -> BackendName:
    for package in BACKENDS[name].packages:
        pytest.importorskip(package)
    return name


@pytest.fixture(scope="module", params=list(BACKENDS))
def backend(request: pytest.FixtureRequest) -> BackendName:
    return installed(request.param)


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    return render_states(sample_states(150, np.random.default_rng(2)), EMBEDDED_PREPROCESSING.frame_format)


def loaded(size: str, backend: BackendName, micro_batch: int = 64) -> ClipRewardModel:
    model = ClipRewardModel(f"embedded/{size}")
    model.use_backend(backend)
    model.load(micro_batch=micro_batch)
    return model


@pytest.mark.parametrize("size", ["tiny", "base"])
def test_rewards_are_torchs_but_for_the_last_digits(size: str, backend: BackendName, frames: np.ndarray) -> None:
    expected, rewards = loaded(size, "torch").score(frames, SPECS), loaded(size, backend).score(frames, SPECS)
    assert np.abs(rewards - expected).max() <= (0 if backend == "torch" else TOLERANCE)
    for column in range(len(SPECS)):
        assert spearmanr(rewards[:, column], expected[:, column]).statistic > 0.99999


@pytest.mark.parametrize("threads", [1, 2])
def test_reward_does_not_depend_on_the_batch_to_the_bit(backend: BackendName, threads: int, frames: np.ndarray) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        model = loaded("tiny", backend)
        rewards = model.score(frames, SPECS)
        for size in (1, 3, 64, 65):
            np.testing.assert_array_equal(model.score(frames[:size], SPECS), rewards[:size])
        for seed in range(3):
            order = np.random.default_rng(seed).permutation(len(frames))
            np.testing.assert_array_equal(model.score(frames[order], SPECS), rewards[order])
        repeated = model.score(np.repeat(frames[7:8], 65, axis=0), SPECS)
        np.testing.assert_array_equal(repeated, np.repeat(rewards[7:8], 65, axis=0))
        np.testing.assert_array_equal(loaded("tiny", backend).score(frames, SPECS), rewards)
    finally:
        torch.set_num_threads(before)


def test_a_smaller_micro_batch_goes_on(backend: BackendName, frames: np.ndarray) -> None:
    model = loaded("tiny", backend)
    rewards = model.score(frames, SPECS)
    model.micro_batch = 16
    np.testing.assert_allclose(model.score(frames, SPECS), rewards, atol=TOLERANCE)


def test_a_vision_transformer_runs_too(backend: BackendName) -> None:
    torch.manual_seed(0)
    network = open_clip.model.CLIP(
        embed_dim=16,
        vision_cfg={"image_size": 32, "patch_size": 16, "layers": 2, "width": 64, "head_width": 32},
        text_cfg={"context_length": 8, "vocab_size": 20, "width": 16, "heads": 2, "layers": 1},
    ).eval()
    inputs = torch.rand(8, 3, 32, 32).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        expected = network.encode_image(inputs)
        torch.testing.assert_close(image_encoder(backend, network, inputs)(inputs), expected, rtol=1e-4, atol=1e-5)


def test_folding_leaves_no_batch_normalisation() -> None:
    model = loaded("tiny", "folded")
    kinds = {type(module) for module in model.network.visual.modules()}
    assert torch.nn.BatchNorm2d not in kinds
    assert torch.nn.Conv2d in kinds


def test_a_network_that_a_backend_cannot_run_is_one_message() -> None:
    class Awkward(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = torch.nn.BatchNorm2d(3)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return inputs if inputs.sum() > 0 else self.norm(inputs)

    class Network:
        visual = Awkward().eval()

    with pytest.raises(UserError, match=r"backend 'folded' cannot run this model \(.*choose 'torch'"):
        image_encoder("folded", Network(), torch.zeros(1, 3, 4, 4))


def test_a_missing_package_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    absent: Any = backends.Backend(BACKENDS["onnxruntime"].build, ("onnx", "no_such_package"))
    monkeypatch.setitem(BACKENDS, "onnxruntime", absent)
    with pytest.raises(UserError, match=r"backend 'onnxruntime' needs .*no_such_package.*pip install .*choose 'torch'"):
        check_backend("onnxruntime", "cpu", "fp32")


@pytest.mark.parametrize(("device", "precision"), [("cuda", "fp32"), ("cpu", "bf16"), ("cpu", "fp16")])
def test_what_a_backend_does_not_support_is_refused(device: str, precision: Precision, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKENDS, "onnxruntime", backends.Backend(lambda *_: torch.relu, on_cpu_in_fp32_only=True))
    with pytest.raises(UserError, match=f"'onnxruntime' runs on CPUs in fp32 only, .* '{device}' in '{precision}'"):
        check_backend("onnxruntime", device, precision)
    check_backend("folded", device, precision)


def test_an_unknown_backend_is_refused() -> None:
    unknown: Any = "tpu"
    with pytest.raises(UserError, match="backend 'tpu': expected one of torch, folded, onnxruntime"):
        check_backend(unknown, "cpu", "fp32")


def test_a_server_gets_the_backend_with_the_model() -> None:
    model = ClipRewardModel("embedded/tiny")
    model.use_backend("folded")
    assert pickle.loads(pickle.dumps(model)).backend == "folded"
